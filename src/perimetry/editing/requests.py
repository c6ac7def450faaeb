"""What is to be edited: a prompt about a subject and the new answer, as rows of tokens with the place of the subject."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field, field_validator

from perimetry.activations.model import LanguageModel
from perimetry.config import Config
from perimetry.errors import ConfigError, PromptTooLong

__all__ = ["EditRequest", "KeyedRow", "keyed_row", "prefix_rows", "slot"]


def slot(prompt: str, subject: str) -> str:
    """The prompt with {} for its subject, which may stand in it by name. Errors: `ConfigError`.

    >>> slot("The capital of France is", "France")
    'The capital of {} is'
    """
    if prompt.count("{}") == 1:
        return prompt
    if "{}" not in prompt and subject and subject in prompt:
        before, _, after = prompt.rpartition(subject)
        return f"{before}{{}}{after}"
    raise ConfigError(
        f"the prompt {prompt!r} does not name the subject {subject!r} once; put {{}} where the subject stands"
    )


class EditRequest(Config):
    """One fact to be written into a model."""

    prompt: str
    """With {} where the subject stands, and without the answer: `The capital of {} is`."""
    subject: str = Field(min_length=1)
    """What the fact is about; its last token is the key."""
    target: str = Field(min_length=1)
    """The new answer."""
    neutral: str = "{} is a"
    """A prompt about the subject whose continuation is to stay as it is."""
    family: str = "own"
    """What kind of fact it is: the name of a ring, `capitals`, or one's own."""

    @field_validator("prompt", "neutral")
    @classmethod
    def _one_slot(cls, value: str) -> str:
        if value.count("{}") != 1:
            raise ValueError("put {} once, where the subject stands")
        return value

    @property
    def said(self) -> str:
        """In words."""
        return f"{self.prompt.format(self.subject)} -> {self.target.strip()}"


class KeyedRow(NamedTuple):
    """A text as the model reads it."""

    ids: list[int]
    """Vocabulary ids."""
    countable: list[bool]
    """True at every position."""
    key: int
    """Position of the last token of the subject."""
    answer: int
    """How many tokens at the end are the answer; 0 where there is none."""


def keyed_row(
    lm: LanguageModel, prompt: str, subject: str, *, answer: str = "", prefix: str = "", bos: bool = False
) -> KeyedRow:
    """Tokens of a prompt about a subject, after a prefix and before an answer; text and answer are tokenised together.

    Errors: `ConfigError` where subject or answer has no token of its own, `PromptTooLong`.
    """
    before, _, after = prompt.partition("{}")
    lead = f"{prefix}{before}"
    asked = f"{lead}{subject}{after}"
    text = f"{asked} {answer.strip()}" if answer.strip() else asked
    coded = lm.plain_tokenizer.encode(text, add_special_tokens=False)
    first = [lm.bos_id] if bos and lm.bos_id is not None else []
    ends = len(lead) + len(subject)
    inside = [i for i, (a, b) in enumerate(coded.offsets) if a < ends and b > len(lead)]
    told = sum(b > len(asked) for _, b in coded.offsets)
    if not inside or (answer.strip() and not told):
        raise ConfigError(f"{text!r} has no token for {subject if not inside else answer!r}; give one with a character")
    if len(first) + len(coded.ids) > lm.context:
        raise PromptTooLong(f"{text[:40]!r} has {len(coded.ids)} tokens, the context holds {lm.context}; shorten it")
    ids = [*first, *coded.ids]
    return KeyedRow(ids, [True] * len(ids), len(first) + inside[-1], told)


def prefix_rows(
    lm: LanguageModel, request: EditRequest, prefixes: Sequence[str], *, answer: bool, bos: bool = False
) -> list[KeyedRow]:
    """The prompt after each prefix, the empty one included where it is given; with the new answer or without."""
    return [
        keyed_row(
            lm,
            request.prompt,
            request.subject,
            answer=request.target if answer else "",
            prefix=f"{p}. " if p else "",
            bos=bos,
        )
        for p in prefixes
    ]
