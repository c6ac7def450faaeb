"""What a probe may read of a dictionary: the latents whose means differ most between two classes, and their values."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.errors import ConfigError, Incompatible
from perimetry.evals.sae.absorbing import join_codes
from perimetry.evals.sae.base import require_rows_alone
from perimetry.measures.logistic import Labelled, Penalty, validated
from perimetry.measures.ranking import auroc
from perimetry.sae.base import AbstractSAE, Codes

__all__ = ["Task", "columns", "encode_rows", "judge", "rank_latents", "require_probed", "sparse_task"]

CHUNK: Final = 4096
SMALL: Final = 1e-6
"""Of sae-probes: keeps a latent that never fires from a division by 0."""


class Task(NamedTuple):
    """What one probe is trained on and judged on."""

    train: Labelled
    """Rows in random order: the last of them validate."""
    tests: tuple[Labelled, ...]
    """Rows that do not train it."""


def require_probed(sae: AbstractSAE, lm: LanguageModel, ks: tuple[int, ...]) -> None:
    """Refuse a dictionary that has too few latents or does not read one place of this model.

    Errors: `ConfigError`, `Incompatible`, `WidthMismatch`.
    """
    if sae.reads != "one":
        raise Incompatible(
            f"a {sae.architecture!r} reads and gives {sae.reads} places; wanted a dictionary of one place; leave it out"
        )
    require_rows_alone(sae)
    if sae.d_model != lm.d_model:
        sae.check_width(torch.empty(1, lm.d_model), f"the residual stream of {lm.name!r}")
    if max(ks) > sae.d_sae:
        raise ConfigError(
            f"k = {max(ks)} latents of a dictionary of {sae.d_sae}; wanted at most {sae.d_sae}; lower `ks`"
        )


@torch.no_grad()
def encode_rows(sae: AbstractSAE, acts: Float[Tensor, "row d_model"]) -> Codes:
    """The codes of activations of any dtype, on the CPU."""
    device = sae.W_dec.device
    parts = [sae.encode(part.to(device, torch.float32)) for part in acts.split(CHUNK)]
    return join_codes([Codes(part.indices.cpu(), part.values.float().cpu(), part.width) for part in parts])


def rank_latents(codes: Codes, labels: Bool[Tensor, " row"], most: int) -> Int[Tensor, " latent"]:
    """The `most` latents whose mean differs most between the classes, in units of their own mean where they fire.

    The rule of sae-probes: mean of the one class minus mean of the other, over (mean size of the values that are not 0, plus 1e-6), by its
    absolute value. Of latents that tie, as those do that fire once, the one with the larger difference itself comes first, so
    that the order of the dictionary does not decide. Both classes must be there.
    """
    flat, values = codes.indices.flatten(), codes.values.double()
    truth = labels[:, None].expand_as(values).flatten()
    weight = torch.where(truth, 1 / labels.sum(), -1 / (~labels).sum()).double()
    zeros = torch.zeros(codes.width, dtype=torch.float64)
    differ = zeros.index_add(0, flat, values.flatten() * weight).abs()
    size = zeros.index_add(0, flat, values.flatten().abs())
    fired = zeros.index_add(0, flat, (values != 0).flatten().double())
    normalised = differ / (size / (fired + SMALL) + SMALL)
    by_size = differ.argsort(descending=True, stable=True)
    return by_size[normalised[by_size].argsort(descending=True, stable=True)][:most]


def columns(codes: Codes, latents: Int[Tensor, " latent"]) -> Float[Tensor, "row latent"]:
    """The values of some latents, dense, in their order.

    >>> columns(Codes(torch.tensor([[3, 1]]), torch.tensor([[2.0, 1.0]]), 8), torch.tensor([1, 5, 3]))
    tensor([[1., 0., 2.]])
    """
    # One slot more than asked for takes what is not wanted.
    place = torch.full((codes.width,), latents.numel())
    place[latents] = torch.arange(latents.numel())
    out = codes.values.new_zeros(codes.values.shape[0], latents.numel() + 1)
    return out.scatter_add_(1, place[codes.indices], codes.values)[:, :-1]


def sparse_task(
    train: Codes, labels: Bool[Tensor, " row"], tests: Sequence[tuple[Codes, Bool[Tensor, " _"]]], most: int
) -> Task:
    """A task on the `most` best latents of the training rows, best first."""
    latents = rank_latents(train, labels, most)
    judged = tuple(Labelled(columns(codes, latents), truth) for codes, truth in tests)
    return Task(Labelled(columns(train, latents), labels), judged)


def judge(tasks: Sequence[Task], penalty: Penalty, k: int | None = None) -> list[list[float]]:
    """Area under the ROC curve of a validated probe of each task on each of its tests; with `k` it reads the first k features."""
    out: list[list[float]] = []
    probes = validated([Labelled(task.train.rows[:, :k], task.train.labels) for task in tasks], penalty)
    for probe, task in zip(probes, tasks, strict=True):
        scores = [probe.scores(test.rows[:, :k]) for test in task.tests]
        pairs = zip(scores, task.tests, strict=True)
        out.append([auroc(found[~test.labels], found[test.labels]) for found, test in pairs])
    return out
