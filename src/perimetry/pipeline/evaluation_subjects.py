"""The dictionaries that are evaluated: read from disk, on the model and at the place that they were trained for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.assets import read_texts
from perimetry.errors import Incompatible, UsageError
from perimetry.evals.sae import Place, Subject
from perimetry.pipeline.calibration import fitted_policy
from perimetry.runtime import Runtime
from perimetry.sae.formats import LoadedSAE, load_sae
from perimetry.sae.formats.hashing import tensor_hash

__all__ = ["Evaluated", "names_of", "subjects_of"]

INNER = "sae"
"""Name of the folder of an SAE within that of its training, which says nothing."""


class Evaluated(NamedTuple):
    """A dictionary with what is known of it."""

    subject: Subject
    """What the evaluations are given."""
    loaded: LoadedSAE
    """As it was read."""
    path: Path
    """From where."""
    digest: str
    """Identity of the dictionary: its manifest's, or where it has none that of its tensors."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        info, subject = self.loaded.info, self.subject
        return {
            "name": subject.name,
            "path": str(self.path),
            "digest": self.digest,
            "architecture": info.architecture,
            "width": subject.sae.d_sae,
            "model": subject.place.lm.name,
            "layer": subject.place.layer,
            "seed": subject.seed,
            "tokens": info.tokens,
            "masking": info.masking,
        }


def names_of(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart. Errors: `UsageError` for a path given twice.

    >>> names_of([Path("runs/a/seed-0/sae"), Path("runs/a/seed-1/sae")]), names_of([Path("x/s/sae"), Path("y/s/sae")])
    (['seed-0', 'seed-1'], ['x/s', 'y/s'])
    """
    whole = [path.resolve() for path in paths]
    for path in whole:
        if whole.count(path) > 1:
            raise UsageError(f"{path} was given twice; give each dictionary once")
    parts = [path.parts[1:-1] if path.name == INNER and len(path.parts) > 2 else path.parts[1:] for path in whole]
    deepest = max(map(len, parts))
    for length in range(1, deepest + 1):
        found = ["/".join(part[-length:]) for part in parts]
        if len(set(found)) == len(found):
            return found
    return ["/".join(path.parts[1:]) for path in whole]


def subjects_of(
    paths: Sequence[Path],
    runtime: Runtime,
    *,
    model: str | None = None,
    text: str = "wikipedia",
    progress: bool = False,
) -> list[Evaluated]:
    """The dictionaries, those of one model on one copy of it; `model` goes before what they say of themselves.

    A policy without a sink threshold is fitted on `text`. Errors: `UsageError` for one that says no model or layer, `Incompatible`
    for another revision of the model, those of `load_sae` and `load_language_model`.
    """
    models: dict[str, LanguageModel] = {}
    found: list[Evaluated] = []
    for path, name in zip(paths, names_of(paths), strict=True):
        loaded = load_sae(path)
        info = loaded.info
        wanted = model or info.model
        if wanted is None or info.layer is None:
            raise UsageError(
                f"{path} says {'no model' if wanted is None else 'no block whose output it reads'}; wanted a dictionary of the output "
                f"of one block of a known model; {'give --model' if wanted is None else 'leave it out'}"
            )
        if wanted not in models:
            models[wanted] = load_language_model(wanted, runtime, progress=progress)
        lm = models[wanted]
        if model is None and info.revision is not None and info.revision != lm.revision:
            raise Incompatible(
                f"{path} was trained on revision {info.revision[:12]} of {wanted!r}, found is {lm.revision[:12]}; give that model, or "
                "--model to evaluate it on this one all the same"
            )
        policy = info.policy
        documents = [] if policy.get("max_norm") is not None else list(read_texts(text, progress=progress))
        place = Place(lm, info.layer, fitted_policy(lm, info.layer, policy, documents))
        digest = info.digest or tensor_hash(loaded.sae)
        found.append(Evaluated(Subject(name, loaded.sae, place, info.seed or 0), loaded, path, digest))
    return found
