"""Meters fitted on clean text: who may be married to whom, and whether the p-values hold."""

import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.shift.test_evidence import small_sae
from tests.worlds import text_of

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.assets import Document
from perimetry.config import build
from perimetry.errors import Incompatible, ModelMismatch, NonFinite, PolicyMismatch, UnknownName, WidthMismatch
from perimetry.runtime import generator
from perimetry.sae import ARCHITECTURES, BatchTopKSAE
from perimetry.sae.base import Start
from perimetry.sae.formats.info import LoadedSAE, Origin, SAEInfo
from perimetry.shift import DETECTORS
from perimetry.shift.clean import CleanParts, MeterConfig, split_clean
from perimetry.shift.evidence import Extractor
from perimetry.shift.fit import check_origin, fit_meters
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.shift.tables import all_score_names

SMALL = {
    "main": "surprise",
    "profile_tokens": 3000,
    "reference_tokens": 1000,
    "calibration_prompts": 200,
    "groups": 2,
    "minimum": 50,
    "bank": 256,
}


def prompts(kind: str, n: int) -> list[Document]:
    rng = random.Random(kind)
    return [Document(f"{kind}{i}", text_of(f"{kind}{i}", rng.randint(4, 24)), {}) for i in range(n)]


def loaded(**changes: object) -> LoadedSAE:
    return LoadedSAE(small_sae(), SAEInfo(architecture="batchtopk").model_copy(update=changes), False, None)


def extractor_of(lm: LanguageModel, layer: int = 1) -> Extractor:
    return Extractor(lm, layer, TokenPolicy().fitted(1e9))


@pytest.fixture(scope="module")
def extractor(tiny_lm: LanguageModel) -> Extractor:
    return extractor_of(tiny_lm)


@pytest.fixture(scope="module")
def settings() -> MeterConfig:
    return build(MeterConfig, SMALL, "test")


@pytest.fixture(scope="module")
def parts(extractor: Extractor, settings: MeterConfig) -> CleanParts:
    return split_clean(extractor, prompts("clean", 500), settings, passages=False)


@pytest.fixture(scope="module")
def fitted(extractor: Extractor, settings: MeterConfig, parts: CleanParts) -> Meter:
    return fit_meters(extractor, [loaded()], parts, settings)[0]


def test_p_values_of_exchangeable_prompts_are_uniform(fitted: Meter) -> None:
    fresh = [d.text for d in prompts("fresh", 500)]
    readings = fitted.score(fresh, detectors="all", explain=False)
    lengths = torch.tensor([float(r.tokens_scored) for r in readings])
    for name in ("surprise", "l0", "nll", "knn", "mahalanobis", "surprise.top10", "energy"):
        scores = torch.tensor([r.scores[name] for r in readings])
        p = fitted.normal.calibration.p_values(name, scores, lengths).p
        # 100 calibration prompts a group: the realised rate varies by sqrt(a (1 - a) (1 / 102 + 1 / 250)) in each of
        # two groups; four such deviations of their mean.
        for alpha in (0.05, 0.1, 0.25, 0.5, 0.75):
            deviation = math.sqrt(alpha * (1 - alpha) * (1 / 102 + 1 / 250) / 2)
            assert float((p <= alpha).double().mean()) == pytest.approx(alpha, abs=4 * deviation), (name, alpha)


def test_p_values_of_other_text_are_not(fitted: Meter) -> None:
    rng = random.Random(0)
    noise = ["".join(rng.choice("qxzjvkw#%&") for _ in range(40)) for _ in range(50)]
    p = torch.tensor([r.p_value for r in fitted.score(noise, explain=False)])
    assert float(p.mean()) < 0.25, "clean text has .5"


def test_each_calibration_prompt_has_a_place_in_its_group(fitted: Meter, parts: CleanParts) -> None:
    table = fitted.normal.calibration.scores
    assert set(table) == set(all_score_names())
    for groups in table.values():
        assert len(groups["pooled"]) == len(parts.calibration) == 200
        assert sum(len(v) for k, v in groups.items() if k != "pooled") == 200
    again = fitted.score([p.text for p in parts.calibration], explain=False)
    torch.testing.assert_close(
        torch.tensor([r.score for r in again]).sort().values, table[fitted.main]["pooled"], rtol=1e-4, atol=1e-4
    )


def test_contexts_point_at_the_token_on_which_the_concept_fires_hardest(fitted: Meter, parts: CleanParts) -> None:
    extractor, sae = fitted.extractor, fitted.sae
    best: dict[int, tuple[float, str]] = {}
    for prompt in parts.profile:
        (capture,) = extractor.capture([prompt], logits=False)
        codes = capture.evidence(sae).codes
        pieces = [
            p for p, keep in zip(prompt.encoded.pieces(prompt.text), capture.counted[0].tolist(), strict=True) if keep
        ]
        for token in range(len(pieces)):
            for latent, value in zip(codes.indices[token].tolist(), codes.values[token].tolist(), strict=True):
                if value > best.get(latent, (0.0, ""))[0]:
                    best[latent] = (value, pieces[token])
    assert len(best) > 10
    for latent in range(sae.d_sae):
        found = fitted.normal.book.of(latent)
        assert bool(found) == (latent in best)
        if found:
            assert f"«{best[latent][1].strip()}»" in found[0].replace("« ", "«"), latent
        assert len(set(found)) == len(found) or len(found) <= 3


def test_clean_rates_are_the_rates_on_the_profile(fitted: Meter, parts: CleanParts) -> None:
    fired, tokens = torch.zeros(fitted.sae.d_sae), 0
    for capture in fitted.extractor.capture(parts.profile, logits=False):
        codes = capture.evidence(fitted.sae).codes
        fired += codes.dense().ne(0).sum(0)
        tokens += codes.indices.shape[0]
    assert fitted.details["profile_tokens"] == tokens
    torch.testing.assert_close(fitted.normal.clean_rate.float(), fired / tokens, rtol=0.05, atol=2 / tokens)
    assert float(fitted.normal.clean_rate.min()) > 0, "a rate of zero would make an infinite surprise"


def test_references_are_the_moments_of_the_reference_part(fitted: Meter, parts: CleanParts) -> None:
    seen: list[torch.Tensor] = []
    for capture in fitted.extractor.capture(parts.reference, logits=False):
        seen.append(fitted.normal.detectors["surprise"].score(capture.evidence(fitted.sae)))
    scores = torch.cat(seen).double()
    reference = fitted.normal.references["surprise"]
    assert reference.mean == pytest.approx(float(scores.mean()), rel=1e-4)
    assert reference.deviation == pytest.approx(float(scores.std(correction=0)), rel=1e-3)
    assert set(fitted.normal.references) == {n for n, d in DETECTORS.items() if d.level == "token"}


def test_several_saes_from_one_pass_equal_one_at_a_time(
    extractor: Extractor, settings: MeterConfig, parts: CleanParts, fitted: Meter
) -> None:
    other = LoadedSAE(small_sae(d_sae=24), SAEInfo(architecture="batchtopk"), False, None)
    both = fit_meters(extractor, [other, loaded()], parts, settings)
    alone = fit_meters(extractor, [other], parts, settings)[0]
    texts = [d.text for d in prompts("x", 6)]
    for one, two in ((both[0], alone), (both[1], fitted)):
        for a, b in zip(one.score(texts, detectors="all"), two.score(texts, detectors="all"), strict=True):
            assert a.scores == b.scores
            assert a.p_value == b.p_value


@pytest.mark.parametrize("tokens", [500, 10**6])
def test_the_whole_model_reads_as_much_as_is_asked_for(
    tokens: int,
    extractor: Extractor,
    parts: CleanParts,
    settings: MeterConfig,
    fitted: Meter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, bool, bool]] = []
    capture = Extractor.capture

    def noted(self: Extractor, some: Any, **named: Any) -> Any:
        asked.append((len(some), named["logits"], named.get("foresight", False)))
        return capture(self, some, **named)

    monkeypatch.setattr(Extractor, "capture", noted)
    few = fit_meters(extractor, [loaded()], parts, settings.model_copy(update={"foresight_tokens": tokens}))[0]
    passes = asked[:-2]
    assert sum(n for n, _, _ in passes) == len(parts.profile)
    assert passes[0] == (len(parts.profile) // 20, True, True)
    read = parts.profile[: sum(n for n, _, foresight in passes if foresight)]
    sizes = [sum(p.encoded.countable) for p in read]
    assert len(read) == len(parts.profile) or sum(sizes[:-1]) < tokens <= sum(sizes)
    assert few.details["profile_tokens"] == fitted.details["profile_tokens"]
    weights = [m.normal.detectors["unforeseen"].state()["weights"] for m in (few, fitted)]
    assert torch.equal(*weights) == (tokens > 500)


def test_the_main_detector_is_checked_before_the_work(
    extractor: Extractor, parts: CleanParts, settings: MeterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Extractor, "capture", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(UnknownName, match="unknown detector 'surprize'; the nearest name is 'surprise'"):
        fit_meters(extractor, [loaded()], parts, settings.model_copy(update={"main": "surprize"}))


def test_activations_that_are_no_numbers_stop_the_fit(settings: MeterConfig) -> None:
    lm = tiny_language_model("llama")
    lm.model.get_parameter("model.layers.1.mlp.down_proj.weight").data[3, 3] = torch.inf
    sick = extractor_of(lm)
    parts = split_clean(sick, prompts("clean", 500), settings, passages=False)
    with pytest.raises(NonFinite, match="gives NaN or infinite activations after block 1"):
        fit_meters(sick, [loaded()], parts, settings)


def test_an_sae_that_says_nothing_is_believed(extractor: Extractor) -> None:
    check_origin(loaded(), extractor)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"revision": "0" * 64, "model": "m"},
            ModelMismatch,
            "the SAE was trained on 'm' of revision 000000000000, this",
        ),
        ({"layer": 2}, ModelMismatch, "the SAE was trained after block 2, block 1 was asked for"),
        ({"dtype": "bfloat16"}, ModelMismatch, "activations in bfloat16, this model computes in float32"),
        ({"policy": {"prepend_bos": False}}, PolicyMismatch, "another BOS rule"),
        (
            {"policy": {"max_norm": 3.0}},
            PolicyMismatch,
            r"max_norm is 3.0, wanted 10000000000.0",
        ),
    ],
)
def test_an_sae_of_other_origin_is_refused(
    extractor: Extractor, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_origin(loaded(**changes), extractor)


def test_an_sae_of_another_width_is_refused(extractor: Extractor) -> None:
    narrow = LoadedSAE(BatchTopKSAE.tiny(), SAEInfo(architecture="batchtopk"), False, None)
    with pytest.raises(WidthMismatch, match=r"the SAE reads width 8 but layers.1 of this model gives 32"):
        check_origin(narrow, extractor)


@pytest.mark.parametrize(
    ("name", "does"),
    [("crosscoder", "reads several places at once"), ("transcoder", "writes another place than it reads")],
)
def test_dictionaries_of_several_places_are_refused(name: str, does: str, extractor: Extractor) -> None:
    several = LoadedSAE(ARCHITECTURES[name].tiny(), SAEInfo(architecture=name), False, None)
    with pytest.raises(Incompatible, match=f"a '{name}' {does}; a meter wants a dictionary of one place, such as"):
        check_origin(several, extractor)


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"crosscoder", "temporal", "transcoder"}))
def test_a_meter_of_every_architecture_survives_its_folder(
    name: str, extractor: Extractor, parts: CleanParts, settings: MeterConfig, tmp_path: Path
) -> None:
    cls = ARCHITECTURES[name]
    width = extractor.lm.d_model
    centre = torch.randn(width, generator=generator(3))
    sae = cls.fresh(Start(centre, d_sae=40, k=4, seed=1, options=cls.options_type())).requires_grad_(False)
    made = fit_meters(extractor, [LoadedSAE(sae, SAEInfo(architecture=name), False, None)], parts, settings)[0]
    made.save(tmp_path / "meter")
    texts = [d.text for d in prompts("x", 3)]
    again = load_meter(tmp_path / "meter", lm=extractor.lm)
    for one, two in zip(made.score(texts, detectors="all"), again.score(texts, detectors="all"), strict=True):
        assert one.scores == two.scores


def test_a_converted_sae_that_was_never_measured_is_refused(extractor: Extractor) -> None:
    strange = loaded(origin=Origin.model_construct(source=SimpleNamespace(family="sparsify")))
    with pytest.raises(Incompatible, match="its certificate says nothing; a meter wants one that was checked"):
        check_origin(strange, extractor)


def test_nothing_global_is_drawn_from(extractor: Extractor, settings: MeterConfig, parts: CleanParts) -> None:
    before = torch.random.get_rng_state()
    draw = generator(0)
    fit_meters(extractor, [loaded()], parts, settings)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(draw.get_state(), generator(0).get_state())
