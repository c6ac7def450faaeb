"""How well any linear reading could find the known features of a world: logistic probes, trained with the truth.

What a dictionary may be held against, for its latents are linear readings with a cut. How the published ceiling (about .97) was
fitted could not be found; chosen here: whitened tokens, Adam on fresh tokens, alarm at a probability of one half.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from perimetry.errors import ConfigError
from perimetry.evals.sae.judging import Sums
from perimetry.evals.sae.matching import scores
from perimetry.evals.sae.synthetic import BLOCK, Fired, World, mixed_seed

__all__ = ["probe_ceiling"]

FIT_BLOCKS = 16
PEAK_LR = 0.1


def _truth(fired: Fired, column_of: Tensor, count: int) -> Tensor:
    labels = torch.zeros(fired.total, count)
    columns = column_of[fired.features]
    wanted = columns >= 0
    labels[fired.tokens[wanted], columns[wanted]] = 1
    return labels


def probe_ceiling(world: World, count: int, *, steps: int = 400, blocks: int = 64, seed: int = 0) -> dict[str, Sums]:
    """F1, precision and recall of one probe for each of the `count` most frequent features, on the tokens that `judge` uses.

    The name of F1 is `f1`, as of latents; its units are the features. Errors: `ConfigError` for more probes than features.
    """
    if not 1 <= count <= world.config.features:
        raise ConfigError(
            f"{count} probes for a world of {world.config.features} features; give 1 to {world.config.features}"
        )
    head = world.frequent(count)
    column_of = torch.full((world.config.features,), -1)
    column_of[head] = torch.arange(count)

    def block(index: int) -> Fired:
        return world.draw(BLOCK, mixed_seed("probes", world.config.seed, seed, index))

    sample = torch.cat([world.mix(block(-1 - i)) for i in range(FIT_BLOCKS)])
    mean = sample.mean(0)
    values, vectors = torch.linalg.eigh((sample - mean).T @ (sample - mean) / sample.shape[0])
    whiten = vectors / values.clamp(min=1e-4 * float(values[-1])).sqrt()
    weights = torch.zeros(world.config.d_model, count, requires_grad=True)
    bias = torch.logit(world.rates[head].float(), eps=1e-6).clone().requires_grad_()
    adam = torch.optim.Adam([weights, bias])
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = PEAK_LR * (1 - step / steps)
        fired = block(step)
        logits = (world.mix(fired) - mean) @ whiten @ weights + bias
        adam.zero_grad()
        # Probes are independent: the sum over features is one problem for each.
        loss = binary_cross_entropy_with_logits(logits, _truth(fired, column_of, count), reduction="none").mean(0).sum()
        loss.backward()
        adam.step()
    counts = torch.zeros(3, count, dtype=torch.int64)
    with torch.no_grad():
        for fired in world.held_out(blocks, seed):
            said = (world.mix(fired) - mean) @ whiten @ weights + bias > 0
            true = _truth(fired, column_of, count) > 0
            counts += torch.stack([(said & true).sum(0), said.sum(0), true.sum(0)])
    found = scores(*counts)
    sums: dict[str, Sums] = {}
    for name, score in zip(("precision", "recall", "f1"), found, strict=True):
        both = torch.zeros(2, world.config.features, dtype=torch.float64)
        both[0, head], both[1, head] = score, 1
        sums[name] = Sums(both[0], both[1])
    return sums
