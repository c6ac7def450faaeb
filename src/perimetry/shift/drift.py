"""Whether a window of readings was drawn as the calibration prompts were: drift of the traffic, not of one prompt.

Four tests of one window, each exact or conservative when its prompts are exchangeable with the calibration prompts:

* `score`: two-sample Kolmogorov-Smirnov test of the main score. A change in the mix of lengths counts as drift.
* `p_value`: the same for the p-values, within groups of like length. Conformal p-values of a window all share one
  calibration set, so against the uniform distribution alone they would look drifted as soon as the window outgrows the
  calibration; here the calibration prompts are ranked with them and labels are permuted within groups. A change in the
  mix of lengths alone is no drift.
* `scores`: maximum mean discrepancy of all scores together (see `drift_tests`).
* `alarms`: more alarms than the false-alarm rate explains, against the exact law of that number.

A window drifts when the smallest of the four p-values, times four, is at most its share of the budget. Windows share one
reference and so depend on each other; Bonferroni's split of the budget over windows holds whatever the dependence
(Dunn 1961), and where their number is unknown `spending` gives window k the share 1 / (k (k + 1)) (alpha spending over an
unbounded sequence; the shares sum to one).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.config import Config
from perimetry.errors import ModelMismatch, TooFewSamples, UsageError
from perimetry.runtime import generator
from perimetry.shift.conformal import Calibration
from perimetry.shift.drift_alarms import AlarmBudget, Stratum, alarm_budget
from perimetry.shift.drift_effects import Effect, effects
from perimetry.shift.drift_taps import TapScores, make_alike
from perimetry.shift.drift_tests import DriftTest, ks_score, ks_within_groups, mmd
from perimetry.shift.reading import Reading

__all__ = ["DriftConfig", "DriftReference", "WindowDrift", "drift", "spending"]

TESTS = 4
LEAST = 8


class DriftConfig(Config):
    """How windows of readings are judged."""

    alpha: float = 0.05
    """False-alarm rate of single prompts, at which alarms are counted; whatever the readings were made with."""
    budget: float = 0.05
    """Chance of one or more false drift alarms over all windows together."""
    window: int | None = None
    """Prompts of a window, in the order in which they come; None takes all of them as one. A rest shorter than half a
    window joins the one before."""
    permutations: int = 999
    """Relabellings of a permutation test; more are drawn where the budget of a window asks for smaller p-values."""
    resamples: int = 500
    """Bootstrap resamples of the effect sizes."""
    scores: tuple[str, ...] | None = None
    """The scores that are compared together; None takes all that the readings carry."""
    seed: int = 0
    """Of permutations, features and bootstraps."""


@final
class DriftReference:
    """What windows are compared with: scores of clean prompts, one row a prompt."""

    def __init__(
        self,
        calibration: Calibration,
        main: str,
        digest: str,
        *,
        joint: dict[str, Float[Tensor, " prompt"]] | None = None,
        taps: TapScores | None = None,
    ) -> None:
        """`joint`: scores of clean readings made later, for a meter too old to know which of its scores go together.

        `taps`: where the main score is made of ranks in several taps, the scores behind those of the clean prompts.
        """
        self.calibration = calibration
        self.main = main
        self.digest = digest
        self.joint = joint
        self.taps = taps

    def rows(self, names: Sequence[str]) -> Float[Tensor, "prompt score"]:
        """Several scores of each clean prompt. Errors: `UsageError` for a meter that did not keep them."""
        if self.joint is not None and set(names) <= self.joint.keys():
            return torch.stack([self.joint[name] for name in names], 1)
        found = self.calibration.joint(names)
        if found is None:
            missing = [n for n in names if n not in self.calibration.scores]
            why = f"has no {', '.join(missing)}" if missing else "did not keep which scores go together"
            raise UsageError(
                f"the meter {why}, so its prompts cannot be compared in several scores at once; calibrate again, or give "
                "clean readings with --reference"
            )
        return found

    def check(self, readings: Iterable[Reading]) -> None:
        """Refuse readings of another meter or another main score. Errors: `ModelMismatch`, `UsageError`."""
        for reading in readings:
            if reading.meter != self.digest:
                raise ModelMismatch(
                    f"reading {reading.id!r} was made by meter {reading.meter[:12]}, and this is meter {self.digest[:12]}; "
                    "give the meter that made the readings, or read the prompts again"
                )
            if reading.detector != self.main:
                raise UsageError(
                    f"reading {reading.id!r} judges by {reading.detector!r}, and the meter by {self.main!r}; read the "
                    "prompts again with this meter"
                )
            wanted = () if self.taps is None else self.taps.names
            if set(reading.taps or {}) != set(wanted):
                raise UsageError(
                    f"reading {reading.id!r} carries the taps {', '.join(reading.taps or {}) or 'none'}, and the meter has "
                    f"{', '.join(wanted) or 'none'}; read the prompts again with this meter"
                )

    def beside(self, readings: list[Reading], alpha: float) -> "tuple[DriftReference, list[Reading]]":
        """The clean side and the readings, comparable: where the score is made of ranks in several taps, it is made anew."""
        if self.taps is None:
            return self, readings
        found = make_alike(self.taps, self.main, readings, alpha)
        joint = (self.joint or {}) | {self.main: found.clean}
        return DriftReference(found.calibration, self.main, self.digest, joint=joint, taps=self.taps), found.readings


class WindowDrift(NamedTuple):
    """What one window says."""

    number: int
    """0 for the first window."""
    first: str
    """Id of its first prompt."""
    last: str
    """Id of its last prompt."""
    prompts: int
    """Distinct prompts in it."""
    repeats: int
    """Readings left out because their id had come before in the window: one prompt counts once."""
    tests: tuple[DriftTest, ...]
    """The tests."""
    effects: tuple[Effect, ...]
    """Size and direction for each score, the main score first."""
    alarms: AlarmBudget
    """Alarms of single prompts, expected and found."""
    p_value: float
    """Smallest p-value of the tests, times their number: chance of such a window without drift."""
    level: float
    """Its share of the budget."""
    drifted: bool
    """Whether `p_value` is at most `level`."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict() | {
            "tests": [t._asdict() for t in self.tests],
            "effects": [
                {"score": e.score, "cliff": e.cliff._asdict(), "hedges": e.hedges._asdict()} for e in self.effects
            ],
            "alarms": self.alarms._asdict() | {"interval": self.alarms.interval._asdict()},
        }


def spending(budget: float, index: int) -> float:
    """The share of the budget of window `index` (from 0) in a sequence without an end: budget / ((k + 1) (k + 2)).

    >>> [round(spending(0.06, k), 4) for k in range(3)]
    [0.03, 0.01, 0.005]
    """
    return budget / ((index + 1) * (index + 2))


def _windows(readings: Sequence[Reading], size: int | None) -> list[Sequence[Reading]]:
    if size is None or size >= len(readings):
        return [readings]
    cuts = list(range(0, len(readings), size))
    if len(readings) - cuts[-1] < size / 2:
        cuts.pop()
    return [readings[a:b] for a, b in zip(cuts, [*cuts[1:], len(readings)], strict=True)]


def drift(
    reference: DriftReference, readings: Sequence[Reading], config: DriftConfig | None = None
) -> Iterator[WindowDrift]:
    """Judge windows in a row, as they come; the budget is split evenly over them.

    With `main` as the only score of the readings the third test sees that one alone. Errors: `TooFewSamples` for a
    window of fewer than 8 distinct prompts, `ModelMismatch`, `UsageError`, `ConfigError`.
    """
    config = config or DriftConfig()
    _check(config, readings)
    reference.check(readings)
    names = _names(reference, readings, config)
    reference.rows(names)
    windows = _windows(readings, config.window)
    for index, window in enumerate(windows):
        yield _judge(reference, names, window, index, config.budget / len(windows), config)


def _check(config: DriftConfig, readings: Sequence[Reading]) -> None:
    for name, value in (("alpha", config.alpha), ("budget", config.budget)):
        if not 0 < value < 1:
            raise UsageError(f"{name} is {value}; a rate between 0 and 1 is wanted, such as 0.05")
    if config.window is not None and config.window < LEAST:
        raise TooFewSamples(f"a window of {config.window} prompts is too small to judge; give at least {LEAST}")
    if config.permutations < 99:
        raise UsageError(f"{config.permutations} permutations say too little; give at least 99, such as 999")
    if not readings:
        raise TooFewSamples(f"there are no readings; at least {LEAST} are wanted; run perimetry score first")


def _names(reference: DriftReference, readings: Sequence[Reading], config: DriftConfig) -> list[str]:
    carried = [n for n in readings[0].scores if all(n in r.scores for r in readings)]
    missing = [n for n in config.scores or () if n not in carried]
    if missing:
        raise UsageError(
            f"not every reading carries {', '.join(missing)}; those that all carry: {', '.join(carried)}; run perimetry "
            f"score with --detectors {','.join(missing)}"
        )
    return list(dict.fromkeys([reference.main, *(config.scores or carried)]))


def _judge(
    reference: DriftReference,
    names: Sequence[str],
    window: Sequence[Reading],
    index: int,
    level: float,
    config: DriftConfig,
) -> WindowDrift:
    kept = list({r.id: r for r in reversed(window)}.values())[::-1]
    if len(kept) < LEAST:
        raise TooFewSamples(
            f"window {index} holds {len(kept)} prompts with an id of their own ({len(window)} readings); at least {LEAST} "
            "are wanted; give larger windows, and each prompt its own id"
        )
    draw = generator(config.seed * 1_000_003 + index)
    reference, kept = reference.beside(kept, config.alpha)
    clean = reference.rows(names)
    seen = torch.tensor([[r.scores[n] for n in names] for r in kept])
    strata = _strata(reference, kept, config.alpha)
    # A test of which one in TESTS can decide must be able to reach its share of the level.
    most = max(config.permutations, int(2 * TESTS / level))
    alarms = alarm_budget(strata, config.alpha, two_sided=reference.main in reference.calibration.two_sided)
    tests = (
        ks_score(clean[:, 0], seen[:, 0]),
        ks_within_groups([(s.clean, s.seen) for s in strata if not s.fallback], draw, most),
        mmd(clean, seen, draw, permutations=most),
        DriftTest("alarms", alarms.excess, alarms.p_value),
    )
    p = min(1.0, TESTS * min(t.p_value for t in tests))
    return WindowDrift(
        number=index,
        first=kept[0].id,
        last=kept[-1].id,
        prompts=len(kept),
        repeats=len(window) - len(kept),
        tests=tests,
        effects=tuple(effects(names, clean, seen, draw, config.resamples)),
        alarms=alarms,
        p_value=p,
        level=level,
        drifted=p <= level,
    )


def _strata(reference: DriftReference, readings: Sequence[Reading], alpha: float) -> list[Stratum]:
    table = reference.calibration.scores[reference.main]
    members: dict[tuple[str, bool], list[Reading]] = {}
    for reading in readings:
        members.setdefault(("pooled" if reading.fallback else reading.group, reading.fallback), []).append(reading)
    unknown = sorted(group for group, _ in members if group not in table)
    if unknown:
        raise UsageError(f"the meter has no group {unknown[0]!r}; known: {', '.join(table)}; read the prompts again")
    return [
        Stratum(
            clean=table[group],
            seen=torch.tensor([r.score for r in found]),
            alarms=sum(r.p_value <= alpha for r in found),
            fallback=fallback,
        )
        for (group, fallback), found in sorted(members.items())
    ]
