"""`perimetry eval steering`: a vector on a model, judged by likelihoods, beside vectors of random direction and none at all."""

import datetime
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from perimetry import __version__
from perimetry.activations.model import LanguageModel
from perimetry.activations.tap import Tap
from perimetry.artifact import read_safetensors
from perimetry.axes import ModelBias
from perimetry.errors import CorruptArtifact, MissingFile, TooFewSamples, UsageError, WidthMismatch
from perimetry.evals.steering import (
    METRICS,
    Continuation,
    Likelihoods,
    SteeringPair,
    continuation_likelihoods,
    continuation_of,
    contrast_vector,
    effects,
    normalised,
    random_like,
    verdict,
)
from perimetry.report import keep_results
from perimetry.runtime import fingerprint
from perimetry.sae.formats import load_sae

__all__ = [
    "Chosen",
    "SteeringPlan",
    "choose_vector",
    "contrast_of",
    "read_pairs",
    "read_vector",
    "run_steering",
    "vector_of_latent",
]


class SteeringPlan(NamedTuple):
    """What is added where."""

    layer: int
    """Block after which it is added, at every position."""
    vector: ModelBias
    """What is added, times a multiplier."""
    origin: str
    """Where it comes from, in words."""
    multipliers: tuple[float, ...]
    """By how much."""
    random: int
    """How many vectors of random direction and the same length stand beside it."""
    seed: int
    """Of these, and of the bootstrap."""
    chat: bool
    """Whether prompts are a user's turns."""


def read_pairs(path: Path) -> list[SteeringPair]:
    """Lines of JSON with `prompt`, `positive` and `negative`. Errors: `MissingFile`, `UsageError` for a line that is none, `TooFewSamples` below two."""
    if not path.is_file():
        raise MissingFile(f"no file {path}; give a .jsonl with prompt, positive and negative on each line")
    found: list[SteeringPair] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 ({error.reason}); save it as such") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found.append(SteeringPair(str(number), *(str(row[key]) for key in ("prompt", "positive", "negative"))))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(
                f"{path}, line {number}: {error!r}; wanted one JSON object a line with prompt, positive and negative; mend the line"
            ) from error
    if len(found) < 2:
        raise TooFewSamples(
            f"{path} has {len(found)} pairs and an interval wants two or more; give more, fifty are usual"
        )
    return found


def read_vector(path: Path, width: int) -> ModelBias:
    """The one tensor of a safetensors file. Errors: `MissingFile`, `CorruptArtifact`, `WidthMismatch`."""
    if not path.is_file():
        raise MissingFile(f"no file {path}; give a .safetensors that holds one vector")
    tensors = read_safetensors(path)
    if len(tensors) != 1:
        raise CorruptArtifact(
            f"{path} holds {len(tensors)} tensors ({', '.join(tensors)}); give a file with one vector"
        )
    (vector,) = tensors.values()
    if vector.numel() != width:
        raise WidthMismatch(
            f"the vector of {path} has {vector.numel()} entries, the model has width {width}; give one of that width"
        )
    return vector.flatten().float()


def vector_of_latent(path: Path, latent: int) -> tuple[ModelBias, int | None]:
    """Decoder row of a latent, and the block that the dictionary was trained on. Errors: `UsageError`, those of `load_sae`."""
    found = load_sae(path)
    if not 0 <= latent < found.sae.d_sae:
        raise UsageError(
            f"latent {latent} of a dictionary of {found.sae.d_sae}; give one from 0 to {found.sae.d_sae - 1}"
        )
    return found.sae.W_dec.detach()[latent].float().clone(), found.info.layer


def contrast_of(lm: LanguageModel, pairs: Sequence[SteeringPair], layer: int, *, chat: bool) -> ModelBias:
    """Contrastive activation addition from pairs of one's own."""
    sides = [[continuation_of(lm, p.prompt, text, chat=chat) for p, text in _texts(pairs, side)] for side in (0, 1)]
    return contrast_vector(lm, sides[0], sides[1], layer)


def _texts(pairs: Sequence[SteeringPair], side: int) -> list[tuple[SteeringPair, str]]:
    return [(p, (p.positive, p.negative)[side]) for p in pairs]


class Chosen(NamedTuple):
    """Where a vector comes from: one of the three."""

    vector: Path | None
    """A file with one."""
    sae: Path | None
    """A dictionary, with `latent`."""
    latent: int | None
    """Which of its directions."""
    contrast: Path | None
    """Pairs whose mean difference it is."""


def choose_vector(lm: LanguageModel, chosen: Chosen, layer: int | None, *, chat: bool) -> tuple[int, ModelBias, str]:
    """Block, vector, and where it comes from; without `layer` that of the dictionary, else the middle one. Errors: those of reading."""
    place = (lm.n_layers - 1) // 2 if layer is None else layer
    if chosen.sae is not None and chosen.latent is not None:
        vector, own = vector_of_latent(chosen.sae, chosen.latent)
        return (own if layer is None and own is not None else place), vector, f"latent {chosen.latent} of {chosen.sae}"
    if chosen.vector is not None:
        return place, read_vector(chosen.vector, lm.d_model), str(chosen.vector)
    assert chosen.contrast is not None, "the command asks for one of the three"
    return place, contrast_of(lm, read_pairs(chosen.contrast), place, chat=chat), f"the contrast of {chosen.contrast}"


def run_steering(
    lm: LanguageModel,
    pairs: Sequence[SteeringPair],
    plan: SteeringPlan,
    out: Path,
    *,
    command: str = "perimetry eval steering",
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Judge a vector, and return what `out/results.json` holds. Errors: `WidthMismatch`, `UsageError`, `EmptyText`."""
    out.mkdir(parents=True, exist_ok=True)
    sides = [
        [continuation_of(lm, p.prompt, text, chat=plan.chat) for p, text in _texts(pairs, side)] for side in (0, 1)
    ]
    before = [continuation_likelihoods(lm, side, plan.layer) for side in sides]
    arms: dict[str, list[ModelBias]] = {"vector": [plan.vector]}
    arms["random"] = [random_like(plan.vector, plan.seed * 1000 + i) for i in range(plan.random)]
    rows: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    for multiplier in (0.0, *plan.multipliers):
        for arm, vectors in arms.items() if multiplier else (("zero", [plan.vector]),):
            for number, vector in enumerate(vectors):
                say(f"{arm} {number}, times {multiplier:g}" if arm == "random" else f"{arm}, times {multiplier:g}")
                after = [continuation_likelihoods(lm, side, plan.layer, multiplier * vector) for side in sides]
                found = Likelihoods(before[0], before[1], after[0], after[1])
                made, said = _rows(found, f"{arm} {number}" if arm == "random" else arm, multiplier, plan.seed)
                rows += made
                verdicts.append(said)
    return keep_results(
        _results(lm, pairs, plan, rows, verdicts, _norm(lm, sides[0], plan.layer)) | {"command": command}, out
    )


def _rows(found: Likelihoods, arm: str, multiplier: float, seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    made = effects(found, seed=seed)
    common = {"arm": arm, "multiplier": multiplier, "seed": seed}
    rows: list[dict[str, Any]] = [
        {**common, "metric": e.metric, "share": e.share, **e.interval._asdict()} for e in made
    ]
    for metric, value in normalised(found).items():
        box = {
            "estimate": value,
            "low": value,
            "high": value,
            "n": found.positive.shape[0],
            "method": "no interval, for comparison",
        }
        rows.append({**common, "metric": metric, "share": 1.0, **box})
    return rows, {"arm": arm, "multiplier": multiplier, "verdict": verdict(made)}


def _norm(lm: LanguageModel, continuations: Sequence[Continuation], layer: int) -> float:
    """Median length of what stands at the block, over continuation tokens."""
    norms: list[torch.Tensor] = []
    for one in continuations[:16]:
        ids = torch.tensor([one.row.ids], device=lm.device)
        states = Tap(lm, layer).read(ids, torch.ones_like(ids))[0, one.first :]
        norms.append(states.float().norm(dim=1).cpu())
    return float(torch.cat(norms).median())


def _results(
    lm: LanguageModel,
    pairs: Sequence[SteeringPair],
    plan: SteeringPlan,
    rows: list[dict[str, Any]],
    verdicts: list[dict[str, Any]],
    norm: float,
) -> dict[str, Any]:
    length = float(plan.vector.norm())
    return {
        "kind": "steering",
        "title": f"Does {plan.origin} steer {lm.name}?",
        "subtitle": (
            f"{len(pairs)} pairs of continuations; block {plan.layer}, length {length:.3g}, where tokens have a median length of {norm:.3g}"
        ),
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": rows,
        "verdicts": verdicts,
        "metrics": {name: m._asdict() for name, m in METRICS.items()},
        "configuration": {
            "layer": plan.layer,
            "origin": plan.origin,
            "multipliers": list(plan.multipliers),
            "random": plan.random,
            "seed": plan.seed,
            "chat": plan.chat,
            "model": lm.name,
            "length": length,
            "median_length_of_tokens": norm,
        },
    }
