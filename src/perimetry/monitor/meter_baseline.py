"""What drift is judged by: of each calibration prompt, and of each row as it is read. Runs in the worker only: it imports torch.

The first number of a summary is the score that is ranked. Of a meter over several layers it is the largest of the taps' main scores in
clean standard deviations and not the joint score, which is a rank itself and so not alike for calibration prompts and for others.
"""

import array
from collections.abc import Sequence
from typing import Final, final

import torch
from torch import Tensor

from perimetry.monitor.baseline import Baseline
from perimetry.shift.base import Evidence
from perimetry.shift.meter import Meter
from perimetry.shift.multi import MultiMeter
from perimetry.shift.reading import Reading
from perimetry.shift.summaries import directions, mean_codes, terms_of

__all__ = ["Summariser", "meter_baseline"]

_OLDER: Final = "the meter was made before summaries of its calibration prompts were kept; calibrate again to have them"


def _floats(values: Tensor) -> "array.array[float]":
    return array.array("f", values.reshape(-1).float().tolist())


def _meters(reader: Meter | MultiMeter) -> list[Meter]:
    return list(reader.meters.values()) if isinstance(reader, MultiMeter) else [reader]


def _whole(reader: Meter | MultiMeter) -> bool:
    """Whether the summaries of every tap are known, and those of the main score."""
    terms = terms_of(_meters(reader)[0].main)
    return all(m.normal.summaries is not None and m.normal.summaries.terms == terms for m in _meters(reader))


def meter_baseline(reader: Meter | MultiMeter) -> Baseline:
    """What the calibration prompts of a meter gave."""
    whole = _whole(reader)
    columns = [m.normal.summaries.vectors for m in _meters(reader) if whole and m.normal.summaries is not None]
    if isinstance(reader, MultiMeter):
        joint = reader.joint
        groups, group = joint.groups.labels, joint.groups.index(joint.lengths)
        columns = [joint.yardstick.height(joint.scores)[:, None], *columns]
        rates = torch.empty(0)
    else:
        normal = reader.normal
        groups, rates = normal.calibration.groups.labels, normal.clean_rate
        if whole and normal.summaries is not None:
            group = normal.summaries.group
        else:
            table = normal.calibration.scores[reader.main]
            groups = tuple(name for name in table if name != "pooled")
            group = torch.cat([torch.full((table[name].numel(),), i) for i, name in enumerate(groups)])
            columns = [torch.cat([table[name] for name in groups])[:, None]]
    vectors = torch.cat(columns, 1)
    kept = array.array("i", group.tolist())
    return Baseline(groups, kept, vectors.shape[1], _floats(vectors), _floats(rates), "" if whole else _OLDER)


@final
class Summariser:
    """Makes the summary of a row from its reading."""

    def __init__(self, reader: Meter | MultiMeter) -> None:
        self._reader = reader
        self._whole = _whole(reader)
        main = _meters(reader)[0].main
        terms = terms_of(main) if self._whole else (main,)
        self.names: list[str] = reader.names(terms)
        """Scores that the readings must carry."""
        self._onto = [directions(m.sae.d_sae) for m in _meters(reader)] if self._whole else []
        self._terms = terms

    def of(self, readings: Sequence[Reading], evidence: Sequence[Evidence]) -> list[tuple[float, ...]]:
        """Summaries of the rows of one batch; `evidence`: of each tap."""
        names = self._terms
        by_tap: list[Tensor] = []
        prefixes = [f"{tap}/" for tap in self._reader.meters] if isinstance(self._reader, MultiMeter) else [""]
        scores = [torch.tensor([[r.scores[p + n] for n in names] for r in readings]) for p in prefixes]
        if self._whole:
            codes = [mean_codes(seen, onto) for seen, onto in zip(evidence, self._onto, strict=True)]
            by_tap = [torch.cat(pair, 1) for pair in zip(scores, codes, strict=True)]
        if isinstance(self._reader, MultiMeter):
            mains = torch.stack([mine[:, 0] for mine in scores], 1)
            by_tap = [self._reader.joint.yardstick.height(mains)[:, None], *by_tap]
        elif not self._whole:
            by_tap = scores
        return [tuple(row) for row in torch.cat(by_tap, 1).tolist()]
