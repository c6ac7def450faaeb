"""Four architectures on the words of English: how well single latents stand for parts of speech, what is lost, and what is dead.

Public arXiv 2503.01822. A good F1 alone says little: what matters is where a dictionary stands in all of it at once.
"""

from collections.abc import Iterator
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from perimetry.labs.base import Measured
from perimetry.labs.formal_languages.causes import truths
from perimetry.labs.formal_languages.grammars import PARTS
from perimetry.labs.formal_languages.measures import Bench
from perimetry.labs.sae_geometry.fitting import Kind, fit
from perimetry.measures.reconstruction import fvu
from perimetry.runtime import generator

__all__ = ["KINDS", "best_f1", "of_parts"]

KINDS: Final[dict[Kind, float]] = {"relu": 0.3, "jumprelu": 0.03, "topk": 0.0, "spade": 0.03}
"""Architectures, and weights of their sparsity terms."""
COUNT: Final = 8
"""Active latents of TopK."""
BATCH: Final = 512
ACTIVE: Final = 1e-6


def best_f1(active: Bool[Tensor, "token latent"], member: Bool[Tensor, "token concept"]) -> Float[Tensor, " concept"]:
    """F1 of the latent that goes best with each concept, 0 to 1.

    >>> best_f1(torch.tensor([[True], [True], [False]]), torch.tensor([[True], [False], [False]])).item()
    0.6666666865348816
    """
    hits = member.float().T @ active.float()
    return (2 * hits / (member.sum(0)[:, None] + active.sum(0)).clamp_min(1)).amax(1)


def _batches(rows: Float[Tensor, "token d"], seed: int) -> Iterator[Float[Tensor, "token d"]]:
    draw = generator(seed)
    while True:
        yield rows[torch.randint(0, len(rows), (BATCH,), generator=draw)]


def of_parts(bench: Bench, states: Float[Tensor, "token d"], width: int, steps: int, seed: int) -> list[Measured]:
    """Mean over parts of speech of the best latent's F1, unexplained variance, dead latents and active ones, of each architecture."""
    d_model = states.shape[1]
    centre = states.mean(0)
    scale = float((states - centre).square().sum(1).mean().sqrt()) / d_model**0.5
    rows, tests = (states - centre) / scale, (bench.states - centre) / scale
    member = truths(bench.language, bench.strings)[:, -len(PARTS) :] > 0
    measured: list[Measured] = []
    for kind, gamma in KINDS.items():
        sae = fit(
            kind,
            _batches(rows, 256_203_161 + seed),
            width=width,
            d_model=d_model,
            gamma=gamma,
            k=COUNT,
            steps=steps,
            seed=seed,
        )
        with torch.no_grad():
            codes, made = sae(tests)
        active = codes.dense() > ACTIVE
        measured += [
            Measured("F1 of parts of speech", float(best_f1(active, member).mean()), kind, n=len(PARTS)),
            Measured("unexplained", fvu(tests, made), kind),
            Measured("dead latents", float((~active.any(0)).float().mean()), kind, n=width),
            Measured("active latents", float(active.sum(1).float().mean()), kind),
        ]
    return measured
