"""The contract of every detector in the table, and the direction of each that has one."""

import pytest
import torch
from safetensors.torch import load, save

from perimetry.errors import CorruptArtifact, TooFewSamples, UsageError
from perimetry.measures.ranking import auroc
from perimetry.sae.base import Codes
from perimetry.shift import DETECTORS
from perimetry.shift.base import AbstractDetector, Evidence
from perimetry.shift.pooling import pool
from perimetry.shift.profile import Profile

from . import worlds

NAMES = sorted(DETECTORS)
COMPANY = ("coactivation", "code_knn", "transition")
ON_ACTS = ("mahalanobis", "knn", "cosine", "pca_residual", "norm")
SPECIFIED = {
    "l0",
    "l0_excess",
    "surprise",
    "bernoulli",
    "energy",
    "fallacious_f1",
    "fallacious_f2",
    "novelty",
    "coactivation",
    "code_knn",
    "code_mahalanobis",
    "transition",
    "unforeseen",
    "recon_error",
    "recon_relative",
    "pca_residual",
    "nll",
    "nll_window",
    "nll_cusum",
    "entropy",
    "logit_energy",
    "tokens_per_word",
    "unigram_surprisal",
    "length",
    "norm",
    "mahalanobis",
    "relative_mahalanobis",
    "knn",
    "cosine",
    "random_dictionary",
    "shuffled_decoder",
    "forecast_error",
}


@pytest.fixture(scope="module")
def profile() -> Profile:
    return worlds.profile_of(*(worlds.clean(seed) for seed in range(8)))


@pytest.fixture(scope="module")
def fitted(profile: Profile) -> dict[str, AbstractDetector]:
    return {name: DETECTORS[name].fit(profile) for name in NAMES}


def per_prompt(detector: AbstractDetector, evidence: Evidence) -> torch.Tensor:
    scores = detector.score(evidence)
    return pool(scores, evidence.prompt, evidence.n_prompts, "mean") if detector.level == "token" else scores


def test_the_table_holds_what_the_specification_names() -> None:
    assert set(DETECTORS) == SPECIFIED
    assert all(cls.name == name for name, cls in DETECTORS.items())
    logits = {name for name, cls in DETECTORS.items() if cls.needs_logits}
    assert logits == {"nll", "nll_window", "nll_cusum", "entropy", "logit_energy"}
    ahead = {name for name, cls in DETECTORS.items() if cls.needs_foresight}
    assert ahead == {"unforeseen", "forecast_error"}


@pytest.mark.parametrize("name", NAMES)
def test_shape_dtype_finite_deterministic(name: str, profile: Profile, fitted: dict[str, AbstractDetector]) -> None:
    evidence = worlds.shifted(100, 9)
    scores = fitted[name].score(evidence)
    wanted = evidence.tokens.shape[0] if fitted[name].level == "token" else 9
    assert scores.shape == (wanted,)
    assert scores.dtype == torch.float32
    assert bool(torch.isfinite(scores).all())
    assert torch.equal(scores, fitted[name].score(evidence))
    assert torch.equal(scores, DETECTORS[name].fit(profile).score(evidence))


@pytest.mark.parametrize("name", NAMES)
def test_state_survives_a_file(name: str, fitted: dict[str, AbstractDetector]) -> None:
    state = load(save(fitted[name].state()))
    again = DETECTORS[name].from_state(state)
    evidence = worlds.shifted(101, 6)
    assert torch.equal(fitted[name].score(evidence), again.score(evidence))


def test_all_states_fit_into_one_file(fitted: dict[str, AbstractDetector]) -> None:
    flat = {f"{name}/{key}": value for name, d in fitted.items() for key, value in d.state().items()}
    assert set(load(save(flat))) == set(flat)


@pytest.mark.parametrize("name", NAMES)
def test_a_foreign_state_is_refused(name: str, fitted: dict[str, AbstractDetector]) -> None:
    with pytest.raises(CorruptArtifact, match=f"state of detector '{name}'"):
        DETECTORS[name].from_state(fitted[name].state() | {"surplus": torch.zeros(1)})


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_does_not_see_its_neighbours(name: str, fitted: dict[str, AbstractDetector]) -> None:
    evidence = worlds.shifted(102, 8)
    together = per_prompt(fitted[name], evidence)
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    shuffled = per_prompt(fitted[name], worlds.select_prompts(evidence, order))
    alone = torch.cat([per_prompt(fitted[name], worlds.select_prompts(evidence, [i])) for i in range(8)])
    torch.testing.assert_close(shuffled, together[order], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_needs_sae_says_whether_another_sae_changes_the_score(name: str) -> None:
    def other_sae(evidence: Evidence) -> Evidence:
        codes = evidence.codes._replace(values=(evidence.codes.values - 0.8).clamp_min(0))
        return evidence._replace(codes=codes, reconstruction=0.5 * evidence.reconstruction)

    clean, odd = [worlds.clean(seed) for seed in range(4)], worlds.shifted(110, 6)
    here = DETECTORS[name].fit(worlds.profile_of(*clean)).score(odd)
    there = DETECTORS[name].fit(worlds.profile_of(*map(other_sae, clean))).score(other_sae(odd))
    assert torch.equal(here, there) is not DETECTORS[name].needs_sae


@pytest.mark.parametrize("name", NAMES)
def test_order_and_padding_of_code_slots_do_not_matter(name: str, fitted: dict[str, AbstractDetector]) -> None:
    evidence = worlds.shifted(103, 4)
    wide = (
        torch.nn.functional.pad(evidence.codes.indices, (3, 2)),
        torch.nn.functional.pad(evidence.codes.values, (3, 2)),
    )
    other = evidence._replace(codes=Codes(wide[0].flip(1), wide[1].flip(1), worlds.D_SAE))
    torch.testing.assert_close(fitted[name].score(other), fitted[name].score(evidence), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in COMPANY])
def test_higher_on_planted_shift(name: str, fitted: dict[str, AbstractDetector]) -> None:
    calm, odd = per_prompt(fitted[name], worlds.clean(200, 60)), per_prompt(fitted[name], worlds.shifted(201, 60))
    least = 0.7 if name in ("random_dictionary", "relative_mahalanobis") else 0.85
    assert auroc(calm, odd) > least


@pytest.mark.parametrize("name", ON_ACTS)
def test_higher_far_away(name: str, fitted: dict[str, AbstractDetector]) -> None:
    evidence = worlds.clean(202, 20)
    far = evidence._replace(acts=evidence.acts + 5 * torch.ones(worlds.D_MODEL))
    assert bool((fitted[name].score(far).mean() > 2 * fitted[name].score(evidence).mean()).all())


@pytest.mark.parametrize("name", COMPANY)
def test_recombined_prompts_are_strange_company(name: str) -> None:
    known = worlds.profile_of(*(worlds.topical(seed) for seed in range(300, 306)))
    detector = DETECTORS[name].fit(known)
    calm, odd = worlds.topical(310), worlds.topical(311, mixed=True)
    assert auroc(per_prompt(detector, calm), per_prompt(detector, odd)) > 0.9
    counts = DETECTORS["surprise"].fit(known)
    assert abs(auroc(per_prompt(counts, calm), per_prompt(counts, odd)) - 0.5) < 0.2


@pytest.mark.parametrize("name", COMPANY)
def test_company_is_usual_on_clean_text(name: str) -> None:
    known = worlds.profile_of(*(worlds.topical(seed) for seed in range(300, 306)))
    detector = DETECTORS[name].fit(known)
    calm, more = worlds.topical(312), worlds.topical(313)
    assert 0.3 < auroc(per_prompt(detector, calm), per_prompt(detector, more)) < 0.7


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_profile_is_refused(name: str) -> None:
    with pytest.raises(TooFewSamples, match=r"give (it |more )?clean text|give more clean text|run the forward pass"):
        DETECTORS[name].fit(worlds.profile_of())


@pytest.mark.parametrize("name", [n for n in NAMES if DETECTORS[n].needs_logits or DETECTORS[n].needs_foresight])
def test_a_truncated_pass_is_refused(name: str, fitted: dict[str, AbstractDetector]) -> None:
    with pytest.raises(UsageError, match=f"detector '{name}' needs the (next-token distribution|model's last)"):
        fitted[name].score(worlds.clean(1, 3)._replace(logits=None, foresight=None))


@pytest.mark.parametrize("name", [n for n in NAMES if not (DETECTORS[n].needs_logits or DETECTORS[n].needs_foresight)])
def test_a_truncated_pass_is_enough(name: str, fitted: dict[str, AbstractDetector]) -> None:
    evidence = worlds.clean(1, 3)
    short = evidence._replace(logits=None, foresight=None)
    torch.testing.assert_close(fitted[name].score(short), fitted[name].score(evidence))
