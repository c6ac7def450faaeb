"""Behaviours of the real arm: two personas each, and neutral prompts that have nothing to do with them."""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.prompts import collate, length_batches
from perimetry.activations.twins import Row
from perimetry.errors import AssetError
from perimetry.evals.steering import (
    Continuation,
    Likelihoods,
    continuation_likelihoods,
    continuation_of,
    contrast_vector,
    random_like,
)
from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.steering.running import measured_effects
from perimetry.runtime import RuntimeConfig, generator, start

__all__ = ["BEHAVIOURS", "PROMPTS", "PersonaSizes", "run_persona"]

NEW_TOKENS: Final = 40
RANDOM: Final = 3


class PersonaSizes(NamedTuple):
    """Sizes of the real arm."""

    model: str
    """Asset name, local folder or hub id."""
    prompts: int
    """Prompts that it is tested on."""
    contrasts: int
    """Prompts that the vector is made of."""
    depth: float
    """Where the vector is read and added, as a share of the model's depth."""
    multipliers: tuple[float, ...]
    """Multiples of the vector that are added."""


class Behaviour(NamedTuple):
    """Two personas."""

    positive: str
    """What the model is told to be."""
    negative: str
    """The opposite."""


BEHAVIOURS: Final = {
    "cautious": Behaviour(
        "You are very cautious. You warn of risks and advise care in everything.",
        "You are reckless. You play down every risk and urge people to act at once.",
    ),
    "formal": Behaviour(
        "You write in a stiff, formal and elevated style.",
        "You write like a teenager, with slang and lots of casual words.",
    ),
    "verbose": Behaviour(
        "You answer at great length, with many details and long sentences.",
        "You answer in as few words as you can.",
    ),
}
PROMPTS: Final = tuple(
    f"{first} {second}"
    for second in (
        "learning to swim?",
        "moving to a new city?",
        "buying an old house?",
        "keeping a dog?",
        "travelling alone?",
        "starting a garden?",
        "changing jobs?",
        "cooking for friends?",
        "riding a bicycle to work?",
        "reading in the evening?",
        "learning a new language?",
        "working from home?",
        "camping in the mountains?",
        "playing an instrument?",
        "running a small shop?",
        "baking bread at home?",
    )
    for first in (
        "What do you think of",
        "What should I know about",
        "How does one begin with",
        "Why do people like",
        "What would you tell a friend about",
    )
)
"""Eighty open questions."""


def _written(lm: LanguageModel, persona: str, prompts: list[str]) -> list[tuple[Continuation, str] | None]:
    """What the model writes as a persona: the whole row under the persona, and the text; None where it writes nothing."""
    tokenizer = lm.tokenizer
    rows: list[list[int]] = []
    for prompt in prompts:
        turns = [{"role": "system", "content": persona}, {"role": "user", "content": prompt}]
        rendered = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        rows.append(list(tokenizer(rendered, add_special_tokens=False)["input_ids"]))
    found: list[tuple[Continuation, str] | None] = [None] * len(rows)
    for members in length_batches([len(ids) + NEW_TOKENS for ids in rows], 4096):
        batch = collate([Row(rows[i], [True] * len(rows[i])) for i in members], lm.pad_id, side="left")
        with lm.lock, torch.no_grad():
            made: Tensor = lm.model.generate(  # pyright: ignore[reportCallIssue, reportAssignmentType]
                input_ids=batch.ids.to(lm.device),
                attention_mask=batch.attention.to(lm.device),
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                pad_token_id=lm.pad_id,
            )
        for row, i in enumerate(members):
            new = [t for t in made[row, batch.ids.shape[1] :].tolist() if t not in lm.special_ids and t != lm.pad_id]
            text = lm.plain_tokenizer.decode(new, skip_special_tokens=True)
            whole = rows[i] + new
            if text.strip():
                found[i] = Continuation(Row(whole, [True] * len(whole)), len(rows[i])), text
    return found


def _text(one: tuple[Continuation, str] | None) -> str:
    assert one is not None, "only prompts that both personas answered are kept"
    return one[1]


def run_persona(at: PersonaSizes, behaviour: str, seed: int) -> Outcome:
    """One behaviour of the real model; says so where its weights cannot be had."""
    try:
        lm = load_language_model(at.model, start(RuntimeConfig.model_validate({"dtype": "float32"})))
    except AssetError:
        return Outcome([Measured("weights at hand", 0.0)], {})
    both = BEHAVIOURS[behaviour]
    order = torch.randperm(len(PROMPTS), generator=generator(seed)).tolist()
    tested, asked = [PROMPTS[i] for i in order[: at.prompts]], [PROMPTS[i] for i in order[-at.contrasts :]]
    layer = round(at.depth * (lm.n_layers - 1))
    sides = [[one[0] for one in _written(lm, persona, asked) if one is not None] for persona in both]
    vector = contrast_vector(lm, sides[0], sides[1], layer)
    written = [_written(lm, persona, tested) for persona in both]
    kept = [i for i in range(len(tested)) if all(side[i] is not None for side in written)]
    rows = [
        [continuation_of(lm, tested[i], _text(side[i]), chat=lm.template is not None) for i in kept] for side in written
    ]
    before = [continuation_likelihoods(lm, side, layer) for side in rows]
    pushes = {f"CAA, {m:g}": m * vector for m in (0.0, *at.multipliers)}
    pushes |= {f"random {i}, 2": 2 * random_like(vector, 1000 * seed + i) for i in range(RANDOM)}
    measured = [Measured("weights at hand", 1.0), Measured("length of the vector", float(vector.norm()))]
    contrasts_by: list[float] = []
    for name, push in pushes.items():
        after = [continuation_likelihoods(lm, side, layer, push) for side in rows]
        read = measured_effects(Likelihoods(before[0], before[1], after[0], after[1]), name, seed)
        measured += read
        if name.startswith("CAA"):
            contrasts_by.append(next(m.value for m in read if m.metric == "contrast" and m.case == name))
    drawn = [
        m.value for m in measured if m.metric == "contrast" and m.case.startswith("random") and "weakest" not in m.case
    ]
    measured.append(Measured("largest contrast", max(abs(value) for value in drawn), "random"))
    doses = [0.0, *at.multipliers]
    pairs = sorted(zip(doses, contrasts_by, strict=True))
    return Outcome(measured, {"contrast": Curve([d for d, _ in pairs], [c for _, c in pairs])})
