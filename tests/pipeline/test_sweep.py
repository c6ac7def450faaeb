"""What a run trains: products, lists, flags over files; and how its SAEs are told apart."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry.activations.site import Site
from perimetry.errors import ConfigError, UnknownName
from perimetry.pipeline.sweep import Member, RunConfig, differences, expand, folder_names, parse_sweep, with_flags
from perimetry.train import TrainConfig

TINY: dict[str, Any] = {"width": 64, "k": 4, "tokens": 1024, "batch": 128}


def members(*runs: dict[str, Any], layer: int = 3) -> list[Member]:
    return [Member(TrainConfig.model_validate({**TINY, **run}), (Site(layer),)) for run in runs]


def names(*runs: dict[str, Any]) -> list[str]:
    return folder_names(differences(members(*runs)))


def refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        expand({**TINY, **values})


def test_without_lists_it_is_one_sae() -> None:
    (run,) = expand(TINY)
    assert run.recipe == TrainConfig(**TINY)
    assert run.where.model_dump() == {"layer": None, "layers": None, "target_layer": None, "place": "resid_post"}


def test_a_sweep_is_the_product_of_its_lists_the_last_one_fastest() -> None:
    runs = expand({**TINY, "sweep": {"layer": [3, 6], "width": [64, 96], "seed": [0, 1]}})
    wanted = [(layer, width, seed) for layer in (3, 6) for width in (64, 96) for seed in (0, 1)]
    assert [(run.layer, run.width, run.seed) for run in runs] == wanted
    assert {run.k for run in runs} == {4}


def test_runs_are_the_section_with_their_keys_instead() -> None:
    runs = expand({**TINY, "runs": [{"architecture": "topk"}, {"k": 8, "layer": 2}]})
    assert [(run.architecture, run.k, run.layer) for run in runs] == [("topk", 4, None), ("batchtopk", 8, 2)]


def test_with_both_the_product_comes_first_and_a_run_may_have_lists_of_its_own() -> None:
    topk = {"architecture": "topk", "sweep": {"seed": [5, 6]}}
    runs = expand({**TINY, "sweep": {"width": [64, 96]}, "runs": [topk, {"k": 2}]})
    found = [(run.architecture, run.width, run.k, run.seed) for run in runs]
    assert found[:2] == [("batchtopk", 64, 4, 0), ("batchtopk", 96, 4, 0)]
    assert found[2:] == [("topk", 64, 4, 5), ("topk", 64, 4, 6), ("batchtopk", 64, 2, 0)]


def test_options_belong_to_a_run() -> None:
    runs = expand(
        {**TINY, "runs": [{"architecture": "jumprelu", "options": {"mode": "tanh"}}, {"architecture": "topk"}]}
    )
    assert [run.options for run in runs] == [{"mode": "tanh"}, {}]


def test_several_blocks_take_the_place_of_one_and_one_that_of_several() -> None:
    crosscoder = {"architecture": "crosscoder", "layers": [1, 2]}
    runs = expand({**TINY, "layer": 3, "runs": [{}, crosscoder]})
    assert [(run.layer, run.layers) for run in runs] == [(3, None), (None, (1, 2))]
    runs = expand({**TINY, **crosscoder, "runs": [{}, {"architecture": "topk", "layer": 3}]})
    assert [(run.layer, run.layers) for run in runs] == [(None, (1, 2)), (3, None)]
    assert with_flags({"layer": 3, "target_layer": 4}, {"layers": [1, 2]}, {}) == {"layers": [1, 2]}


def test_a_place_that_cannot_be_says_whose_it_is() -> None:
    refused({"runs": [{}, {"architecture": "transcoder"}]}, r"configuration \[train\], SAE 2 of 2: no target was given")
    refused({"layer": 1, "layers": [1, 2]}, r"configuration \[train\]: layers = \[1, 2\] for 'batchtopk'")


def test_the_section_may_be_wrong_alone_where_every_run_mends_it() -> None:
    runs = expand({**TINY, "k": 80, "sweep": {"width": [96, 128]}})
    assert [(run.width, run.k) for run in runs] == [(96, 80), (128, 80)]
    refused({"k": 80, "sweep": {"width": [96, 72]}}, r"configuration \[train\], SAE 2 of 2: k = 80 exceeds width = 72")


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [("tokens", 1024, 2048), ("batch", 64, 128), ("data_seed", 0, 1), ("fit_tokens", 64, 128), ("threshold_tokens", 64, 128)],
)  # fmt: skip
def test_what_decides_the_batches_cannot_differ(key: str, low: int, high: int) -> None:
    says = f"need the same {key}; SAE 1 has {low} and SAE 2 has {high}; say it once in \\[train\\], or train them with a command"
    refused({"sweep": {key: [low, high]}}, says)
    refused({"runs": [{key: low}, {key: high}]}, says)


def test_pairs_are_for_all_or_for_none() -> None:
    refused(
        {"sweep": {"smooth": [0.0, 0.1]}},
        r"need the same smooth \(0, or more than 0\); SAE 1 has 0.0 and SAE 2 has 0.1",
    )
    assert len(expand({**TINY, "sweep": {"smooth": [0.1, 0.2]}})) == 2


def test_two_that_are_the_same_are_refused() -> None:
    refused(
        {"sweep": {"width": [64, 96, 64]}},
        "SAE 3 is the same as SAE 1 of this run; take one away, or give it another seed",
    )
    default = [{"options": {"select_by_norm": False}}, {"options": {}}]
    refused({"runs": default}, "SAE 2 is the same as SAE 1")
    with pytest.raises(ConfigError, match="SAE 2 is the same as SAE 1"):
        differences(members({}, {}))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (
            {"sweep": {"width": 64}},
            r"train.sweep: width is 64, a list of one or more is wanted; write width = \[ ... \]",
        ),
        ({"sweep": {"width": []}}, r"train.sweep: width is \[\], a list of one or more is wanted"),
        ({"sweep": [1]}, r"train.sweep is \[1\], a table is wanted"),
        ({"runs": {"k": 3}}, r"train.runs is .*, a list of tables is wanted; write each under \[\[train.runs\]\]"),
        ({"runs": [3]}, "train.runs, entry 1 is 3, a table is wanted"),
        ({"runs": [{"sweep": {"k": 3}}]}, "sweep of entry 1 of train.runs: k is 3, a list"),
        ({"runs": [{"widht": 3}]}, r"configuration \[train\]: unknown key 'widht'; the nearest key is 'width'"),
        ({"widht": 3}, r"configuration \[train\]: unknown key 'widht'; the nearest key is 'width'"),
    ],
)
def test_bad_lists_are_named(values: dict[str, Any], match: str) -> None:
    refused(values, match)


def test_unknown_keys_of_a_sweep_name_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown key of train.sweep 'widths'; the nearest name is 'width'"):
        expand({**TINY, "sweep": {"widths": [3]}})
    with pytest.raises(UnknownName, match=r"unknown key of --sweep 'sed'; the nearest name is 'seed'"):
        parse_sweep(["sed=1,2"])


def test_flags_are_read() -> None:
    found = parse_sweep(["lr=1e-3, 2e-3", "target-layer=3", "aligned=true,false", "place=mlp_in,mlp_out"])
    assert found == {"lr": [1e-3, 2e-3], "target_layer": [3], "aligned": [True, False], "place": ["mlp_in", "mlp_out"]}


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["width"], "--sweep width is no list; wanted KEY=VALUE,VALUE, such as --sweep width=2048,4096"),
        (["width=1,,2"], "--sweep width=1,,2 is no list"),
        (["width=1", "width=2"], "--sweep width was given twice; give all its values in one list"),
        (["layers=1,2"], r"--sweep layers would be a list of lists; write it as \[\[train.runs\]\] in a file"),
    ],
)
def test_bad_flags_are_named(flags: list[str], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_sweep(flags)


def test_a_flag_wins_over_the_file_and_is_never_lost() -> None:
    file = {**TINY, "sweep": {"width": [64, 96]}}
    assert with_flags(file, {"k": 8, "lr": None}, {}) == {**TINY, "k": 8, "sweep": {"width": [64, 96]}}
    assert with_flags(file, {}, {"width": [32], "seed": [0, 1]})["sweep"] == {"width": [32], "seed": [0, 1]}
    assert with_flags(TINY, {}, {}) == TINY
    with pytest.raises(ConfigError, match=r"width is given as 32 and as the list \[64, 96\]; give one of the two"):
        with_flags(file, {"width": 32}, {})
    runs = {**TINY, "runs": [{"k": 2}, {"sweep": {"seed": [0, 1]}}]}
    with pytest.raises(ConfigError, match="k is given as 8 by a flag and run 1 of the file names it"):
        with_flags(runs, {"k": 8}, {})
    with pytest.raises(ConfigError, match="seed is given as 8 by a flag and run 2 of the file names it"):
        with_flags(runs, {"seed": 8}, {})
    with pytest.raises(ConfigError, match="the file lists runs, and a list of width came from flags"):
        with_flags(runs, {}, {"width": [64, 96]})


def test_names_hold_what_differs_and_no_more() -> None:
    assert names({"seed": 0}, {"seed": 1}) == ["seed-0", "seed-1"], "as several seeds were always named"
    found = names({"width": 64}, {"width": 96, "architecture": "topk", "lr": 1e-3}, {"seed": 2})
    assert found == [
        "batchtopk_width-64_lr-auto_seed-0",
        "topk_width-96_lr-0.001_seed-0",
        "batchtopk_width-64_lr-auto_seed-2",
    ]


def test_options_are_in_the_name_where_an_architecture_differs_in_them() -> None:
    tanh = {"architecture": "jumprelu", "options": {"mode": "tanh"}}
    assert names({}, tanh) == ["batchtopk", "jumprelu"]
    assert names({}, tanh, {"architecture": "jumprelu"}) == ["batchtopk", "jumprelu_mode-tanh", "jumprelu_mode-auto"]
    levels = [{"architecture": "matryoshka", "options": {"fractions": f}} for f in ([0.25, 0.75], [0.5, 0.5])]
    assert names(*levels) == ["fractions-0.25-0.75", "fractions-0.5-0.5"]


def test_places_come_first() -> None:
    config = TrainConfig(**TINY)
    both = [Member(config, (Site(3),)), Member(config, (Site(3, "mlp_out"),))]
    assert folder_names(differences(both)) == ["layer-03", "layer-03-mlp_out"]
    pair = Member(TrainConfig(**TINY, architecture="transcoder"), (Site(3, "mlp_in"), Site(3, "mlp_out")))
    assert folder_names(differences([both[0], pair])) == ["layer-03_batchtopk", "layer-03-mlp_transcoder"]


def test_what_a_name_cannot_hold_is_replaced_and_kept_apart() -> None:
    def archetypal(file: str) -> dict[str, Any]:
        return {"architecture": "archetypal", "options": {"points_file": file, "points_sha256": "0" * 64}}

    found = names(archetypal("a/../b"), archetypal("a/../c"), archetypal("a-..-b"))
    assert len(set(found)) == 3
    assert all("/" not in name and ":" not in name for name in found)
    long = folder_names([{f"key{i}": "x" * 30 + str(n) for i in range(20)} for n in (1, 2)])
    assert len(set(long)) == 2
    assert max(map(len, long)) == 150


FIELDS = {
    "width": st.integers(8, 40),
    "k": st.integers(1, 8),
    "seed": st.integers(0, 5),
    "lr": st.sampled_from([None, 1e-3, 0.1 + 0.2, 0.3]),
    "architecture": st.sampled_from(["topk", "batchtopk", "standard"]),
    "layer": st.integers(0, 3),
    "aligned": st.booleans(),
}


@given(
    st.lists(
        st.fixed_dictionaries(FIELDS), min_size=1, max_size=8, unique_by=lambda run: json.dumps(run, sort_keys=True)
    )
)
def test_names_are_different_and_safe_and_lead_back(runs: list[dict[str, Any]]) -> None:
    expanded = expand({"tokens": 1024, "batch": 128, "runs": runs})
    made = [Member(run.recipe, (Site(run.layer or 0),)) for run in expanded]
    found = differences(made)
    folders = folder_names(found)
    assert len(set(folders)) == len(runs)
    assert all(Path(name).name == name for name in folders) or len(runs) == 1
    for one, run in zip(found, runs, strict=True):
        for key, values in {key: {str(r[key]) for r in runs} for key in runs[0] if key != "layer"}.items():
            assert (key in one) == (len(values) > 1)
            assert key not in one or one[key] == run[key]


def test_a_run_is_a_recipe_and_a_place() -> None:
    assert set(RunConfig.model_fields) == set(TrainConfig.model_fields) | {"layer", "layers", "target_layer", "place"}
