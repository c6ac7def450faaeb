"""A sparse linear world with a known dictionary: clean tokens, shifted ones, and recombined ones."""

from typing import NamedTuple

import torch

from perimetry.runtime import generator
from perimetry.sae.base import Codes
from perimetry.shift.base import Evidence, LogitStats
from perimetry.shift.profile import Dictionary, Profile

D_MODEL, D_SAE, VOCAB, SLOTS = 16, 48, 80, 24
TOPICS = 2


class World(NamedTuple):
    decoder: torch.Tensor
    bias: torch.Tensor
    rates: torch.Tensor
    of_token: torch.Tensor


def world(seed: int = 0) -> World:
    draw = generator(seed)
    decoder = torch.nn.functional.normalize(torch.randn(D_SAE, D_MODEL, generator=draw), dim=1)
    # The last third of the concepts is rare, the rest falls off slowly.
    rates = 0.25 / (1 + torch.arange(D_SAE)) ** 0.7
    rates[2 * D_SAE // 3 :] = 0.002
    of_token = torch.randint(0, 2 * D_SAE // 3, (VOCAB,), generator=draw)
    return World(decoder, torch.randn(D_MODEL, generator=draw) * 0.1, rates, of_token)


def _sparse(dense: torch.Tensor) -> Codes:
    values, indices = dense.topk(SLOTS, dim=1)
    return Codes(torch.where(values > 0, indices, 0), values, D_SAE)


def _evidence(
    draw: torch.Generator,
    lengths: list[int],
    tokens: torch.Tensor,
    dense: torch.Tensor,
    noise: float,
    words: float,
    nll: float,
    ahead: torch.Tensor,
) -> Evidence:
    here = world()
    n = tokens.numel()
    clean = dense @ here.decoder + here.bias
    size = torch.tensor(lengths)
    raised = LogitStats(
        *(nll * torch.rand(n, generator=draw) * 4 + torch.rand(n, generator=draw) for _ in range(3)),
    )
    return Evidence(
        acts=clean + noise * torch.randn(n, D_MODEL, generator=draw),
        codes=_sparse(dense),
        reconstruction=clean,
        tokens=tokens,
        positions=torch.cat([torch.arange(1, length + 1) for length in lengths]),
        prompt=torch.arange(len(lengths)).repeat_interleave(size),
        words=(size / words).floor().clamp_min(1.0),
        logits=raised,
        foresight=ahead,
    )


def _ahead(seed: int, n: int, meant: torch.Tensor | None = None) -> torch.Tensor:
    """A last hidden state that says which concept is meant, or nothing; its draws leave those of the rest alone."""
    noise = 0.05 * torch.randn(n, D_MODEL, generator=generator(7000 + seed))
    return noise if meant is None else noise + world().decoder[meant]


def draw_lengths(draw: torch.Generator, prompts: int) -> list[int]:
    return torch.randint(5, 30, (prompts,), generator=draw).tolist()


def clean(seed: int, prompts: int = 40) -> Evidence:
    """Tokens by Zipf; each has its own concept, which the model foresees, and others at their rates."""
    draw, here = generator(seed), world()
    lengths = draw_lengths(draw, prompts)
    tokens = torch.multinomial(1 / (1.0 + torch.arange(VOCAB)), sum(lengths), replacement=True, generator=draw)
    on = torch.rand(len(tokens), D_SAE, generator=draw) < here.rates
    on[torch.arange(len(tokens)), here.of_token[tokens]] = True
    dense = on * (0.5 + torch.rand(on.shape, generator=draw))
    ahead = _ahead(seed, len(tokens), here.of_token[tokens])
    return _evidence(draw, lengths, tokens, dense, 0.05, 1.3, 1.0, ahead)


def shifted(seed: int, prompts: int = 40) -> Evidence:
    """More concepts, rare ones too, stronger, badly written, unforeseen, on rare tokens, with more of them to a word."""
    draw, here = generator(seed), world()
    lengths = [2 * length for length in draw_lengths(draw, prompts)]
    tokens = torch.randint(VOCAB // 2, VOCAB, (sum(lengths),), generator=draw)
    on = torch.rand(len(tokens), D_SAE, generator=draw) < (2 * here.rates + 0.12)
    dense = on * (0.5 + 2 * torch.rand(on.shape, generator=draw))
    return _evidence(draw, lengths, tokens, dense, 0.8, 2.5, 4.0, _ahead(seed, len(tokens)))


def topical(seed: int, prompts: int = 60, *, mixed: bool = False) -> Evidence:
    """Each prompt keeps to the concepts of one of two topics; `mixed` ones draw each token's topic anew."""
    draw = generator(seed)
    lengths = draw_lengths(draw, prompts)
    n, half = sum(lengths), D_SAE // TOPICS
    topic = torch.randint(0, TOPICS, (prompts,), generator=draw).repeat_interleave(torch.tensor(lengths))
    if mixed:
        topic = torch.randint(0, TOPICS, (n,), generator=draw)
    tokens = torch.randint(0, VOCAB, (n,), generator=draw)
    on = torch.rand(n, half, generator=draw) < 0.15
    on[torch.arange(n), torch.randint(0, half, (n,), generator=draw)] = True
    values = on * (0.5 + torch.rand(on.shape, generator=draw))
    dense = torch.zeros(n, D_SAE)
    for t in range(TOPICS):
        dense[topic == t, t * half : (t + 1) * half] = values[topic == t].float()
    return _evidence(draw, lengths, tokens, dense, 0.05, 1.3, 1.0, _ahead(seed, n))


def profile_of(*parts: Evidence, unigrams: torch.Tensor | None = None, sample: int = 16384) -> Profile:
    here = world()
    dictionary = Dictionary(here.decoder, here.bias)
    out = Profile.empty(D_MODEL, D_SAE, VOCAB, 7, unigrams=unigrams, dictionary=dictionary, sample=sample, prompts=256)
    for part in parts:
        out.update(part)
    return out


def select_prompts(evidence: Evidence, rows: list[int]) -> Evidence:
    """Some prompts, in the given order."""
    where = [(evidence.prompt == row).nonzero()[:, 0] for row in rows]
    tokens = torch.cat(where)
    sizes = torch.tensor([len(w) for w in where])
    stats = evidence.logits
    return Evidence(
        acts=evidence.acts[tokens],
        codes=evidence.codes.select(tokens),
        reconstruction=evidence.reconstruction[tokens],
        tokens=evidence.tokens[tokens],
        positions=evidence.positions[tokens],
        prompt=torch.arange(len(rows)).repeat_interleave(sizes),
        words=evidence.words[rows],
        logits=None if stats is None else LogitStats(*(column[tokens] for column in stats)),
        foresight=None if evidence.foresight is None else evidence.foresight[tokens],
    )
