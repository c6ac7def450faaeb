"""Tiny random models of each family and a byte-level tokenizer, built in memory for tests."""

from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers import PreTrainedTokenizerFast as FastTokenizer

__all__ = ["tiny_parts", "tiny_tokenizer"]

SPECIAL = ("<|pad|>", "<|bos|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = (
    ("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ġ", "a"), ("i", "n"), ("e", "r"), ("o", "n"), ("r", "e"), ("Ġ", "s"),
    ("Ġ", "o"), ("a", "n"), ("e", "d"), ("o", "r"), ("Ġa", "n"), ("Ġan", "d"), ("e", "s"), ("Ġo", "f"), ("in", "g"),
    ("Ġ", "c"), ("Ġ", "in"), ("l", "l"), ("a", "r"), ("Ġ", "w"), ("t", "i"), ("on", "s"), ("Ġt", "o"), ("e", "n"),
)  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITHOUT_BOS = ("qwen2", "qwen3")


def tiny_tokenizer(*, bos: bool = True) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer with some merges, five special tokens and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIAL, *alphabet, *("".join(pair) for pair in MERGES)]
    vocabulary = {word: i for i, word in enumerate(words)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=list(MERGES)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer = FastTokenizer(
        tokenizer_object=core,
        bos_token="<|bos|>" if bos else None,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>", "<|endoftext|>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_parts(family: str, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A random model of `family`, seeded without touching the global generator, and its tokenizer."""
    tokenizer = tiny_tokenizer(bos=family not in WITHOUT_BOS)
    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,  # pyright: ignore[reportAttributeAccessIssue]
        "eos_token_id": tokenizer.eos_token_id,  # pyright: ignore[reportAttributeAccessIssue]
        "pad_token_id": tokenizer.pad_token_id,  # pyright: ignore[reportAttributeAccessIssue]
    }
    if family == "gpt2":
        shape: dict[str, Any] = {"n_embd": 32, "n_layer": 3, "n_head": 4}
    else:
        shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
        if family != "gpt_neox":
            shape |= {"num_key_value_heads": 2, "head_dim": 8}
        if family.startswith("gemma") and family != "gemma":
            shape |= {"query_pre_attn_scalar": 8, "sliding_window": 16}
    config = AutoConfig.for_model(family, **shared, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model, tokenizer
