"""Texts to what a model reads: splits by document, packed rows, held-out passages. Everything is seeded."""

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import SURROGATES, encode, policy_ids
from perimetry.errors import ConfigError, NoScorableToken, TooFewSamples

__all__ = [
    "HasText",
    "PackCursor",
    "PackedRow",
    "Passage",
    "documents_digest",
    "pack",
    "passages",
    "shuffled",
    "split_of",
    "take_split",
    "token_ids",
]

TOKENIZE_DOCUMENTS = 32
ENDS_SENTENCE = re.compile(r"[.!?][\"')\]\u2019\u201d]*$")
STARTS_SENTENCE = re.compile(r"^[\"'(\[\u2018\u201c]*[A-Z0-9]")


@runtime_checkable
class HasText(Protocol):
    """A document: anything with an `id` and a `text`."""

    @property
    def id(self) -> str:
        """Its name in its source; splits go by it."""
        ...

    @property
    def text(self) -> str:
        """Its text."""
        ...


D = TypeVar("D", bound=HasText)


def _fraction(*parts: str) -> float:
    digest = hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def split_of(document_id: str, seed: str = "0") -> float:
    """Where a document falls in [0, 1), by a hash of its id alone: the same on every machine, in every corpus.

    >>> split_of("Anarchism") == split_of("Anarchism"), 0 <= split_of("Anarchism") < 1
    (True, True)
    """
    return _fraction("split", seed, document_id)


def take_split(documents: Iterable[D], low: float, high: float, seed: str = "0") -> list[D]:
    """The documents with `low <= split_of(id) < high`, in order; ranges that do not overlap share no document."""
    return [d for d in documents if low <= split_of(d.id, seed) < high]


def shuffled(documents: Iterable[D], seed: int | str) -> list[D]:
    """The documents in a seeded order that does not depend on the order in which they came."""
    return sorted(documents, key=lambda d: (_fraction("order", str(seed), d.id), d.id, d.text))


def documents_digest(documents: Iterable[HasText]) -> str:
    """SHA-256 over ids and texts, in order."""
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.id, document.text):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
    return digest.hexdigest()


class PackCursor(NamedTuple):
    """A place in the stream of tokens of a sequence of documents."""

    document: int
    """Index of the document."""
    offset: int
    """Token of that document, its separator counted as its last token."""


class PackedRow(NamedTuple):
    """One row that the model reads."""

    ids: list[int]
    """Vocabulary ids."""
    countable: list[bool]
    """True where the position counts: no BOS, no separator, nothing special."""
    source: list[int]
    """Index of the document that each position belongs to."""
    document_ids: tuple[str, ...]
    """Ids of the documents in the row, in order."""
    start: PackCursor
    """Where the row's first text token lies; `pack` can go on from there."""


def token_ids(documents: Sequence[HasText], lm: LanguageModel, first: int = 0) -> Iterator[tuple[int, list[int]]]:
    """Index and plain vocabulary ids of each document, from document `first` on."""
    for begin in range(first, len(documents), TOKENIZE_DOCUMENTS):
        group = [SURROGATES.sub("\ufffd", d.text) for d in documents[begin : begin + TOKENIZE_DOCUMENTS]]
        coded = lm.plain_tokenizer.encode_batch_fast(group, add_special_tokens=False)
        for i, one in enumerate(coded):
            yield begin + i, one.ids


def _finish(row: PackedRow, documents: Sequence[HasText]) -> PackedRow:
    order = dict.fromkeys(row.source)
    return row._replace(document_ids=tuple(documents[i].id for i in order))


def pack(
    documents: Sequence[HasText],
    lm: LanguageModel,
    policy: TokenPolicy,
    context: int,
    *,
    separator: bool = True,
    start: PackCursor | None = None,
) -> Iterator[PackedRow]:
    """Documents, end to end, cut into rows of `context` tokens (the very last row may be shorter).

    Every row starts with the BOS when the policy says so; between documents stands the model's separator token, which
    does not count. Long documents go on in the next row. With `template = "chat"` nothing is packed: each document is
    one row, wrapped as a user's turn and cut to the context. Same arguments, same rows; `start` (of an earlier row)
    goes on from that row.

    Errors: `ConfigError` for a context that the model does not have or that leaves no room for text.
    """
    before, after = policy_ids(lm, policy)
    if not len(before) + len(after) < context <= lm.context:
        raise ConfigError(
            f"rows of {context} tokens were asked for; wanted more than {len(before) + len(after)} (what the token "
            f"policy adds) and at most {lm.context} (the context of {lm.name!r})"
        )
    begin = start or PackCursor(0, 0)
    if policy.template == "chat":
        yield from _one_each(documents, lm, policy, context, begin.document)
        return
    outside = [not policy.exclude_special] * len(before)
    end = lm.separator_id if separator else None
    row: PackedRow | None = None
    for index, ids in token_ids(documents, lm, begin.document):
        ids = [*ids, end] if ids and end is not None else ids
        counts = [not (policy.exclude_special and i in lm.special_ids) for i in ids]
        if ids and end is not None:
            counts[-1] = False
        at = begin.offset if index == begin.document else 0
        while at < len(ids):
            if row is None:
                row = PackedRow([*before], [*outside], [index] * len(before), (), PackCursor(index, at))
            stop = min(len(ids), at + context - len(row.ids))
            row.ids.extend(ids[at:stop])
            row.countable.extend(counts[at:stop])
            row.source.extend([index] * (stop - at))
            at = stop
            if len(row.ids) == context:
                yield _finish(row, documents)
                row = None
    if row is not None and any(row.countable):
        yield _finish(row, documents)


def _one_each(
    documents: Sequence[HasText], lm: LanguageModel, policy: TokenPolicy, context: int, first: int
) -> Iterator[PackedRow]:
    for index in range(first, len(documents)):
        document = documents[index]
        if not document.text.strip():
            continue
        try:
            prompt = encode(lm, document.text, policy, truncate=True, limit=context)
        except NoScorableToken:
            continue
        source = [index] * len(prompt.ids)
        yield PackedRow(prompt.ids, prompt.countable, source, (document.id,), PackCursor(index, 0))


class Passage(NamedTuple):
    """A piece of a document."""

    id: str
    """Name of the document and first word of the passage: `document#word`."""
    text: str
    """The passage, as it stands in the document."""
    document: str
    """Id of the document."""


def _starts(words: list[str], length: int) -> list[int]:
    """Word indices where a sentence seems to start and `length` words follow."""
    return [
        i
        for i in range(len(words) - length + 1)
        if (i == 0 or ENDS_SENTENCE.search(words[i - 1])) and STARTS_SENTENCE.match(words[i])
    ]


def passages(
    documents: Iterable[HasText], lm: LanguageModel, words: int = 60, n: int = 200, seed: int = 0
) -> list[Passage]:
    """`n` passages of exactly `words` white-space separated words, at most one of each document, seeded.

    A passage starts where a sentence seems to start, and fits the context of `lm`. Give documents of a split that
    nothing was fitted on. Errors: `TooFewSamples` when fewer than `n` documents hold one.
    """
    found: list[Passage] = []
    for document in shuffled(documents, f"passages:{seed}"):
        if len(found) == n:
            break
        spans = [m.span() for m in re.finditer(r"\S+", document.text)]
        starts = _starts([document.text[a:b] for a, b in spans], words)
        if not starts:
            continue
        first = random.Random(f"{seed}:{document.id}").choice(starts)
        text = document.text[spans[first][0] : spans[first + words - 1][1]]
        if len(lm.plain_tokenizer.encode(SURROGATES.sub("\ufffd", text), add_special_tokens=False).ids) < lm.context:
            found.append(Passage(f"{document.id}#{first}", text, document.id))
    if len(found) < n:
        raise TooFewSamples(
            f"only {len(found)} documents hold a passage of {words} words, {n} were wanted; give more documents, or ask "
            "for fewer or shorter passages"
        )
    return found
