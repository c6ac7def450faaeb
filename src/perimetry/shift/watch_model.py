"""The meter of a watch, married to a model that its owner has loaded with transformers."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import cached_file

from perimetry.activations.model import LanguageModel, folder_revision, from_pretrained_parts
from perimetry.errors import AssetError, ConfigError, ModelMismatch
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.shift.watch_rules import require_eager

__all__ = ["meter_of", "recognised"]


def meter_of(model: LanguageModel | PreTrainedModel, meter: Meter | Path | str) -> Meter:
    """The meter, reading this very model.

    Errors: those of `load_meter`; `ModelMismatch` for a meter that was loaded with another model, `AssetError` for a model whose
    files are not to be found, `ConfigError` for one that trains or is compiled.
    """
    plain = model.model if isinstance(model, LanguageModel) else model
    require_eager(plain)
    if plain.training:
        raise ConfigError("the model is in training mode, where dropout changes what it computes; call eval() first")
    if not isinstance(meter, Meter):
        return load_meter(Path(meter), lm=model if isinstance(model, LanguageModel) else recognised(model))
    if meter.lm.model is not plain:
        raise ModelMismatch(
            f"the meter reads a model of its own, {meter.lm.name!r}, and another one was handed over; give meter.lm, or the folder "
            "of the meter"
        )
    return meter


def recognised(model: PreTrainedModel) -> LanguageModel:
    """A model that transformers loaded, known by the files that it came from; weights that are not theirs are refused.

    What is compared: shapes, and the first and last row of every weight. Errors: `AssetError` where the files are not found,
    `ModelMismatch` where the weights in memory were changed, `UnknownName` for another family.
    """
    folder = _folder(model)
    _require_weights(model, folder)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    lm = from_pretrained_parts(model, AutoTokenizer.from_pretrained(folder), folder.name, folder_revision(folder))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return lm


def _folder(model: PreTrainedModel) -> Path:
    name, config = str(model.config.name_or_path), model.config
    if name and Path(name).is_dir():
        return Path(name)
    try:
        found = name and cached_file(
            name, "config.json", revision=getattr(config, "_commit_hash", None), local_files_only=True
        )
    except (OSError, ValueError):
        found = None
    if not found:
        raise AssetError(
            f"the model says that it came from {name!r}, where no files are; wanted a folder or a name in the cache, to know its "
            "revision; load it with perimetry.load_language_model and hand that over"
        )
    return Path(found).parent


@torch.no_grad()
def _require_weights(model: PreTrainedModel, folder: Path) -> None:
    held, prefix, compared = model.state_dict(), f"{model.base_model_prefix}.", 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118  # no mapping
                    part: Any = handle.get_slice(name)
                    if len(part.get_shape()) < 2:
                        continue
                    mine = held.get(name, held.get(prefix + name))
                    if mine is None or list(mine.shape) != part.get_shape() or not _same(mine, part):
                        raise ModelMismatch(
                            f"the weight {name!r} of the model in memory is not that of {folder.name!r}; a changed model wants a meter "
                            "of its own; save it, load it with perimetry.load_language_model and calibrate"
                        )
                    compared += 1
        except (SafetensorError, OSError) as error:
            raise AssetError(f"{file} is not safetensors: {error}; fetch the model again") from error
    if not compared:
        raise AssetError(f"{folder} holds no safetensors weights to know the model by; convert it first")


def _same(mine: Tensor, file: Any) -> bool:
    rows = (0, mine.shape[0] - 1)
    return all(torch.equal(mine[i].cpu(), file[i : i + 1][0].to(mine.dtype)) for i in rows)
