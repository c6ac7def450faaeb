"""What an SAE must say of itself: the model, the layer and the tokens that it was trained on."""

from typing import Any, NamedTuple

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from perimetry.config import Config
from perimetry.sae.affine import AffineSAE

__all__ = ["LoadedSAE", "SAEInfo"]


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
    policy: dict[str, Any] = Field(default_factory=dict)
    """Token policy of the training data, as a plain object."""
    dtype: str | None = None
    """Compute dtype of the language model."""
    context_size: int | None = Field(default=None, ge=1)
    """Tokens of one row of text."""
    dataset: str | None = None
    """Text that was read."""
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


class LoadedSAE(NamedTuple):
    """An SAE read from disk."""

    sae: AffineSAE
    """Ready for raw activations, float32, in evaluation mode."""
    info: SAEInfo
    """Where it comes from."""
    verified: bool
    """True where a manifest of hashes was there and held."""
    log_sparsity: Float[Tensor, " d_sae"] | None
    """log10 of each latent's firing rate, where it was stored."""
