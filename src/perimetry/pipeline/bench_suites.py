"""The suites of a benchmark, built from held-out text and from the assets."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from perimetry.activations.prompts import SURROGATES
from perimetry.activations.text import shuffled, take_split
from perimetry.assets import ASSETS, Document, read_texts
from perimetry.errors import UnknownName, UsageError
from perimetry.pipeline.bench_config import BenchConfig
from perimetry.shift.meter import Meter
from perimetry.suites import SUITES, Suite, SuiteInputs, benign_documents, read_suite

__all__ = [
    "PROMPT_SUITES",
    "TEST_SPLIT",
    "at_doses",
    "build_suites",
    "held_out",
    "is_dial",
    "not_held_out",
    "suite_names",
]

TEST_SPLIT = (0.95, 1.0)
"""Share of documents, by the hash of their id, that no training, profile or calibration of the demo ever sees."""
PROMPT_SUITES = frozenset({"domain", "encodings", "jailbreaks", "many_shot", "persuasion", "suffixes"})
"""Suites without a dial, whose size is `attacks_n`."""
BENIGN_MOST = 4000


def held_out(source: str, progress: bool) -> list[Document]:
    """The test split of an asset; all of a source of the user's own."""
    documents = list(read_texts(source, progress=progress))
    return take_split(documents, *TEST_SPLIT) if source in ASSETS else documents


def not_held_out(source: str, progress: bool) -> list[Document]:
    """All of an asset but its test split, for what is fitted; all of a source of the user's own."""
    documents = list(read_texts(source, progress=progress))
    return take_split(documents, 0.0, TEST_SPLIT[0]) if source in ASSETS else documents


def is_dial(suite: Suite) -> bool:
    """Whether a suite has several doses."""
    return len({case.dose for case in suite.cases if case.shifted}) > 1


def at_doses(suite: Suite, doses: Sequence[float]) -> Suite:
    """A dial suite without the cases of other doses; any other suite, and any suite where none is named, as it is.

    Errors: `UsageError` where nothing is left.
    """
    if not doses or not is_dial(suite):
        return suite
    kept = tuple(case for case in suite.cases if not case.shifted or case.dose in doses)
    if not any(case.shifted for case in kept):
        there = sorted({case.dose for case in suite.cases if case.shifted})
        raise UsageError(f"suite {suite.name!r} has no dose {list(doses)}; it has {there}; name some of these")
    rows = [row for row in suite.matching.get("doses", []) if row["dose"] in doses]
    return suite._replace(cases=kept, matching=suite.matching | ({"doses": rows} if rows else {}))


def _length(meter: Meter) -> Callable[[str], int]:
    tokenizer, most = meter.lm.plain_tokenizer, meter.lm.context

    def count(text: str) -> int:
        return min(len(tokenizer.encode(SURROGATES.sub("\ufffd", text), add_special_tokens=False).ids), most)

    return count


def _reader(progress: bool) -> Callable[[str], Iterable[Document]]:
    """Reads each source once, however many suites are made of it."""
    kept: dict[str, list[Document]] = {}

    def read(source: str) -> list[Document]:
        if source not in kept:
            kept[source] = list(read_texts(source, progress=progress))
        return kept[source]

    return read


def suite_names(config: BenchConfig) -> list[str]:
    """The suites of a config, in order. Errors: `UnknownName` with the nearest one, wherever in the config it stands."""
    wanted = list(SUITES) if "all" in config.suites else list(dict.fromkeys(config.suites))
    for name in (*wanted, *config.pairs, *config.damage):
        if name not in SUITES and not name.endswith(".jsonl"):
            raise UnknownName("suite", name, SUITES)
    return wanted


def build_suites(
    meter: Meter, config: BenchConfig, clean: Sequence[Document], *, progress: bool = False
) -> list[Suite]:
    """The suites of a config, built from held-out text. Errors: `UnknownName` with the nearest one, those of the suites."""
    wanted = suite_names(config)
    read = _reader(progress)
    attacks: list[Document] = []
    benign: list[Document] = []
    if "jailbreaks" in wanted:
        families = set(config.attack_families)
        attacks = [d for d in read(config.attacks) if not families or d.meta.get("family") in families]
        texts = list(read(config.benign))
        usable = benign_documents(texts) if config.benign in ASSETS else texts
        benign = shuffled(usable, f"benign:{config.seed}")[:BENIGN_MOST]
    length, limit = _length(meter), min(config.limit, meter.lm.context - 8)
    inputs = SuiteInputs(clean, attacks, benign, length, limit, config.words, config.passages, config.seed, read)

    def build(name: str) -> Suite:
        if name not in SUITES:
            return read_suite(Path(name))
        usual = config.attacks_n if name in PROMPT_SUITES else config.passages
        return at_doses(SUITES[name](inputs._replace(n=config.pairs.get(name, usual))), config.doses)

    suites = [build(name) for name in wanted]
    names = [suite.name for suite in suites]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two suites are called {name!r}; one name a suite is wanted; rename a file")
    return suites
