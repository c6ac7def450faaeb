"""A causal language model with its tokenizer: loaded, frozen, and known by what its weights are, not by its name."""

import contextlib
import copy
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from perimetry.activations.folder import require_safe_folder
from perimetry.activations.tiny import tiny_parts
from perimetry.errors import AssetError, NonFinite, UnknownName
from perimetry.measures.finite import all_finite
from perimetry.runtime import Runtime
from perimetry.storage import hash_file, hash_json

__all__ = [
    "BLOCKS",
    "LanguageModel",
    "folder_revision",
    "from_pretrained_parts",
    "load_language_model",
    "tiny_language_model",
]

BLOCKS = {
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), "model.layers"),
    **dict.fromkeys(("llama", "mistral", "olmo", "olmo2", "phi", "phi3"), "model.layers"),
    **dict.fromkeys(("qwen2", "qwen3", "smollm3", "stablelm", "starcoder2"), "model.layers"),
}
"""Family (`model_type` of the configuration) -> module path of its decoder blocks. Explicit: no pattern is guessed."""

FULL_HASH_BYTES = 2**30
SLICE_BYTES = 2**16
SLICES = 1024
SENTINEL = "PERIMETRY-USER-TEXT"


@final
@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A frozen causal language model in evaluation mode, and its tokenizer."""

    model: PreTrainedModel
    """The plain transformers module; no gradient flows into its parameters."""
    tokenizer: PreTrainedTokenizerBase
    """A fast tokenizer: it can say which characters a token covers."""
    name: str
    """What the user calls it."""
    revision: str
    """SHA-256 over configuration and weights: two models with the same revision compute the same."""
    device: torch.device
    """Where the weights live."""
    dtype: torch.dtype
    """Compute dtype."""
    d_model: int
    """Width of the residual stream."""
    n_layers: int
    """Number of decoder blocks."""
    context: int
    """The most positions that the model was made for."""
    family: str
    """Key in `BLOCKS`."""
    bos_id: int | None
    """Beginning-of-sequence token, or None where the model has none."""
    pad_id: int
    """Token that fills padding; never attended to."""
    origin: str
    """What `load_language_model` takes to load it again: asset name, hub id, address, or the whole path of a folder."""
    base_revision: str | None = None
    """The revision that the model had before an adapter was put on it; None where there is none (`adapters`)."""
    lock: contextlib.AbstractContextManager[Any] = field(default_factory=threading.RLock, repr=False)
    """Held during a forward pass, so that the taps of two threads never see each other's hooks."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, first to last."""
        blocks = self.model.get_submodule(BLOCKS[self.family])
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @cached_property
    def plain_tokenizer(self) -> Tokenizer:
        """A copy of the tokenizer that reads special tokens in a text as plain characters; never changed later."""
        tokenizer: Any = self.tokenizer
        plain: Tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
        plain.encode_special_tokens = True
        plain.no_padding()
        plain.no_truncation()
        return plain

    @cached_property
    def tokenizer_hash(self) -> str:
        """SHA-256 of the tokenizer's rules, without its padding and truncation settings."""
        rules = json.loads(self.plain_tokenizer.to_str())
        return hash_json({k: v for k, v in rules.items() if k not in ("padding", "truncation")})

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens."""
        return frozenset(int(i) for i in self.tokenizer.all_special_ids)

    @cached_property
    def separator_id(self) -> int | None:
        """The token between packed documents: `<|endoftext|>` where the vocabulary has it, else end-of-sequence."""
        found = self.plain_tokenizer.token_to_id("<|endoftext|>")
        tokenizer: Any = self.tokenizer
        return found if found is not None else tokenizer.eos_token_id

    @cached_property
    def template(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Token ids that the chat template puts before and after a user's text; None where there is no template."""
        if not self.tokenizer.chat_template:
            return None
        turn = [{"role": "user", "content": SENTINEL}]
        rendered = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        before, found, after = str(rendered).partition(SENTINEL)
        if not found or SENTINEL in after:
            return None
        return self._marked_up(before), self._marked_up(after)

    def _marked_up(self, text: str) -> tuple[int, ...]:
        coded: Any = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else ()
        return tuple(coded)


def _hash_weights(path: Path) -> str:
    """SHA-256 of a weight file; above 1 GiB of its size, its ends and 1024 slices evenly spread between them."""
    size = path.stat().st_size
    if size <= FULL_HASH_BYTES:
        return hash_file(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as handle:
        header = 8 + int.from_bytes(handle.read(8), "little")
        handle.seek(0)
        digest.update(handle.read(min(header, FULL_HASH_BYTES)))
        for i in range(SLICES):
            handle.seek(round((size - SLICE_BYTES) * i / (SLICES - 1)))
            digest.update(handle.read(SLICE_BYTES))
    return digest.hexdigest()


def folder_revision(folder: Path) -> str:
    """Identity of the model in `folder`: SHA-256 over `config.json` and every safetensors file.

    A weight file above 1 GiB is known by its size, its header, and 1024 slices of 64 KiB spread over it, so that a
    large model opens quickly; smaller ones are read whole. The dtype in which the weights are stored counts, the
    folder's name does not. Errors: `AssetError` when there is no configuration or no safetensors file.
    """
    weights = sorted(folder.glob("*.safetensors"))
    config = folder / "config.json"
    if not weights or not config.is_file():
        raise AssetError(
            f"{folder} holds no model: wanted config.json and safetensors weights; other weight formats are not read, "
            "convert them first"
        )
    return hash_json({"config": hash_file(config), "weights": {f.name: _hash_weights(f) for f in weights}})


def _parameters_revision(model: PreTrainedModel) -> str:
    """Identity of a model in memory: its configuration and up to 65536 evenly spaced numbers of each parameter."""
    drop = ("_name_or_path", "transformers_version", "dtype")
    config = {k: v for k, v in model.config.to_dict().items() if k not in drop}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 65536)].float().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def _require_family(family: str) -> str:
    if family not in BLOCKS:
        raise UnknownName("model family", family, BLOCKS)
    return family


def from_pretrained_parts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    revision: str | None = None,
    origin: str | None = None,
) -> LanguageModel:
    """A language model from objects in memory; the model is frozen and put into evaluation mode.

    Without `revision`, the identity is taken from the parameters; without `origin`, it is `name`. Errors: `UnknownName`
    for a family that is in no table, `AssetError` for a tokenizer that cannot say which characters a token covers.
    """
    config: Any = model.config
    tokens: Any = tokenizer
    family = _require_family(config.model_type)
    if not tokenizer.is_fast:
        raise AssetError(
            f"the tokenizer of {name!r} gives no character offsets; wanted one with a tokenizer.json; convert it first"
        )
    model.eval().requires_grad_(requires_grad=False)
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        revision=revision or _parameters_revision(model),
        device=model.device,
        dtype=model.dtype,
        d_model=config.hidden_size,
        n_layers=config.num_hidden_layers,
        context=config.max_position_embeddings,
        family=family,
        bos_id=tokens.bos_token_id,
        pad_id=next(i for i in (tokens.pad_token_id, tokens.eos_token_id, 0) if i is not None),
        origin=origin or name,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No loading bar of transformers; the setting of before comes back."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@torch.no_grad()
def _require_finite(model: PreTrainedModel, spec: str) -> None:
    # Attention kernels turn a NaN in the queries into zeros: the activations would not show it.
    for name, tensor in model.named_parameters():
        if not all_finite(tensor):
            raise NonFinite(f"model {spec!r} holds NaN or infinity in {name!r}; fetch or make it again")


def load_language_model(spec: str, runtime: Runtime, *, progress: bool = False) -> LanguageModel:
    """The model called `spec`: the name of an asset, a local folder, or a hub id; `progress` shows downloads.

    Only safetensors weights are read and no code of a model folder is run. Errors: `AssetError` (no such model, weights missing),
    those of `require_safe_folder`, `NonFinite`, `UnknownName` (a family in no table), what `perimetry.assets` raises.
    """
    from perimetry.assets import resolve_model

    found = resolve_model(spec, progress=progress)
    source, local = found.location, found.kind != "hub"
    require_safe_folder(Path(source), BLOCKS)
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": local}
    if not local:
        options["revision"] = found.revision
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(source, **options)
            _require_family(config.model_type)
            config_file = (
                f"{source}/config.json" if local else cached_file(source, "config.json", revision=found.revision)
            )
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=runtime.dtype, use_safetensors=True, output_loading_info=True, **options
            )
            model, info = loaded
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AssetError(
            f"model {spec!r} cannot be loaded: {why}; wanted a folder with config.json, tokenizer.json and safetensors "
            "weights; check the name or the folder"
        ) from error
    missing = sorted(info["missing_keys"]) + sorted(str(k) for k in info["mismatched_keys"])
    if missing:
        raise AssetError(
            f"model {spec!r} lacks weights its configuration wants: {', '.join(missing[:3])} ({len(missing)} in all); "
            "the files are incomplete; fetch the model again"
        )
    _require_finite(model, spec)
    name = Path(source).name if found.kind in ("folder", "url") else spec
    revision, origin = folder_revision(Path(str(config_file)).parent), source if found.kind == "folder" else spec
    return from_pretrained_parts(model.to(runtime.device), tokenizer, name, revision, origin)


def tiny_language_model(family: str = "llama", seed: int = 0) -> LanguageModel:
    """A seeded random model of a family (3 blocks, width 32, about 300 tokens, float32, CPU) for tests; no file.

    Its tokenizer is byte-level, so every text has tokens. Errors: `UnknownName`.
    """
    model, tokenizer = tiny_parts(_require_family(family), seed)
    return from_pretrained_parts(model, tokenizer, f"tiny-{family}")
