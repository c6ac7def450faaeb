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
from perimetry.labs.points import evidence_of, recipe_of, train_on_points
from perimetry.labs.sae_geometry.fitting import fit
from perimetry.measures.reconstruction import fvu
from perimetry.runtime import generator
from perimetry.sae.base import Codes

__all__ = ["best_f1", "of_parts"]

TRAINED: Final = {"relu": "standard", "jumprelu": "jumprelu", "topk": "topk"}
"""What is trained as everything else here is, by its name in `ARCHITECTURES`."""
COUNT: Final = 8
"""Active latents: of TopK exactly, of JumpReLU on the mean."""
GAMMA: Final = 0.03
"""Weight of the sparsity term of SpaDE, which gives it about as many."""
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
    measured: list[Measured] = []
    for kind, architecture in TRAINED.items():
        # A weight of 1 at a mean square norm of the width, brought to a total variance of 1.
        weight = 1 / d_model**0.5 if kind == "relu" else None
        recipe = recipe_of(architecture, width=width, k=COUNT, steps=steps, seed=seed, lr=3e-3, sparsity=weight)
        made = train_on_points(states, recipe)
        inputs = made.inputs(bench.states)
        evidence = evidence_of(made.sae, inputs)
        measured += _stands(bench, kind, inputs, evidence.codes, evidence.reconstruction)
    centre = states.mean(0)
    scale = (states - centre).square().mean().sqrt()
    rows, inputs = (states - centre) / scale, (bench.states - centre) / scale
    batches = _batches(rows, 256_203_161 + seed)
    sae = fit("spade", batches, width=width, d_model=d_model, gamma=GAMMA, k=COUNT, steps=steps, seed=seed)
    with torch.no_grad():
        codes, made_of = sae(inputs)
    return measured + _stands(bench, "spade", inputs, codes, made_of)


def _stands(bench: Bench, kind: str, inputs: Tensor, codes: Codes, made: Tensor) -> list[Measured]:
    member = truths(bench.language, bench.strings)[:, -len(PARTS) :] > 0
    active = codes.dense() > ACTIVE
    return [
        Measured("F1 of parts of speech", float(best_f1(active, member).mean()), kind, n=len(PARTS)),
        Measured("unexplained", fvu(inputs, made), kind),
        Measured("dead latents", float((~active.any(0)).float().mean()), kind, n=codes.width),
        Measured("active latents", float(active.sum(1).float().mean()), kind),
    ]
