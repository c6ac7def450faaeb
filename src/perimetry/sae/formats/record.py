"""One record: what every reader of a foreign format makes, and what every SAE of ours is built from.

Weights are latent-major. Whatever is affine and global (a scale, a whitening) is folded into them by `fold.py` before the
record leaves its reader; a normalisation by token stays explicit. Nothing in it is guessed: `how` says of each field that
changes the numbers or their meaning whether the file, the path or the user gave it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from perimetry.axes import LatentBias
from perimetry.config import Config

__all__ = [
    "BatchTopKGate",
    "Declared",
    "Gate",
    "GatedGate",
    "Hook",
    "How",
    "InputNorm",
    "JumpReLUGate",
    "MatchingPursuitGate",
    "NativeGate",
    "ReLUGate",
    "Read",
    "Reader",
    "Record",
    "Source",
    "TopKGate",
]

How = Literal["file", "path", "user", "inferred", "family"]
"""Who said so: a file, its path, the user, a rule of ours, or the published rule of the family."""
InputNorm = Literal["none", "layer_norm", "constant_norm"]
"""`layer_norm`: mean 0, divided by (standard deviation with n - 1, plus 1e-5); `constant_norm`: norm sqrt(d_in). Both are undone
on the output."""


class ReLUGate(NamedTuple):
    """Codes are ReLU(p)."""


class JumpReLUGate(NamedTuple):
    """Codes are ReLU(p) where p exceeds the latent's threshold, strictly."""

    threshold: LatentBias
    """One a latent, in the units of the pre-activations of the record; a negative one is stored as 0, which is the same."""


class BatchTopKGate(NamedTuple):
    """Codes are p where p exceeds one common threshold, strictly."""

    k: int
    """Mean active count that it was trained for."""
    threshold: float
    """In the units of the pre-activations of the record."""


class TopKGate(NamedTuple):
    """Codes are ReLU of the k largest p of a token."""

    k: int
    """Latents kept."""


class GatedGate(NamedTuple):
    """Codes are 1[q + b_gate > 0] ReLU(exp(r_mag) q + b_mag), with q the encoder product without a bias."""

    b_gate: LatentBias
    """Bias of the gate."""
    b_mag: LatentBias
    """Bias of the magnitude."""
    r_mag: LatentBias
    """Logarithm of the magnitude's scale."""


class MatchingPursuitGate(NamedTuple):
    """Codes of a greedy pursuit over the decoder rows; the record has no encoder."""

    residual_threshold: float
    """Stop when the norm of the residual is at most this."""
    max_iterations: int
    """Stop after this many latents."""
    stop_on_duplicate_support: bool
    """Stop when an iteration adds no latent that is new."""


class NativeGate(NamedTuple):
    """A rule that only an architecture of ours knows; its tensors and settings are those of `AbstractSAE.state()`."""

    architecture: str
    """Name in `ARCHITECTURES`."""
    tensors: dict[str, Tensor]
    """Beyond the weights of the record."""
    settings: dict[str, Any]
    """Plain values."""


Gate = ReLUGate | JumpReLUGate | BatchTopKGate | TopKGate | GatedGate | MatchingPursuitGate | NativeGate


class Hook(Config):
    """Where the activations are read, and where the output belongs."""

    layer: int | None = Field(default=None, ge=0)
    """Block, from 0."""
    name: str | None = None
    """TransformerLens name of the input."""
    name_out: str | None = None
    """TransformerLens name of the output, for transcoders."""
    hf_name: str | None = None
    """Module path in the Hugging Face model, for the input."""
    hf_name_out: str | None = None
    """Module path for the output, for transcoders."""
    head_index: int | None = None
    """Head, where one only is read."""
    reshape: Literal["none", "hook_z"] = "none"
    """`hook_z`: (..., heads, d_head) is made flat before the input, and unmade after the output."""


class Source(Config):
    """Which files a record was made of."""

    family: str
    """Name in `READERS`."""
    repository: str | None = None
    """Hub repository, or None for local files."""
    revision: str | None = None
    """Commit of the repository."""
    files: dict[str, str] = Field(default_factory=dict)
    """File name -> SHA-256 of its bytes."""
    dtype: str = "float32"
    """Widest dtype that the weights had there; anything but float32 and float64 is a lossy source."""
    version: str | None = None
    """Release of the library that wrote it, as it stands in the file."""


class Declared(Config):
    """What the source says of itself; None where it says nothing."""

    l0: float | None = None
    """Mean active count."""
    explained_variance: float | None = None
    """Share of variance that the reconstruction explains."""
    dead: float | None = None
    """Share of latents that never fire."""


class Record(NamedTuple):
    """A dictionary as it was published, in one form."""

    architecture: str
    """The source's own name of the kind."""
    W_enc: Float[Tensor, "d_sae d_in"] | None
    """Row i reads latent i; None for matching pursuit only."""
    b_enc: LatentBias | None
    """None for matching pursuit and gated."""
    W_dec: Float[Tensor, "d_sae d_out"]
    """Row i is what latent i writes."""
    b_dec: Float[Tensor, " d_out"]
    """Added to the output."""
    gate: Gate
    """Which latents fire."""
    subtract_b_dec: bool
    """`b_dec` is taken off the input first; never for transcoders."""
    source: Source
    """Files and family."""
    W_skip: Float[Tensor, "d_out d_in"] | None = None
    """Applied to the raw input and added to the output."""
    transcoder: bool = False
    """The output belongs to another place than the input."""
    input_norm: InputNorm = "none"
    """Normalisation by token, undone on the output."""
    reconstructs: bool = True
    """False where the decoder is a part only (cross-layer transcoders): codes can be used, the output cannot."""
    hook: Hook = Hook()
    """Place in the model."""
    model: str | None = None
    """The language model, as the source names it."""
    model_class: str = "AutoModelForCausalLM"
    """Class that loads it."""
    context_size: int | None = None
    """Tokens of one row of text."""
    dataset: str | None = None
    """Text it was trained on."""
    policy: Mapping[str, Any] = {}
    """Token policy as far as the source tells: `prepend_bos`, `exclude_special`."""
    declared: Declared = Declared()
    """Claims to be held against measurements."""
    log_rates: LatentBias | None = None
    """log10 of the firing rates, where stored."""
    how: Mapping[str, How] = {}
    """Field -> who said so: at least hook, normalisation and policy."""
    overrides: Mapping[str, Any] = {}
    """What the user said instead of the file."""
    notes: tuple[str, ...] = ()
    """What a person should know: thresholds stored as 0, norms that were folded, tensors that were dropped."""
    extra: Mapping[str, Any] = {}
    """Fields of the source that nothing here reads, kept."""
    training: Mapping[str, Any] = {}
    """Rule and details of training, where the stored kind is another one."""

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def d_in(self) -> int:
        """Width of the input."""
        return self.W_dec.shape[1] if self.W_enc is None else self.W_enc.shape[1]

    @property
    def d_out(self) -> int:
        """Width of the output."""
        return self.W_dec.shape[1]

    def note(self, *texts: str) -> "Record":
        """The record with further notes."""
        return self._replace(notes=(*self.notes, *texts))


@runtime_checkable
class Read(Protocol):
    """How a reader is called: a folder or a file, and what the user says instead of the files."""

    def __call__(self, path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:
        """The record. Pickles are opened with `unsafe_pickle` only, in a process of their own."""
        ...


class Reader(NamedTuple):
    """One family of formats."""

    recognises: Callable[[Path], bool]
    """True where the files at a path are of this family: by names and by content, never by tensor shapes."""
    read: Read
    """Makes the record."""
    why: str
    """One sentence on the family, for the help and the docs."""
