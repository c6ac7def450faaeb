"""Accuracy on multiple choice before and after the question is corrupted: damage that a user would notice.

Two sources of questions:

* `probe_questions`: labelled sets in the asset `probe-texts`, written by people: OpenBookQA (`55_open_qa`, four options),
  Social IQa (`86_social_iqa`, three) and PIQA (`44_phys_tf`, two).
* `cloze_questions`: made here, and no examination of knowledge: a held-out passage without its last words, which are to be
  told from the last words, as many, of three other passages.

The model answers with the option whose tokens are likeliest after the context, in the mean over its tokens; only the
context is corrupted, options stay.
"""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import encode, length_batches
from perimetry.activations.twins import Row
from perimetry.assets.documents import Document
from perimetry.errors import PerimetryError, TooFewSamples, UnknownName, UsageError
from perimetry.evals.damage import last_hidden, row_nll
from perimetry.measures.ranking import Difference
from perimetry.measures.stats import Interval, percentile_interval, resample_counts, wilson

__all__ = [
    "QUESTION_SETS",
    "ChoiceDamage",
    "Question",
    "choice_damage",
    "chosen_options",
    "cloze_questions",
    "probe_questions",
]

LETTERS = ("A", "B", "C", "D")
OPTION = re.compile(r"\s*\(([A-D])\)\s*")
SOCIAL = re.compile(
    r"Context: (.*?)\| Question: (.*?)\| Option A: (.*?)\| Option B: (.*?)\| Option C: (.*)\. The correct"
)


@runtime_checkable
class HasText(Protocol):
    """A passage."""

    @property
    def id(self) -> str:
        """Its name."""
        ...

    @property
    def text(self) -> str:
        """Its text."""
        ...


class Question(NamedTuple):
    """A multiple-choice question."""

    id: str
    """Its name."""
    context: str
    """What stands before the options; this is what gets corrupted."""
    options: tuple[str, ...]
    """Possible continuations, without leading white space."""
    answer: int
    """Index of the right one."""


class ChoiceDamage(NamedTuple):
    """Accuracy on questions before and after corruption."""

    clean: Interval
    """Share of right answers after the clean context, with Wilson's interval."""
    corrupted: Interval
    """The same after the corrupted one."""
    loss: Difference
    """Clean minus corrupted, paired bootstrap over questions; above 0 = the corruption costs answers."""
    chance: float
    """Share of right answers of a blind guess."""
    right: Bool[Tensor, "2 question"]
    """Whether each question was answered rightly: clean, corrupted."""


def _open_book(text: str, label: str) -> tuple[str, list[str], int]:
    parts = OPTION.split(text)
    return parts[0], [p.strip() for p in parts[2::2]], LETTERS.index(label)


def _social(text: str, label: str) -> tuple[str, list[str], int]:
    found = SOCIAL.search(text)
    if found is None:
        raise ValueError("no context, question and three options")
    situation, question, *options = (part.strip() for part in found.groups())
    return f"{situation} {question}", options, int(label) - 1


def _physical(text: str, label: str) -> tuple[str, list[str], int]:
    goal, _, rest = text.partition("\n\nA.")
    first, _, second = rest.partition("\nB.")
    return goal.strip(), [first.strip(), second.strip()], int(label)


QUESTION_SETS: dict[str, Callable[[str, str], tuple[str, list[str], int]]] = {
    "44_phys_tf": _physical,
    "55_open_qa": _open_book,
    "86_social_iqa": _social,
}
"""Parts of the asset `probe-texts` that are multiple choice: name -> how to read text and label."""


def probe_questions(documents: Iterable[Document], dataset: str, n: int, seed: int = 0) -> list[Question]:
    """`n` questions of one of `QUESTION_SETS`, drawn with a seed from the rows of `read_texts("probe-texts/<dataset>")`.

    Rows that do not have the form of the set (an option missing or empty, a label out of range) are passed over. Errors:
    `UnknownName`, `TooFewSamples`.
    """
    if dataset not in QUESTION_SETS:
        raise UnknownName("set of questions", dataset, QUESTION_SETS)
    found: list[Question] = []
    rows = list(documents)
    random.Random(f"questions:{seed}").shuffle(rows)
    for document in rows:
        if len(found) == n:
            break
        try:
            context, options, answer = QUESTION_SETS[dataset](document.text, document.meta.get("label", ""))
        except ValueError:
            continue
        if context and len(options) >= 2 and all(options) and 0 <= answer < len(options):
            found.append(Question(document.id, context, tuple(options), answer))
    if len(found) < n:
        raise TooFewSamples(f"{dataset} gives {len(found)} questions, {n} were wanted; ask for fewer")
    return found


def cloze_questions(passages: Sequence[HasText], words: int = 15, options: int = 4, seed: int = 0) -> list[Question]:
    """One question a passage: its last `words` words against those of other passages, the right one at a random place.

    Give passages of held-out text, one a document, of equal numbers of words. Errors: `TooFewSamples` for fewer passages
    than options, `UsageError` for a passage of at most `words` words.
    """
    if len(passages) < options:
        raise TooFewSamples(f"{options} options need as many passages, got {len(passages)}; give more")
    cuts: list[tuple[str, str]] = []
    for passage in passages:
        starts = [m.start() for m in re.finditer(r"\S+", passage.text)]
        if len(starts) <= words:
            raise UsageError(
                f"passage {passage.id!r} has {len(starts)} words, more than {words} are wanted: some must stay as context; "
                "give longer passages"
            )
        cuts.append((passage.text[: starts[-words]].rstrip(), passage.text[starts[-words] :].rstrip()))
    rng = random.Random(f"cloze:{seed}")
    found: list[Question] = []
    for i, passage in enumerate(passages):
        others = rng.sample([j for j in range(len(passages)) if j != i], options - 1)
        answer = rng.randrange(options)
        ends = [cuts[j][1] for j in others]
        ends.insert(answer, cuts[i][1])
        found.append(Question(passage.id, cuts[i][0], tuple(ends), answer))
    return found


def chosen_options(
    lm: LanguageModel, questions: Sequence[Question], *, policy: TokenPolicy | None = None, batch_tokens: int = 2048
) -> list[int]:
    """The option that the model finds likeliest for each question; the first of equals. Errors: those of `encode`."""
    policy = policy or TokenPolicy()
    rows: list[Row] = []
    tails: list[int] = []
    owners: list[tuple[int, int]] = []
    for number, question in enumerate(questions):
        for option, text in enumerate(question.options):
            row, tail = _answered(lm, question, text, policy)
            rows.append(row)
            tails.append(tail)
            owners.append((number, option))
    costs = [[0.0] * len(q.options) for q in questions]
    for members in length_batches([len(row.ids) for row in rows], batch_tokens):
        hidden = last_hidden(lm, [rows[i] for i in members])
        for at, i in enumerate(members):
            number, option = owners[i]
            costs[number][option] = row_nll(lm, hidden[at], rows[i].ids, tails[i])
    return [min(range(len(c)), key=c.__getitem__) for c in costs]


def _answered(lm: LanguageModel, question: Question, option: str, policy: TokenPolicy) -> tuple[Row, int]:
    try:
        whole = encode(lm, f"{question.context} {option}", policy)
        alone = encode(lm, question.context, policy)
    except PerimetryError as error:
        error.args = (f"question {question.id!r}: {error}",)
        raise
    tail = [i for i, s in zip(whole.ids, whole.spans, strict=True) if s is not None and s[0] >= len(question.context)]
    ids = [*alone.ids, *tail]
    return Row(ids, [True] * len(ids)), len(tail)


def choice_damage(
    lm: LanguageModel,
    questions: Sequence[Question],
    corrupt: Callable[[Question], str],
    draw: torch.Generator,
    *,
    policy: TokenPolicy | None = None,
    batch_tokens: int = 2048,
    resamples: int = 1000,
) -> ChoiceDamage:
    """Accuracy before and after `corrupt` gives each question another context. Errors: `TooFewSamples` below 2 questions."""
    if len(questions) < 2:
        raise TooFewSamples(f"accuracy needs questions, at least 2, got {len(questions)}; give more")
    changed = [q._replace(context=corrupt(q)) for q in questions]
    answers = torch.tensor([q.answer for q in questions])
    said = [chosen_options(lm, side, policy=policy, batch_tokens=batch_tokens) for side in (questions, changed)]
    right = torch.tensor(said) == answers
    n = len(questions)
    counts = resample_counts(n, resamples, draw).double()
    change = right[0].double() - right[1].double()
    draws = counts @ change / n
    box = percentile_interval(float(change.mean()), draws, n, "paired bootstrap")
    tail = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return ChoiceDamage(
        clean=wilson(int(right[0].sum()), n),
        corrupted=wilson(int(right[1].sum()), n),
        loss=Difference(box.estimate, box.low, box.high, min(1.0, 2 * (tail + 1) / (resamples + 1)), n, box.method),
        chance=sum(1 / len(q.options) for q in questions) / n,
        right=right,
    )
