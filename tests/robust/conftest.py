import random

import pytest
import torch
from tests.worlds import text_of

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.twins import Row, Twin, TwinRows, encode_twin
from perimetry.perturb import Typos
from perimetry.robust.adapter import Tunable
from perimetry.robust.recipe import TuneConfig
from perimetry.sae.base import Start
from perimetry.sae.batchtopk import BatchTopKSAE

POLICY = TokenPolicy(max_norm=1e9)
LAYER = 1


@pytest.fixture
def lm() -> LanguageModel:
    """A model of its own: tuning changes it."""
    return tiny_language_model("llama")


@pytest.fixture
def twins(lm: LanguageModel) -> list[TwinRows]:
    found = []
    for number, text in enumerate(text_of(f"twins:{i}", 14) for i in range(8)):
        bad = Typos().apply(text, 0.4, random.Random(number))
        found.append(encode_twin(lm, Twin(f"t{number}", text, bad), POLICY))
    return found


@pytest.fixture
def rows(lm: LanguageModel) -> list[Row]:
    texts = [text_of(f"guard:{i}", 12) for i in range(4)]
    return [encode_twin(lm, Twin(f"g{i}", text, text), POLICY).clean for i, text in enumerate(texts)]


@pytest.fixture
def tunable(lm: LanguageModel) -> Tunable:
    return Tunable(lm, TuneConfig(rank=2), LAYER)


@pytest.fixture
def sae() -> BatchTopKSAE:
    made = BatchTopKSAE.fresh(Start(torch.zeros(32), 64, 6, seed=0))
    made.threshold = 1.5
    return made.requires_grad_(False).eval()
