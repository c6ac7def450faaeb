"""What an SAE must say of itself: the model, the layer and the tokens that it was trained on, and where it was read from."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Float
from pydantic import Field, model_serializer
from torch import Tensor

from perimetry.config import Config
from perimetry.errors import Incompatible
from perimetry.sae.base import AbstractSAE
from perimetry.sae.formats.record import Declared, Hook, How, Record, Source

__all__ = ["LoadedSAE", "Origin", "SAEInfo", "info_of", "require_measured"]

LATER = ("hf_hook_name_out", "hf_hook_names", "hook_name_out", "hook_names", "masking", "origin", "unknown")
"""Fields that came after the first artifacts were written."""


class Origin(Config):
    """What a converted SAE was before."""

    kind: str
    """The source's own name of its architecture."""
    source: Source
    """Family, files and their hashes."""
    hook: Hook = Hook()
    """Where it reads and writes."""
    declared: Declared = Declared()
    """What the source claims."""
    how: dict[str, How] = Field(default_factory=dict)
    """Field -> who said so."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """What the user said instead of the files."""
    notes: tuple[str, ...] = ()
    """What the reader changed or found."""


class SAEInfo(Config):
    """Where an SAE comes from. Stored beside its weights."""

    architecture: str
    """Native name in `ARCHITECTURES`; `unknown:NAME` is never stored."""
    model: str | None = None
    """The language model: asset name, hub id, address or folder, as it can be loaded again."""
    revision: str | None = None
    """Revision of the language model: a commit, or the hash of its files."""
    model_class: str = "AutoModelForCausalLM"
    """Class that loads the model."""
    layer: int | None = Field(default=None, ge=0)
    """Block whose output is read, from 0."""
    hook_name: str | None = None
    """Name of the place in TransformerLens; None is `blocks.LAYER.hook_resid_post`."""
    hf_hook_name: str | None = None
    """Module path of the block in the Hugging Face model."""
    hook_name_out: str | None = None
    """TransformerLens name of the place that is written, where that is another than the one that is read."""
    hf_hook_name_out: str | None = None
    """Module path of that place."""
    hook_names: tuple[str, ...] = ()
    """TransformerLens names of the places that are read and written side by side, in the order of the columns."""
    hf_hook_names: tuple[str, ...] = ()
    """Module paths of those places."""
    policy: dict[str, Any] = Field(default_factory=dict)
    """Token policy of the training data, as a plain object."""
    dtype: str | None = None
    """Compute dtype of the language model."""
    context_size: int | None = Field(default=None, ge=1)
    """Tokens of one row of text."""
    dataset: str | None = None
    """Text that was read."""
    masking: dict[str, Any] = Field(default_factory=dict)
    """How tokens were replaced before the model read them, as a plain object; empty for plain text."""
    tokens: int | None = Field(default=None, ge=0)
    """Training tokens."""
    seed: int | None = None
    """Seed of the weights."""
    train: dict[str, Any] = Field(default_factory=dict)
    """The whole training config."""
    details: dict[str, Any] = Field(default_factory=dict)
    """What training found: scale, thresholds, measures on unseen tokens."""
    digest: str | None = None
    """Identity of the artifact, set when it is loaded; None for one without a manifest."""
    origin: Origin | None = None
    """What it was before it was converted; None for one that was trained here."""
    unknown: dict[str, Any] = Field(default_factory=dict)
    """Fields of a newer minor version of the native format, kept for the next write."""

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Fields that came later are left out where they say nothing: identities of earlier artifacts stay what they were."""
        values = handler(self)
        return {key: value for key, value in values.items() if key not in LATER or value}


class LoadedSAE(NamedTuple):
    """An SAE read from disk."""

    sae: AbstractSAE
    """Ready for raw activations, float32, in evaluation mode."""
    info: SAEInfo
    """Where it comes from."""
    verified: bool
    """True where a manifest of hashes was there and held."""
    log_sparsity: Float[Tensor, " d_sae"] | None
    """log10 of each latent's firing rate, where it was stored."""
    certificate: Mapping[str, Any] | None = None
    """How its conversion was checked; None for one that was trained here, or was never certified."""


def info_of(record: Record, architecture: str) -> SAEInfo:
    """What a record says of itself, for an SAE of `architecture` made of it."""
    hook = record.hook
    layer = hook.layer if hook.name == f"blocks.{hook.layer}.hook_resid_post" else None
    return SAEInfo(
        architecture=architecture,
        model=record.model,
        model_class=record.model_class,
        layer=layer,
        hook_name=hook.name,
        hf_hook_name=hook.hf_name,
        policy=dict(record.policy),
        context_size=record.context_size,
        dataset=record.dataset,
        origin=Origin(
            kind=record.architecture,
            source=record.source,
            hook=hook,
            declared=record.declared,
            how=dict(record.how),
            overrides=dict(record.overrides),
            notes=record.notes,
        ),
    )


def require_measured(loaded: LoadedSAE, what: str) -> None:
    """Refuse a converted SAE for `what` unless its certificate says that codes were measured on real activations.

    Errors: `Incompatible`. SAEs that were trained here need no certificate.
    """
    origin, certificate = loaded.info.origin, loaded.certificate
    if origin is None:
        return
    verdict = None if certificate is None else certificate.get("verdict")
    if verdict not in ("exact", "toleranced"):
        raise Incompatible(
            f"the SAE was converted from {origin.source.family} and its certificate says {verdict or 'nothing'}; {what} wants one "
            "that was checked on real activations; convert it again with --certify --activations STORE"
        )
