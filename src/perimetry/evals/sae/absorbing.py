"""Absorption on plain tensors: which latents stand for a letter, and where another latent writes the letter instead.

Symbols: p is the projection of a word's raw activation on the unit direction of the letter's probe; latent j adds
p_j = activation * (decoder row . direction) to it. Only products of activations and decoder rows count, so a dictionary whose
latents are scaled up and their decoder rows down is the same dictionary.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from torch import Tensor

from perimetry.axes import Acts, Decoder, LatentBias, PerToken
from perimetry.errors import NonFinite, TooFewSamples
from perimetry.evals.sae.letter_probes import csr_of, f1, fit_probe, main_latents, ranked_latents
from perimetry.evals.sae.letters import ALPHABET, HELD_OUT, JUDGED, TRAINING
from perimetry.sae.base import Codes

__all__ = [
    "ABSORBERS",
    "PART_COSINE",
    "PROJECTION",
    "TOP_COSINE",
    "Absorbed",
    "LetterProbes",
    "LetterResults",
    "ProbeRules",
    "SplitRules",
    "absorbed_words",
    "absorption_by_letter",
    "join_codes",
    "letter_probes",
]

TOP_COSINE: Final = 0.025
"""Full absorption: least cosine between the decoder row of the latent that projects most and the probe."""
PART_COSINE: Final = 0.1
"""Absorption fraction: least cosine of a latent that counts as an absorber."""
PROJECTION: Final = 0.4
"""Both: least share of the activation's projection that the absorbing latents carry."""
ABSORBERS: Final = 3
"""Absorption fraction: the most latents that count as absorbers of one word."""

DECODER_ROWS: Final = 4096

PerWord = Int[Tensor, " word"]


class ProbeRules(NamedTuple):
    """How the probes on activations are fitted, and which letters qualify."""

    l2: float
    """Penalty of the probes, on activations centred and divided by their root mean square."""
    least_words: int
    """Words that a letter needs in each of the three parts."""
    least_f1: float
    """F1 on held-out words that a letter's probe must exceed."""
    least_letters: int
    """Letters that must qualify."""


class SplitRules(NamedTuple):
    """How the main latents of a letter are found."""

    l1: float
    """Weight of the L1 probe that ranks the latents."""
    l2: float
    """Penalty of the probes on the first few."""
    rise: float
    """What one latent more must add to F1, at least, to count as a main latent."""
    most: int
    """The most main latents of a letter."""


class LetterProbes(NamedTuple):
    """The ground truth: what in the activations says a word's first letter."""

    letters: Int[Tensor, " letter"]
    """Letters that qualified, by their place in the alphabet."""
    weights: Float[Tensor, "letter d_model"]
    """Of their probes, on raw activations; float64."""
    biases: Float[Tensor, " letter"]
    """Of their probes; a probe fires where its score is above 0."""
    f1: Float[Tensor, " letter"]
    """On held-out words."""
    scale: Float[Tensor, ""]
    """Root mean square of a coordinate of the centred activations."""


class Absorbed(NamedTuple):
    """What happened at some words of a letter."""

    full: Bool[Tensor, " token"]
    """Whether the main latents were silent and one other latent wrote the letter."""
    fraction: PerToken
    """Share of the letter that up to three other latents wrote, in [0, 1]."""


class LetterResults(NamedTuple):
    """Absorption letter by letter."""

    names: tuple[str, ...]
    """The letters."""
    words: Float[Tensor, " letter"]
    """Words on which it was measured: those at which the letter's probe fires."""
    full: Float[Tensor, " letter"]
    """How many of them were absorbed in full."""
    fraction: Float[Tensor, " letter"]
    """Sum of their absorption fractions."""
    main: Float[Tensor, " letter"]
    """Main latents."""
    main_f1: Float[Tensor, " letter"]
    """F1 of the probe on the main latents, on held-out words."""


class _Written(NamedTuple):
    norms: LatentBias
    """Length of each decoder row, float64."""
    onto: Float[Tensor, "d_sae letter"]
    """Its projection on each letter's probe, float64."""


def _written(decoder: Decoder, directions: Float[Tensor, "letter d_model"]) -> _Written:
    norms: list[Tensor] = []
    onto: list[Tensor] = []
    # Some rows at a time: a decoder of 64 k latents in float64 takes a gigabyte.
    for part in decoder.split(DECODER_ROWS):
        rows = part.cpu().double()
        norms.append(rows.norm(dim=1))
        onto.append(rows @ directions.T)
    return _Written(torch.cat(norms), torch.cat(onto))


def join_codes(parts: Sequence[Codes]) -> Codes:
    """Codes of several batches as one, with as many slots as the widest has, and at least one."""
    slots = max(1, *(part.indices.shape[1] for part in parts))

    def wide(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (0, slots - x.shape[1]))

    indices = torch.cat([wide(part.indices) for part in parts])
    return Codes(indices, torch.cat([wide(part.values) for part in parts]), parts[0].width)


def _enough(letters: PerWord, parts: PerWord, least: int) -> list[int]:
    counts = torch.stack(
        [torch.bincount(letters[parts == part], minlength=26) for part in (TRAINING, HELD_OUT, JUDGED)]
    )
    return (counts.min(0).values >= least).nonzero()[:, 0].tolist()


def letter_probes(acts: Acts, letters: PerWord, parts: PerWord, rules: ProbeRules) -> LetterProbes:
    """One-vs-rest logistic probes of raw activations, of the letters that qualify.

    A letter qualifies with enough words in each part, an F1 on held-out words above the least, and a judged word at which its probe
    fires. Errors: `NonFinite`, `TooFewSamples` where too few letters have words, or too few qualify.
    """
    if not bool(acts.isfinite().all()):
        raise NonFinite(
            "the activations at the words hold NaN or infinity; finite ones are wanted; check the model and its dtype"
        )
    candidates = _enough(letters, parts, rules.least_words)
    if len(candidates) < rules.least_letters or len(candidates) < 2:
        raise TooFewSamples(
            f"{len(candidates)} letters have {rules.least_words} words for each of training, held-out and judged words; wanted "
            f"{max(2, rules.least_letters)} letters; give more words, or use a model with more whole words in its vocabulary"
        )
    train, held = parts == TRAINING, parts == HELD_OUT
    centre = acts[train].double().mean(0)
    scale = (acts[train].double() - centre).square().mean().sqrt()
    x = (acts.double() - centre) / scale
    kept: list[tuple[int, Tensor, float, float]] = []
    best = 0.0
    for letter in candidates:
        truth = letters == letter
        probe = fit_probe(x[train], truth[train], rules.l2)
        fires = probe.scores(x) > 0
        found = f1(fires[held], truth[held])
        best = max(best, found)
        if found > rules.least_f1 and bool((fires & truth & (parts == JUDGED)).any()):
            weights = probe.weights / scale
            kept.append((letter, weights, probe.bias - float(centre @ weights), found))
    if len(kept) < rules.least_letters or not kept:
        raise TooFewSamples(
            f"the probes of {len(kept)} of {len(candidates)} letters exceed F1 {rules.least_f1:g} on held-out words (best {best:.3f}); "
            f"wanted {max(1, rules.least_letters)}; this model does not show first letters at this layer: use a larger model, another "
            "layer, or more words"
        )
    numbers, weights, biases, quality = zip(*kept, strict=True)
    return LetterProbes(
        torch.tensor(numbers),
        torch.stack(weights),
        torch.tensor(biases, dtype=torch.float64),
        torch.tensor(quality, dtype=torch.float64),
        scale,
    )


def absorbed_words(
    codes: Codes, projection: PerToken, onto: LatentBias, cosine: LatentBias, main: Int[Tensor, " main"]
) -> Absorbed:
    """Full absorption and absorption fraction of words at which a letter's probe fires.

    `projection` is that of their raw activations on the probe, `onto` that of each decoder row, `cosine` the latter's cosine, `main`
    the letter's main latents. A word whose projection is not above 0 is not absorbed.

    >>> codes = Codes(torch.tensor([[1], [0]]), torch.tensor([[3.0], [3.0]]), 2)
    >>> absorbed_words(codes, torch.tensor([4.0, 4.0]), torch.ones(2), torch.ones(2), torch.tensor([0]))
    Absorbed(full=tensor([ True, False]), fraction=tensor([1., 0.], dtype=torch.float64))
    """
    total, onto, cosine = projection.double(), onto.double(), cosine.double()
    is_main = torch.isin(codes.indices, main)
    written = codes.values.double() * onto[codes.indices]
    silent = ~(is_main & (codes.values != 0)).any(1)
    largest, slot = written.max(1)
    leader = cosine[codes.indices.gather(1, slot[:, None])[:, 0]]
    full = silent & (total > 0) & (leader >= TOP_COSINE) & (largest >= PROJECTION * total)
    by_main = torch.where(is_main, written, 0).sum(1)
    able = ~is_main & (cosine[codes.indices] >= PART_COSINE) & (written > 0)
    others = torch.where(able, written, 0).topk(min(ABSORBERS, written.shape[1])).values.sum(1)
    taken = torch.minimum(others, total - by_main)
    share = torch.where(by_main <= 0, 1.0, taken / (taken + by_main))
    counts = (total > 0) & (others >= PROJECTION * total) & (by_main < total)
    return Absorbed(full, torch.where(counts, share, 0.0))


def absorption_by_letter(
    acts: Acts,
    letters: PerWord,
    parts: PerWord,
    probes: LetterProbes,
    codes: Codes,
    decoder: Decoder,
    rules: SplitRules,
) -> LetterResults:
    """Main latents from the training and held-out words, then absorption at the judged words, letter by letter.

    Errors: `NonFinite` for codes that are, `TooFewSamples` where no latent fires at any training word.
    """
    if not bool(codes.values.isfinite().all()):
        raise NonFinite("the codes of the words hold NaN or infinity; finite ones are wanted; check the dictionary")
    train, held, judged = (parts == part for part in (TRAINING, HELD_OUT, JUDGED))
    directions = probes.weights / probes.weights.norm(dim=1, keepdim=True)
    wrote = _written(decoder.detach(), directions)
    # Codes in units of what they write, over the spread of the activations: the penalties mean the same in every dictionary.
    plain = csr_of(codes, wrote.norms / probes.scale)
    halves = (plain[train.numpy().nonzero()[0]], plain[held.numpy().nonzero()[0]])
    if not halves[0].nnz:
        raise TooFewSamples(
            f"none of the {codes.width} latents fires at any of {int(train.sum())} training words; wanted some that do; the dictionary "
            "is dead at this place: check that it belongs to this model and layer"
        )
    truth = letters[:, None] == probes.letters
    ranked = ranked_latents(halves[0], truth[train], rules.l1, rules.most)
    columns = (sparse.csc_array(halves[0]), sparse.csc_array(halves[1]))
    scores = acts.double() @ probes.weights.T + probes.biases
    cosines = wrote.onto / wrote.norms[:, None].clamp_min(torch.finfo(torch.float64).tiny)
    found: list[tuple[float, float, float, float, float]] = []
    for i in range(len(probes.letters)):
        main = main_latents(columns, (truth[train, i], truth[held, i]), ranked[i], rules.rise, rules.l2)
        at = (judged & truth[:, i] & (scores[:, i] > 0)).nonzero()[:, 0]
        projection = acts[at].double() @ directions[i]
        absorbed = absorbed_words(codes.select(at), projection, wrote.onto[:, i], cosines[:, i], main.latents)
        found.append((len(at), float(absorbed.full.sum()), float(absorbed.fraction.sum()), len(main.latents), main.f1))
    names = tuple(ALPHABET[i] for i in probes.letters.tolist())
    return LetterResults(names, *torch.tensor(found, dtype=torch.float64).T)
