"""Which places an architecture can be trained on, and what is stored of them."""

from typing import Any

import pytest

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.site import Site
from perimetry.activations.stream import LiveStream, StreamConfig
from perimetry.errors import ConfigError
from perimetry.pipeline.places import Where, describe_places, name_places, options_of_places, require_where, sites_of
from perimetry.pipeline.training import describe_source
from perimetry.sae import ARCHITECTURES
from perimetry.sae.formats import SAEInfo
from perimetry.sae.formats.saelens_write import export_saelens
from perimetry.sae.transcoder import TranscoderSAE


def test_the_places_of_each_kind() -> None:
    assert sites_of(Where(), "topk", 4) == (Site(4),)
    assert sites_of(Where(layer=2, place="mlp_out"), "topk", 4) == (Site(2, "mlp_out"),)
    assert sites_of(Where(layer=2, target_layer=5), "transcoder", 4) == (Site(2), Site(5))
    assert sites_of(Where(target_layer=5), "transcoder", 4) == (Site(4), Site(5))
    assert sites_of(Where(place="mlp"), "transcoder", 4) == (Site(4, "mlp_in"), Site(4, "mlp_out"))
    assert sites_of(Where(layer=1, target_layer=3, place="mlp"), "transcoder", 4) == (
        Site(1, "mlp_in"),
        Site(3, "mlp_out"),
    )
    assert sites_of(Where(layers=(5, 3)), "crosscoder", 4) == (Site(5), Site(3)), "the order is the user's"
    assert sites_of(Where(layers=(3, 5), place="mlp_in"), "crosscoder", 4) == (Site(3, "mlp_in"), Site(5, "mlp_in"))


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("topk", {"layers": (3, 4)}, r"layers = \[3, 4\] for 'topk', which reads one place and gives it back; give --sweep "
     "layer=3,4 for an SAE each, or an architecture that reads them together: crosscoder"),
    ("topk", {"target_layer": 3}, "target_layer = 3 for 'topk', .* leave it out, or give an architecture that takes a target: "
     "transcoder"),
    ("topk", {"place": "mlp"}, "place = 'mlp', which is a pair of places, for 'topk', .* give mlp_in or mlp_out, or an "),
    ("transcoder", {"layer": 2}, "no target was given for 'transcoder', which reads one place and gives another; give "
     "--target-layer M for the output of block M, or --place mlp"),
    ("transcoder", {"layer": 2, "target_layer": 2}, "layer and target_layer are both 2 for 'transcoder'.*give two blocks"),
    ("transcoder", {"layer": 2, "place": "mlp_in"}, "place = 'mlp_in' for 'transcoder'.*give --place mlp for what the MLP"),
    ("transcoder", {"layers": (2, 3)}, r"layers = \[2, 3\] for 'transcoder'.*give layer and target_layer"),
    ("crosscoder", {}, r"layers = \[\] for 'crosscoder', which reads several places side by side; give two or more blocks"),
    ("crosscoder", {"layers": (2,)}, r"layers = \[2\] for 'crosscoder'.*two or more blocks, each once"),
    ("crosscoder", {"layers": (2, 2)}, r"layers = \[2, 2\] for 'crosscoder'"),
    ("crosscoder", {"layer": 2, "layers": (2, 3)}, "layer = 2 for 'crosscoder'.*give the blocks with --layers, such as"),
    ("crosscoder", {"layers": (2, 3), "place": "mlp"}, "place = 'mlp', which is a pair"),
    ("crosscoder", {"layers": (2, 3), "target_layer": 4}, "target_layer = 4 for 'crosscoder'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "where", "match"), REFUSED)
def test_other_places_are_refused(name: str, where: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        require_where(Where(**where), name)
    with pytest.raises(ConfigError, match=match):
        sites_of(Where(**where), name, 4)


def test_the_middle_block_is_no_target_of_itself() -> None:
    require_where(Where(target_layer=4), "transcoder")
    with pytest.raises(ConfigError, match="layer and target_layer are both 4"):
        sites_of(Where(target_layer=4), "transcoder", 4)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_has_a_place_that_it_takes(name: str) -> None:
    where = {"one": Where(layer=1), "pair": Where(layer=1, target_layer=2), "several": Where(layers=(1, 2))}
    cls = ARCHITECTURES[name]
    sites = sites_of(where[cls.reads], name, 0)
    assert len(sites) == (1 if cls.reads == "one" else 2)
    widths = [8] * len(sites)
    options = cls.options_type.model_validate(options_of_places(cls, {}, widths))
    assert list(cls.row_parts(sum(widths), options)) == widths


def test_widths_are_told_and_others_refused() -> None:
    transcoder, crosscoder = ARCHITECTURES["transcoder"], ARCHITECTURES["crosscoder"]
    assert options_of_places(transcoder, {"skip": True}, [8, 6]) == {"skip": True, "d_in": 8}
    assert options_of_places(crosscoder, {"parts": 3}, [8, 6, 4]) == {"parts": 3, "widths": [8, 6, 4]}
    assert options_of_places(ARCHITECTURES["topk"], {}, [8]) == {}
    for cls, given, name in (
        (transcoder, {"d_in": 4}, "d_in"),
        (crosscoder, {"parts": 3}, "parts"),
        (crosscoder, {"widths": [4, 12]}, "widths"),
    ):
        with pytest.raises(
            ConfigError,
            match=f"options.{name} of {cls.architecture} is .* and the places of this model give .*leave it out",
        ):
            options_of_places(cls, given, [8, 8])


def test_names_of_places() -> None:
    topk, transcoder, crosscoder = (ARCHITECTURES[name] for name in ("topk", "transcoder", "crosscoder"))
    assert name_places([Site(6, "mlp_in")], topk) == "layer-06-mlp_in"
    assert name_places([Site(6, "mlp_in"), Site(8, "mlp_out")], transcoder) == "layer-06-to-08-mlp"
    assert name_places([Site(3), Site(4), Site(12)], crosscoder) == "layers-03-04-12"
    assert name_places([Site(3, "mlp_out"), Site(4, "mlp_out")], crosscoder) == "layers-03-04-mlp_out"


def described(lm: LanguageModel, name: str, *sites: Site) -> SAEInfo:
    policies = {site: TokenPolicy(max_norm=2.0 + n) for n, site in enumerate(sites)}
    cls = ARCHITECTURES[name]
    found = describe_places(lm, sites, cls.reads, policies, text="t", context=64)
    return SAEInfo.model_validate({"architecture": name, **found})


def test_what_is_stored_says_where(tiny_lm: LanguageModel) -> None:
    plain = described(tiny_lm, "topk", Site(1))
    assert (plain.layer, plain.hook_name, plain.hf_hook_name) == (1, "blocks.1.hook_resid_post", "model.layers.1")
    assert plain.policy["max_norm"] == 2.0
    assert "hook_name_out" not in plain.model_dump(), "identities of SAEs of one place stay what they were"
    out = described(tiny_lm, "topk", Site(1, "mlp_out"))
    assert (out.layer, out.hook_name, out.hf_hook_name) == (None, "blocks.1.mlp.hook_out", "model.layers.1.mlp")
    mlp = described(tiny_lm, "transcoder", Site(1, "mlp_in"), Site(1, "mlp_out"))
    assert (mlp.layer, mlp.hook_name, mlp.hook_name_out) == (None, "blocks.1.mlp.hook_in", "blocks.1.mlp.hook_out")
    assert (mlp.hf_hook_name, mlp.hf_hook_name_out) == ("model.layers.1.mlp.input", "model.layers.1.mlp")
    across = described(tiny_lm, "transcoder", Site(0), Site(2))
    assert (across.layer, across.hook_name_out, across.hf_hook_name_out) == (
        0,
        "blocks.2.hook_resid_post",
        "model.layers.2",
    )
    several = described(tiny_lm, "crosscoder", Site(0), Site(2))
    assert (several.layer, several.hook_name) == (None, None)
    assert several.hook_names == ("blocks.0.hook_resid_post", "blocks.2.hook_resid_post")
    assert several.hf_hook_names == ("model.layers.0", "model.layers.2")
    assert SAEInfo.model_validate(several.model_dump(mode="json")) == several


def test_one_block_is_described_as_it_always_was(tiny_lm: LanguageModel) -> None:
    source = LiveStream(tiny_lm, 1, [], StreamConfig(policy=TokenPolicy(max_norm=3.0)))
    found = describe_source(tiny_lm, 1, source, "t", 64)
    assert found["policy"]["max_norm"] == 3.0
    assert set(found) == {
        *("model", "revision", "layer", "hook_name", "hf_hook_name", "policy", "dtype", "context_size", "dataset"),
    }  # fmt: skip


def test_both_ends_go_into_the_layout_of_saelens(tiny_lm: LanguageModel) -> None:
    info = described(tiny_lm, "transcoder", Site(1, "mlp_in"), Site(1, "mlp_out"))
    made = export_saelens(TranscoderSAE.tiny(), info)
    assert made is not None
    metadata = made.config["metadata"]
    assert (metadata["hook_name"], metadata["hook_name_out"]) == ("blocks.1.mlp.hook_in", "blocks.1.mlp.hook_out")
    assert (metadata["hf_hook_name"], metadata["hf_hook_name_out"]) == (
        "model.layers.1.mlp.input",
        "model.layers.1.mlp",
    )
