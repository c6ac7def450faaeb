"""The identity of an SAE by what it is, not by the files it lies in."""

import hashlib
import json

import torch

from perimetry.sae.base import AbstractSAE

__all__ = ["tensor_hash"]


def tensor_hash(sae: AbstractSAE) -> str:
    """SHA-256 of all that rebuilds an SAE: names, dtypes, shapes, bytes, settings; not of files or dates."""
    state = sae.state()
    digest = hashlib.sha256(json.dumps([sae.architecture, state.settings], sort_keys=True).encode())
    for name in sorted(state.tensors):
        tensor = state.tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
