"""An SAE of perimetry's folder in the form that SAEBench and its kin expect, without perimetry: torch and safetensors only.

What they want: `W_enc (d_in, d_sae)`, `W_dec (d_sae, d_in)` with unit rows, `b_enc`, `b_dec`, `encode`, `decode`, `forward` on dense latents,
`device`, `dtype` and a `cfg`. Decoder norms are folded into the encoder, which changes no reconstruction.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

__all__ = ["KINDS", "Adapter", "AdapterConfig"]

KINDS = ("gated", "jumprelu", "standard", "topk")
"""Architectures as they are called on the disk; BatchTopK and Matryoshka are stored as `jumprelu`."""
SAME = 1e-5
"""Largest relative difference of decoder norms with which folding them leaves a top-k as it was."""


@dataclass
class AdapterConfig:
    """What SAEBench reads of an SAE beside its tensors. It writes to it, so it is not frozen."""

    model_name: str
    d_in: int
    d_sae: int
    hook_layer: int
    hook_name: str
    dtype: str
    architecture: str
    context_size: int | None = None
    prepend_bos: bool = True
    hook_head_index: int | None = None
    normalize_activations: str = "none"
    device: str = "cpu"
    dataset_path: str = ""
    dataset_trust_remote_code: bool = False
    training_tokens: int = 0
    model_from_pretrained_kwargs: dict[str, Any] = field(default_factory=dict)
    sae_lens_training_version: str | None = None
    neuronpedia_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def config_of(plain: dict[str, Any]) -> AdapterConfig:
    """The configuration, of what cfg.json says. Errors: `ValueError` for what it does not say."""
    metadata = plain.get("metadata", {})
    own = metadata.get("perimetry", {})
    hook, model = metadata.get("hook_name"), metadata.get("model_name")
    if plain["architecture"] not in KINDS:
        raise ValueError(f"architecture {plain['architecture']!r} has no adapter; give one of {', '.join(KINDS)}")
    if not hook or not model:
        raise ValueError(f"cfg.json names hook {hook!r} and model {model!r}; give an SAE that was trained on a model")
    layer = own.get("layer")
    return AdapterConfig(
        model_name=model,
        d_in=plain["d_in"],
        d_sae=plain["d_sae"],
        hook_layer=int(layer if layer is not None else re.findall(r"\d+", hook)[0]),
        hook_name=hook,
        dtype=plain["dtype"],
        architecture=plain["architecture"],
        context_size=metadata.get("context_size"),
        prepend_bos=bool(metadata.get("prepend_bos", True)),
        training_tokens=own.get("tokens") or 0,
    )


class Adapter(nn.Module):
    """An SAE that is read from a folder."""

    W_enc: Tensor
    """Encoder, a column a latent."""
    W_dec: Tensor
    """Decoder, a unit row a latent."""
    b_enc: Tensor
    """Added to the products; zeros where the architecture has none."""
    b_dec: Tensor
    """Added to the reconstruction."""
    threshold: Tensor
    """Of `jumprelu`."""
    r_mag: Tensor
    """Of `gated`: logarithm of the slope of a value."""
    b_mag: Tensor
    """Of `gated`: offset of a value."""
    b_gate: Tensor
    """Of `gated`: offset of the gate."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        plain = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
        self.cfg = config_of(plain)
        self.subtract, self.k = bool(plain["apply_b_dec_to_input"]), plain.get("k")
        tensors = {name: tensor.float() for name, tensor in load_file(folder / "sae_weights.safetensors").items()}
        norms = tensors["W_dec"].norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
        if self.cfg.architecture == "topk" and float((norms / norms.mean() - 1).abs().max()) > SAME:
            raise ValueError("decoder rows of a TopK SAE differ in norm: folding them would change what is selected")
        tensors.setdefault("b_enc", torch.zeros(self.cfg.d_sae))
        for name in ("b_enc", "threshold", "b_gate", "b_mag"):
            if name in tensors:
                tensors[name] = tensors[name] * norms
        tensors["W_enc"], tensors["W_dec"] = tensors["W_enc"] * norms, tensors["W_dec"] / norms[:, None]
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.W_dec.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.W_dec.dtype

    def encode(self, x: Tensor) -> Tensor:
        """Dense latents, in units of the decoder's unit rows."""
        product = (x.to(self.dtype) - self.b_dec if self.subtract else x.to(self.dtype)) @ self.W_enc
        if self.cfg.architecture == "gated":
            return (self.r_mag.exp() * product + self.b_mag).relu() * (product + self.b_gate > 0)
        pre = product + self.b_enc
        if self.cfg.architecture == "jumprelu":
            return pre.relu() * (pre > self.threshold)
        if self.cfg.architecture == "topk":
            values, latents = pre.topk(self.k, dim=-1)
            return torch.zeros_like(pre).scatter(-1, latents, values.relu())
        return pre.relu()

    def decode(self, feature_acts: Tensor) -> Tensor:
        """Activations of dense latents."""
        return feature_acts @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        """Encode and decode."""
        return self.decode(self.encode(x))
