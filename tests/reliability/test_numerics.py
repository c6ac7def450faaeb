"""A meter's numbers against a second implementation: NumPy in float64, from the files of the meter and the residual stream on."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tests.worlds import World, text_of

from perimetry.shift.meter import Meter
from perimetry.storage import read_json

pytestmark = pytest.mark.numerics
Array = NDArray[np.float64]
CLOSE = 1e-5


class Scored(NamedTuple):
    """What the second implementation says of a prompt."""

    scores: dict[str, float]
    """Score by name."""
    p_value: float
    """Of the main score."""
    group: str
    """Whose calibration prompts it was held against."""
    tokens: int
    """Tokens that count."""
    margin: float
    """Least distance of a pre-activation from the threshold: nearer ones may fall on either side."""


class Numpy:
    """A meter, read from its files alone."""

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = json.loads((folder / "meter.json").read_text())
        names = ("sae", "detectors", "normal", "calibration")
        self.files = {
            n: {k: v.double().numpy() for k, v in load_file(folder / f"{n}.safetensors").items()} for n in names
        }

    def score(self, residual: Array) -> Scored:
        """`residual`: of all tokens of one prompt after the block, the BOS first."""
        acts = residual[1:]
        acts = acts[np.linalg.norm(acts, axis=1) <= self.about["policy"]["max_norm"]]
        sae, detectors = self.files["sae"], self.files["detectors"]
        pre = (acts - sae["b_dec"]) @ sae["W_enc"].T + sae["b_enc"]
        cut = float(self.about["settings"]["threshold"])
        codes = np.where(pre > cut, pre, 0.0)
        error = acts - (codes @ sae["W_dec"] + sae["b_dec"])
        each = {
            "surprise": (codes > 0) @ detectors["surprise|weights"],
            "bernoulli": (codes > 0) @ detectors["bernoulli|weights"] + float(detectors["bernoulli|silence"]),
            "l0": (codes > 0).sum(1).astype(np.float64),
            "norm": np.linalg.norm(acts, axis=1),
            "recon_error": np.square(error).sum(1),
            "energy": np.square(error).sum(1) / float(detectors["energy|scale"]) + codes @ detectors["energy|weights"],
        }
        scores: dict[str, float] = {}
        for name, tokens in each.items():
            scores[name] = float(tokens.mean())
            scores[f"{name}.top10"] = float(np.sort(tokens)[-math.ceil(len(tokens) / 10) :].mean())
            runs = [tokens[i : i + 8].mean() for i in range(max(1, len(tokens) - 7))]
            scores[f"{name}.max"] = float(max(runs))
        group, p = self._p_value(self.about["main"], scores[self.about["main"]], len(acts))
        return Scored(scores, p, group, len(acts), float(np.abs(pre - cut).min()))

    def _p_value(self, name: str, score: float, tokens: int) -> tuple[str, float]:
        found = self.files["calibration"]
        place = int((tokens >= found["edges"]).sum())
        sets = {k.split("|")[2]: v for k, v in found.items() if k.startswith(f"scores|{name}|")}
        edges = [1, *(int(e) for e in found["edges"])]
        label = f"tokens {edges[place]}" + (f"-{edges[place + 1] - 1}" if place + 1 < len(edges) else "+")
        group = label if label in sets else "pooled"
        clean = sets[group]
        # A score that is in the calibration set up to rounding counts as equal.
        return group, (1 + int((clean >= score - 1e-6 * abs(score)).sum())) / (len(clean) + 1)


@pytest.fixture(scope="module")
def prompts() -> dict[str, str]:
    return {f"n{i}": text_of(f"numerics{i}", 4 + 2 * i) for i in range(12)}


@pytest.fixture(scope="module")
def second(world: World, meter: Meter, prompts: dict[str, str]) -> dict[str, Scored]:
    """One prompt at a time, by the whole model in one plain pass."""
    scorer = Numpy(world.meter)
    found: dict[str, Scored] = {}
    for name, text in prompts.items():
        ids = meter.lm.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        ids = torch.cat([torch.tensor([[meter.lm.bos_id]]), ids], 1)
        with torch.no_grad():
            states: Any = meter.lm.model(ids, output_hidden_states=True).hidden_states
        found[name] = scorer.score(states[scorer.about["layer"] + 1][0].double().numpy())
    return found


def test_scores_equal_a_second_implementation_in_float64(
    meter: Meter, prompts: dict[str, str], second: dict[str, Scored]
) -> None:
    compared = 0
    for reading in meter.score(list(prompts.values()), ids=list(prompts), detectors="all"):
        wanted = second[reading.id]
        assert reading.tokens_scored == wanted.tokens
        if wanted.margin <= 1e-5:
            continue  # a latent that may fall on either side in float32
        compared += 1
        for name, value in wanted.scores.items():
            assert reading.scores[name] == pytest.approx(value, rel=CLOSE, abs=CLOSE), f"{name} of {reading.id}"
        assert reading.group == wanted.group
        assert reading.p_value == pytest.approx(wanted.p_value, rel=1e-12)
    assert compared >= 8


def test_the_second_implementation_would_see_a_fault(second: dict[str, Scored], world: World) -> None:
    scorer = Numpy(world.meter)
    scorer.files["sae"]["b_enc"] = scorer.files["sae"]["b_enc"] + 1e-2
    assert not np.allclose(
        [scorer.score(np.ones((5, 32))).scores["recon_error"]],
        [Numpy(world.meter).score(np.ones((5, 32))).scores["recon_error"]],
        rtol=CLOSE,
    )
    assert second


def test_scores_rise_on_what_lies_further_out() -> None:
    """Orientation, on the golden numbers: higher is further, and a dictionary that reads nothing sees less."""
    areas = read_json(Path(__file__).parents[1] / "shift" / "golden_auroc.json")["world"]
    assert {name: area for name, area in areas.items() if area < 0.5} == {}
    assert areas["shuffled_decoder"] < areas["recon_error"] - 0.2
    assert areas["random_dictionary"] < areas["l0"] - 0.2
