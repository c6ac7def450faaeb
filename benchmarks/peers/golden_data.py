"""Random weights and inputs of the golden vectors, and how a case is written."""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file

D, N, ROWS, K = 16, 48, 64, 4


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(seed: int, *, d_out: int = D, unit: bool = False) -> dict[str, torch.Tensor]:
    """Latent-major random weights; decoder rows of different norms unless `unit`."""
    source = generator(seed)
    enc = torch.randn(N, D, generator=source) / math.sqrt(D)
    dec = torch.randn(N, d_out, generator=source)
    dec = dec / dec.norm(dim=1, keepdim=True)
    if not unit:
        dec = dec * torch.linspace(0.5, 2.0, N)[:, None]
    return {
        "W_enc": enc,
        "W_dec": dec,
        "b_enc": 0.3 * torch.randn(N, generator=source) - 0.2,
        "b_dec": 0.4 * torch.randn(d_out, generator=source),
        "threshold": torch.rand(N, generator=source) * 0.5 + 0.05,
        "W_skip": 0.1 * torch.randn(d_out, D, generator=source),
    }


def inputs(seed: int, b_dec: torch.Tensor | None = None) -> torch.Tensor:
    """Gaussian rows with a mean, and the rows that break converters: zero, b_dec, one coordinate, a large one, a repeat."""
    source = generator(seed + 1000)
    x = torch.randn(ROWS, D, generator=source) * 1.5 + 0.3 * torch.randn(D, generator=source)
    x[0] = 0
    if b_dec is not None and b_dec.shape[0] == D:
        x[1] = b_dec
    x[2] = 0
    x[2, 3] = 2.5
    x[3] = 50 * x[3]
    x[4] = x[5]
    return x.contiguous()


def write(case: Path, x: torch.Tensor, codes: torch.Tensor, reconstruction: torch.Tensor) -> None:
    case.mkdir(parents=True, exist_ok=True)
    tensors = {"x": x, "codes": codes, "reconstruction": reconstruction}
    save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, case / "vectors.safetensors")
    print(case, f"L0 {float((codes != 0).float().sum(-1).mean()):.2f}")


def fill(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Put tensors into parameters and buffers by name; every name must exist with that shape."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        for name, tensor in tensors.items():
            assert own[name].shape == tensor.shape, (name, own[name].shape, tensor.shape)
            own[name].copy_(tensor)
