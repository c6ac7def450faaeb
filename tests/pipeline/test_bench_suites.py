"""Suites out of a config: every one of them, their sizes, their doses."""

import pytest
from tests.worlds import World, text_of, write_jsonl

from perimetry.assets import Document
from perimetry.config import build
from perimetry.errors import UnknownName, UsageError
from perimetry.pipeline import bench_suites
from perimetry.pipeline.bench_config import BenchConfig
from perimetry.pipeline.bench_suites import PROMPT_SUITES, at_doses, build_suites, is_dial
from perimetry.shift.meter import Meter
from perimetry.suites import SUITES, Case, Suite
from suites.samples import read

CLEAN = [Document(f"c{i}", text_of(f"c{i}", 300), {}) for i in range(20)]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the texts that were read, each a stand-in."""
    names: list[str] = []

    def stand_in(source: str, *, progress: bool = False) -> list[Document]:
        names.append(source)
        return read(source)

    monkeypatch.setattr(bench_suites, "read_texts", stand_in)
    return names


def config(**values: object) -> BenchConfig:
    return build(BenchConfig, {"words": 20, "passages": 9, "attacks_n": 12, "limit": 48, **values}, "test")


def test_all_means_every_suite_and_no_text_is_read_twice(
    meter: Meter, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The small model's context holds no dialogue of several turns; words are counted in place of its tokens.
    monkeypatch.setattr(bench_suites, "_length", lambda _: lambda text: len(text.split()))
    wanted = config(suites=("all",), attack_families=(), pairs={"domain": 16, "case": 10}, doses=(0.2, 1.0), limit=90)
    suites = {suite.name: suite for suite in build_suites(meter, wanted, CLEAN)}
    assert list(suites) == list(SUITES)
    assert len(opened) == len(set(opened))
    for name, suite in suites.items():
        assert is_dial(suite) == (len({c.dose for c in suite.cases if c.shifted}) > 1)
        if name not in PROMPT_SUITES:
            assert {c.dose for c in suite.cases if c.shifted} <= {0.2, 1.0}, name
            assert len({c.pair for c in suite.cases}) == {"case": 10}.get(name, 9)
            assert {row["dose"] for row in suite.matching["doses"]} <= {0.2, 1.0}
        else:
            most = {"domain": 16}.get(name, 12)
            assert 1 <= len({c.pair for c in suite.cases if c.shifted}) <= most, name
    assert {n for n, s in suites.items() if s.benign} == {"domain", "encodings"}
    assert all(family.endswith("/benign") for family in suites["encodings"].benign)
    assert set(suites["domain"].benign) == {c.family for c in suites["domain"].cases if c.shifted}


def test_doses_that_no_suite_has_are_named(meter: Meter) -> None:
    with pytest.raises(
        UsageError, match=r"suite 'typos' has no dose \[0.3\]; it has \[0.01, 0.02, 0.05, 0.1, 0.2, 0.5\]"
    ):
        build_suites(meter, config(suites=("typos",), doses=(0.3,)), CLEAN)


def test_a_suite_without_a_dial_keeps_its_cases() -> None:
    cases = (Case("a", "x", "p", "dan", 1.0, True), Case("b", "y", "p", "passage", 0.0, False))
    suite = Suite("jailbreaks", "Synthetic.", cases, {})
    assert at_doses(suite, (0.2,)) is suite


def test_names_of_suites_are_checked_wherever_they_stand(meter: Meter, world: World) -> None:
    for given in ({"suites": ("typo",)}, {"pairs": {"typo": 9}}, {"damage": ("typo",)}):
        with pytest.raises(UnknownName, match="unknown suite 'typo'; the nearest name is 'typos'"):
            build_suites(meter, config(**given), CLEAN)
    row = {"id": "s", "text": "x", "shifted": True, "pair": "1"}
    rows = [row, {**row, "id": "c", "shifted": False}]
    first = write_jsonl(world.root / "one.jsonl", rows)
    (world.root / "other").mkdir(exist_ok=True)
    second = write_jsonl(world.root / "other" / "one.jsonl", rows)
    with pytest.raises(UsageError, match="two suites are called 'one'"):
        build_suites(meter, config(suites=(str(first), str(second))), CLEAN)
