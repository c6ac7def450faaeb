"""How often a calibrated meter alarms on texts that are novel and harmless: for a detector of attacks, false alarms."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float

from perimetry.errors import UsageError
from perimetry.evals.contrasts import ALL
from perimetry.evals.false_alarms import SLACK
from perimetry.evals.rows import Kind, Row
from perimetry.measures.stats import wilson
from perimetry.suites import Suite

__all__ = ["RATES", "alarm_metric", "benign_alarm_rows"]

RATES = (0.01, 0.05)


def alarm_metric(alpha: float) -> str:
    """Name of the metric of a rate.

    >>> alarm_metric(0.05)
    'alarm_rate_at_5'
    """
    return f"alarm_rate_at_{100 * alpha:g}"


def benign_alarm_rows(
    p_values: Mapping[str, Float[torch.Tensor, " case"]],
    kinds: Mapping[str, Kind],
    suite: Suite,
    *,
    seed: int = 0,
    rates: Sequence[float] = RATES,
) -> list[Row]:
    """Share of the cases of each benign family (`Suite.benign`), and of all of them, with a p-value of at most the rate.

    The clean cases matched to them are given as families of their own: there the share should be the rate itself. Wilson
    intervals over cases. Nothing where a suite names no benign family. Errors: `UsageError` for p-values of another number
    of cases.
    """
    groups: dict[str, list[int]] = {ALL: []} if suite.benign else {}
    pairs = {case.pair for case in suite.cases if case.shifted and case.family in suite.benign}
    for i, case in enumerate(suite.cases):
        if case.shifted and case.family in suite.benign:
            groups[ALL].append(i)
            groups.setdefault(case.family, []).append(i)
        elif groups and not case.shifted and case.pair in pairs:
            groups.setdefault(case.family, []).append(i)
    rows: list[Row] = []
    for name, values in p_values.items():
        if values.numel() != len(suite.cases):
            raise UsageError(f"{name!r} has {values.numel()} p-values for {len(suite.cases)} cases; give one a case")
        for family, members in groups.items():
            clean = family != ALL and not suite.cases[members[0]].shifted
            for alpha in rates if members else ():
                alarms = int((values[members].double() <= alpha + SLACK).sum())
                box = wilson(alarms, len(members))
                rows.append(
                    Row(
                        suite=suite.name,
                        family=family,
                        dose=0.0 if clean else 1.0,
                        negatives="none",
                        detector=name,
                        kind=kinds[name],
                        metric=alarm_metric(alpha),
                        against="",
                        best_baseline=False,
                        selection="",
                        estimate=box.estimate,
                        low=box.low,
                        high=box.high,
                        n_shifted=0 if clean else len(members),
                        n_clean=len(members) if clean else 0,
                        n_pairs=len(members),
                        seed=seed,
                        method=box.method,
                    )
                )
    return rows
