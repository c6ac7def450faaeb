"""Families of one pickle with two linear maps: what their readers share."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from perimetry.sae.formats.families.common import latent_major, make_record
from perimetry.sae.formats.isolated import open_pickle
from perimetry.sae.formats.record import Gate, Record, ReLUGate
from perimetry.sae.formats.safety import require_names

__all__ = ["read_linear", "state_of"]


def state_of(path: Path, wanted: set[str], *, unsafe_pickle: bool) -> dict[str, Tensor]:
    """The tensors of a pickle, exactly those wanted. Errors: `UnsafeFormat` without `unsafe_pickle`, `CorruptArtifact`."""
    return require_names(path, open_pickle(path, unsafe_pickle=unsafe_pickle).tensors, wanted)


def read_linear(
    family: str, path: Path, encoder: str, decoder: str, *, unsafe_pickle: bool, gate: Gate | None = None
) -> Record:
    """A ReLU dictionary of `encoder.weight` (n, d) and `decoder.weight` (d, n) with biases; nothing is taken off the input."""
    names = {f"{part}.{kind}" for part in (encoder, decoder) for kind in ("weight", "bias")}
    stored: Mapping[str, Tensor] = state_of(path, names, unsafe_pickle=unsafe_pickle)
    tensors = {
        "W_enc": latent_major(str(path), stored, f"{encoder}.weight"),
        "W_dec": latent_major(str(path), stored, f"{decoder}.weight", transposed=True),
        "b_enc": stored[f"{encoder}.bias"],
        "b_dec": stored[f"{decoder}.bias"],
    }
    return make_record(family, "standard", tensors, gate or ReLUGate(), files=(path,))
