"""Clean text in three disjoint parts."""

import re

import pytest
from tests.worlds import text_of

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.assets import Document
from perimetry.config import build
from perimetry.errors import ConfigError, PromptTooLong, TooFewSamples, UsageError
from perimetry.shift.clean import CleanParts, MeterConfig, cut_passages, split_clean
from perimetry.shift.evidence import Extractor, Prompt

LONG = [Document(f"d{i}", text_of(i, 150), {}) for i in range(60)]
SHORT = [Document(f"s{i}", text_of(i, 12), {}) for i in range(200)]
SMALL = {"profile_tokens": 1000, "reference_tokens": 500, "calibration_prompts": 20, "words_low": 5, "words_high": 20}


@pytest.fixture(scope="module")
def extractor(tiny_lm: LanguageModel) -> Extractor:
    return Extractor(tiny_lm, 1, TokenPolicy().fitted(1e9))


def config(**changes: object) -> MeterConfig:
    return build(MeterConfig, SMALL | changes, "test")


def documents_of(prompts: list[Prompt]) -> set[str]:
    return {p.id.partition("#")[0] for p in prompts}


@pytest.mark.parametrize(("documents", "passages"), [(LONG, True), (SHORT, False)])
def test_no_document_is_in_two_parts(extractor: Extractor, documents: list[Document], passages: bool) -> None:
    parts = split_clean(extractor, documents, config(), passages=passages)
    sets = [documents_of(part) for part in parts]
    assert all(sets)
    assert len(sets[0] | sets[1] | sets[2]) == sum(map(len, sets))
    assert len(parts.calibration) == 20
    assert sum(sum(p.encoded.countable) for p in parts.profile) >= 1000
    assert sum(sum(p.encoded.countable) for p in parts.reference) >= 500


def ids(parts: CleanParts) -> list[list[str]]:
    return [[p.id for p in part] for part in parts]


def test_the_split_depends_on_the_seed_and_not_on_the_order(extractor: Extractor) -> None:
    one = split_clean(extractor, LONG, config(), passages=True)
    two = split_clean(extractor, LONG[::-1], config(), passages=True)
    other = split_clean(extractor, LONG, config(seed=1), passages=True)
    assert ids(one) == ids(two)
    assert ids(one) != ids(other)


def test_a_calibration_document_gives_one_prompt_only(extractor: Extractor) -> None:
    parts = split_clean(extractor, LONG, config(), passages=True)
    assert len(documents_of(parts.calibration)) == len(parts.calibration)


def test_prompts_are_taken_as_they_stand(extractor: Extractor) -> None:
    parts = split_clean(extractor, SHORT, config(), passages=False)
    texts = {d.id: d.text for d in SHORT}
    for part in parts:
        assert all(p.text == texts[p.id] for p in part)


def test_passages_are_whole_words_of_the_document() -> None:
    found = cut_passages(LONG, 5, 20, 0)
    texts = {d.id: d.text for d in LONG}
    assert len(found) == len(LONG)
    for name, text in found:
        document, _, first = name.partition("#")
        words = texts[document].split()
        mine = text.split()
        assert 5 <= len(mine) <= 20
        assert words[int(first) : int(first) + len(mine)] == mine
    assert found == cut_passages(LONG, 5, 20, 0)
    assert found != cut_passages(LONG, 5, 20, 1)


def test_passage_lengths_are_uniform_in_their_logarithm() -> None:
    many = [Document(str(i), "w " * 300, {}) for i in range(2000)]
    lengths = [len(text.split()) for _, text in cut_passages(many, 10, 160, 3)]
    # log-uniform over four doublings: a quarter in each.
    for low in (10, 20, 40, 80):
        share = sum(low <= n < 2 * low for n in lengths) / len(lengths)
        assert 0.21 < share < 0.29


def test_short_documents_give_all_or_nothing() -> None:
    documents = [Document("short", "only four words here", {}), Document("six", "one two three four five six", {})]
    found = {name.partition("#")[0]: text for name, text in cut_passages(documents, 5, 200, 0)}
    assert set(found) == {"six"}
    assert 5 <= len(found["six"].split()) <= 6


def test_too_little_text_says_how_much_there_is(extractor: Extractor) -> None:
    wanted = "7 texts give 7 calibration prompts and leave 0 for the profile; 20 are wanted"
    with pytest.raises(TooFewSamples, match=wanted):
        split_clean(extractor, SHORT[:7], config(), passages=False)
    with pytest.raises(TooFewSamples, match="leave 1 for the profile"):
        split_clean(extractor, SHORT[:21], config(), passages=False)


def test_ids_must_differ(extractor: Extractor) -> None:
    with pytest.raises(UsageError, match="1 texts share an id with another one"):
        split_clean(extractor, [*SHORT, SHORT[0]], config(), passages=False)


def test_long_prompts_are_refused_and_long_passages_left_out(extractor: Extractor) -> None:
    huge = [Document(f"h{i}", "x" * 400 + " " + text_of(i, 30), {}) for i in range(60)]
    with pytest.raises(PromptTooLong, match=re.escape("shorten or remove it, or cut the texts with --passages")):
        split_clean(extractor, huge, config(), passages=False)
    parts = split_clean(extractor, huge, config(), passages=True)
    assert all(len(p.encoded.ids) <= 128 and not p.encoded.truncated for part in parts for p in part)


def test_the_config_refuses_what_cannot_work() -> None:
    with pytest.raises(ConfigError, match=r"calibration_prompts = 3: Input should be greater than or equal to 20"):
        config(calibration_prompts=3)
    with pytest.raises(ConfigError, match=r"unknown key 'mian'; the nearest key is 'main'"):
        config(mian="l0")
    with pytest.raises(ConfigError, match=r"words_low = 30 exceeds words_high = 20"):
        config(words_low=30)
