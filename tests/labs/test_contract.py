"""What every lab in the table promises, on its tiny preset."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from perimetry.labs import LABS
from perimetry.labs.base import AbstractLab, Job, with_seeds
from perimetry.labs.running import failed, run_lab

WHOLE = pytest.mark.parametrize("lab", LABS.values(), ids=list(LABS))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    return {}


@pytest.fixture
def ran(
    lab: AbstractLab, runs: dict[str, tuple[Path, dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    if lab.name not in runs:
        out = tmp_path_factory.mktemp(lab.name)
        runs[lab.name] = out, run_lab(lab, lab.presets["tiny"], out)
    return runs[lab.name]


@WHOLE
def test_its_controls_behave(lab: AbstractLab, ran: tuple[Path, dict[str, Any]]) -> None:
    _, results = ran
    controls = [one for one in results["claims"] if one["control"]]
    assert controls, "a lab without a negative control shows nothing"
    assert failed(results) == []
    assert all(one["decides"] == one["control"] for one in results["claims"])


@WHOLE
def test_every_number_is_finite_and_lies_in_its_interval(lab: AbstractLab, ran: tuple[Path, dict[str, Any]]) -> None:
    _, results = ran
    assert results["rows"]
    for row in results["rows"]:
        assert math.isfinite(row["estimate"])
        assert row["low"] <= row["estimate"] <= row["high"]


@WHOLE
def test_each_figure_lies_beside_its_data(lab: AbstractLab, ran: tuple[Path, dict[str, Any]]) -> None:
    out, results = ran
    assert results["panels"]
    for panel in results["panels"]:
        assert (out / "figures" / f"{panel['name']}.png").read_bytes().startswith(b"\x89PNG")
        points = (out / "figures" / f"{panel['name']}.csv").read_text().splitlines()
        assert len(points) > sum(len(line["xs"]) > 0 for line in panel["lines"])


@WHOLE
def test_the_same_job_gives_the_same_numbers(
    lab: AbstractLab, ran: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, results = ran
    job = lab.jobs(lab.presets["tiny"])[-1]
    part = out / "parts" / f"{job.arm}-{job.seed}.json"
    before = part.read_bytes()
    part.unlink()
    again = run_lab(lab, lab.presets["tiny"], out)
    assert part.read_bytes() == before
    assert again["rows"] == results["rows"]


@WHOLE
def test_expectations_are_of_what_is_measured(lab: AbstractLab, ran: tuple[Path, dict[str, Any]]) -> None:
    _, results = ran
    arms = {row["arm"] for row in results["rows"]}
    measured = {(row["arm"], row["metric"], row["case"]) for row in results["rows"]}
    tiny = lab.presets["tiny"]
    # What the small worlds cannot give, and only that.
    small = {
        "swing-by": ("0.02", "0.1"),
        "markov-mixture": ("context 5", "context 25", "context 100", "after the transition"),
        "safety-finetuning": ("complied", "refused", "success"),
    }
    for one in lab.expected:
        known = {job.arm for preset in ("quick", "paper") for job in lab.jobs(lab.presets[preset])}
        assert one.arm in known | {job.arm for job in lab.jobs(tiny)}, one
        assert (one.least, one.most) != (None, None), one
        if one.arm in arms and not (one.case.endswith(small.get(lab.name, ("nothing",))) and not one.control):
            assert (one.arm, one.metric, one.case) in measured, one
    for column in (column for one in lab.asked for column in one.columns if column.arm in arms):
        cases = {column.case.format(score=score) for one in lab.asked for score in one.scores}
        if not column.case.endswith(small.get(lab.name, ("nothing",))):
            assert any((column.arm, column.metric, case) in measured for case in cases), column


@WHOLE
def test_presets_and_seeds(lab: AbstractLab, ran: tuple[Path, dict[str, Any]]) -> None:
    assert set(lab.presets) == {"tiny", "quick", "paper"}
    assert lab.presets["quick"].judged == "all"
    judged = {one.arm for one in lab.expected} | {column.arm for one in lab.asked for column in one.columns}
    seeds = {arm: [job.seed for job in lab.jobs(lab.presets["quick"]) if job.arm == arm] for arm in judged}
    assert all(len(own) in (0, *range(3, 99)) for own in seeds.values()), "an expectation is held against three seeds"
    jobs = lab.jobs(with_seeds(lab.presets["quick"], 2))
    assert {job.seed for job in jobs} == {0, 1}
    assert len(set(jobs)) == len(jobs)
    assert all(isinstance(job, Job) for job in jobs)
    json.dumps([one._asdict() for one in lab.expected])
