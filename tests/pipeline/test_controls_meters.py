"""Meters in which something was not learned: what differs, and that nothing else does."""

from typing import Any

import pytest
import torch
from tests.worlds import World

from perimetry.assets import Document, read_texts
from perimetry.config import build
from perimetry.errors import UsageError
from perimetry.pipeline.controls_config import ControlsConfig
from perimetry.pipeline.controls_meters import (
    Unlearned,
    fit_documents,
    fit_settings,
    mean_l0,
    unlearned_model,
    unlearned_saes,
)
from perimetry.sae.affine import AffineSAE
from perimetry.sae.matching_pursuit import MatchingPursuitSAE
from perimetry.shift import DETECTORS
from perimetry.shift.meter import Meter

FITTED = {"profile_tokens": 1000, "foresight_tokens": 500, "reference_tokens": 500, "calibration_prompts": 20}


def config(**changes: Any) -> ControlsConfig:
    return build(ControlsConfig, {"acts": 400, "passages": 8, **FITTED, **changes}, "test")


@pytest.fixture(scope="module")
def documents(world: World) -> list[Document]:
    return list(read_texts(world.prompts))


@pytest.fixture(scope="module")
def made(meter: Meter, documents: list[Document]) -> Unlearned:
    return unlearned_saes(meter, documents, config())


def test_the_settings_are_the_meters_own_but_for_what_is_named(meter: Meter) -> None:
    own = fit_settings(meter, config(profile_tokens=None))
    assert (own.profile_tokens, own.calibration_prompts, own.words_high) == (2000, 20, 24)
    assert fit_settings(meter, config()).profile_tokens == 1000
    assert own.main == meter.main


def test_held_out_documents_are_left_out(meter: Meter, world: World, documents: list[Document]) -> None:
    held = documents[:50]
    found = fit_documents(meter, held, config())
    assert found == documents[50:], "the meter's own text"
    other = fit_documents(meter, held, config(fit_text=str(world.corpus)))
    assert other == list(read_texts(world.corpus))
    with pytest.raises(
        UsageError, match=r"every document of .* is held out for the test; the meters of the controls want"
    ):
        fit_documents(meter, documents, config())
    silent = Meter(meter.extractor, meter.sae, meter.info, meter.normal, main=meter.main, details={})
    with pytest.raises(UsageError, match="does not say which clean text it was fitted on; give it as `fit_text`"):
        fit_documents(silent, held, config())


def test_only_the_dictionary_differs(made: Unlearned, meter: Meter) -> None:
    trained, blank, permuted = made.trained, made.untrained, made.permuted
    assert trained.sae is meter.sae
    assert isinstance(trained.sae, AffineSAE)
    assert isinstance(blank.sae, AffineSAE)
    assert isinstance(permuted.sae, AffineSAE)
    assert torch.equal(permuted.sae.W_enc, trained.sae.W_enc)
    assert not torch.equal(permuted.sae.W_dec, trained.sae.W_dec)
    assert torch.equal(permuted.sae.W_dec.sum(1).sort().values, trained.sae.W_dec.sum(1).sort().values)
    assert not torch.equal(blank.sae.W_enc, trained.sae.W_enc)
    assert made.l0[1] == pytest.approx(round(made.l0[0]), rel=0.05), "it fires as often on the same tokens"
    for meter_ in (blank, permuted):
        assert meter_.extractor is trained.extractor
        assert meter_.details["config"] == trained.details["config"]
        assert meter_.normal.detectors.keys() == trained.normal.detectors.keys() == DETECTORS.keys()
        for name, detector in meter_.normal.detectors.items():
            if not detector.needs_sae:
                assert detector is trained.normal.detectors[name], name


def test_an_untrained_sae_follows_the_seed(meter: Meter, documents: list[Document], made: Unlearned) -> None:
    again, other = (unlearned_saes(meter, documents, config(seed=seed)).untrained.sae for seed in (1, 2))
    assert isinstance(again, AffineSAE)
    assert isinstance(other, AffineSAE)
    assert isinstance(made.untrained.sae, AffineSAE)
    assert torch.equal(again.W_dec, made.untrained.sae.W_dec)
    assert not torch.equal(other.W_dec, again.W_dec)


def test_an_untrained_model_has_a_meter_of_its_own(meter: Meter, documents: list[Document]) -> None:
    there = unlearned_model(meter, documents, config(), k=6)
    assert there.lm.revision != meter.lm.revision
    assert there.extractor.tap.layer == meter.extractor.tap.layer
    assert there.policy.max_norm != meter.policy.max_norm
    assert there.policy.model_dump(exclude={"max_norm"}) == meter.policy.model_dump(exclude={"max_norm"})
    assert there.main == meter.main
    acts = torch.cat(
        [
            capture.acts.float()
            for capture in there.extractor.capture(
                there.extractor.prepare([d.id for d in documents[:40]], [d.text for d in documents[:40]]), logits=False
            )
        ]
    )
    assert mean_l0(there.sae, acts) == pytest.approx(6, rel=0.3)
    reading = there.score(["the cat sat on the mat before the rain."], detectors="all")[0]
    assert all(torch.tensor(value).isfinite() for value in reading.scores.values())


def test_an_sae_without_an_encoder_matrix_is_refused(meter: Meter, documents: list[Document]) -> None:
    pursuit = MatchingPursuitSAE.tiny()
    assert not isinstance(pursuit, AffineSAE)
    other = Meter.__new__(Meter)
    other.sae, other.extractor = pursuit, meter.extractor
    with pytest.raises(UsageError, match="an SAE of the architecture 'matching_pursuit' has no untrained twin"):
        unlearned_saes(other, documents, config())
