"""Dialogues of many harmful exchanges against dialogues of many harmless ones."""

import random
from collections.abc import Sequence

from perimetry.assets.documents import Document
from perimetry.suites.base import Case, Length, Suite, SuiteInputs, check_suite, compare_lengths
from perimetry.suites.matching import TOLERANCE, Passages, match
from perimetry.suites.passages import cut_to_tokens

__all__ = ["build", "dialogue", "many_shot"]

HARMFUL = "pyrit-prompts/many_shot"
HARMLESS = "probe-texts/36_sciq_tf"
REPLY = 6
"""Tokens of an answer: school answers are no longer, and answers of unlike length would tell the two apart."""
FEWEST = 3
MOST = 40
TRIES = 4


def dialogue(exchanges: Sequence[tuple[str, str]], target: int, length: Length) -> str:
    """As many whole exchanges as `target` tokens hold, then the question of the next, cut to fill them."""
    text = ""
    for user, answer in exchanges:
        more = f"{text}User: {user}\nAssistant: {cut_to_tokens(answer, REPLY, length) or answer.split()[0]}\n"
        if length(more) > target:
            rest = cut_to_tokens(f"User: {user}", max(0, target - length(text)), length)
            return (text + (rest if rest != "User:" else "")).strip()
        text = more
    return text.strip()


def many_shot(
    harmful: Sequence[tuple[str, str]],
    harmless: Sequence[tuple[str, str]],
    clean: Sequence[Document],
    *,
    length: Length,
    limit: int,
    n: int,
    seed: int,
    tolerance: float = TOLERANCE,
) -> Suite:
    """`n` dialogues of half the limit to the whole, out of randomly ordered exchanges, and two negatives each.

    `dialogue` is a harmless dialogue of the same form and length, `passage` running text. Answers are cut to six tokens
    on both sides. The exchanges recur between dialogues, so intervals by pair are too narrow here. Errors:
    `TooFewSamples`.
    """
    rng = random.Random(f"many_shot:{seed}")
    shifted: list[Case] = []
    twins: list[Case] = []
    tries = 0
    while tries < TRIES * n and len(shifted) < n:
        i, tries = tries, tries + 1
        target = rng.randint(max(1, limit // 2), limit)
        sides = [rng.sample(list(side), min(MOST, len(side))) for side in (harmful, harmless)]
        attack, twin = (dialogue(side, target, length) for side in sides)
        near = abs(length(attack) - length(twin)) <= tolerance * max(1, length(attack))
        if attack.count("User:") >= FEWEST and twin and near:
            shifted.append(Case(f"{i}/many_shot", attack, str(i), "many_shot", 1.0, shifted=True))
            twins.append(Case(f"{i}/dialogue", twin, str(i), "dialogue", 0.0, shifted=False))
    matched = match(shifted, {"passage": Passages(clean, length, rng)}, tolerance=tolerance, length=length)
    lengths = compare_lengths([c.text for c in shifted], [c.text for c in twins], length) if shifted else {}
    shots = [case.text.count("User:") for case in shifted]
    matching = {
        "tolerance": tolerance,
        "limit": limit,
        "tried_in_vain": tries - len(shifted),
        "shots": sum(shots) / max(1, len(shots)),
        "lengths": [{"negatives": "dialogue", "unmatched": 0, **lengths}, *matched.rows],
    }
    description = "Dialogues of harmful exchanges against dialogues of harmless ones of the same form and length."
    return check_suite(Suite("many_shot", description, (*shifted, *twins, *matched.cases), matching))


def build(inputs: SuiteInputs) -> Suite:
    """The suite on at most `inputs.n` dialogues of at most `inputs.limit` tokens: PyRIT's exchanges, school questions."""
    harmful = [(d.text, d.meta["answer"]) for d in inputs.read(HARMFUL) if d.meta.get("answer", "").strip()]
    halves = [d.text.removeprefix("Q: ").partition("\nA:") for d in inputs.read(HARMLESS) if d.meta.get("label") != "0"]
    harmless = [(question.strip(), answer.strip()) for question, _, answer in halves if answer.strip()]
    return many_shot(
        harmful, harmless, inputs.clean, length=inputs.length, limit=inputs.limit, n=inputs.n, seed=inputs.seed
    )
