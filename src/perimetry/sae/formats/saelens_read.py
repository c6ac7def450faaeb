"""Folders of SAELens, read into records: finished dictionaries of version 6 and before, and training checkpoints.

`W_enc` lies transposed there (d_in, d_sae). Whatever SAELens would quietly put in the place of a missing field is an error here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perimetry.artifact import read_safetensors
from perimetry.errors import CorruptArtifact, Incompatible, MissingFile, UnknownName
from perimetry.runtime import dtype_name
from perimetry.sae.formats.checks import check_record, check_sizes, check_tensor
from perimetry.sae.formats.fields import Fields
from perimetry.sae.formats.fold import fold_scale, fold_selection_norms, fold_whitening
from perimetry.sae.formats.record import BatchTopKGate, Declared, Hook, How, InputNorm, Record, Source
from perimetry.sae.formats.saelens_config import Config6, layer_of, read_config
from perimetry.sae.formats.saelens_kinds import KINDS, REFUSED, Kind
from perimetry.sae.formats.safety import hash_files, read_strict_json, require_names

__all__ = ["CONFIG", "SPARSITY", "WEIGHTS", "Loaded", "read_saelens", "recognises_saelens", "saelens_record"]

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
Loaded = Mapping[str, Mapping[str, Tensor]]
"""File name without suffix -> tensors that were read and verified already."""
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
FULL = {"expected_average_only_in", "covariance_whitening"}
"""Normalisations that SAELens leaves out at run time; only files of the training say by how much."""


def recognises_saelens(path: Path) -> bool:
    """A folder with both files, by name."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def _load(file: Path, loaded: Loaded | None) -> dict[str, Tensor]:
    return dict(loaded[file.stem]) if loaded is not None and file.stem in loaded else read_safetensors(file)


def _tensors(folder: Path, kind: Kind, where: str, loaded: Loaded | None) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a kind by the names of version 6, and notes on what was renamed or dropped."""
    file = folder / WEIGHTS
    if not file.is_file():
        raise MissingFile(f"no {WEIGHTS} in {folder}; give the folder of an SAE (it holds both weights and {CONFIG})")
    found, notes = _load(file, loaded), []
    if "log_threshold" in found and "threshold" in kind.tensors and "threshold" not in found:
        found["threshold"] = found.pop("log_threshold").exp()
        notes.append("the threshold was stored as its logarithm")
    if "scaling_factor" in found:
        if not bool((found["scaling_factor"] == 1).all()):
            raise Incompatible(
                f"{where}: a scaling_factor that is not 1 everywhere; fold it into the decoder and save again"
            )
        del found["scaling_factor"]
        notes.append("a scaling_factor of ones was dropped")
    return require_names(file, found, kind.tensors), notes


def _latent_major(tensors: Mapping[str, Tensor], d_in: int, d_sae: int, d_out: int, where: str) -> dict[str, Tensor]:
    shapes = {
        "W_enc": (d_in, d_sae),
        "W_dec": (d_sae, d_out),
        "b_dec": (d_out,),
        "W_skip": (d_out, d_in),
        "topk_threshold": (),
    }
    for name, tensor in tensors.items():
        check_tensor(where, name, tensor, shapes.get(name, (d_sae,)))
    kept = {name: tensor if name == "topk_threshold" else tensor.float() for name, tensor in tensors.items()}
    return kept | ({"W_enc": kept["W_enc"].T.contiguous()} if "W_enc" in kept else {})


def _scaler(folder: Path) -> tuple[float | None, bool]:
    """Scale and whether there is a whitening, from the files of a training."""
    file = folder / SCALER
    if not file.is_file():
        return None, (folder / WHITENING).is_file()
    value = read_strict_json(file)
    scale = value.get("scaling_factor") if isinstance(value, dict) else ABSENT_SCALE
    if not (scale is None or (isinstance(scale, int | float) and not isinstance(scale, bool))):
        raise CorruptArtifact(f"{file}: scaling_factor is {scale!r}, a number or null is wanted; fetch it again")
    return scale, bool(value.get("has_whitening", (folder / WHITENING).is_file()))


ABSENT_SCALE = "absent"


def _normalised(record: Record, folder: Path, fields: Fields, by_norm: bool) -> Record:
    """The record for raw activations, by the normalisation that the file names."""
    norm = fields.need("normalize_activations", str)
    scale, whitening = _scaler(folder)
    if norm == "none":
        if scale not in (None, 1.0) or whitening:
            raise Incompatible(
                f"{fields.where} says that activations are not normalised, {SCALER} beside it says how they are; one of them is "
                "wrong; give --set normalize_activations="
            )
        return record
    if norm in ("layer_norm", "constant_norm_rescale"):
        if record.transcoder:
            raise Incompatible(
                f"{fields.where}: a transcoder with {norm}, whose output has another scale; it is not read"
            )
        kinds: dict[str, InputNorm] = {"layer_norm": "layer_norm", "constant_norm_rescale": "constant_norm"}
        return record._replace(input_norm=kinds[norm])
    if norm not in FULL:
        raise UnknownName("normalisation", norm, {"none", "layer_norm", "constant_norm_rescale", *FULL})
    if record.transcoder:
        raise Incompatible(
            f"{fields.where}: a transcoder with {norm}; input and output are scaled apart; it is not read"
        )
    if norm == "covariance_whitening":
        file = folder / WHITENING
        if not file.is_file():
            raise Incompatible(
                f"{fields.where}: activations were whitened and {WHITENING} is not there; put it beside the weights"
            )
        stats = require_names(file, read_safetensors(file), {"mean", "matrix", "inverse_matrix"})
        for name, tensor in stats.items():
            check_tensor(str(file), name, tensor, (record.d_in,) if name == "mean" else (record.d_in, record.d_in))
        return fold_whitening(record, stats["mean"], stats["matrix"], stats["inverse_matrix"]).note(
            "a whitening was folded"
        )
    if scale is not None:
        fields.file["norm_scaling_factor"] = scale
    factor = float(fields.need("norm_scaling_factor", (int, float)))
    folded = fold_scale(record, factor)
    if by_norm and isinstance(folded.gate, BatchTopKGate):
        # The comparison is of p times decoder norm, and the fold has just divided the norms.
        folded = folded._replace(gate=folded.gate._replace(threshold=folded.gate.threshold / factor))
    return folded.note(f"the scale {factor} of the activations was folded")


def _hook(metadata: Mapping[str, Any], fields: Fields) -> Hook:
    name = fields.may("hook_name", str)
    reshape = fields.may("reshape_activations", str) or "none"
    if reshape not in ("none", "hook_z"):
        raise Incompatible(
            f"{fields.where}: reshape_activations is {reshape!r}; none or hook_z is read; use another dictionary"
        )
    if reshape == "hook_z" and name is not None and not name.endswith("_z"):
        raise CorruptArtifact(f"{fields.where}: reshape_activations is 'hook_z' at the hook {name!r}; mend the file")
    head = metadata.get("hook_head_index")
    return Hook(
        layer=layer_of(name, metadata),
        name=name,
        name_out=fields.may("hook_name_out", str),
        hf_name=fields.may("hf_hook_name", str),
        hf_name_out=fields.may("hf_hook_name_out", str),
        head_index=head if isinstance(head, int) and not isinstance(head, bool) else None,
        reshape="hook_z" if reshape == "hook_z" else "none",
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _described(record: Record, config: Config6, fields: Fields, folder: Path, loaded: Loaded | None) -> Record:
    """The record with what the metadata say."""
    metadata = config.metadata
    notes: list[str] = []
    kwargs = metadata.get("model_from_pretrained_kwargs")
    if kwargs:
        notes.append(f"the activations were made with model_from_pretrained_kwargs {kwargs}")
    policy: dict[str, Any] = {}
    for key, source in (("prepend_bos", "prepend_bos"), ("exclude_special", "exclude_special_tokens")):
        value = fields.may(source, (bool, list))
        if isinstance(value, bool):
            policy[key] = value
        elif value is not None:
            notes.append(f"tokens {value} were excluded, which the token policy here cannot say")
    hook = _hook(metadata, fields)
    dead = _number(metadata.get("num_dead_features"))
    rates = folder / SPARSITY
    log_rates = None
    if rates.is_file():
        log_rates = require_names(rates, _load(rates, loaded), {"sparsity"})["sparsity"].float()
        check_tensor(str(rates), "sparsity", log_rates, (record.d_sae,))
    how: dict[str, How] = {**fields.how, "normalisation": fields.how["normalize_activations"]}
    how |= {"policy": how["prepend_bos"]} if "prepend_bos" in how else {}
    how |= {"hook": how["hook_name"]} if "hook_name" in how else {}
    details = metadata.get("training_architecture_details")
    return record._replace(
        hook=hook,
        model=fields.may("model_name", str),
        model_class=fields.may("model_class_name", str) or "AutoModelForCausalLM",
        context_size=fields.may("context_size", int),
        dataset=fields.may("dataset_path", str),
        policy=policy,
        declared=Declared(l0=_number(metadata.get("l0")), dead=None if dead is None else dead / record.d_sae),
        log_rates=log_rates,
        how=how,
        overrides=fields.finish(),
        extra={"cfg": fields.rest()},
        training={
            "architecture": metadata.get("training_architecture"),
            "details": details if isinstance(details, dict) else {},
            "own": metadata.get("perimetry"),
            "is_own": "perimetry_version" in metadata,
        },
    ).note(*notes)


def read_saelens(path: Path, overrides: Mapping[str, Any], *, unsafe_pickle: bool = False) -> Record:  # noqa: ARG001
    """A folder of SAELens as a record for raw activations.

    Errors: `MissingFile`, `CorruptArtifact`, `NonFinite`, `Incompatible`, `UnknownName`, `ConfigError` (an override).
    """
    return saelens_record(path, overrides)


def saelens_record(path: Path, overrides: Mapping[str, Any], loaded: Loaded | None = None) -> Record:
    """As `read_saelens`; with `loaded` the weights are those, and the files are not hashed again."""
    config = read_config(path / CONFIG)
    fields = Fields({**config.metadata, **config.fields}, overrides, config.where)
    name = fields.need("architecture", str)
    if name in REFUSED:
        raise Incompatible(f"{config.where}: a {name!r} SAE is not read: {REFUSED[name]}; use another dictionary")
    if name not in KINDS:
        raise UnknownName("SAE architecture", name, KINDS)
    kind = KINDS[name]
    d_in, d_sae = fields.need("d_in", int), fields.need("d_sae", int)
    d_out = fields.need("d_out", int) if kind.transcoder else d_in
    check_sizes(config.where, d_in, d_sae, d_out)
    subtract = fields.need("apply_b_dec_to_input", bool)
    if kind.transcoder and subtract:
        raise Incompatible(
            f"{config.where}: a transcoder with apply_b_dec_to_input, which has no meaning there; mend the file"
        )
    stored, notes = _tensors(path, kind, config.where, loaded)
    dtypes = {dtype_name(tensor.dtype) for key, tensor in stored.items() if key.startswith("W_")}
    tensors = _latent_major(stored, d_in, d_sae, d_out, config.where)
    files = () if loaded is not None else (CONFIG, WEIGHTS, SPARSITY, SCALER, WHITENING)
    record = Record(
        architecture=name,
        W_enc=tensors.get("W_enc"),
        b_enc=tensors.get("b_enc"),
        W_dec=tensors["W_dec"],
        # Without the subtraction, matching pursuit leaves b_dec out of the output too.
        b_dec=torch.zeros_like(tensors["b_dec"]) if name == "matching_pursuit" and not subtract else tensors["b_dec"],
        gate=kind.gate(fields, tensors),
        subtract_b_dec=subtract,
        source=Source(
            family="saelens",
            files=hash_files(*(path / file for file in files)),
            dtype="float32" if dtypes & {"float32", "float64"} else min(dtypes),
            version=config.version,
        ),
        W_skip=tensors.get("W_skip"),
        transcoder=kind.transcoder,
    ).note(*notes)
    by_norm = kind.by_norm and fields.need("rescale_acts_by_decoder_norm", bool)
    record = _normalised(record, path, fields, by_norm)
    if by_norm:
        record = fold_selection_norms(record)
    return check_record(_described(record, config, fields, path, loaded))
