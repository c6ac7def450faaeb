"""What the readers of the families share: names in paths, tensors to latent-major float32, descriptions from fields."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perimetry.axes import LatentBias
from perimetry.errors import CorruptArtifact, PerimetryError
from perimetry.runtime import dtype_name
from perimetry.sae.formats.checks import check_record, check_sizes
from perimetry.sae.formats.fields import Fields
from perimetry.sae.formats.hooks import layer_of
from perimetry.sae.formats.record import Declared, Gate, Hook, How, InputNorm, Record, Source
from perimetry.sae.formats.safety import hash_files, read_strict_json
from perimetry.strict import check_header

__all__ = [
    "Parts",
    "describe",
    "in_path",
    "latent_major",
    "make_record",
    "per_latent",
    "read_object",
    "tensor_names",
    "unweighted",
]


def tensor_names(path: Path) -> set[str]:
    """Names of the tensors of a safetensors file; none where it is no such file."""
    try:
        check_header(path)
        with safe_open(path, "pt") as file:
            return set(file.keys())
    except (PerimetryError, SafetensorError, OSError, ValueError):
        return set()


def in_path(path: Path, pattern: str) -> re.Match[str] | None:
    """Where `pattern` is found in the part of the absolute path that is nearest to its end.

    >>> in_path(Path("/layer_1/layer_3/width_16k"), r"layer_([0-9]+)").group(1)
    '3'
    """
    for part in reversed(path.absolute().parts):
        found = re.search(pattern, part)
        if found:
            return found
    return None


def read_object(path: Path) -> dict[str, Any]:
    """A strict JSON file that holds an object. Errors: `MissingFile`, `CorruptArtifact`."""
    value = read_strict_json(path)
    if not isinstance(value, dict):
        raise CorruptArtifact(f"{path} holds {type(value).__name__}, an object is wanted; fetch or make it again")
    return value


class Parts(Fields):
    """Fields that the path, or the published rule of the family, gives where the file says nothing."""

    def __init__(self, file: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> None:
        super().__init__(file, overrides, where)
        self.said: dict[str, How] = {}

    def take(self, who: How, **values: Any) -> None:
        """What `who` says of fields; None, and what stands in the file already, changes nothing."""
        for name, value in values.items():
            if value is not None and self.file.get(name) is None:
                self.file[name] = value
                self.said[name] = who

    def sources(self) -> dict[str, How]:
        """Field -> who said it."""
        return {name: self.said.get(name, who) if who == "file" else who for name, who in self.how.items()}

    def rest(self) -> dict[str, Any]:
        """What stands in the file and was not read."""
        return {name: value for name, value in super().rest().items() if name not in self.said}


def latent_major(where: str, tensors: Mapping[str, Tensor], name: str, *, transposed: bool = False) -> Tensor:
    """The matrix `name`, turned where the family stores it `transposed`; its latents are rows then.

    The layout is the family's: nothing is concluded from the shape, which a square matrix would not tell. Errors: `CorruptArtifact`.
    """
    tensor = tensors[name]
    if tensor.ndim != 2:
        raise CorruptArtifact(
            f"{where}: {name} has shape {tuple(tensor.shape)}, a matrix is wanted; fetch or make it again"
        )
    return tensor.T.contiguous() if transposed else tensor


def per_latent(where: str, value: Tensor | float, d_sae: int) -> LatentBias:
    """One number a latent, from one for all of them or from that many. Errors: `CorruptArtifact`."""
    tensor = torch.as_tensor(value)
    if tensor.numel() == 1:
        return torch.full((d_sae,), float(tensor))
    if tuple(tensor.shape) != (d_sae,):
        raise CorruptArtifact(
            f"{where}: a threshold of shape {tuple(tensor.shape)} for {d_sae} latents; one number, or one a latent is wanted; "
            "fetch or make it again"
        )
    return tensor.float()


def unweighted(threshold: LatentBias, W_dec: Float[Tensor, "d_sae d_out"]) -> LatentBias:
    """The threshold on p of a rule that compares p times the decoder norm; a row of zeros never fires."""
    norms = W_dec.double().norm(dim=1)
    largest = torch.finfo(torch.float32).max
    return (threshold.double() / norms).nan_to_num(nan=largest, posinf=largest).clamp(max=largest).float()


def _widest(tensors: Sequence[Tensor]) -> str:
    return dtype_name(max((t.dtype for t in tensors), key=lambda d: (d.itemsize, str(d))))


def make_record(
    family: str,
    architecture: str,
    tensors: Mapping[str, Tensor],
    gate: Gate,
    *,
    files: Sequence[Path],
    subtract: bool = False,
    transcoder: bool = False,
    input_norm: InputNorm = "none",
    reconstructs: bool = True,
    version: str | None = None,
) -> Record:
    """A record of latent-major `W_enc`, `W_dec`, `b_dec`, perhaps `b_enc` and `W_skip`, in the dtypes that they have on disk."""
    check_sizes(str(files[0]), tensors["W_enc"].shape[1], *tensors["W_dec"].shape)
    plain = {name: tensor.float() for name, tensor in tensors.items()}
    record = Record(
        architecture=architecture,
        W_enc=plain["W_enc"],
        b_enc=plain.get("b_enc"),
        W_dec=plain["W_dec"],
        b_dec=plain["b_dec"],
        gate=gate,
        subtract_b_dec=subtract,
        source=Source(
            family=family,
            files=hash_files(*files),
            dtype=_widest([tensors["W_enc"], tensors["W_dec"]]),
            version=version,
        ),
        W_skip=plain.get("W_skip"),
        transcoder=transcoder,
        input_norm=input_norm,
        reconstructs=reconstructs,
    )
    return check_record(record)


def _hook(fields: Parts) -> Hook:
    name, hf_name = fields.may("hook_name", str), fields.may("hf_hook_name", str)
    layer = fields.may("layer", int)
    spoken = [found for found in (layer_of(n) for n in (name, hf_name) if n) if found is not None]
    if len({*spoken, *([] if layer is None else [layer])}) > 1:
        raise CorruptArtifact(
            f"{fields.where}: layer {layer}, hook {name!r} and module {hf_name!r} speak of different blocks; one of them is off; "
            "give the right ones with --set layer=, --set hook_name=, --set hf_hook_name="
        )
    return Hook(
        layer=spoken[0] if spoken else layer,
        name=name,
        name_out=fields.may("hook_name_out", str),
        hf_name=hf_name,
        hf_name_out=fields.may("hf_hook_name_out", str),
        reshape="hook_z" if name is not None and name.endswith(".hook_z") else "none",
    )


def describe(record: Record, fields: Parts, *, normalisation: How = "family") -> Record:
    """The record with what the fields say of hook, model, text and token policy. No field is read after it.

    Errors: `CorruptArtifact` where layer and hooks contradict each other, `ConfigError` for an override that nobody reads.
    """
    hook = _hook(fields)
    policy: dict[str, Any] = {}
    for key, name in (("prepend_bos", "prepend_bos"), ("exclude_special", "exclude_special_tokens")):
        value = fields.may(name, bool)
        if value is not None:
            policy[key] = value
    model, context = fields.may("model_name", str), fields.may("context_size", int)
    dataset, l0 = fields.may("dataset_path", str), fields.may("l0", (int, float))
    how = fields.sources()
    how["normalisation"] = normalisation
    for name, fields_of in (("hook", ("hook_name", "hf_hook_name", "layer")), ("policy", ("prepend_bos",))):
        said: list[How] = [how[field] for field in fields_of if field in how]
        if said:
            how[name] = said[0]
    return record._replace(
        hook=hook,
        model=model,
        context_size=context,
        dataset=dataset,
        policy=policy,
        declared=record.declared if l0 is None else Declared(l0=float(l0)),
        how=how,
        overrides=fields.finish(),
        extra={**record.extra, "config": fields.rest()},
    )
