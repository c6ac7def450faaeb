"""Dictionaries and codes in which nothing was learned: what every claim about a learned dictionary is held against.

They assume nothing of concepts. A number that a control reaches too is no finding about concepts (Korznikov et al., arXiv
2602.14111, found frozen dictionaries near trained ones on probing and interpretability). Dictionaries with a frozen part
are trained ones: `frozen` of the recipe.
"""

from typing import TypeVar

import torch

from perimetry.axes import Acts
from perimetry.errors import ConfigError, TooFewSamples
from perimetry.runtime import generator
from perimetry.sae.affine import AffineSAE, Weights
from perimetry.sae.base import Codes
from perimetry.sae.standard import StandardSAE
from perimetry.sae.steps.products import row_chunks
from perimetry.sae.threshold import fit_threshold
from perimetry.sae.topk import TopKSAE

__all__ = ["identity", "pca", "permuted_decoder", "random_codes", "untrained"]

A = TypeVar("A", bound=AffineSAE)


def untrained(sae: A, seed: int, acts: Acts, k: int) -> A:
    """The architecture of `sae` as it was before its first step, with another seed, made to fire `k` a token on `acts`.

    Decoder rows are random directions with the norms they have in `sae`; each encoder row reads its decoder row with
    product 1; `b_dec` is kept. Where the count is free, one common cut gives it a mean of `k` on `acts` (raw activations);
    architectures with a fixed count keep theirs. Errors: `ConfigError` where encoder and decoder have different widths.
    """
    if sae.W_enc.shape != sae.W_dec.shape:
        raise ConfigError(
            f"{sae.architecture} reads width {sae.W_enc.shape[1]} and writes {sae.W_dec.shape[1]}; only a dictionary with one "
            "width has an untrained twin; give one"
        )
    rows = torch.randn(sae.W_dec.shape, generator=generator(seed)).to(sae.W_dec)
    rows = rows / rows.norm(dim=1, keepdim=True) * sae.W_dec.detach().norm(dim=1, keepdim=True)
    squares = rows.square().sum(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    weights = Weights(rows / squares, rows, torch.zeros_like(sae.b_enc), sae.b_dec.detach().clone())

    def build(cut: float) -> A:
        flat = torch.full_like(weights.b_enc, cut)
        if "threshold" in sae.extras():
            return _rebuilt(sae, weights, {"threshold": flat})
        if "threshold" in sae.settings() or sae.count_mode != "free":
            return _rebuilt(sae, weights, {})
        # Without a threshold of its own the bias takes its place.
        return _rebuilt(sae, weights._replace(b_enc=-flat), {})

    made = build(0.0)
    made.settle(acts, k)
    if sae.count_mode == "free" and "threshold" not in sae.settings():
        made = build(fit_threshold(made, acts, k))
    return made.requires_grad_(False).eval()  # noqa: FBT003


def _rebuilt(sae: A, weights: Weights, extras: dict[str, torch.Tensor]) -> A:
    return type(sae).rebuild(weights, extras=extras, settings=sae.settings(), subtract_b_dec=sae.subtract_b_dec)


def permuted_decoder(sae: A, seed: int) -> A:
    """`sae` with its decoder rows dealt out anew: the same codes, each meaning the direction of another latent."""
    state = sae.state()
    order = torch.randperm(sae.d_sae, generator=generator(seed)).to(sae.W_dec.device)
    made = type(sae).restore(state._replace(tensors=state.tensors | {"W_dec": sae.W_dec.detach()[order]}))
    return made.requires_grad_(False).eval()  # noqa: FBT003


def random_codes(codes: Codes, seed: int) -> Codes:
    """The same values on latents drawn uniformly, without repetition within a token: equal counts and energies, no meaning.

    >>> before = Codes(torch.tensor([[3, 1, 0]]), torch.tensor([[2.0, 1.0, 0.0]]), 8)
    >>> after = random_codes(before, seed=0)
    >>> after.values.tolist(), after.indices[0, 2].item(), len(set(after.indices[0, :2].tolist()))
    ([[2.0, 1.0, 0.0]], 0, 2)
    """
    tokens, slots = codes.indices.shape
    source, indices = generator(seed), torch.zeros(tokens, slots, dtype=torch.int64)
    for start, stop in row_chunks(tokens, codes.width):
        drawn = torch.rand(stop - start, codes.width, generator=source)
        indices[start:stop] = drawn.topk(slots, dim=1).indices
    indices = indices.to(codes.indices.device)
    return Codes(torch.where(codes.values != 0, indices, 0), codes.values, codes.width)


def pca(acts: Acts, k: int) -> TopKSAE:
    """Principal directions of `acts`, each once with either sign; a token keeps its k largest projections.

    A dictionary of twice the width of the activations whose codes are optimal for k orthogonal directions a token. Errors:
    `TooFewSamples` with fewer than two rows, `ConfigError` for a k above the width of the activations.
    """
    if acts.shape[0] < 2:
        raise TooFewSamples(
            f"{acts.shape[0]} rows have no principal directions; give at least two, better many thousands"
        )
    if not 1 <= k <= acts.shape[1]:
        raise ConfigError(f"k = {k} for activations of width {acts.shape[1]}; give a k from 1 to {acts.shape[1]}")
    mean = acts.double().mean(0)
    centred = acts.double() - mean
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors.T.flip(0).to(acts.dtype)
    rows = torch.cat([directions, -directions])
    weights = Weights(rows.clone(), rows, torch.zeros(rows.shape[0], dtype=acts.dtype), mean.to(acts.dtype))
    return TopKSAE(weights, k=k).requires_grad_(False).eval()  # noqa: FBT003


def identity(d_model: int) -> StandardSAE:
    """The coordinates themselves, each once with either sign: every code is an activation, the reconstruction is exact."""
    rows = torch.cat([torch.eye(d_model), -torch.eye(d_model)])
    weights = Weights(rows.clone(), rows, torch.zeros(2 * d_model), torch.zeros(d_model))
    return StandardSAE(weights).requires_grad_(False).eval()  # noqa: FBT003
