"""`cfg.json` of SAELens, of all ages, brought into one shape: top level for what changes the numbers, metadata for the rest.

SAELens itself replaces nested metadata by top-level keys where its stamp is missing or older than 6.0.0rc0, so that model and hook
names vanish; here both are read, and a contradiction is refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from perimetry.errors import CorruptArtifact, Incompatible
from perimetry.sae.formats.safety import read_strict_json

__all__ = ["METADATA", "Config6", "layer_of", "read_config"]

METADATA = {
    *(
        "sae_lens_version",
        "sae_lens_training_version",
        "model_name",
        "model_class_name",
        "hook_name",
        "hook_head_index",
    ),
    *("hook_name_out", "hook_head_index_out", "hf_hook_name", "hf_hook_name_out", "context_size", "seqpos_slice"),
    *("prepend_bos", "exclude_special_tokens", "sequence_separator_token", "disable_concat_sequences", "dataset_path"),
    *("model_from_pretrained_kwargs", "neuronpedia_id", "training_architecture", "training_architecture_details"),
    *("l0", "num_dead_features", "hook_layer"),
}
"""Keys that belong in the metadata; older files have them at the top."""
RENAMED: dict[str, str] = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "hook_point_layer": "hook_layer",
}
MARKS = {
    "activation_fn_str",
    "activation_fn",
    "activation_fn_kwargs",
    "hook_point",
    "finetuning_scaling_factor",
    "hook_layer",
}
"""Keys that only files of before version 6 have at the top."""


class Config6(NamedTuple):
    """A configuration in the shape of version 6."""

    fields: dict[str, Any]
    """Top-level keys: what changes the numbers."""
    metadata: dict[str, Any]
    """Model, hook, tokens, training."""
    legacy: bool
    """Written before version 6."""
    version: str | None
    """The stamp, as it stands there."""
    where: str
    """The file, for messages."""


def _version(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    stamp = metadata.get("sae_lens_version") or config.get("sae_lens_version")
    return None if stamp is None else str(stamp)


def _is_old(stamp: str | None, config: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Whether a file is of before version 6. A stamp that is no version says nothing; then the keys decide."""
    found = re.match(r"\s*v?(\d+)\.", stamp or "")
    if found is not None:
        return int(found.group(1)) < 6
    return bool(MARKS & config.keys()) or not metadata


def _metadata(where: str, config: dict[str, Any], nested: Mapping[str, Any]) -> dict[str, Any]:
    top = {key: config.pop(key) for key in list(config) if key in METADATA}
    for key, value in top.items():
        if key in nested and None not in (value, nested[key]) and value != nested[key]:
            raise CorruptArtifact(
                f"{where}: {key} is {value!r} at the top and {nested[key]!r} in the metadata; mend the file so that they agree"
            )
    return {**top, **{key: value for key, value in nested.items() if value is not None or key not in top}}


def _modernise(where: str, config: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """The top level of an old file in the words of version 6, by the rules that its own version had."""
    activation = config.pop("activation_fn_str", None) or config.pop("activation_fn", None)
    kwargs = config.pop("activation_fn_kwargs", None) or {}
    if activation not in (None, "relu", "topk"):
        raise Incompatible(
            f"{where}: the activation function {activation!r}; relu or topk is read; use another dictionary"
        )
    if activation == "topk":
        if config.setdefault("architecture", "topk") not in ("topk", "standard"):
            raise CorruptArtifact(
                f"{where}: a {config['architecture']!r} SAE with the activation function topk; mend the file"
            )
        config["architecture"] = "topk"
        if isinstance(kwargs, dict) and "k" in kwargs:
            config["k"] = kwargs["k"]
        config.setdefault("rescale_acts_by_decoder_norm", False)
    elif activation == "relu":
        config.setdefault("architecture", "standard")
    norm = config.get("normalize_activations")
    if isinstance(norm, bool) or norm is None:
        config["normalize_activations"] = "expected_average_only_in" if norm else "none"
    hook = metadata.get("hook_name")
    if config.get("reshape_activations") is None:
        config["reshape_activations"] = "hook_z" if isinstance(hook, str) and "hook_z" in hook else "none"
    if config.pop("finetuning_scaling_factor", False):
        raise Incompatible(
            f"{where}: a scaling factor of fine-tuning, which is not read; fold it into the decoder and save again"
        )
    return config


def read_config(path: Path) -> Config6:
    """`cfg.json` in the shape of version 6. Errors: `MissingFile`, `CorruptArtifact`, `Incompatible`."""
    return shape_config(str(path), read_strict_json(path))


def shape_config(where: str, value: Any) -> Config6:
    """A configuration in the shape of version 6. Errors: `CorruptArtifact`, `Incompatible`."""
    if not isinstance(value, dict) or not isinstance(value.get("metadata", {}), dict):
        raise CorruptArtifact(f"{where} is no object with an object 'metadata'; fetch or make it again")
    config: dict[str, Any] = {RENAMED.get(str(key), str(key)): item for key, item in value.items()}
    nested = config.pop("metadata", {})
    stamp = _version(config, nested)
    legacy = _is_old(stamp, config, nested)
    metadata = _metadata(where, config, nested)
    if legacy:
        config = _modernise(where, config, metadata)
    return Config6(config, metadata, legacy, stamp, where)


def layer_of(hook: Any, metadata: Mapping[str, Any]) -> int | None:
    """Block of a TransformerLens hook name, or of the `hook_layer` of older files.

    >>> layer_of("blocks.12.hook_resid_post", {})
    12
    """
    found = re.match(r"blocks\.(\d+)\.", hook) if isinstance(hook, str) else None
    layer = metadata.get("hook_layer")
    if found is not None:
        return int(found.group(1))
    return layer if isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 else None
