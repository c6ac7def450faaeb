"""What a study compares: presets, and what is refused before the first SAE is trained."""

import itertools
from typing import Any

import pytest

from perimetry.config import build
from perimetry.errors import ConfigError, UnknownName
from perimetry.pipeline.bench_suites import PROMPT_SUITES
from perimetry.pipeline.study_config import (
    CLEAN_SUITES,
    FIT_SPLIT,
    PRESETS,
    TEST_SPLIT,
    TRAIN_SPLIT,
    VALIDATION_SPLIT,
    StudyConfig,
    with_preset,
)
from perimetry.suites import SUITES


def study(**values: Any) -> StudyConfig:
    return build(StudyConfig, values, "configuration [study]")


def test_presets_are_whole_configurations() -> None:
    for name, values in PRESETS.items():
        made = build(StudyConfig, values, name)
        assert build(StudyConfig, made.model_dump(mode="json"), name) == made, "a written configuration reads as itself"
    full = StudyConfig()
    assert full.layers == (6, 12, 18, 24)
    assert full.architectures == ("batchtopk", "jumprelu", "standard", "matryoshka", "masked-batchtopk")
    assert (full.widths, full.seeds, full.recipe.tokens, full.recipe.k) == ((2304,), (0, 1), 300_000, 40)


def test_what_is_given_goes_before_the_preset() -> None:
    found = with_preset({"seeds": [5]}, "tiny")
    assert found["seeds"] == [5]
    assert found["layers"] == PRESETS["tiny"]["layers"]
    assert with_preset({}, "full") == {}
    with pytest.raises(UnknownName, match=r"preset 'quik'.*'quick'"):
        with_preset({}, "quik")


def test_the_splits_cover_the_documents_and_do_not_overlap() -> None:
    bounds = [TRAIN_SPLIT, FIT_SPLIT, VALIDATION_SPLIT, TEST_SPLIT]
    assert bounds[0][0] == 0.0
    assert bounds[-1][1] == 1.0
    assert all(one[1] == other[0] and one[0] < one[1] for one, other in itertools.pairwise(bounds))


def test_suites_that_share_prompts_are_refused() -> None:
    assert set(SUITES) - PROMPT_SUITES == CLEAN_SUITES
    with pytest.raises(ConfigError, match=r"suite jailbreaks is made of prompts, .* such as typos or word_order"):
        study(suites=["typos", "jailbreaks"])
    with pytest.raises(UnknownName, match="suite 'typo'"):
        study(suites=["typo"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": [6, 6]}, r"layers = \[6, 6\] names one twice; name each once"),
        ({"seeds": [1, 0, 1]}, r"seeds = \[1, 0, 1\] names one twice"),
        ({"seed": 12}, "seed and test_seed are both 12; give two"),
        ({"architectures": ["crosscoder"]}, "crosscoder reads several places or writes another; give one of one place"),
        ({"recipe": {"width": 512}}, "the recipe names width; name it in widths, which are compared"),
        ({"by_architecture": {"standard": {"seed": 3}}}, "the recipe names seed; name it in seeds"),
        ({"widths": [16], "recipe": {"k": 40}}, "k = 40 exceeds width = 16; give a smaller k"),
        ({"layers": []}, "layers = "),
        ({"masking": {"variant": "denoising"}}, "needs masked and clean activations side by side"),
        ({"layer": [3]}, "unknown key 'layer'; the nearest key is 'layers'"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study(**values)


def test_unknown_architectures_name_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"architecture 'batchtop'.*'batchtopk'"):
        study(architectures=["batchtop"])
    with pytest.raises(UnknownName, match="architecture 'standart'"):
        study(by_architecture={"standart": {}})


def test_a_recipe_an_architecture() -> None:
    config = study(by_architecture={"standard": {"sparsity": 0.5}}, architectures=["standard", "topk"], widths=[64, 96])
    one, other = config.recipe_of("standard", 64, 3), config.recipe_of("topk", 96, 4)
    assert (one.architecture, one.width, one.seed, one.sparsity, one.k) == ("standard", 64, 3, 0.5, 40)
    assert (other.architecture, other.width, other.seed, other.sparsity) == ("topk", 96, 4, None)


def test_masked_architectures_share_the_recipe_of_the_plain_one() -> None:
    own = {"topk": {"k": 7, "tokens": 5000}, "masked-topk": {"k": 9}}
    config = study(architectures=["topk", "masked-topk"], by_architecture=own, masking={"probability": 0.2})
    plain, masked = config.recipe_of("topk", 64, 3), config.recipe_of("masked-topk", 64, 3)
    assert masked == plain.model_copy(update={"k": 9})
    with pytest.raises(UnknownName, match=r"architecture 'batchtop'.*'batchtopk'"):
        study(architectures=["masked-batchtop"])
