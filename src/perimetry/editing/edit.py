"""An edit: what is added to which matrices, put on a model for a while, scaled, drawn at random, saved."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from perimetry import __version__
from perimetry.activations.model import LanguageModel
from perimetry.artifact import read_artifact, write_artifact
from perimetry.editing.places import Projection, projection
from perimetry.editing.updates import drawn_like
from perimetry.errors import CorruptArtifact, ModelMismatch, WidthMismatch

__all__ = ["KIND", "Edit", "drawn_edit", "edited", "load_edit", "relative_norm", "save_edit", "scaled"]

KIND: Final = "edit"
Updates = Mapping[int, Float[Tensor, "value key"]]


class Edit(NamedTuple):
    """What an editor adds to a model. The model itself is never changed for good."""

    updates: dict[int, Tensor]
    """Block -> what is added to the output projection of its MLP, [value, key], float64."""
    keys: dict[int, Tensor]
    """Block -> keys that were edited, [key, edit], float64: what a later AlphaEdit leaves alone."""
    said: str
    """What it is, in words."""


def scaled(edit: Edit, factor: float) -> Edit:
    """The edit, so many times; 0 changes nothing at all."""
    return edit._replace(
        updates={i: factor * u for i, u in edit.updates.items()}, said=f"{edit.said}, times {factor:g}"
    )


def drawn_edit(edit: Edit, seed: int) -> Edit:
    """Drawn updates of rank 1 in the same blocks with the same norms: the control of every edit."""
    drawn = {i: drawn_like(u, 1000 * seed + i) for i, u in edit.updates.items()}
    return Edit(drawn, {}, f"drawn update {seed} of the norm of: {edit.said}")


def relative_norm(lm: LanguageModel, edit: Edit) -> float:
    """Frobenius norm of all updates over that of the matrices that they are added to."""
    own = sum(float(projection(lm, i).weight.square().sum()) for i in edit.updates)
    return (sum(float(u.square().sum()) for u in edit.updates.values()) / own) ** 0.5


@contextmanager
def edited(lm: LanguageModel, edit: Edit) -> Iterator[None]:
    """Inside, the model has edited weights; afterwards, also after an error, the very tensors of before are back.

    The sum is made in float64 and rounded once to the dtype of the model. Other threads wait. The model keeps its name and
    revision, so that a meter of the unedited model reads the edited one. Errors: `WidthMismatch`, those of `projection`.
    """
    places = {i: projection(lm, i) for i in edit.updates}
    with lm.lock:
        new = {i: _sum(place, edit.updates[i]) for i, place in places.items()}
        before = {i: place.module.weight for i, place in places.items()}
        try:
            for i, place in places.items():
                place.module.weight = nn.Parameter(new[i], requires_grad=False)
            yield
        finally:
            for i, place in places.items():
                place.module.weight = before[i]


def _sum(place: Projection, update: Float[Tensor, "value key"]) -> Tensor:
    weight = place.weight
    if weight.shape != update.shape:
        raise WidthMismatch(
            f"the update of block {place.layer} is {tuple(update.shape)} [value, key], its matrix {tuple(weight.shape)}; use the edit "
            "on the model that it was made for"
        )
    return place.stored(weight + update)


def save_edit(path: Path, lm: LanguageModel, edit: Edit) -> str:
    """Write an edit as an artifact and return its digest. Errors: those of `write_artifact`."""
    tensors = {f"update.{i}": u for i, u in edit.updates.items()} | {f"keys.{i}": k for i, k in edit.keys.items()}
    made_for = {"name": lm.name, "revision": lm.revision, "family": lm.family}
    about = {"said": edit.said, "model": made_for, "version": __version__}
    return write_artifact(path, KIND, {"edit": tensors}, {"edit": about})


def load_edit(path: Path, lm: LanguageModel) -> Edit:
    """Read an edit for a model. Errors: `ModelMismatch` for another model, `CorruptArtifact`, those of `read_artifact`."""
    found = read_artifact(path, KIND)
    try:
        about = found.documents["edit"]
        said, made_for, tensors = str(about["said"]), about["model"], found.tensors["edit"]
        parts: dict[str, dict[int, Tensor]] = {"update": {}, "keys": {}}
        for name, tensor in tensors.items():
            kind, _, layer = name.partition(".")
            parts[kind][int(layer)] = tensor
        revision = str(made_for["revision"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArtifact(f"{path} is no edit of this version ({error!r}); make it again") from error
    if revision != lm.revision:
        raise ModelMismatch(
            f"the edit {path} was made for {made_for.get('name')!r}, revision {revision[:12]}, and {lm.name!r} is {lm.revision[:12]}; "
            "give that model, or make the edit again"
        )
    return Edit(parts["update"], parts["keys"], said)
