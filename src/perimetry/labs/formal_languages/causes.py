"""Which latents go with a variable, and which of them move it: correlation on strings, and strings written with a latent held."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.labs.formal_languages.grammars import AbstractLanguage
from perimetry.labs.formal_languages.models import Splice
from perimetry.labs.formal_languages.writing import write
from perimetry.labs.nano import Nano
from perimetry.labs.points import Scaled

__all__ = ["Moved", "correlations", "dense_codes", "held", "moved_by", "truths"]


class Moved(NamedTuple):
    """What holding a latent does to a variable of whole strings."""

    slope: float
    """Change of the variable's mean over a string, from the latent at 0 to the latent at its largest."""
    low: float
    """Lower end of the 95 % interval over strings."""
    high: float
    """Upper end."""

    def told(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


@torch.no_grad()
def dense_codes(made: Scaled, states: Float[Tensor, "token d"]) -> Float[Tensor, "token latent"]:
    """Codes of every latent."""
    return made.sae(made.inputs(states)).codes.dense()


def truths(language: AbstractLanguage, strings: Sequence[Sequence[int]]) -> Float[Tensor, "token variable"]:
    """The variables at every token of all strings, one after another."""
    return torch.tensor([row for one in strings for row in language.truth(one)])


def correlations(
    codes: Float[Tensor, "token latent"], known: Float[Tensor, "token variable"]
) -> Float[Tensor, "latent variable"]:
    """Pearson's correlation of each latent with each variable; 0 where one of them never changes."""
    sides = []
    for one in (codes.double(), known.double()):
        centred = one - one.mean(0)
        size = centred.norm(dim=0)
        sides.append(torch.where(size > 1e-9, centred / size.clamp_min(1e-9), 0.0))
    return sides[0].T @ sides[1]


def held(made: Scaled, latent: int, value: float) -> Splice:
    """Reconstructions in which one latent has the same value at every token."""

    def splice(states: Float[Tensor, "token d"]) -> Float[Tensor, "token d"]:
        codes = dense_codes(made, states)
        codes[:, latent] = value
        return (codes @ made.sae.W_dec + made.sae.b_dec) * made.scale + made.centre

    return splice


def moved_by(
    model: Nano,
    language: AbstractLanguage,
    made: Scaled,
    latent: int,
    most: float,
    variable: int,
    strings: int,
    seed: int,
) -> Moved:
    """Write strings with a latent held at 0, at half of `most` and at `most`, from the same seeds, and fit a line to the variable.

    A string counts with the variable's mean over its tokens; what the grammar does not give has no such variable and does not count.
    """
    xs: list[float] = []
    ys: list[float] = []
    for level in (0.0, 0.5, 1.0):
        # The seeds are the same at each level, so that only the latent differs.
        for one in write(model, [[]] * strings, seed, held(made, latent, level * most)):
            if one is not None and language.valid(one):
                rows = language.truth(one)
                xs.append(level)
                ys.append(sum(row[variable] for row in rows) / len(rows))
    return _line(torch.tensor(xs, dtype=torch.float64), torch.tensor(ys, dtype=torch.float64))


def _line(x: Float[Tensor, " string"], y: Float[Tensor, " string"]) -> Moved:
    if len(x) < 3 or float(x.var()) == 0:
        return Moved(0.0, -float("inf"), float("inf"))
    centred = x - x.mean()
    total = centred.square().sum()
    slope = (centred * y).sum() / total
    left = y - y.mean() - slope * centred
    half = 1.96 * float((left.square().sum() / (len(x) - 2) / total).sqrt())
    return Moved(float(slope), float(slope) - half, float(slope) + half)
