"""Where the subject of a prompt ends, in tokens."""

import pytest

from perimetry.activations.model import LanguageModel
from perimetry.activations.prompts import token_text
from perimetry.editing.requests import EditRequest, keyed_row, prefix_rows, slot
from perimetry.errors import ConfigError, PromptTooLong


def shown(lm: LanguageModel, ids: list[int]) -> str:
    return "".join(token_text(lm, i) for i in ids)


def test_the_key_is_the_last_token_of_the_subject(tiny_lm: LanguageModel) -> None:
    row = keyed_row(tiny_lm, "the land of {} is", "France", answer=" Rome")
    assert shown(tiny_lm, row.ids) == "the land of France is Rome"
    assert shown(tiny_lm, row.ids[: row.key + 1]) == "the land of France"
    assert shown(tiny_lm, row.ids[-row.answer :]) == " Rome"
    last = keyed_row(tiny_lm, "we went to {}", "Rome", bos=True)
    assert (last.ids[0], last.key, last.answer) == (tiny_lm.bos_id, len(last.ids) - 1, 0)
    first = keyed_row(tiny_lm, "{} is a", "the", prefix="before. ")
    assert shown(tiny_lm, first.ids[: first.key + 1]) == "before. the"


def test_prefixes_move_the_key_along(tiny_lm: LanguageModel) -> None:
    request = EditRequest(prompt="the land of {} is", subject="France", target="Rome")
    plain, moved = prefix_rows(tiny_lm, request, ["", "a child"], answer=True)
    assert plain == keyed_row(tiny_lm, request.prompt, "France", answer="Rome")
    assert shown(tiny_lm, moved.ids) == "a child. the land of France is Rome"
    assert shown(tiny_lm, moved.ids[: moved.key + 1]) == "a child. the land of France"


def test_what_is_refused(tiny_lm: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="does not name the subject"):
        slot("The capital is", "France")
    assert slot("France: the capital of France is", "France") == "France: the capital of {} is"
    assert slot("The capital of {} is", "France") == "The capital of {} is"
    with pytest.raises(ValueError, match="once"):
        EditRequest(prompt="The capital is", subject="France", target="Rome")
    with pytest.raises(PromptTooLong, match="the context holds 128"):
        keyed_row(tiny_lm, "a {} " + "x y " * 100, "b")
