"""What a reading shows beside its score: hot tokens and the concepts that betray the prompt."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import PerToken
from perimetry.sae.base import Codes
from perimetry.shift.base import Evidence
from perimetry.shift.context import FallaciousF2
from perimetry.shift.reading import ConceptEvidence, ExpectedConcept, FiredConcept, HotToken

__all__ = ["ContextBook", "explain_prompt", "explain_tokens", "snippet"]

_MOST: Final = 0.5


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


def explain_tokens(
    evidence: Evidence,
    rows: Int[Tensor, " row"],
    scores: PerToken,
    pieces: Sequence[str],
    detector: FallaciousF2,
    clean_rate: Float[Tensor, " d_sae"],
    book: ContextBook,
    hottest: int = 3,
    limit: int = 4,
) -> tuple[HotToken, ...]:
    """The tokens of one prompt that score highest: what fired there, and what the nearest clean tokens fire instead.

    `rows` are the places of the prompt's tokens in the evidence, `scores` and `pieces` belong to them. At most `limit`
    concepts are named on either side: fired ones without support first, rarer ones before others; missed ones by the share
    of the nearest clean tokens that fire them, more than half of them. At equal scores the earlier token comes first.
    """
    top = scores.sort(descending=True, stable=True).indices[:hottest]
    at = rows[top]
    false, shares = detector.false_slots(evidence, at), detector.company(evidence.acts[at])
    codes = evidence.codes.select(at)
    found: list[HotToken] = []
    for i, position in enumerate(top.tolist()):
        active = codes.values[i] != 0
        fired = [
            FiredConcept(f, value, float(clean_rate[f]), float(shares[i, f]), not wrong, book.of(f))
            for f, value, wrong in zip(
                codes.indices[i][active].tolist(),
                codes.values[i][active].tolist(),
                false[i][active].tolist(),
                strict=True,
            )
        ]
        fired.sort(key=lambda c: (c.supported, c.clean_rate, c.latent))
        absent = shares[i].clone()
        absent[codes.indices[i][active]] = 0
        missed = [
            ExpectedConcept(f, float(absent[f]), float(clean_rate[f]), book.of(f))
            for f in (absent > _MOST).nonzero()[:, 0].tolist()
        ]
        missed.sort(key=lambda c: (-c.share, c.clean_rate, c.latent))
        found.append(
            HotToken(
                str(pieces[position]), position, float(scores[position]), tuple(fired[:limit]), tuple(missed[:limit])
            )
        )
    return tuple(found)
