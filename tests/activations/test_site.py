import pytest
import torch

from perimetry.activations.model import BLOCKS, tiny_language_model
from perimetry.activations.site import Site, as_site, hook_name
from perimetry.activations.tap import read_layers, read_sites
from perimetry.errors import ConfigError, UnknownName

IDS = torch.arange(6, 26).reshape(2, 10)


def test_names_and_order():
    assert [str(Site(3)), str(Site(12, "mlp_out"))] == ["layer-03", "layer-12-mlp_out"]
    ordered = sorted([Site(1), Site(0), Site(1, "mlp_out"), Site(1, "mlp_in")], key=lambda site: site.depth)
    assert ordered == [Site(0), Site(1, "mlp_in"), Site(1, "mlp_out"), Site(1)]
    assert as_site(4) == as_site(Site(4)) == Site(4)
    assert hook_name(Site(2, "mlp_in"), "gpt_neox") == ("blocks.2.mlp.hook_in", "gpt_neox.layers.2.mlp")
    with pytest.raises(UnknownName, match="unknown model family 'bert'"):
        hook_name(0, "bert")


@pytest.mark.parametrize("family", sorted(BLOCKS))
def test_the_mlp_is_read_as_a_hook_of_its_module_sees_it(family):
    lm = tiny_language_model(family)
    seen: dict[str, torch.Tensor] = {}
    mlp = lm.model.get_submodule(hook_name(Site(1, "mlp_in"), family).hugging_face)
    handle = mlp.register_forward_hook(lambda module, args, out: seen.update(into=args[0].clone(), out=out.clone()))
    attention = torch.ones_like(IDS)
    with torch.inference_mode():
        lm.model(input_ids=IDS, attention_mask=attention)
    handle.remove()
    found = read_sites(lm, [Site(1, "mlp_out"), Site(0), Site(1, "mlp_in")], IDS, attention)
    assert torch.allclose(found[Site(1, "mlp_in")], seen["into"], atol=1e-5)
    assert torch.allclose(found[Site(1, "mlp_out")], seen["out"], atol=1e-5)
    assert torch.equal(found[Site(0)], read_layers(lm, [0], IDS, attention)[0])


def test_a_pass_stops_at_the_deepest_place():
    lm, ran = tiny_language_model("llama"), []
    modules = [lm.blocks[0], lm.blocks[1].self_attn, lm.blocks[1].mlp, lm.blocks[1], lm.blocks[2]]
    handles = [m.register_forward_hook(lambda m, i, o, n=n: ran.append(n)) for n, m in enumerate(modules)]
    attention = torch.ones_like(IDS)
    for sites, wanted in (
        ([Site(1, "mlp_in")], [0, 1]),
        ([Site(1, "mlp_in"), Site(1, "mlp_out")], [0, 1, 2]),
        ([Site(1), Site(1, "mlp_in")], [0, 1, 2, 3]),
        ([Site(0)], [0]),
    ):
        ran.clear()
        read_sites(lm, sites, IDS, attention)
        assert ran == wanted
    for handle in handles:
        handle.remove()
    with pytest.raises(ConfigError, match="layer 3 is not in 'tiny-llama', which has 3 blocks"):
        read_sites(lm, [Site(0), Site(3, "mlp_out")], IDS, attention)
