"""A conversion as the command line asks for it: overrides from words, real activations from a store."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from perimetry.activations.shards import ActivationStore
from perimetry.errors import Incompatible, UsageError
from perimetry.runtime import generator
from perimetry.sae.formats.convert import Converted, RealActivations, convert
from perimetry.sae.formats.disk import sae_folder
from perimetry.sae.formats.record import Record

__all__ = ["parse_overrides", "run_conversion", "sample_store"]

SAMPLE = 4096


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words as overrides; values are JSON where they can be, text otherwise.

    >>> parse_overrides(["k=32", "apply_b_dec_to_input=true", "hook_name=blocks.3.hook_resid_post"])
    {'k': 32, 'apply_b_dec_to_input': True, 'hook_name': 'blocks.3.hook_resid_post'}
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {word}: a key, an equals sign and a value are wanted, such as --set k=32")
        if key in found:
            raise UsageError(f"--set {key} is given twice; give it once")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _same_place(record: Record, origin: dict[str, Any]) -> bool | None:
    """Whether a store is of the place that a record reads; None where the record does not name one."""
    hook = record.hook
    if hook.name is None and hook.hf_name is None:
        return None
    names = origin["hook"]
    return hook.name == names["transformer_lens"] or hook.hf_name == names["hugging_face"]


def sample_store(path: Path, record: Record, seed: int = 0) -> RealActivations:
    """Up to 4096 rows of a store that is of the place of `record`.

    Errors: those of `ActivationStore.open`; `Incompatible` for a store of another width or place.
    """
    store = ActivationStore.open(path, verify=False)
    plan = store.plan
    origin = {
        "model": plan["model"],
        "revision": plan["revision"],
        "tokenizer": plan["tokenizer"],
        "hook": plan["hook"],
        "compute_dtype": plan["compute_dtype"],
        "policy": store.policy.model_dump(mode="json"),
        "digest": store.digest,
    }
    if store.d_model != record.d_in:
        raise Incompatible(
            f"the activations in {path} are {store.d_model} wide, the dictionary reads {record.d_in}; give a store of its place"
        )
    if _same_place(record, origin) is False:
        raise Incompatible(
            f"the activations in {path} are of {plan['hook']['transformer_lens']}, the dictionary reads "
            f"{record.hook.name or record.hook.hf_name}; give a store of that place, or say with --set hook_name= what it reads"
        )
    ids = torch.randperm(len(store), generator=generator(seed))[:SAMPLE]
    return RealActivations(store.rows(ids), origin)


def run_conversion(
    path: Path,
    out: Path,
    *,
    family: str | None = None,
    overrides: Sequence[str] = (),
    unsafe_pickle: bool = False,
    certified: bool = False,
    activations: Path | None = None,
    native: bool = False,
) -> Converted:
    """`perimetry convert`. Errors: those of `convert`, `sample_store` and `parse_overrides`."""
    if activations is not None and not certified:
        raise UsageError(
            "--activations without --certify; activations are for the certificate; add --certify, or leave them out"
        )
    return convert(
        sae_folder(path) if path.is_dir() else path,
        out,
        family=family,
        overrides=parse_overrides(overrides),
        unsafe_pickle=unsafe_pickle,
        certified=certified,
        sample=None if activations is None else partial(sample_store, activations),
        native=native,
    )
