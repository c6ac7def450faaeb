"""Languages whose grammar is known: brackets, prefix expressions, a little English. Strings are drawn, parsed, and labelled position by position."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, final

__all__ = ["BOS", "EOS", "LANGUAGES", "PAD", "AbstractLanguage", "Dyck", "English", "Expressions"]

BOS, EOS, PAD = 0, 1, 2
FIRST: Final = 3
"""First token of a language's own."""


class _TooLong(Exception):
    """A string outgrew its room while it was drawn."""


class AbstractLanguage(ABC):
    """One grammar."""

    name: str
    """What it is."""
    words: int
    """Tokens of its own; they begin at 3."""
    variables: tuple[str, ...]
    """What is known of each position."""

    @property
    def vocab(self) -> int:
        """Tokens, those for beginning, end and padding too."""
        return FIRST + self.words

    def draw(self, source: random.Random, longest: int) -> list[int]:
        """A string of at most so many tokens; longer ones are drawn again."""
        while True:
            found: list[int] = []

            def put(token: int, found: list[int] = found) -> None:
                if len(found) == longest:
                    raise _TooLong
                found.append(token)

            try:
                self._sentence(source, put)
            except _TooLong:
                continue
            return found

    @abstractmethod
    def _sentence(self, source: random.Random, put: Callable[[int], None]) -> None:
        """Draw one string."""

    @abstractmethod
    def valid(self, tokens: Sequence[int]) -> bool:
        """Whether the grammar gives such a string."""

    @abstractmethod
    def truth(self, tokens: Sequence[int]) -> list[tuple[float, ...]]:
        """The variables at each position, the token there taken in; for valid strings and their beginnings."""

    def deep(self, source: random.Random) -> list[int]:  # noqa: ARG002
        """The beginning of a string that leaves much open; nothing where the language has no such."""
        return []


@final
class Dyck(AbstractLanguage):
    """Brackets of two kinds, closed in order."""

    name = "dyck"
    words = 4
    variables = ("depth", "kind of the innermost bracket")

    def __init__(self, inside: float = 0.5) -> None:
        """`inside`: chance that a pair has something within."""
        self.inside = inside

    def _sentence(self, source: random.Random, put: Callable[[int], None]) -> None:
        # What is still to be written, last first: None stands for a string, an int for a token.
        todo: list[int | None] = [None]
        while todo:
            one = todo.pop()
            if one is not None:
                put(one)
            elif source.random() < 0.3:
                todo += [None, None]
            else:
                kind = source.randrange(2)
                within = [None] if source.random() < self.inside else []
                todo += [FIRST + 2 + kind, *within, FIRST + kind]

    def _stack(self, tokens: Sequence[int]) -> list[int] | None:
        stack: list[int] = []
        for token in tokens:
            kind, closes = (token - FIRST) % 2, token >= FIRST + 2
            if not FIRST <= token < FIRST + 4 or (closes and (not stack or stack.pop() != kind)):
                return None
            if not closes:
                stack.append(kind)
        return stack

    def valid(self, tokens: Sequence[int]) -> bool:
        """Whether every bracket is closed in order."""
        return bool(tokens) and self._stack(tokens) == []

    def truth(self, tokens: Sequence[int]) -> list[tuple[float, ...]]:
        """Depth, and the kind of the innermost bracket (-1: none)."""
        found: list[tuple[float, ...]] = []
        for end in range(1, len(tokens) + 1):
            stack = self._stack(tokens[:end]) or []
            found.append((float(len(stack)), float(stack[-1]) if stack else -1.0))
        return found

    def deep(self, source: random.Random) -> list[int]:
        """Six brackets, none of them closed."""
        return [FIRST + source.randrange(2) for _ in range(6)]


@final
class Expressions(AbstractLanguage):
    """Operators of one to three operands before these; digits."""

    name = "expr"
    words = 19
    variables = ("pending operands", "operands of the token")
    operators: Final = 3
    """Of each number of operands."""

    def _arity(self, token: int) -> int:
        return 0 if token < FIRST + 10 else 1 + (token - FIRST - 10) // self.operators

    def _sentence(self, source: random.Random, put: Callable[[int], None]) -> None:
        open_ = 1
        while open_:
            if source.random() < 0.6:
                put(FIRST + source.randrange(10))
                open_ -= 1
                continue
            share = source.random()
            arity = 1 if share < 0.33 else 2 if share < 0.66 else 3
            put(FIRST + 10 + (arity - 1) * self.operators + source.randrange(self.operators))
            open_ += arity - 1

    def _open(self, tokens: Sequence[int]) -> list[int] | None:
        """Operands wanted after each token, or None where the string goes on after its end."""
        open_, found = 1, []
        for token in tokens:
            if not FIRST <= token < FIRST + self.words or not open_:
                return None
            open_ += self._arity(token) - 1
            found.append(open_)
        return found

    def valid(self, tokens: Sequence[int]) -> bool:
        """Whether every operator has its operands, and nothing follows."""
        found = self._open(tokens)
        return bool(found) and found[-1] == 0

    def truth(self, tokens: Sequence[int]) -> list[tuple[float, ...]]:
        """Operands wanted, and those of the token."""
        found = self._open(tokens) or [0] * len(tokens)
        return [(float(n), float(self._arity(t))) for n, t in zip(found, tokens, strict=True)]

    def deep(self, source: random.Random) -> list[int]:
        """Three operators of three operands."""
        return [FIRST + 10 + 2 * self.operators + source.randrange(self.operators) for _ in range(3)]


PARTS: Final = ("adjective", "noun", "conjunction", "pronoun", "verb", "adverb")
EACH: Final = 10
_MOVES: Final[dict[str, dict[str, str]]] = {
    "subject": {"adjective": "subject adjective", "pronoun": "said"},
    "subject adjective": {"noun": "said"},
    "said": {"conjunction": "subject", "verb": "verb"},
    "verb": {"adjective": "object adjective", "pronoun": "object", "adverb": "adverb", "conjunction": "verb next"},
    "object adjective": {"noun": "object"},
    "object": {"conjunction": "either", "adverb": "adverb"},
    "either": {"adjective": "object adjective", "pronoun": "object", "verb": "verb"},
    "adverb": {"adverb": "adverb", "conjunction": "verb next"},
    "verb next": {"verb": "verb"},
}
"""State -> part of speech -> state: the strings of the grammar are a regular language."""
_ENDS: Final = {"verb", "object", "adverb"}


@final
class English(AbstractLanguage):
    """Noun phrase, verb phrase; ten words of each part of speech."""

    name = "english"
    words = EACH * len(PARTS)
    variables = ("in the verb phrase", "conjunction within the verb phrase", *PARTS)

    def _word(self, part: str, source: random.Random) -> int:
        return FIRST + EACH * PARTS.index(part) + source.randrange(EACH)

    def part(self, token: int) -> str | None:
        """Part of speech; None for what is no word."""
        place = (token - FIRST) // EACH
        return PARTS[place] if token >= FIRST and place < len(PARTS) else None

    def _sentence(self, source: random.Random, put: Callable[[int], None]) -> None:
        todo = ["vp", "np"]
        while todo:
            one = todo.pop()
            share = source.random()
            if one == "np":
                rule = (
                    ["adjective", "noun"]
                    if share < 0.5
                    else ["np", "conjunction", "np"]
                    if share < 0.75
                    else ["pronoun"]
                )
                todo += reversed(rule)
            elif one == "vp":
                rules = (
                    (0.25, ["verb"]),
                    (0.6, ["verb", "np"]),
                    (0.85, ["vp", "adverb"]),
                    (1.0, ["vp", "conjunction", "vp"]),
                )
                todo += reversed(next(rule for level, rule in rules if share < level))
            else:
                put(self._word(one, source))

    def _states(self, tokens: Sequence[int]) -> list[str] | None:
        state, found = "subject", []
        for token in tokens:
            part = self.part(token)
            if part is None or part not in _MOVES[state]:
                return None
            state = _MOVES[state][part]
            found.append(state)
        return found

    def valid(self, tokens: Sequence[int]) -> bool:
        """Whether it is a noun phrase and a verb phrase."""
        found = self._states(tokens)
        return bool(found) and found[-1] in _ENDS

    def truth(self, tokens: Sequence[int]) -> list[tuple[float, ...]]:
        """Whether the verb has come, whether a conjunction after it, and the part of speech."""
        found: list[tuple[float, ...]] = []
        within = joined = 0.0
        for token in tokens:
            part = self.part(token)
            within = max(within, float(part == "verb"))
            joined = max(joined, float(part == "conjunction" and within > 0))
            found.append((within, joined, *(float(part == one) for one in PARTS)))
        return found


LANGUAGES: Final[dict[str, AbstractLanguage]] = {
    "dyck": Dyck(),
    "dyck_3": Dyck(0.3),
    "expr": Expressions(),
    "english": English(),
}
"""Every language by its name."""
