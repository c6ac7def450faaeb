import pytest

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.twins import Twin, encode_twin
from perimetry.errors import ConfigError, EmptyText, UsageError

CLEAN = "the cat sat on the mat and slept"
BAD = "the cta sat on thw mat and slept"


def words_at(lm: LanguageModel, ids: list[int]) -> str:
    return lm.plain_tokenizer.decode(ids)


def test_words_stand_side_by_side(tiny_lm: LanguageModel) -> None:
    found = encode_twin(tiny_lm, Twin("a", CLEAN, BAD), TokenPolicy())
    for row, ends, text in ((found.clean, found.ends[0], CLEAN), (found.corrupted, found.ends[1], BAD)):
        for number, end in enumerate(ends):
            said = words_at(tiny_lm, [i for i in row.ids[: end + 1] if i not in tiny_lm.special_ids])
            assert said == " ".join(text.split()[: number + 1])
    assert found.first == 1


def test_kept_tokens_are_those_of_untouched_words(tiny_lm: LanguageModel) -> None:
    found = encode_twin(tiny_lm, Twin("a", CLEAN, BAD), TokenPolicy())
    clean = [found.clean.ids[i] for i in found.kept[0]]
    assert clean == [found.corrupted.ids[i] for i in found.kept[1]]
    assert words_at(tiny_lm, clean) == "the sat on mat and slept"


def test_a_pair_without_a_difference_keeps_all(tiny_lm: LanguageModel) -> None:
    found = encode_twin(tiny_lm, Twin("a", CLEAN, CLEAN), TokenPolicy())
    assert found.kept[0] == found.kept[1]
    assert found.first == 8
    assert len(found.kept[0]) == sum(i not in tiny_lm.special_ids for i in found.clean.ids)


def test_pairs_that_cannot_be_laid_side_by_side_are_refused(tiny_lm: LanguageModel) -> None:
    with pytest.raises(UsageError, match="pair 'a' has 8 clean and 2 corrupted words"):
        encode_twin(tiny_lm, Twin("a", CLEAN, "the cat"), TokenPolicy())
    with pytest.raises(ConfigError, match="chat template"):
        encode_twin(tiny_lm, Twin("a", CLEAN, BAD), TokenPolicy(template="chat"))
    with pytest.raises(EmptyText, match="pair 'a'"):
        encode_twin(tiny_lm, Twin("a", " ", " "), TokenPolicy())
