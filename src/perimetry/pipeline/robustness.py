"""`perimetry study robustness`: does tuning move the limit, and is it the meter that moved it?"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from perimetry import __version__
from perimetry.activations.twins import Row, Twin, TwinRows, encode_twin
from perimetry.errors import Diverged, UsageError
from perimetry.evals.sae.pooled import difference_over_seeds, over_seeds
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Units, difference, interval
from perimetry.pipeline.begun import require_same
from perimetry.pipeline.claims import judged
from perimetry.pipeline.robustify_parts import (
    guard_rows,
    read_passages,
    selection_scores,
    shift_of,
    train_twins,
)
from perimetry.pipeline.robustness_config import ARMS, BASE, CLAIMS, RobustnessConfig
from perimetry.pipeline.robustness_judge import METRICS, Bench, Reference, judge, make_bench, reference
from perimetry.report import keep_results
from perimetry.robust.adapter import Tunable
from perimetry.robust.finetune import tune
from perimetry.robust.guard import Guard
from perimetry.robust.objectives import Objective, Place
from perimetry.robust.passes import run
from perimetry.robust.selection import choose
from perimetry.robust.texts import draw_twins, tokens_of
from perimetry.runtime import fingerprint
from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE
from perimetry.sae.controls import untrained
from perimetry.shift.meter import Meter
from perimetry.storage import lock, read_json, remove_stale, write_json

__all__ = ["RobustnessRow", "judged_claims", "rows_of", "run_robustness"]

BEGUN = "robustness.json"
Found = dict[tuple[str, int], list[Units]]
"""What each arm gave under each seed."""


class RobustnessRow(NamedTuple):
    """One number of an arm, or how far one arm is above another."""

    arm: str
    """Name in `ARMS`."""
    against: str
    """Arm that is subtracted; empty where none is."""
    seed: int | None
    """Seed; None is all of them."""
    metric: str
    """Name in `METRICS`."""
    case: str
    """Perturbation, judge and detector, or kind of question; empty where the number has none."""
    estimate: float
    """The number, or the difference."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    n: int
    """Independent units."""
    p_value: float | None
    """Of a difference."""
    method: str
    """How the interval was made."""


def run_robustness(
    config: RobustnessConfig,
    meter: Meter,
    judges: Mapping[str, Meter],
    out: Path,
    *,
    command: str = "perimetry study robustness",
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Tune and judge every arm under every seed, and return what `out/results.json` holds.

    `judges`: meters of other seeds or layers on the same loaded model. Killed at any moment, the same call goes on at the last
    checkpoint of the arm that was being tuned. Errors: `ConfigError` when `out` holds another study, `UsageError` for a judge on
    another model, and those of tuning; an arm that diverges is reported as such and left out.
    """
    for name, one in judges.items():
        if one.lm is not meter.lm:
            raise UsageError(
                f"the judge {name!r} has a model of its own; load it with the model of the meter, lm=meter.lm"
            )
    with lock(out):
        remove_stale(out)
        require_same(config, out / BEGUN, "a study of robustness")
        say("texts, questions, and what the untuned model makes of them")
        texts = read_passages(meter.lm, config.data, progress=progress)
        bench = make_bench(config, {"own": meter, **judges}, texts, progress=progress)
        before = reference(bench, meter.lm, progress=progress)
        found: Found = {(BASE, 0): _kept(out / "parts" / "base.json", lambda: judge(bench, meter.lm, BASE, before))}
        refused: list[dict[str, Any]] = []
        shelf = Shelf(out / "parts" / "scores")
        jobs = [(arm, seed) for seed in config.seeds for arm in config.arms if arm != BASE]
        for number, (arm, seed) in enumerate(jobs, 1):
            say(f"{number}/{len(jobs)}  {arm}, seed {seed}: {ARMS[arm].said}")
            try:
                found[arm, seed] = _kept(
                    out / "parts" / f"{arm}-{seed}.json",
                    lambda arm=arm, seed=seed: _one(
                        bench, meter, arm, seed, before, out / "runs" / f"{arm}-{seed}", shelf, progress
                    ),
                )
            except Diverged as error:
                refused.append({"arm": arm, "seed": seed, "why": str(error)})
        return keep_results(_results(bench, meter, found, refused) | {"command": command}, out)


def _kept(file: Path, make: Callable[[], list[Units]]) -> list[Units]:
    """What `file` holds, or what `make` gives once it is there."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, [units.to_json() for units in make()], indent=None)
    return [Units.of_json(plain) for plain in read_json(file)]


def _one(
    bench: Bench, meter: Meter, arm: str, seed: int, before: Reference, folder: Path, shelf: Shelf, progress: bool
) -> list[Units]:
    """Tune one arm under one seed and judge it; the model is untuned again afterwards."""
    config, place = bench.config.run_config(arm, seed), Place(meter.extractor.tap.layer, meter.policy)
    twins = _twins(bench, meter, arm, seed, shelf, progress)
    clean = [twin.clean for twin in _encoded(meter, [Twin(p.id, p.text, p.text) for p in bench.texts.train])]
    pull = shift_of(config.tune, _dictionary(arm, meter, seed, clean), meter.extractor, clean, config.shift_tokens)
    tunable = Tunable(meter.lm, config.tune, place.layer)
    try:
        guard = Guard(tunable, guard_rows(meter.lm, bench.texts, meter.policy), place, config.tune.tokens)
        tune(tunable, Objective(place, config.tune, pull), twins, guard, folder)
        return judge(bench, meter.lm, arm, before, progress=progress)
    finally:
        tunable.remove()


def _encoded(meter: Meter, twins: Sequence[Twin]) -> list[TwinRows]:
    return [encode_twin(meter.lm, twin, meter.policy) for twin in twins]


def _twins(bench: Bench, meter: Meter, arm: str, seed: int, shelf: Shelf, progress: bool) -> list[TwinRows]:
    """The pairs that an arm is tuned on; scores of the pool are made once for all selections of a seed."""
    config = bench.config
    how = ARMS[arm].selection
    if not how:
        return _encoded(meter, train_twins(bench.texts, config.run_config(arm, seed)))
    pool = draw_twins(bench.texts.train[: config.pool], config.data.kinds, config.pool_doses, seed)
    rows = _encoded(meter, pool)
    key = {"meter": meter.digest, "model": meter.lm.revision, "pool": [list(twin) for twin in pool]}
    scores = {} if how == "random" else shelf.get(key, lambda: selection_scores(meter, pool, progress=progress))
    budget = int(config.pool_share * tokens_of(rows))
    return [rows[i] for i in choose(how, scores, [len(r.corrupted.ids) for r in rows], budget, seed).rows]


def _dictionary(arm: str, meter: Meter, seed: int, clean: Sequence[Row]) -> AbstractSAE | None:
    """What the shift term of an arm reads. Errors: `UsageError` for an SAE without an untrained twin."""
    kind = ARMS[arm].dictionary
    if kind != "random":
        return meter.sae if kind == "own" else None
    if not isinstance(meter.sae, AffineSAE):
        raise UsageError(
            f"an SAE of the architecture {meter.sae.architecture!r} has no untrained twin for the control; use a meter with an encoder "
            "matrix, such as batchtopk"
        )
    layer, policy = meter.extractor.tap.layer, meter.policy
    with torch.no_grad():
        found = [
            run(meter.lm, clean[i : i + 8], layer, policy, to_the_end=False) for i in range(0, min(64, len(clean)), 8)
        ]
    acts = torch.cat([part.residual[part.counts].float() for part in found])
    fires = (meter.sae(acts).codes.values != 0).sum(1).double().mean()
    return untrained(meter.sae, seed + 1, acts, max(1, round(float(fires))))


def rows_of(found: Found) -> list[RobustnessRow]:
    """Every number of every arm and seed, of all seeds together, and minus those of the arms that it is compared with."""
    rows: list[RobustnessRow] = []
    arms = list(dict.fromkeys(arm for arm, _ in found))
    by_arm = {
        arm: {seed: {_key(u): u for u in units} for (a, seed), units in found.items() if a == arm} for arm in arms
    }
    for arm, seeds in by_arm.items():
        for seed, units in seeds.items():
            rows += [
                _row(arm, "", None if arm == BASE else seed, u, interval(u)._asdict() | {"p_value": None})
                for u in units.values()
            ]
        for key in _common(seeds) if arm != BASE else []:
            mine = [units[key] for units in seeds.values()]
            rows.append(_row(arm, "", None, mine[0], over_seeds(mine)._asdict() | {"p_value": None}))
    for arm, against in _compared(arms):
        rows += _differences(arm, against, by_arm)
    return rows


def _compared(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Every arm with the base, and the pairs that the claims name."""
    pairs = [(arm, BASE) for arm in arms if arm != BASE] + [(c.arm, c.against) for c in CLAIMS if c.against]
    return [(one, other) for one, other in dict.fromkeys(pairs) if one in arms and other in arms]


def _differences(
    arm: str, against: str, by_arm: Mapping[str, dict[int, dict[tuple[str, str], Units]]]
) -> list[RobustnessRow]:
    first, second = by_arm[arm], by_arm[against]
    # There is one untuned model, whatever the seed.
    second = dict.fromkeys(first, second[0]) if against == BASE else second
    seeds = [seed for seed in first if seed in second]
    rows: list[RobustnessRow] = []
    if not seeds:
        return rows
    for key in _common({s: first[s] for s in seeds}):
        if any(key not in second[s] for s in seeds):
            continue
        pairs = [(first[s][key], second[s][key]) for s in seeds]
        for seed, (one, other) in zip(seeds, pairs, strict=True):
            rows.append(_row(arm, against, seed, one, difference(one, other)._asdict()))
        whole = difference_over_seeds(*(list(side) for side in zip(*pairs, strict=True)))
        rows.append(_row(arm, against, None, pairs[0][0], whole._asdict()))
    return rows


def _key(units: Units) -> tuple[str, str]:
    return units.cell.metric, units.cell.case


def _common(seeds: Mapping[int, Mapping[tuple[str, str], Units]]) -> list[tuple[str, str]]:
    first, *others = seeds.values()
    return [key for key in first if all(key in other for other in others)]


def _row(arm: str, against: str, seed: int | None, units: Units, box: Mapping[str, Any]) -> RobustnessRow:
    kept = {name: box[name] for name in ("estimate", "low", "high", "n", "p_value", "method")}
    return RobustnessRow(arm, against, seed, units.cell.metric, units.cell.case, **kept)


def judged_claims(rows: Sequence[RobustnessRow], first: str) -> list[dict[str, Any]]:
    """Each claim whose arms were measured: `holds` where the whole interval over all seeds lies on its side of the bound, `fails`
    where on the other, else `open`. `first`: the perturbation that stands in front."""
    found: list[dict[str, Any]] = []
    for claim in CLAIMS:
        case = first if claim.case == "first" else claim.case
        mine = [
            r for r in rows if (r.arm, r.against, r.metric, r.case) == (claim.arm, claim.against, claim.metric, case)
        ]
        said = judged(mine, claim.sign, claim.bound)
        if said is not None:
            found.append({**claim._asdict(), "case": case, **said})
    return found


def _results(bench: Bench, meter: Meter, found: Found, refused: Sequence[dict[str, Any]]) -> dict[str, Any]:
    config, rows = bench.config, rows_of(found)
    return {
        "kind": "robustness",
        "title": f"Does tuning move the limit of {meter.lm.name}?",
        "subtitle": f"{len(config.arms)} arms, {len(config.seeds)} seeds, {config.data.tune.updates} updates of {config.data.tune.batch} pairs",
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": [row._asdict() for row in rows],
        "claims": judged_claims(rows, config.first.case),
        "metrics": {name: metric._asdict() for name, metric in METRICS.items()},
        "arms": {name: ARMS[name].said for name in (BASE, *(a for a in config.arms if a != BASE))},
        "judges": {name: f"block {m.extractor.tap.layer}, SAE seed {m.info.seed}" for name, m in bench.judges.items()},
        "refused": list(refused),
        "configuration": config.model_dump(mode="json"),
    }
