"""Where in the model an SAE reads and writes: what the user says of it, the sites that follow, what is stored of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, NonNegativeInt

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.site import HookName, Site, hook_name
from perimetry.config import Config
from perimetry.errors import ConfigError
from perimetry.runtime import dtype_name
from perimetry.sae import ARCHITECTURES
from perimetry.sae.base import AbstractSAE, Reads

__all__ = ["Where", "describe_places", "name_places", "options_of_places", "require_where", "sites_of"]

Placed = Literal["resid_post", "mlp_in", "mlp_out", "mlp"]
ROLES: dict[Reads, str] = {
    "one": "one place and gives it back",
    "pair": "one place and gives another",
    "several": "several places side by side",
}


class Where(Config):
    """Which activations of the model one SAE is trained on."""

    layer: NonNegativeInt | None = None
    """Block, from 0; None is a little before the middle."""
    layers: tuple[NonNegativeInt, ...] | None = Field(default=None, min_length=1)
    """Blocks whose activations stand side by side, for an architecture that reads several places."""
    target_layer: NonNegativeInt | None = None
    """Block whose output is to be given, for an architecture that gives another place than it reads."""
    place: Placed = "resid_post"
    """Where in the block: the residual stream after it, what its MLP reads, what its MLP gives, or `mlp`, from the one to the other."""


def _those(reads: Reads) -> str:
    """The architectures of a kind, for a message."""
    return " or ".join(sorted(name for name, cls in ARCHITECTURES.items() if cls.reads == reads)) or "none so far"


def _refuse(what: str, name: str, advice: str) -> None:
    raise ConfigError(f"{what} for {name!r}, which reads {ROLES[ARCHITECTURES[name].reads]}; {advice}")


def require_where(where: Where, name: str) -> None:
    """Refuse a place that an architecture cannot be trained on, as far as that is known without the model.

    Errors: `ConfigError`, which names the option, what came and what to give.
    """
    reads, layers = ARCHITECTURES[name].reads, where.layers
    if reads != "several" and layers is not None:
        listed = ",".join(map(str, layers))
        each = f"give --sweep layer={listed} for an SAE each" if reads == "one" else "give layer and target_layer"
        _refuse(
            f"layers = {list(layers)}",
            name,
            f"{each}, or an architecture that reads them together: {_those('several')}",
        )
    if reads != "pair" and where.target_layer is not None:
        advice = f"leave it out, or give an architecture that takes a target: {_those('pair')}"
        _refuse(f"target_layer = {where.target_layer}", name, advice)
    if reads != "pair" and where.place == "mlp":
        advice = f"give mlp_in or mlp_out, or an architecture that takes a target: {_those('pair')}"
        _refuse("place = 'mlp', which is a pair of places,", name, advice)
    if reads == "pair":
        _require_pair(where, name)
    if reads == "several":
        _require_several(where, name)


def _require_pair(where: Where, name: str) -> None:
    if where.place in ("mlp_in", "mlp_out"):
        _refuse(f"place = {where.place!r}", name, "give --place mlp for what the MLP of a block reads and gives")
    if where.place == "resid_post" and where.target_layer is None:
        advice = "give --target-layer M for the output of block M, or --place mlp for what the MLP of the block reads and gives"
        _refuse("no target was given", name, advice)
    if where.place == "resid_post" and where.target_layer == where.layer:
        _refuse(f"layer and target_layer are both {where.layer}", name, "give two blocks")


def _require_several(where: Where, name: str) -> None:
    layers = where.layers or ()
    if where.layer is not None:
        _refuse(f"layer = {where.layer}", name, "give the blocks with --layers, such as --layers 3,4,5")
    if len(layers) < 2 or len(set(layers)) < len(layers):
        _refuse(f"layers = {list(layers)}", name, "give two or more blocks, each once, such as --layers 3,4,5")


def sites_of(where: Where, name: str, middle: int) -> tuple[Site, ...]:
    """The places whose activations stand side by side in a row of architecture `name`, in their order.

    `middle` is the block that is meant where none is named. Errors: those of `require_where`.
    """
    reads = ARCHITECTURES[name].reads
    if reads != "several" and where.layer is None:
        where = where.model_copy(update={"layer": middle})
    require_where(where, name)
    layer = middle if where.layer is None else where.layer
    target = layer if where.target_layer is None else where.target_layer
    if where.place == "mlp":
        return Site(layer, "mlp_in"), Site(target, "mlp_out")
    if reads == "pair":
        return Site(layer), Site(target)
    return tuple(Site(block, where.place) for block in where.layers or (layer,))


def name_places(sites: Sequence[Site], cls: type[AbstractSAE]) -> str:
    """A short name of what an SAE is trained on, fit for a folder.

    >>> from perimetry.sae import ARCHITECTURES
    >>> name_places([Site(6)], ARCHITECTURES["topk"]), name_places([Site(6), Site(8)], ARCHITECTURES["transcoder"])
    ('layer-06', 'layer-06-to-08')
    >>> name_places([Site(6, "mlp_in"), Site(6, "mlp_out")], ARCHITECTURES["transcoder"])
    'layer-06-mlp'
    """
    first, last = sites[0], sites[-1]
    if cls.reads == "one":
        return str(first)
    suffix = {"resid_post": "", "mlp_in": "-mlp"}.get(first.place, f"-{first.place}")
    if cls.reads == "pair":
        return f"layer-{first.layer:02d}" + (f"-to-{last.layer:02d}" if last.layer != first.layer else "") + suffix
    suffix = "" if first.place == "resid_post" else f"-{first.place}"
    return "layers-" + "-".join(f"{site.layer:02d}" for site in sites) + suffix


def options_of_places(cls: type[AbstractSAE], given: Mapping[str, Any], widths: Sequence[int]) -> dict[str, Any]:
    """The options of a recipe, with the widths of the places of a row where the architecture asks for them.

    Errors: `ConfigError` where the user said others.
    """
    told: dict[str, Any] = {"pair": {"d_in": widths[0]}, "several": {"widths": list(widths)}}.get(cls.reads, {})
    counted = {"parts": len(widths)} if cls.reads == "several" else {}
    for name, value in (told | counted).items():
        said = given.get(name)
        if said is not None and (list(said) if name == "widths" else said) != value:
            raise ConfigError(
                f"options.{name} of {cls.architecture} is {said!r} and the places of this model give {value!r}; leave it out"
            )
    return dict(given) | {name: value for name, value in told.items() if name in cls.options_type.model_fields}


def _names(site: Site, lm: LanguageModel) -> HookName:
    name = hook_name(site, lm.family)
    # The module's path alone means its output to every reader.
    return name._replace(hugging_face=f"{name.hugging_face}.input") if site.place == "mlp_in" else name


def describe_places(
    lm: LanguageModel,
    sites: Sequence[Site],
    reads: Reads,
    policies: Mapping[Site, TokenPolicy],
    *,
    text: str,
    context: int,
) -> dict[str, Any]:
    """What is stored beside an SAE of where its training data came from: fields of `SAEInfo`.

    `layer` is said only of the output of a block, since that is what it means to every reader. The policy is that of the
    place that comes first.
    """
    names = [_names(site, lm) for site in sites]
    found: dict[str, Any] = {
        "model": lm.origin,
        "revision": lm.revision,
        "policy": policies[sites[0]].model_dump(mode="json"),
        "dtype": dtype_name(lm.dtype),
        "context_size": context,
        "dataset": text,
    }
    if reads == "several":
        lens, modules = (tuple(name[i] for name in names) for i in (0, 1))
        return found | {"hook_names": lens, "hf_hook_names": modules}
    found |= {"hook_name": names[0].transformer_lens, "hf_hook_name": names[0].hugging_face}
    found |= {"layer": sites[0].layer} if sites[0].place == "resid_post" else {}
    if reads == "pair":
        found |= {"hook_name_out": names[1].transformer_lens, "hf_hook_name_out": names[1].hugging_face}
    return found
