"""The sums of a profile: every table that merges by adding."""

import torch
from jaxtyping import Int
from torch import Tensor

from perimetry.shift.base import Evidence
from perimetry.shift.features import BUCKETS, ERROR_BINS, VALUE_BINS, context_features

__all__ = ["count_tokens", "empty_sums"]


def empty_sums(d_model: int, d_sae: int, vocab: int) -> dict[str, Tensor]:
    """Tables of zeros: counts as integers, moments as float64."""
    features = context_features(torch.ones(1, 1), torch.ones(1, dtype=torch.int64)).shape[1]

    def whole(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.int64)

    def real(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64)

    return {
        "tokens": whole(1),
        "prompts": whole(1),
        "fired": whole(d_sae),
        "values": torch.zeros(d_sae, VALUE_BINS.number, dtype=torch.int32),
        "bucket_tokens": whole(BUCKETS),
        "bucket_fired": torch.zeros(BUCKETS, d_sae, dtype=torch.int32),
        "bucket_acts": real(BUCKETS, d_model),
        "acts": real(d_model),
        "outer": real(d_model, d_model),
        "unigrams": whole(vocab),
        "excess_features": real(vocab, features),
        "excess_counts": real(vocab),
        "excess_gram": real(features, features),
        "excess_cross": real(features),
        "errors": whole(1, ERROR_BINS.number),
        "nll": real(3),
        "strongest": whole(d_sae),
    }


def count_tokens(
    sums: dict[str, Tensor], evidence: Evidence, rows: Int[Tensor, " row"], buckets: Int[Tensor, " vocab"]
) -> None:
    """Add some tokens to the tables, in place; `buckets` gives the bucket of each vocabulary id."""
    codes = evidence.codes.select(rows)
    acts, tokens = evidence.acts[rows].double(), evidence.tokens[rows]
    active = codes.values != 0
    latents = codes.indices[active]
    bucket = buckets[tokens]
    sums["tokens"] += rows.numel()
    sums["fired"] += torch.bincount(latents, minlength=codes.width)
    cells = latents * VALUE_BINS.number + VALUE_BINS.locate(codes.values[active].float())
    ones = torch.ones_like(cells, dtype=torch.int32)
    sums["values"].view(-1).index_add_(0, cells, ones)
    pairs = (bucket[:, None] * codes.width + codes.indices)[active]
    sums["bucket_fired"].view(-1).index_add_(0, pairs, ones)
    sums["bucket_tokens"] += torch.bincount(bucket, minlength=BUCKETS)
    sums["bucket_acts"].index_add_(0, bucket, acts)
    sums["acts"] += acts.sum(0)
    sums["outer"] += acts.T @ acts
    sums["unigrams"] += torch.bincount(tokens, minlength=sums["unigrams"].shape[0])
    features = context_features(evidence.acts[rows], evidence.positions[rows])
    counts = active.sum(1).double()
    sums["excess_features"].index_add_(0, tokens, features)
    sums["excess_counts"].index_add_(0, tokens, counts)
    sums["excess_gram"] += features.T @ features
    sums["excess_cross"] += features.T @ counts
    error = (evidence.acts[rows] - evidence.reconstruction[rows]).square().sum(1)
    sums["errors"] += torch.bincount(ERROR_BINS.locate(error), minlength=ERROR_BINS.number)
