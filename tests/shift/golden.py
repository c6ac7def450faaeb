"""AUROC of every detector in two small fixed worlds; `python -m tests.shift.golden` renews `golden_auroc.json`.

Renew it only when a change of the numbers is meant, and say in the commit which number moved and why.
"""

import random
from pathlib import Path

import torch
from tests.worlds import text_of

from perimetry.activations.model import tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.measures.ranking import auroc
from perimetry.perturb import Typos
from perimetry.runtime import generator
from perimetry.sae.affine import initial_weights
from perimetry.sae.controls import untrained
from perimetry.sae.standard import StandardSAE
from perimetry.shift import DETECTORS
from perimetry.shift.base import AbstractDetector, Evidence, LogitStats, concatenate
from perimetry.shift.evidence import Extractor
from perimetry.shift.profile import Dictionary, Profile
from perimetry.shift.tables import score_table
from perimetry.storage import write_json

from . import worlds

__all__ = ["FILE", "areas", "measure", "mild"]

FILE = Path(__file__).with_name("golden_auroc.json")
PAIRS = 60


def mild(seed: int, prompts: int = PAIRS) -> Evidence:
    """Clean evidence with some concepts more, some error more, some tokens exchanged: AUROCs between .5 and 1."""
    here, draw = worlds.clean(seed, prompts), generator(seed + 1000)
    n = here.tokens.numel()
    more = (torch.rand(n, worlds.D_SAE, generator=draw) < 0.012) * torch.rand(n, worlds.D_SAE, generator=draw)
    dense = here.codes.dense() + more
    values, indices = dense.topk(worlds.SLOTS, dim=1)
    reconstruction = here.reconstruction + more @ worlds.world().decoder
    odd = torch.rand(n, generator=draw) < 0.12
    tokens = torch.where(odd, torch.randint(0, worlds.VOCAB, (n,), generator=draw), here.tokens)
    assert here.logits is not None
    return here._replace(
        acts=reconstruction + 1.12 * (here.acts - here.reconstruction),
        codes=here.codes._replace(indices=torch.where(values > 0, indices, 0), values=values),
        reconstruction=reconstruction,
        tokens=tokens,
        words=(here.words * 0.95).clamp_min(1.0),
        logits=LogitStats(*(column * 1.12 for column in here.logits)),
    )


def areas(detectors: dict[str, AbstractDetector], calm: Evidence, odd: Evidence) -> dict[str, float]:
    """AUROC of each detector, token scores averaged over the prompt."""
    tables = [score_table(evidence, list(detectors), detectors, {}) for evidence in (calm, odd)]
    return {name: round(auroc(tables[0][name], tables[1][name]), 6) for name in detectors}


def _world() -> dict[str, float]:
    profile = worlds.profile_of(*(worlds.clean(seed) for seed in range(6)))
    fitted = {name: cls.fit(profile) for name, cls in DETECTORS.items()}
    return areas(fitted, worlds.clean(200, PAIRS), mild(201))


def _model() -> dict[str, float]:
    """A random llama of three blocks, a random dictionary that fires six concepts a token, typos in half of the words."""
    lm = tiny_language_model("llama")
    extractor = Extractor(lm, 1, TokenPolicy(max_norm=1e9))
    clean = [text_of(f"golden{i}", 12 + i % 9) for i in range(PAIRS)]
    sides = {
        "profile": [text_of(f"profile{i}", 14 + i % 7) for i in range(160)],
        "clean": clean,
        "odd": [Typos().apply(text, 0.5, random.Random(i)) for i, text in enumerate(clean)],
    }
    captures = {
        side: list(extractor.capture(extractor.prepare([str(i) for i in range(len(texts))], texts), logits=True))
        for side, texts in sides.items()
    }
    acts = torch.cat([capture.acts for capture in captures["profile"]])
    sae = untrained(StandardSAE(initial_weights(lm.d_model, 64, seed=0, b_dec=acts.mean(0))), 0, acts, 6)
    evidence = {side: concatenate([c.evidence(sae) for c in parts]) for side, parts in captures.items()}
    vocab = int(lm.model.config.get_text_config().vocab_size)
    dictionary = Dictionary(sae.W_dec.detach(), sae.b_dec.detach())
    profile = Profile.empty(lm.d_model, sae.d_sae, vocab, 0, dictionary=dictionary, sample=1024)
    profile.update(evidence["profile"])
    return areas({name: cls.fit(profile) for name, cls in DETECTORS.items()}, evidence["clean"], evidence["odd"])


def measure() -> dict[str, dict[str, float]]:
    """World -> detector -> AUROC."""
    return {"model": _model(), "world": _world()}


if __name__ == "__main__":
    write_json(FILE, measure(), indent=1)
