"""What of a call of transformers' `generate` a watch must know, and what it refuses."""

import contextlib
import copy
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode

from perimetry.axes import Attention, TokenIds
from perimetry.errors import ConfigError

__all__ = ["Call", "eager_only", "refuse_compiled", "replaced", "require_eager", "understand"]

PLAIN: Final = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
CHOICE: Final = (
    "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens",
    "forced_bos_token_id", "forced_eos_token_id", "min_length", "min_new_tokens", "exponential_decay_length_penalty",
)  # fmt: skip
"""Settings that weigh on which token is chosen."""
DRAW: Final = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Settings that weigh on it where tokens are drawn."""
FOREIGN: Final = {
    "inputs_embeds": "vectors in the place of tokens",
    "position_ids": "positions of your own",
    "custom_generate": "a decoding loop of your own",
    "encoder_outputs": "the outputs of an encoder",
}
"""Arguments of `generate` that make a prompt another one than the meter scores."""


class Call(NamedTuple):
    """A call of `generate` that can be watched."""

    arguments: dict[str, Any]
    """What it is called with, by name."""
    ids: TokenIds
    """Tokens of the prompts, one row a response."""
    attention: Attention
    """1 where a token is real; zeros stand on the left only."""
    eos: tuple[int, ...]
    """Tokens that end a response."""
    pad: int | None
    """What fills a row after its end; None where rows go on."""
    sampling: str
    """How tokens are chosen, as JSON."""


def refuse_compiled(*_: Any, **__: Any) -> NoReturn:
    """Errors: `ConfigError`, always."""
    raise ConfigError(
        "the forward pass is compiled or captured as a graph, in which hooks may silently not run; wanted an eager one; pass "
        "disable_compile=True, or leave torch.compile away while watching"
    )


def require_eager(model: nn.Module) -> None:
    """Refuse a model of which a part was compiled. Errors: `ConfigError`."""
    for module in model.modules():
        # Marks of torch.compile, in the order: module.compile(), compile(module), module.forward = compile(module.forward).
        owners = (
            (module, "_compiled_call_impl"),
            (module, "_orig_mod"),
            (module.forward, "_torchdynamo_orig_callable"),
        )
        if any(getattr(owner, mark, None) is not None for owner, mark in owners):
            refuse_compiled()


@contextlib.contextmanager
def eager_only(model: PreTrainedModel) -> Iterator[None]:
    """Refuse, where `generate` would compile the forward pass of its own accord. Errors: `ConfigError`, from within."""
    with replaced(model, "get_compiled_call", refuse_compiled):
        yield


@contextlib.contextmanager
def replaced(model: PreTrainedModel, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Put a function in the place of a method of this model; what stood there comes back."""
    before = vars(model).get(name)
    setattr(model, name, function)
    try:
        yield
    finally:
        if before is None:
            delattr(model, name)
        else:
            setattr(model, name, before)


def understand(model: PreTrainedModel, generate: Callable[..., Any], args: Any, named: Mapping[str, Any]) -> Call:
    """What a call asks for. Errors: `ConfigError` for beams, assisted decoding and all else that is no plain greedy or drawn
    continuation of tokens."""
    form = inspect.signature(generate)
    given = dict(form.bind(*args, **named).arguments)
    for name, parameter in form.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    settings = _settings(model, given)
    _require_plain(given, settings)
    ids = _ids(given)
    ends = settings.eos_token_id
    eos = () if ends is None else tuple(int(i) for i in torch.as_tensor(ends).flatten())
    pad = settings.pad_token_id if settings.pad_token_id is not None else next(iter(eos), None)
    attention = given.get("attention_mask")
    if attention is None:
        attention = _attention(ids, None if pad is None else int(pad), eos)
        given["attention_mask"] = attention
    _require_left(attention, ids)
    times = int(settings.num_return_sequences or 1)
    return Call(
        given,
        ids.repeat_interleave(times, 0),
        attention.long().repeat_interleave(times, 0),
        eos,
        int(pad) if pad is not None and eos else None,
        _sampling(settings),
    )


def _settings(model: PreTrainedModel, given: Mapping[str, Any]) -> GenerationConfig:
    """As `generate` merges them: what is given, then the configuration that is given, then that of the model."""
    config, own = given.get("generation_config"), model.generation_config
    found: GenerationConfig = copy.deepcopy(config) if config is not None else GenerationConfig()
    found.update(**(own.to_dict() if own is not None else {}), defaults_only=True, allow_custom_entries=True)
    found.update(**{k: v for k, v in given.items() if k in vars(found)})
    return found


def _require_plain(given: Mapping[str, Any], settings: GenerationConfig) -> None:
    mode = settings.get_generation_mode(given.get("assistant_model"))
    if mode not in PLAIN:
        raise ConfigError(
            f"generate was called for {mode.value.replace('_', ' ')}, which reorders or discards tokens after the model has "
            "read them; wanted greedy search or sampling; pass num_beams=1 and no assistant"
        )
    for name, what in FOREIGN.items():
        if given.get(name) is not None:
            raise ConfigError(f"generate was given {what} ({name}); wanted the tokens of prompts; leave it away")
    if settings.guidance_scale not in (None, 1) or settings.token_healing:
        raise ConfigError(
            "generate was called with guidance_scale or token_healing, which run the model over more than the response; leave "
            "them away"
        )
    if settings.cache_implementation == "paged":
        raise ConfigError("generate was called with a paged cache, where rows are no rows; use another cache")
    cache: Any = given.get("past_key_values")
    if cache is not None and int(cache.get_seq_length()) > 0:
        raise ConfigError(
            f"the cache holds {int(cache.get_seq_length())} tokens already, which were not watched; wanted an empty one; leave "
            "past_key_values away"
        )


def _ids(given: Mapping[str, Any]) -> TokenIds:
    ids = given.get("inputs") if given.get("inputs") is not None else given.get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point() or not ids.numel():
        raise ConfigError("generate was given no rectangle of token ids; wanted input_ids of at least one token")
    return ids


def _attention(ids: TokenIds, pad: int | None, eos: tuple[int, ...]) -> Attention:
    """The mask that `generate` takes where none is given."""
    return ids.ne(pad).long() if pad is not None and pad not in eos else torch.ones_like(ids)


def _require_left(attention: Any, ids: TokenIds) -> None:
    if not isinstance(attention, Tensor) or attention.shape != ids.shape:
        raise ConfigError("the attention mask has another shape than the tokens; wanted one number a token")
    mask = attention.bool()
    if bool((mask[:, :-1] & ~mask[:, 1:]).any()) or not bool(mask[:, -1].all()):
        raise ConfigError(
            "the attention mask has padding after a token, and a response would follow the padding; wanted it on the left; use "
            "padding_side='left'"
        )


def _sampling(settings: GenerationConfig) -> str:
    drawn = bool(settings.do_sample)
    names = CHOICE + (DRAW if drawn else ())
    plain = {name: value for name in names if (value := getattr(settings, name, None)) is not None}
    return json.dumps({"do_sample": drawn} | plain, sort_keys=True, default=str)
