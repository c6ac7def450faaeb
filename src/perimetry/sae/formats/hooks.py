"""A hook name as a place in a Hugging Face model: a module, its input or its output, the element of a tuple, a reshape.

Every name is looked up in an explicit table by family; nothing is matched by likeness, and a name without an exact counterpart is
refused. `hidden_states[l + 1]` of a model is `blocks.l.hook_resid_post`, save for the last element, which is normed.
"""

import re
from typing import Literal, NamedTuple

from perimetry.errors import Incompatible, UnknownName

__all__ = ["FAMILIES", "ModelFamily", "Place", "layer_of", "name_of", "resolve_hook", "resolve_module"]

Side = Literal["input", "output"]


class Place(NamedTuple):
    """Where a vector of a model is read."""

    module: str
    """Path of the module from the causal language model."""
    side: Side
    """Its input (first positional argument) or its output."""
    element: int | None = None
    """Which element, where the module gives a tuple; None where it gives a tensor."""
    reshape: Literal["none", "hook_z"] = "none"
    """`hook_z`: TransformerLens keeps the heads apart there; made flat, (..., heads * d_head), they are what this module takes."""


class ModelFamily(NamedTuple):
    """Names of the modules of one kind of model."""

    blocks: str
    """Path of the list of blocks."""
    embedding: str
    """Path of the token embedding."""
    attention: str
    """Within a block: attention, whose output is a tuple."""
    attention_out: str
    """The linear map that follows the heads."""
    mlp: str
    """The feed-forward module."""
    mlp_out: str
    """Its last linear map."""
    norms: tuple[str, ...]
    """The norms of a block."""
    middle: str | None
    """The norm whose input is the residual stream between attention and MLP; None where there is no such point."""
    attention_added: str | None = None
    """The norm whose output is added after attention; None where attention's own output is."""
    mlp_added: str | None = None
    """The norm whose output is added after the MLP; None where the MLP's own output is."""

    @property
    def base(self) -> str:
        """Path of the model without its head, with a dot."""
        return self.blocks.rpartition(".")[0] + "."

    def modules(self) -> tuple[str, ...]:
        """Every path within a block that a place may name; the block itself is the empty one."""
        return ("", self.attention, self.attention_out, self.mlp, self.mlp_out, *self.norms)


_LLAMA = ModelFamily(
    blocks="model.layers",
    embedding="model.embed_tokens",
    attention="self_attn",
    attention_out="self_attn.o_proj",
    mlp="mlp",
    mlp_out="mlp.down_proj",
    norms=("input_layernorm", "post_attention_layernorm"),
    middle="post_attention_layernorm",
)
_GEMMA_2 = _LLAMA._replace(
    norms=(*_LLAMA.norms, "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    middle="pre_feedforward_layernorm",
    attention_added="post_attention_layernorm",
    mlp_added="post_feedforward_layernorm",
)
FAMILIES: dict[str, ModelFamily] = {
    "gemma": _LLAMA,
    "gemma2": _GEMMA_2,
    "gemma3": _GEMMA_2._replace(blocks="model.language_model.layers", embedding="model.language_model.embed_tokens"),
    "gemma3_text": _GEMMA_2,
    "gpt2": ModelFamily(
        blocks="transformer.h",
        embedding="transformer.wte",
        attention="attn",
        attention_out="attn.c_proj",
        mlp="mlp",
        mlp_out="mlp.c_proj",
        norms=("ln_1", "ln_2"),
        middle="ln_2",
    ),
    "gpt_neox": ModelFamily(
        blocks="gpt_neox.layers",
        embedding="gpt_neox.embed_in",
        attention="attention",
        attention_out="attention.dense",
        mlp="mlp",
        mlp_out="mlp.dense_4h_to_h",
        norms=("input_layernorm", "post_attention_layernorm"),
        middle=None,
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}
"""`model_type` of a model's configuration -> its modules. `gemma3` is the multimodal model, whose text part lies deeper."""

BLOCK_HOOKS = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "attn.hook_z",
    "hook_mlp_out",
    "mlp.hook_in",
    "mlp.hook_post",
    "mlp.hook_out",
)
"""TransformerLens names within a block that have a place."""
REFUSED = {
    "ln2.hook_normalized": (
        "TransformerLens takes it before the norm's weight, so that no module of the Hugging Face model gives it unless the weight "
        "is folded; give the module that was meant with --set hf_hook_name="
    ),
    "hook_mlp_in": (
        "TransformerLens takes it before the norm and leaves it off by default, while the releases that name it mean the normed "
        "vector; give the module that was meant with --set hf_hook_name="
    ),
}
"""TransformerLens names within a block that have none, and why."""


def _family(model_type: str) -> ModelFamily:
    if model_type not in FAMILIES:
        raise UnknownName("model family", model_type, FAMILIES)
    return FAMILIES[model_type]


def _module(family: ModelFamily, path: str, side: Side) -> Place:
    """The place of a module within a block or of a block; attention and blocks may give tuples."""
    tuple_like = side == "output" and path.rpartition(".")[2] in (family.attention, *_indices(path))
    return Place(path, side, 0 if tuple_like else None)


def _indices(path: str) -> tuple[str, ...]:
    last = path.rpartition(".")[2]
    return (last,) if last.isdigit() else ()


def layer_of(name: str) -> int | None:
    """The block that a hook name speaks of, None where it speaks of none.

    >>> layer_of("blocks.12.hook_resid_post"), layer_of("model.layers.3.mlp"), layer_of("hook_embed")
    (12, 3, None)
    """
    found = re.search(r"(?:^|\.)(?:blocks|layers|h)\.(\d+)(?:\.|$)", name)
    return int(found.group(1)) if found else None


def _in_block(name: str, hook: str, block: str, family: ModelFamily) -> Place:
    table: dict[str, Place | None] = {
        "hook_resid_pre": Place(block, "input"),
        "hook_resid_post": Place(block, "output", 0),
        "hook_resid_mid": Place(f"{block}.{family.middle}", "input") if family.middle else None,
        "hook_attn_out": (
            Place(f"{block}.{family.attention_added}", "output")
            if family.attention_added
            else Place(f"{block}.{family.attention}", "output", 0)
        ),
        "attn.hook_z": Place(f"{block}.{family.attention_out}", "input", None, "hook_z"),
        "hook_mlp_out": Place(f"{block}.{family.mlp_added or family.mlp}", "output"),
        "mlp.hook_in": Place(f"{block}.{family.mlp}", "input"),
        "mlp.hook_post": Place(f"{block}.{family.mlp_out}", "input"),
        "mlp.hook_out": Place(f"{block}.{family.mlp}", "output"),
    }
    place = table[hook]
    if place is None:
        raise Incompatible(
            f"{name} does not exist in this model: attention and MLP read the same vector, nothing lies between them; choose "
            "hook_resid_pre or hook_resid_post"
        )
    return place


def resolve_hook(name: str, model_type: str) -> Place:
    """The place of a TransformerLens name, or of a module path (`model.layers.3`, with `.input` or `.output` perhaps).

    A bare module path means its output. Where the embedding is scaled (Gemma), the embedding module of transformers 5 gives it scaled,
    as TransformerLens does. Errors: `UnknownName` (family, name), `Incompatible` (a name without an exact place).

    >>> resolve_hook("blocks.5.hook_mlp_out", "gemma2")
    Place(module='model.layers.5.post_feedforward_layernorm', side='output', element=None, reshape='none')
    >>> resolve_hook("model.layers.5.self_attn.o_proj.input", "llama").side
    'input'
    """
    family = _family(model_type)
    if name == "hook_embed":
        return Place(family.embedding, "output")
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if found:
        hook = found.group(2)
        if hook in REFUSED:
            raise Incompatible(f"{name} has no place in the Hugging Face model: {REFUSED[hook]}")
        if hook not in BLOCK_HOOKS:
            raise UnknownName("hook", name, [f"blocks.{found.group(1)}.{known}" for known in BLOCK_HOOKS])
        return _in_block(name, hook, f"{family.blocks}.{found.group(1)}", family)
    side: Side = "input" if name.endswith(".input") else "output"
    bare = name.removesuffix(".input").removesuffix(".output")
    if model_type == "gemma3" and bare.startswith("model.layers."):
        bare = bare.replace("model.layers.", "model.language_model.layers.", 1)
    return resolve_module(bare, model_type, side)


def resolve_module(path: str, model_type: str, side: Side = "output") -> Place:
    """The place of a module by its path, from the causal model or, as sparsify writes it, from the model without its head.

    Errors: `UnknownName` for a path that is no module of a block of this family, nor its embedding.

    >>> resolve_module("h.0.attn", "gpt2")
    Place(module='transformer.h.0.attn', side='output', element=0, reshape='none')
    """
    family = _family(model_type)
    full = path if path.startswith(family.base) else family.base + path
    if full == family.embedding:
        return Place(full, side)
    found = re.fullmatch(re.escape(family.blocks) + r"\.(\d+)(?:\.(.+))?", full)
    if not found or (found.group(2) or "") not in family.modules():
        known = [family.embedding, *(f"{family.blocks}.0{'.' if m else ''}{m}" for m in family.modules())]
        raise UnknownName("module", path, known)
    if full.endswith(family.attention_out) and side == "input":
        return Place(full, side, None, "hook_z")
    return _module(family, full, side)


def name_of(place: Place, model_type: str) -> str | None:
    """The TransformerLens name of a place, or None where it has none.

    >>> name_of(resolve_module("layers.7", "gpt_neox"), "gpt_neox")
    'blocks.7.hook_resid_post'
    """
    family = _family(model_type)
    if place.module == family.embedding:
        return "hook_embed" if place.side == "output" else None
    found = re.match(re.escape(family.blocks) + r"\.(\d+)", place.module)
    for hook in BLOCK_HOOKS if found else ():
        if hook == "hook_resid_mid" and family.middle is None:
            continue
        assert found is not None, "the loop is empty otherwise"
        name = f"blocks.{found.group(1)}.{hook}"
        if _in_block(name, hook, f"{family.blocks}.{found.group(1)}", family)[:2] == place[:2]:
            return name
    return None
