"""The sums of a profile: every table that merges by adding."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.sae.base import Codes
from perimetry.shift.base import Evidence
from perimetry.shift.features import BUCKETS, ERROR_BINS, VALUE_BINS, context_features, edge_rows

__all__ = ["add_by_concept", "count_edges", "count_steps", "count_tokens", "empty_sums"]


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
        "steps": whole(1),
        "step_lag": real(d_model, d_model),
        "step_cross": real(d_sae, 2 * d_model + 1),
        "edge_acts": real(2, d_model),
        "edge_outer": real(2, d_model, d_model),
    }


def _tally(table: Int[Tensor, "row column"], cells: Int[Tensor, " cell"]) -> None:
    """Add 1 to each of the cells, given as flat places, in place."""
    flat = table.view(-1)
    # A histogram touches the whole table, adding one by one costs more a cell.
    if cells.numel() * 16 > flat.numel():
        flat += torch.bincount(cells, minlength=flat.numel())
    else:
        flat.index_add_(0, cells, torch.ones_like(cells, dtype=flat.dtype))


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
    _tally(sums["values"], cells)
    _tally(sums["bucket_fired"], (bucket[:, None] * codes.width + codes.indices)[active])
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


def add_by_concept(
    table: Float[Tensor, "d_sae feature"], codes: Codes, features: Float[Tensor, "token feature"]
) -> None:
    """Add the features of a token to the rows of its active concepts, in place."""
    token, slot = (codes.values != 0).nonzero(as_tuple=True)
    latents, order = codes.indices[token, slot].sort()
    latents, fired = torch.unique_consecutive(latents, return_counts=True)
    totals = torch.nn.functional.embedding_bag(token[order], features, fired.cumsum(0) - fired, mode="sum")
    table.index_add_(0, latents, totals)


def count_edges(sums: dict[str, Tensor], evidence: Evidence) -> None:
    """Add the tokens that precede no step: the moments of those that do are what is left of the moments of all."""
    for lag in (1, 2):
        edge = evidence.acts[edge_rows(evidence, lag)].double()
        sums["edge_acts"][lag - 1] += edge.sum(0)
        sums["edge_outer"][lag - 1] += edge.T @ edge


def count_steps(sums: dict[str, Tensor], evidence: Evidence, rows: Int[Tensor, " step"]) -> None:
    """Add some tokens with two predecessors: products of the predecessors, and their sums by active concept."""
    if not rows.numel():
        return
    codes = evidence.codes.select(rows)
    one, two = evidence.acts[rows - 1].double(), evidence.acts[rows - 2].double()
    sums["steps"] += rows.numel()
    sums["step_lag"] += one.T @ two
    add_by_concept(sums["step_cross"], codes, torch.cat([one, two, one.new_ones(rows.numel(), 1)], 1))
