"""Words with known letter directions, and dictionaries in which the letter is written by latents that are known."""

from typing import NamedTuple

import torch
from torch import Tensor

from perimetry.evals.sae.absorbing import (
    LetterProbes,
    LetterResults,
    ProbeRules,
    SplitRules,
    absorption_by_letter,
    letter_probes,
)
from perimetry.sae.base import Codes

LETTERS, WORDS, TRAIN, HELD, JUDGED = 5, 32, 16, 6, 10
D_MODEL, SIZE = 24, 6.0
PROBES = ProbeRules(l2=1e-3, least_words=5, least_f1=0.6, least_letters=3)
SPLIT = SplitRules(l1=0.01, l2=1e-3, rise=0.03, most=6)


class Planted(NamedTuple):
    """Words, and the sparse codes of a dictionary at them."""

    acts: Tensor
    letters: Tensor
    parts: Tensor
    codes: Codes
    decoder: Tensor

    def probes(self) -> LetterProbes:
        return letter_probes(self.acts, self.letters, self.parts, PROBES)

    def results(self) -> LetterResults:
        return absorption_by_letter(*self[:3], self.probes(), self.codes, self.decoder, SPLIT)


def planted(absorbed: int = 0, *, kept: float = 0.0, halves: bool = False) -> Planted:
    """Each letter has a direction of the activations, and a latent that writes it.

    At `absorbed` of the judged words of each letter, and at as large a share of the others, the letter's latent keeps only a share
    `kept` of its value, and a latent of that word alone, which writes a direction of the word too, has the rest. With `halves` two
    latents share the words of a letter.
    """
    draw = torch.Generator().manual_seed(5)
    letters = torch.arange(LETTERS).repeat_interleave(WORDS)
    parts = torch.tensor([0] * TRAIN + [1] * HELD + [2] * JUDGED).repeat(LETTERS)
    n = len(letters)
    own = torch.nn.functional.normalize(torch.randn(n, D_MODEL - LETTERS, generator=draw), dim=1)
    acts = torch.zeros(n, D_MODEL)
    acts[torch.arange(n), letters] = SIZE
    acts[:, LETTERS:] = own
    # First the letters' latents (two each), then one for each word.
    decoder = torch.zeros(2 * LETTERS + n, D_MODEL)
    decoder[torch.arange(2 * LETTERS), torch.arange(2 * LETTERS) % LETTERS] = 1
    decoder[2 * LETTERS + torch.arange(n), letters] = 0.8
    decoder[2 * LETTERS :, LETTERS:] = 0.6 * own
    rank = torch.cat([torch.arange(size) / size for size in (TRAIN, HELD, JUDGED)]).repeat(LETTERS)
    taken = rank < absorbed / JUDGED
    main = letters + LETTERS * (torch.arange(n) % 2 if halves else 0)
    indices = torch.stack([main, 2 * LETTERS + torch.arange(n), torch.zeros(n, dtype=torch.long)], 1)
    values = torch.zeros(n, 3)
    values[:, 0] = torch.where(taken, kept * SIZE, SIZE)
    values[:, 1] = torch.where(taken, (1 - kept) * SIZE / 0.8, 0.5 / 0.6 * 0.02)
    return Planted(acts, letters, parts, Codes(indices, values, len(decoder)), decoder)
