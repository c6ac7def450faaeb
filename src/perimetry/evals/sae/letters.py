"""Words of a model's vocabulary in prompts that ask for their first letter, and the activations at those words.

The prompts are those of the first-letter task (arXiv 2409.14507): some solved examples, then the word. The published prompt
goes on after the word (` has the first letter:`) and reads the activation at the word, which a causal model makes from what
stands before; so what follows is left out here and the number read is the same. Everything that is drawn is seeded.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.prompts import EncodedPrompt, collate, encode, scorable, token_text
from perimetry.activations.tap import Tap
from perimetry.errors import Incompatible, PromptTooLong, TooFewSamples
from perimetry.evals.sae.base import Place
from perimetry.runtime import generator

__all__ = [
    "ALPHABET",
    "HELD_OUT",
    "JUDGED",
    "TRAINING",
    "WordReads",
    "Words",
    "draw_words",
    "plain_words",
    "read_words",
    "spelling_prompts",
]

ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
TRAINING: Final = 0
"""Part of the words on which probes are fitted."""
HELD_OUT: Final = 1
"""Part on which probes are judged and main latents are counted."""
JUDGED: Final = 2
"""Part on which absorption is measured."""
PLAIN: Final = re.compile(" [a-z]{2,}")

PerWord = Int[Tensor, " word"]


class Words(NamedTuple):
    """Words with their first letters, in three parts."""

    names: tuple[str, ...]
    """The words, distinct, a-z only, without their leading space."""
    letters: PerWord
    """Place of the first letter in the alphabet, from 0."""
    parts: PerWord
    """`TRAINING`, `HELD_OUT` or `JUDGED`."""


class WordReads(NamedTuple):
    """What the model makes of some words."""

    acts: Float[Tensor, "word d_model"]
    """Activation at the word's last token, float32; one token where the words are the vocabulary's own."""
    kept: Bool[Tensor, " word"]
    """Whether that token counts by the token policy."""


def plain_words(lm: LanguageModel) -> list[str]:
    """The vocabulary tokens that are whole words: a leading space, then two or more letters a-z; sorted.

    A token counts only where the tokenizer gives it for its own text at the start of a line, as the prompts have it. Errors:
    `TooFewSamples` where there is no such token.
    """
    size = lm.plain_tokenizer.get_vocab_size(with_added_tokens=True)
    texts = ((i, token_text(lm, i)) for i in range(size) if i not in lm.special_ids)
    found = [(i, text) for i, text in texts if PLAIN.fullmatch(text)]
    coded = lm.plain_tokenizer.encode_batch(["\n" + text for _, text in found], add_special_tokens=False)
    words = sorted({text[1:] for (i, text), code in zip(found, coded, strict=True) if code.ids[-1] == i})
    if not words:
        raise TooFewSamples(
            f"the tokenizer of {lm.name!r} has no token that is a plain word (a leading space, then letters a-z) among "
            f"{size}; wanted some of every letter; use another model, or give the words"
        )
    return words


def draw_words(words: Sequence[str], most: int, shares: tuple[float, float], seed: int) -> Words:
    """At most `most` words of each first letter, each letter's words cut into three parts.

    `shares` are those of the parts `TRAINING` and `HELD_OUT`; what is left is `JUDGED`. The order of `words` does not matter.
    """
    draw = generator(seed)
    names: list[str] = []
    letters: list[int] = []
    parts: list[int] = []
    for place, letter in enumerate(ALPHABET):
        group = sorted({word for word in words if word.startswith(letter)})
        chosen = [group[i] for i in torch.randperm(len(group), generator=draw)[:most].tolist()]
        train, held = (round(share * len(chosen)) for share in shares)
        held = min(held, len(chosen) - train)
        names += chosen
        letters += [place] * len(chosen)
        parts += [TRAINING] * train + [HELD_OUT] * held + [JUDGED] * (len(chosen) - train - held)
    return Words(tuple(names), torch.tensor(letters, dtype=torch.long), torch.tensor(parts, dtype=torch.long))


def spelling_prompts(words: Words, examples: int, seed: int) -> list[str]:
    """One prompt a word: so many solved examples, drawn anew for each word from the other training words, then the word.

    Errors: `TooFewSamples` where there are not enough training words to draw from.

    >>> few = Words(("ant", "bee"), torch.tensor([0, 1]), torch.tensor([0, 0]))
    >>> spelling_prompts(few, 1, 0)[0]
    '\\n bee has the first letter: B\\n ant'
    """
    pool = [name for name, part in zip(words.names, words.parts.tolist(), strict=True) if part == TRAINING]
    if len(pool) <= examples:
        raise TooFewSamples(
            f"{len(pool)} training words came for {examples} examples a prompt; wanted more words than examples; give more "
            "words, or ask for fewer examples"
        )
    draw = generator(seed)
    prompts: list[str] = []
    for name in words.names:
        order = torch.randperm(len(pool), generator=draw)[: examples + 1].tolist()
        chosen = [pool[i] for i in order if pool[i] != name][:examples]
        solved = "".join(f" {word} has the first letter: {word[0].upper()}\n" for word in chosen)
        prompts.append(f"\n{solved} {name}")
    return prompts


def _coded(place: Place, prompt: str, name: str, *, whole: bool) -> tuple[EncodedPrompt, int]:
    """The prompt as ids, and the position of the word's last token."""
    try:
        coded = encode(place.lm, prompt, place.policy)
    except PromptTooLong as error:
        raise PromptTooLong(
            f"the prompt for the word {name!r} is longer than the {place.lm.context} tokens of {place.lm.name!r}; ask for fewer "
            "examples"
        ) from error
    last, span = max((i, span) for i, span in enumerate(coded.spans) if span is not None)
    read = prompt[span[0] : span[1]].strip()
    if whole and read != name:
        raise Incompatible(
            f"the prompt for the word {name!r} ends in the token {read!r} in {place.lm.name!r}; wanted the whole word, as it stands "
            "in the vocabulary; give the words, which are then read at their last token"
        )
    return coded, last


def read_words(place: Place, prompts: Sequence[str], names: Sequence[str], batch: int, *, whole: bool) -> WordReads:
    """The activations at the last word of each prompt, `batch` prompts in a forward pass.

    `whole` says that each word must be one token. Errors: `PromptTooLong`, `Incompatible` (not one token), `ConfigError` (layer).
    """
    tap = Tap(place.lm, place.layer)
    rows = [_coded(place, prompt, name, whole=whole) for prompt, name in zip(prompts, names, strict=True)]
    acts: list[Tensor] = []
    kept: list[Tensor] = []
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        together = collate([coded for coded, _ in some], place.lm.pad_id)
        residual = tap.read(together.ids, together.attention)
        counts = scorable(residual, together.countable.to(residual.device), place.policy)
        at = torch.tensor([last for _, last in some], device=residual.device)
        line = torch.arange(len(some), device=residual.device)
        acts.append(residual[line, at].float().cpu())
        kept.append(counts[line, at].cpu())
    return WordReads(torch.cat(acts), torch.cat(kept))
