"""Texts and chats to token ids, as the meter's own encoding gives them, without the libraries that the parent must not load.

What looks like a special token inside a text is read as plain characters, so a text cannot forge a turn of the template: template and
texts are tokenised apart. The worker says at its start what its own encoding gives for the sentinel's prompts, and is
not believed where this one gives anything else.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, final, runtime_checkable

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from perimetry.monitor.engine import Row
from perimetry.monitor.problems import Problem
from perimetry.monitor.templates import template_environment
from perimetry.monitor.wire import Asked

__all__ = ["AbstractEncoder", "Encoded", "MeterEncoder", "MockEncoder", "given_text"]

_JOINT: Final = "\n\n"
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_MARK: Final = "PERIMETRY-TEXT-{}-OF-THE-CHAT"


class Encoded(NamedTuple):
    """A row as the model reads it."""

    text: str
    """What spans refer to: the text, or those of the messages with an empty line between."""
    ids: list[int]
    """Vocabulary ids, with what the policy adds."""
    countable: list[bool]
    """True where the position counts by the policy."""
    spans: list[tuple[int, int] | None]
    """Characters of `text` that each token covers; None for tokens that are not of it."""
    words: int
    """White-space separated words, at least 1."""

    def asked(self, row: Row) -> Asked:
        """What the worker is asked."""
        wanted = row.top_concepts if row.detail == "concepts" else 0
        return Asked(self.ids, self.countable, self.words, row.detail != "none", wanted)

    def prefix(self, tokens: int) -> "Encoded":
        """The first tokens of it, with the text that they cover."""
        spans = self.spans[:tokens]
        text = self.text[: max((span[1] for span in spans if span), default=0)]
        return Encoded(text, self.ids[:tokens], self.countable[:tokens], spans, max(1, len(text.split())))


@runtime_checkable
class AbstractEncoder(Protocol):
    """Rows to token ids; may be called from several threads at once."""

    def encode(self, row: Row, most: int) -> Encoded:
        """Token ids of a row, at most so many. Errors: `Problem` of `too-many-tokens`, `nothing-to-score`, `invalid`."""
        ...


def given_text(row: Row) -> str:
    """The text of a row that spans refer to.

    >>> given_text(Row((("user", "Who?"), ("assistant", "I."))))
    'Who?\\n\\nI.'
    """
    return _JOINT.join(content for _, content in row.messages)


def _limited(count: int, most: int) -> None:
    if count > most:
        raise Problem("too-many-tokens", f"A text has {count} tokens, at most {most} are read.")


@final
class MockEncoder:
    """A token for each character, for the mock."""

    def encode(self, row: Row, most: int) -> Encoded:
        """As `AbstractEncoder`."""
        text = given_text(row)
        _limited(len(text), most)
        if not text.strip():
            raise Problem("nothing-to-score", "The text is empty or white space.")
        spans: list[tuple[int, int] | None] = [(i, i + 1) for i in range(len(text))]
        return Encoded(text, [ord(c) for c in text], [True] * len(text), spans, max(1, len(text.split())))


@final
class MeterEncoder:
    """The encoding of a meter.

    Under a policy without a template the messages of a chat are read as one text, with an empty line between. Under one with the chat
    template a plain text is the user's turn, as it was when the meter was calibrated, and the texts of all messages count.
    """

    def __init__(self, facts: Mapping[str, Any], tokenizer: str) -> None:
        """`facts`: what the worker says of model and policy; `tokenizer`: its rules as JSON."""
        self._before: list[int] = [int(i) for i in facts["before"]]
        self._after: list[int] = [int(i) for i in facts["after"]]
        self._special = frozenset(int(i) for i in facts["special_ids"])
        self._exclude_special = bool(facts["exclude_special"])
        self._chat = facts["template"] == "chat"
        self._bos: int | None = facts["bos"]
        self._context = int(facts["context"])
        self._names: dict[str, str] = dict(facts["names"])
        self._template: str | None = facts["chat_template"]
        self._plain, self._marked = Tokenizer.from_str(tokenizer), Tokenizer.from_str(tokenizer)
        self._plain.encode_special_tokens, self._marked.encode_special_tokens = True, False
        for one in (self._plain, self._marked):
            one.no_padding()
            one.no_truncation()
        self._environment: ImmutableSandboxedEnvironment = template_environment()

    def encode(self, row: Row, most: int) -> Encoded:
        """As `AbstractEncoder`."""
        text, most = given_text(row), min(most, self._context)
        if not text.strip():
            raise Problem("nothing-to-score", "The text is empty or white space.")
        single = len(row.messages) == 1 and row.messages[0][0] in ("", "user")
        plain: list[list[int] | str] = [self._before, text, self._after]
        parts = self._rendered(row.messages) if self._chat and not single else plain
        ids: list[int] = []
        countable: list[bool] = []
        spans: list[tuple[int, int] | None] = []
        begin, outside = 0, not self._chat and not self._exclude_special
        for at, part in enumerate(parts):
            if isinstance(part, str):
                coded = self._plain.encode(_SURROGATES.sub("\ufffd", part), add_special_tokens=False)
                ids += coded.ids
                countable += [not (self._exclude_special and i in self._special) for i in coded.ids]
                spans += [(begin + a, begin + b) for a, b in coded.offsets]
                begin += len(part) + len(_JOINT)
            else:
                ids += part
                countable += [outside and at == 0] * len(part)
                spans += [None] * len(part)
        _limited(len(ids), most)
        if not any(c for c, span in zip(countable, spans, strict=True) if span):
            raise Problem("nothing-to-score", "No token of the text counts under the token policy.")
        return Encoded(text, ids, countable, spans, max(1, len(text.split())))

    def _rendered(self, messages: Sequence[tuple[str, str]]) -> list[list[int] | str]:
        """Ids of the template and texts of the messages, in turn."""
        if self._template is None:
            raise Problem("invalid", "This model has no chat template.")
        marks = [_MARK.format(i) for i in range(len(messages))]
        turns = [{"role": role, "content": mark} for (role, _), mark in zip(messages, marks, strict=True)]
        try:
            template = self._environment.from_string(self._template)
            shown = template.render(
                messages=turns,
                add_generation_prompt=messages[-1][0] != "assistant",
                tools=None,
                documents=None,
                **self._names,
            )
        except TemplateError as error:
            raise Problem(
                "invalid", "The chat template of the model does not take these roles in this order."
            ) from error
        parts: list[list[int] | str] = []
        for mark, (_, content) in zip(marks, messages, strict=True):
            markup, found, shown = shown.partition(mark)
            if not found or mark in shown:
                raise Problem("invalid", "The chat template of the model does not keep these messages whole.")
            parts += [self._ids(markup), content]
        parts.append(self._ids(shown))
        first = parts[0]
        if isinstance(first, list) and self._bos is not None and first[:1] != [self._bos]:
            first.insert(0, self._bos)
        return parts

    def _ids(self, markup: str) -> list[int]:
        return self._marked.encode(markup, add_special_tokens=False).ids if markup else []
