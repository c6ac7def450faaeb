"""Dictionaries in SAELens' layout whose concepts are planted, and activations that they explain."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from perimetry.runtime import generator

__all__ = ["L0", "Planted", "config_of", "planted", "write_folder"]

D_MODEL, D_SAE, ACTIVE, CUT = 64, 96, 2, 1.25
L0 = 2.2
"""Mean active count of the planted dictionary on its activations."""


class Planted(NamedTuple):
    """A dictionary and what it is for."""

    folder: Path
    """In SAELens' layout."""
    acts: Tensor
    """Activations: sums of two concepts, about a centre."""


def config_of(architecture: str, d_in: int, d_sae: int, **more: Any) -> dict[str, Any]:
    """A whole `cfg.json` of SAELens 6."""
    return {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "model_name": "tiny",
            "hook_name": "blocks.1.hook_resid_post",
            "prepend_bos": True,
            "l0": L0,
        },
    } | more


def write_folder(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> Path:
    """A folder as SAELens writes it."""
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def planted(folder: Path, *, scale: float = 1.0, d_sae: int = D_SAE, **more: Any) -> Planted:
    """A JumpReLU dictionary trained, as it were, on `scale` times its activations."""
    source = generator(5)
    rows = torch.nn.functional.normalize(torch.randn(d_sae, D_MODEL, generator=source), dim=1)
    centre = torch.randn(D_MODEL, generator=source)
    picks = torch.stack([torch.randperm(d_sae, generator=source)[:ACTIVE] for _ in range(800)])
    sizes = 2 + torch.rand(800, ACTIVE, 1, generator=source)
    acts = ((sizes * rows[picks]).sum(1) + centre) / scale
    tensors = {
        "W_enc": rows.T,
        "W_dec": rows,
        "b_enc": torch.full((d_sae,), -0.02),
        "b_dec": centre,
        "threshold": torch.full((d_sae,), CUT),
    }
    config = config_of("jumprelu", D_MODEL, d_sae, **more)
    return Planted(write_folder(folder, tensors, config), acts)
