"""Write a Llama model and its tokenizer as a plain Hugging Face folder, with the same bytes for the same input."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from perimetry.errors import CorruptArtifact, NonFinite
from perimetry.storage import write_json

__all__ = ["save_model", "save_tokenizer"]


def _check(config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Names and shapes must be exactly those of the model that the configuration describes."""
    from transformers import LlamaConfig, LlamaForCausalLM  # late: takes a second

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**config))
    wanted = {name: tuple(p.shape) for name, p in model.named_parameters()}
    given = {name: tuple(w.shape) for name, w in weights.items()}
    if wanted != given:
        different = sorted(n for n in wanted.keys() | given.keys() if wanted.get(n) != given.get(n))
        raise CorruptArtifact(
            f"the weights do not fit the model that the file describes; first of {len(different)}: {different[0]} has "
            f"shape {given.get(different[0])}, {wanted.get(different[0])} wanted; get the file again"
        )
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise NonFinite(f"{name} holds NaN or infinity; finite weights are wanted; get the file again")


def save_model(config: dict[str, Any], weights: dict[str, Tensor], out: Path) -> None:
    """Write `config.json`, `generation_config.json` and `model.safetensors` (float32; tied embeddings once).

    Errors: `CorruptArtifact` when the weights are not those of the configuration, `NonFinite`.
    """
    _check(config, weights)
    save_file(
        {n: w.float().contiguous() for n, w in sorted(weights.items())}, out / "model.safetensors", {"format": "pt"}
    )
    write_json(
        out / "config.json",
        {
            **config,
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "float32",
            "hidden_act": "silu",
        },
    )
    write_json(
        out / "generation_config.json", {k: v for k, v in config.items() if k.endswith("_token_id") and v is not None}
    )


def save_tokenizer(
    tokenizer: Tokenizer, out: Path, *, context: int, special: dict[str, str], chat_template: str | None = None
) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and, where there is one, `chat_template.jinja`."""
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    write_json(
        out / "tokenizer_config.json",
        {
            **special,
            "model_max_length": context,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
        },
    )
    if chat_template is not None:
        (out / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
