"""What a reading shows beside its score: hot tokens and the concepts that betray the prompt."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.sae.base import Codes
from perimetry.shift.reading import ConceptEvidence

__all__ = ["ContextBook", "explain_prompt", "snippet"]


class ContextBook(NamedTuple):
    """Clean passages in which each concept fires hardest."""

    offsets: Int[Tensor, " d_sae_plus_one"]
    """Contexts of latent f are `texts[offsets[f] : offsets[f + 1]]`, strongest first."""
    texts: tuple[str, ...]
    """Snippets, the token between guillemets."""

    def of(self, latent: int) -> tuple[str, ...]:
        """The snippets of one latent; empty where it never fired on clean text."""
        return self.texts[int(self.offsets[latent]) : int(self.offsets[latent + 1])]


def snippet(text: str, start: int, stop: int, reach: int = 48) -> str:
    """The passage around `text[start:stop]`, that part between guillemets, white space folded.

    >>> snippet("the cat sat on the mat", 4, 7, reach=6)
    'the «cat» sat o'
    """
    left, right = max(0, start - reach), min(len(text), stop + reach)
    return " ".join(f"{text[left:start]}«{text[start:stop]}»{text[stop:right]}".split())


def explain_prompt(
    codes: Codes,
    clean_rate: Float[Tensor, " d_sae"],
    pieces: Sequence[str],
    book: ContextBook,
    limit: int = 8,
) -> tuple[ConceptEvidence, ...]:
    """The concepts whose firing on these tokens is least expected on clean text, loudest first.

    A concept's weight is the sum, over the tokens on which it is active, of log((1 - rate) / rate), its rate being its
    smoothed firing rate on clean text: its exact share in the `surprise` score. At equal weight the lower index goes
    first.
    """
    active = codes.values != 0
    if not bool(active.any()):
        return ()
    latents, values = codes.indices[active], codes.values[active]
    token_of = active.nonzero()[:, 0]
    unique, inverse = latents.unique(return_inverse=True)
    rate = clean_rate[unique].double()
    surprise = ((1 - rate) / rate).log()
    weight = torch.zeros(len(unique), dtype=torch.float64).index_add_(0, inverse, surprise[inverse])
    found: list[ConceptEvidence] = []
    for row in weight.sort(descending=True, stable=True).indices[:limit].tolist():
        mine = inverse == row
        best = int(values[mine].argmax())
        position = int(token_of[mine][best])
        latent = int(unique[row])
        found.append(
            ConceptEvidence(
                latent=latent,
                token=pieces[position],
                position=position,
                activation=float(values[mine][best]),
                clean_rate=float(rate[row]),
                surprise=float(surprise[row]),
                contexts=book.of(latent),
            )
        )
    return tuple(found)
