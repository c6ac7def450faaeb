"""Hook names against small random models of every family: what is read at a place obeys the equations of the residual stream."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from perimetry.errors import Incompatible, UnknownName
from perimetry.sae.formats.hooks import FAMILIES, Place, layer_of, name_of, resolve_hook, resolve_module

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 10,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NEOX: dict[str, Any] = {k: v for k, v in SIZES.items() if k not in ("num_key_value_heads", "head_dim")} | {
    "num_attention_heads": 4
}
CONFIGS: dict[str, PretrainedConfig] = {
    "gemma": GemmaConfig(**SIZES),
    "gemma2": Gemma2Config(**SIZES, sliding_window=8),
    "gemma3_text": Gemma3TextConfig(**SIZES, sliding_window=8),
    "gpt2": GPT2Config(vocab_size=60, n_embd=24, n_layer=3, n_head=3, n_positions=16),
    "gpt_neox": GPTNeoXConfig(**NEOX),
    "llama": LlamaConfig(**SIZES),
    "mistral": MistralConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES),
}


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(CONFIGS[request.param], dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim == 1:  # norms of weight 1 and biases of 0 would hide a wrong place
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    return made


def kind(model: nn.Module) -> str:
    return model.config.model_type  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]


def read(model: nn.Module, *places: Place) -> tuple[list[Tensor], Any]:
    found: dict[int, Any] = {}
    handles = []
    for i, place in enumerate(places):
        module = model.get_submodule(place.module)

        def keep(value: Any, i: int = i, place: Place = place) -> None:
            found[i] = value[place.element] if isinstance(value, tuple) and place.element is not None else value

        if place.side == "output":
            handles.append(module.register_forward_hook(lambda m, a, out, keep=keep: keep(out)))
        else:
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, a, k, keep=keep: keep(a[0] if a else k["hidden_states"]), with_kwargs=True
                )
            )
    with torch.no_grad():
        out = model(input_ids=torch.arange(3, 13)[None], output_hidden_states=True, use_cache=False)
    for handle in handles:
        handle.remove()
    return [found[i] for i in range(len(places))], out


def test_the_residual_stream_adds_up(model: nn.Module) -> None:
    family = kind(model)
    names = ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post"]
    (pre, attn, mlp, post), _ = read(model, *(resolve_hook(f"blocks.1.{n}", family) for n in names))
    assert torch.allclose(pre + attn + mlp, post, atol=1e-5)
    assert attn.abs().max() > 1e-3
    assert mlp.abs().max() > 1e-3
    if family != "gpt_neox":
        (middle,), _ = read(model, resolve_hook("blocks.1.hook_resid_mid", family))
        assert torch.allclose(pre + attn, middle, atol=1e-5)


def test_a_layer_off_by_one_is_another_vector(model: nn.Module) -> None:
    place = resolve_hook("blocks.1.hook_resid_post", kind(model))
    (post,), out = read(model, place)
    assert torch.equal(post, out.hidden_states[2])
    assert not torch.allclose(post, out.hidden_states[1], atol=1e-3)
    (after,), _ = read(model, resolve_hook("blocks.2.hook_resid_pre", kind(model)))
    assert torch.equal(post, after)


def test_heads_and_hidden_units_are_what_the_next_linear_map_takes(model: nn.Module) -> None:
    family = kind(model)
    z, hidden = resolve_hook("blocks.0.attn.hook_z", family), resolve_hook("blocks.0.mlp.hook_post", family)
    (heads, units), _ = read(model, z, hidden)
    assert z.reshape == "hook_z"
    assert heads.shape[-1] == (24 if family in ("gpt2", "gpt_neox") else 30)
    assert units.shape[-1] == (96 if family == "gpt2" else 40)


def test_the_embedding_enters_the_first_block(model: nn.Module) -> None:
    family = kind(model)
    (embedded, first), _ = read(
        model, resolve_hook("hook_embed", family), resolve_hook("blocks.0.hook_resid_pre", family)
    )
    if family == "gpt2":  # position embeddings are added there
        assert not torch.allclose(embedded, first)
    else:
        assert torch.allclose(embedded, first)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_names_come_back(family: str) -> None:
    for hook in ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "attn.hook_z", "hook_mlp_out", "mlp.hook_post"):
        name = f"blocks.4.{hook}"
        assert name_of(resolve_hook(name, family), family) == name
        assert layer_of(name) == layer_of(resolve_hook(name, family).module) == 4
    assert name_of(resolve_hook("hook_embed", family), family) == "hook_embed"


def test_a_module_path_means_its_output() -> None:
    assert resolve_hook("model.layers.3", "llama") == Place("model.layers.3", "output", 0)
    assert resolve_hook("model.layers.3.output", "llama") == resolve_hook("model.layers.3", "llama")
    assert resolve_hook("model.layers.3.mlp.input", "qwen3") == Place("model.layers.3.mlp", "input")
    assert resolve_hook("model.layers.3.self_attn.o_proj.input", "gemma2").reshape == "hook_z"
    assert resolve_hook("model.layers.3.output", "gemma3").module == "model.language_model.layers.3"
    assert name_of(resolve_module("layers.3.mlp", "gemma2"), "gemma2") == "blocks.3.mlp.hook_out", (
        "before the norm after it"
    )
    assert name_of(resolve_module("layers.3.mlp", "llama"), "llama") == "blocks.3.hook_mlp_out"
    assert resolve_module("embed_tokens", "llama") == Place("model.embed_tokens", "output")


def test_what_has_no_place_is_refused() -> None:
    with pytest.raises(Incompatible, match="nothing lies between them; choose hook_resid_pre"):
        resolve_hook("blocks.2.hook_resid_mid", "gpt_neox")
    with pytest.raises(Incompatible, match=r"before the norm's weight.*--set hf_hook_name="):
        resolve_hook("blocks.2.ln2.hook_normalized", "gemma2")
    with pytest.raises(Incompatible, match="leaves it off by default"):
        resolve_hook("blocks.2.hook_mlp_in", "gemma3_text")
    with pytest.raises(UnknownName, match=r"unknown hook 'blocks.2.hook_resid_pst'; the nearest name is"):
        resolve_hook("blocks.2.hook_resid_pst", "llama")
    with pytest.raises(UnknownName, match=r"unknown module 'model.layers.2.moe'"):
        resolve_hook("model.layers.2.moe", "llama")
    with pytest.raises(UnknownName, match=r"unknown module 'visual.layers.2'"):
        resolve_hook("visual.layers.2", "gemma3")
    with pytest.raises(UnknownName, match="unknown model family 'bert'"):
        resolve_hook("blocks.2.hook_resid_post", "bert")
