"""A peft adapter on a language model: put on only where it was made for that very model.

An adapter that `perimetry robustify` wrote carries a card that names the revision of its base. One from elsewhere says no more
than the name of its base, and is believed where that is the name or the place of the model.
"""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

from perimetry.activations.model import LanguageModel
from perimetry.artifact import read_safetensors
from perimetry.errors import CorruptArtifact, DtypeMismatch, MissingFile, ModelMismatch, UsageError
from perimetry.runtime import dtype_name
from perimetry.storage import hash_file, hash_json, read_json

__all__ = ["CARD", "CONFIG", "WEIGHTS", "adapted_revision", "load_adapter", "require_peft"]

CARD = "perimetry.json"
"""The card of an adapter: base, data, arm and numbers."""
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def require_peft() -> Any:
    """The module `peft`. Errors: `UsageError` where it is not installed."""
    try:
        import peft  # late and optional
    except ImportError as error:
        raise UsageError("adapters need peft, which is not installed; pip install 'perimetry[robust]'") from error
    return peft


def adapted_revision(base: str, weights: str, settings: str) -> str:
    """Identity of a model with an adapter on it: of the model's revision and the hashes of the adapter's two files."""
    return hash_json({"base": base, "weights": weights, "settings": settings})


def load_adapter(lm: LanguageModel, folder: Path) -> LanguageModel:
    """The model with the adapter in `folder` on it, under a revision of its own.

    The weights of `lm` stay as they are and its modules carry the adapter from now on: use what is returned, and load the model
    again where the bare one is wanted too. Only safetensors are read. Errors: `MissingFile`, `CorruptArtifact`, `ModelMismatch`
    (made for another model), `DtypeMismatch`, `UsageError` (peft is not installed, or the model carries an adapter already).
    """
    peft = require_peft()
    _require_adapter(folder)
    if lm.base_revision is not None:
        raise UsageError(
            f"the model {lm.name!r} carries an adapter already; load the model again and put on one adapter"
        )
    settings: Any = read_json(folder / CONFIG)
    if not isinstance(settings, dict):
        raise CorruptArtifact(f"{folder / CONFIG} is no object; make the adapter again")
    _require_base(lm, folder, settings)
    _require_same_tensors(folder, lm, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what peft and transformers call one another
        try:
            wrapped = peft.PeftModel.from_pretrained(lm.model, str(folder), is_trainable=False)
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
            raise CorruptArtifact(
                f"{folder} cannot be put on {lm.name!r}: {str(error).strip()[-200:]}; load the model again, make the adapter again"
            ) from error
    wrapped.eval().requires_grad_(requires_grad=False)
    revision = adapted_revision(lm.revision, hash_file(folder / WEIGHTS), hash_file(folder / CONFIG))
    return dataclasses.replace(lm, revision=revision, base_revision=lm.revision, lock=lm.lock)


def _require_adapter(folder: Path) -> None:
    if not folder.is_dir():
        raise MissingFile(f"no adapter at {folder}; give the folder that holds {CONFIG} and {WEIGHTS}")
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise CorruptArtifact(f"{folder} lacks {' and '.join(missing)} and is no peft adapter; give the right folder")


def _require_base(lm: LanguageModel, folder: Path, settings: dict[str, Any]) -> None:
    card: Any = read_json(folder / CARD) if (folder / CARD).is_file() else None
    if card is None:
        named = str(settings.get("base_model_name_or_path"))
        if named not in (lm.name, lm.origin, str(lm.model.config.name_or_path)):
            raise ModelMismatch(
                f"{folder} was made for {named!r} and carries no {CARD} that says more; the model here is {lm.name!r}; give that "
                "model, or make an adapter for this one"
            )
        return
    try:
        name, revision, dtype = (str(card["base"][key]) for key in ("name", "revision", "dtype"))
    except (KeyError, TypeError) as error:
        raise CorruptArtifact(f"{folder / CARD} does not say its base ({error!r}); make the adapter again") from error
    if revision != lm.revision:
        raise ModelMismatch(
            f"the adapter {folder} was made for {name!r} of revision {revision[:12]}, and the model here is {lm.name!r} of revision "
            f"{lm.revision[:12]}; give that model, or make an adapter for this one"
        )
    if dtype != dtype_name(lm.dtype):
        raise DtypeMismatch(
            f"the adapter {folder} was made with the model in {dtype}, and it computes in {dtype_name(lm.dtype)} here; use --dtype "
            f"{dtype}"
        )


def _require_same_tensors(folder: Path, lm: LanguageModel, settings: dict[str, Any]) -> None:
    """peft only warns of tensors that it does not find; a half-filled adapter must not be taken for a whole one."""
    tensors = read_safetensors(folder / WEIGHTS)
    if settings.get("peft_type") != "LORA":
        return
    names = {name.partition("base_model.model.")[2].partition(".lora_")[0] for name in tensors}
    unknown = sorted(name for name in names if name not in dict(lm.model.named_modules()))
    if unknown or not names:
        raise ModelMismatch(
            f"{folder} adapts {unknown[0] if unknown else 'nothing'!r}, which {lm.name!r} does not have; give the model that it was "
            "made for"
        )
    halves = {half: {name.partition(half)[0] for name in tensors if half in name} for half in (".lora_A.", ".lora_B.")}
    torn = sorted(halves[".lora_A."] ^ halves[".lora_B."])
    if torn:
        raise CorruptArtifact(f"{folder} holds half of what adapts {torn[0]!r}; make the adapter again")
