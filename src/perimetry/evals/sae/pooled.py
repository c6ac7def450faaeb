"""One number of several dictionaries together, unit by unit: seeds of one recipe measured on the same units."""

from collections.abc import Sequence

import torch

from perimetry.errors import Incompatible
from perimetry.evals.sae.units import Units

__all__ = ["pooled"]


def pooled(found: Sequence[Units]) -> Units:
    """The sums of several dictionaries added up by unit, so that resampling keeps a unit together whichever dictionary it is seen in.

    Units that one of them lacks are left out. Of a mean over units this is the mean over dictionaries as well. Errors: `Incompatible`
    for two different numbers.

    >>> from perimetry.evals.sae.units import Cell, means
    >>> one, two = (means(Cell("f1"), ["a", "b"], torch.tensor(x)) for x in ([0.5, 0.7], [0.7, 0.9]))
    >>> round(pooled([one, two]).estimate(), 6)
    0.7
    """
    cells = {(units.cell, units.complement) for units in found}
    if len(cells) != 1:
        raise Incompatible(
            f"{len(cells)} different numbers cannot be pooled: {sorted(map(str, cells))[:3]}; give the same one of each"
        )
    common = [name for name in found[0].names if all(name in set(units.names) for units in found[1:])]
    over, under = torch.zeros(len(common), dtype=torch.float64), torch.zeros(len(common), dtype=torch.float64)
    for units in found:
        place = {name: i for i, name in enumerate(units.names)}
        rows = torch.tensor([place[name] for name in common], dtype=torch.long)
        over, under = over + units.over[rows], under + units.under[rows]
    return found[0]._replace(names=tuple(common), over=over, under=under)
