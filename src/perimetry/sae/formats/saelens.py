"""SAEs on disk: a folder with `sae_weights.safetensors` and `cfg.json` in the names and layouts of SAELens 6.

`W_enc` lies transposed there (d_in, d_sae). BatchTopK is stored as `jumprelu` with one constant threshold, which is what
it is at inference; its native name stands in the metadata. Ours carry a manifest of hashes besides; a folder without one
is read too, and marked as not verified.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perimetry import __version__
from perimetry.artifact import MANIFEST, read_artifact, write_artifact
from perimetry.config import build
from perimetry.errors import CorruptArtifact, Incompatible, MissingFile, NonFinite, UnknownName, WidthMismatch
from perimetry.sae import ARCHITECTURES
from perimetry.sae.affine import AffineSAE, Weights
from perimetry.sae.formats.info import LoadedSAE, SAEInfo
from perimetry.storage import read_json

__all__ = ["SAELENS_VERSION", "load_sae", "save_sae"]

SAELENS_VERSION = "6.54.12"
"""The release whose format this is. SAELens reads a file without its stamp by the rules of version 5."""
KIND = "sae"
EXPORT_NAMES = {"batchtopk": "jumprelu", "jumprelu": "jumprelu", "standard": "standard", "topk": "topk"}
TENSORS = {
    "jumprelu": {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"},
    "standard": {"W_enc", "W_dec", "b_enc", "b_dec"},
    "topk": {"W_enc", "W_dec", "b_enc", "b_dec"},
}
MAX_D_IN, MAX_D_SAE = 2**16, 2**24
LOG_FLOOR = 1e-10


def _metadata(sae: AffineSAE, info: SAEInfo) -> dict[str, Any]:
    hook = info.hook_name or (None if info.layer is None else f"blocks.{info.layer}.hook_resid_post")
    policy = info.policy
    return {
        "sae_lens_version": SAELENS_VERSION,
        "sae_lens_training_version": SAELENS_VERSION,
        "perimetry_version": __version__,
        "model_name": info.model,
        "model_class_name": info.model_class,
        "hook_name": hook,
        "hf_hook_name": info.hf_hook_name,
        "context_size": info.context_size,
        "prepend_bos": policy.get("prepend_bos"),
        "exclude_special_tokens": policy.get("exclude_special"),
        "dataset_path": info.dataset,
        "model_from_pretrained_kwargs": {},
        "neuronpedia_id": None,
        "training_architecture": sae.architecture,
        "training_architecture_details": sae.settings(),
        "perimetry": info.model_dump(mode="json", exclude={"digest"}),
    }


def _config(sae: AffineSAE, info: SAEInfo) -> dict[str, Any]:
    name = EXPORT_NAMES[sae.architecture]
    config: dict[str, Any] = {
        "architecture": name,
        "d_in": sae.d_model,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": _metadata(sae, info),
    }
    if name == "topk":
        config |= {"k": int(sae.settings()["k"]), "rescale_acts_by_decoder_norm": False}
    return config


def save_sae(sae: AffineSAE, path: Path, info: SAEInfo, *, rates: Tensor | None = None) -> str:
    """Write the SAE and what is known of it to a folder, atomically, and return the digest of the artifact.

    `rates` are the firing rates of the latents on clean text, stored as `sparsity.safetensors`. Errors: `NonFinite`
    (nothing is written then), `StorageFull`, `Incompatible` when `info` names another architecture.
    """
    if sae.architecture != info.architecture:
        raise Incompatible(
            f"the SAE is a {sae.architecture!r} but its info says {info.architecture!r}; give the info of this SAE"
        )
    weights = {
        "W_enc": sae.W_enc.detach().float().T,
        "W_dec": sae.W_dec.detach().float(),
        "b_enc": sae.b_enc.detach().float(),
        "b_dec": sae.b_dec.detach().float(),
    }
    if "threshold" in TENSORS[EXPORT_NAMES[sae.architecture]]:
        constant = torch.full((sae.d_sae,), float(sae.settings().get("threshold", 0.0)))
        weights["threshold"] = sae.extras().get("threshold", constant).float()
    tensors: dict[str, Mapping[str, Tensor]] = {"sae_weights": weights}
    if rates is not None:
        tensors["sparsity"] = {"sparsity": (rates.double() + LOG_FLOOR).log10().float()}
    return write_artifact(path, KIND, tensors, {"cfg": _config(sae, info)})


def _read(path: Path) -> tuple[dict[str, dict[str, Tensor]], Any, str | None]:
    if (path / MANIFEST).is_file():
        artifact = read_artifact(path, KIND)
        if "sae_weights" not in artifact.tensors or "cfg" not in artifact.documents:
            raise CorruptArtifact(f"{path} lists no sae_weights.safetensors or no cfg.json; make the SAE again")
        return artifact.tensors, artifact.documents["cfg"], artifact.digest
    for name in ("cfg.json", "sae_weights.safetensors"):
        if not (path / name).is_file():
            raise MissingFile(f"no {name} in {path}; give the folder of an SAE (it holds both weights and cfg.json)")
    tensors: dict[str, dict[str, Tensor]] = {}
    for name in ("sae_weights", "sparsity"):
        file = path / f"{name}.safetensors"
        if not file.is_file():
            continue
        try:
            tensors[name] = load_file(file)
        except (SafetensorError, OSError) as error:
            raise CorruptArtifact(f"{file} is not safetensors: {error}; fetch or make it again") from error
    return tensors, read_json(path / "cfg.json"), None


def _field(path: Path, config: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = config.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise CorruptArtifact(
            f"{path / 'cfg.json'}: {name} is {value!r}; it must be given, for its absence would mean another SAE; "
            "mend the file or fetch it again"
        )
    return value


def _check_semantics(path: Path, config: Mapping[str, Any]) -> None:
    for name, wanted in (("normalize_activations", "none"), ("reshape_activations", "none")):
        value = config.get(name, "none")
        if value != wanted:
            raise Incompatible(
                f"{path / 'cfg.json'}: {name} is {value!r}, only {wanted!r} is read here; fold the scale into the "
                "weights and save it again"
            )


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], name: str, d_in: int, d_sae: int) -> dict[str, Tensor]:
    wanted = TENSORS[name]
    missing, extra = wanted - tensors.keys(), tensors.keys() - wanted
    if missing or extra:
        raise CorruptArtifact(
            f"{path / 'sae_weights.safetensors'}: missing {sorted(missing)}, unknown {sorted(extra)}; a {name!r} SAE "
            f"has exactly {sorted(wanted)}; fetch or make it again"
        )
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    for key, tensor in tensors.items():
        shape = shapes.get(key, (d_sae,))
        if tuple(tensor.shape) != shape:
            raise CorruptArtifact(
                f"{path}: {key} has shape {tuple(tensor.shape)} but cfg.json says {shape}; weights and header do not "
                "belong together; fetch or make it again"
            )
        if not tensor.is_floating_point():
            raise CorruptArtifact(f"{path}: {key} is {tensor.dtype}, a floating-point tensor was wanted")
        if not bool(torch.isfinite(tensor).all()):
            raise NonFinite(f"{path} holds NaN or infinity in {key!r}; finite numbers are wanted; make it again")
        if key in ("W_enc", "W_dec") and not bool(tensor.any()):
            raise CorruptArtifact(f"{path}: {key} is all zero, that is no trained SAE; fetch or make it again")
    return {key: tensor.float() for key, tensor in tensors.items()}


def _native_name(path: Path, name: str, metadata: Mapping[str, Any]) -> str:
    if name not in TENSORS:
        raise UnknownName("SAE architecture", str(name), TENSORS)
    if "perimetry_version" not in metadata:
        return name
    native = metadata.get("training_architecture")
    if not isinstance(native, str) or EXPORT_NAMES.get(native) != name:
        raise CorruptArtifact(
            f"{path / 'cfg.json'}: training_architecture {native!r} is not stored as {name!r}; make the SAE again"
        )
    return native


def _settings(path: Path, native: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    if native == "topk":
        k = _field(path, config, "k", int)
        if config.get("rescale_acts_by_decoder_norm", False):
            norms = tensors["W_dec"].norm(dim=1)
            if not bool(((norms - 1).abs() < 1e-3).all()):
                raise Incompatible(
                    f"{path}: latents are ranked by decoder norm and the norms are not 1; save it again with the norms "
                    "folded into the encoder"
                )
        return {"k": k}
    if native != "batchtopk":
        return {}
    details = config["metadata"].get("training_architecture_details") or {}
    threshold = tensors["threshold"]
    if not isinstance(details.get("k"), int) or bool((threshold != threshold[0]).any()):
        raise CorruptArtifact(
            f"{path}: a batchtopk SAE has a k and one common threshold; this one does not; make it again"
        )
    return {"k": details["k"], "threshold": float(threshold[0])}


def _info(path: Path, native: str, metadata: Mapping[str, Any], digest: str | None) -> SAEInfo:
    own = metadata.get("perimetry")
    if isinstance(own, dict):
        info = build(SAEInfo, own | {"digest": digest}, f"{path / 'cfg.json'}, metadata.perimetry")
        if info.architecture != native:
            raise CorruptArtifact(f"{path / 'cfg.json'} contradicts itself on the architecture; make the SAE again")
        return info
    hook = metadata.get("hook_name")
    layer = re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", hook) if isinstance(hook, str) else None
    policy = {"prepend_bos": metadata.get("prepend_bos"), "exclude_special": metadata.get("exclude_special_tokens")}
    values = {
        "architecture": native,
        "model": metadata.get("model_name"),
        "layer": int(layer.group(1)) if layer else None,
        "hook_name": hook,
        "hf_hook_name": metadata.get("hf_hook_name"),
        "context_size": metadata.get("context_size"),
        "policy": {k: v for k, v in policy.items() if isinstance(v, bool)},
        "digest": digest,
    }
    return build(SAEInfo, values, f"{path / 'cfg.json'}, metadata")


def load_sae(path: Path, *, d_model: int | None = None) -> LoadedSAE:
    """Read an SAE, ours or one that SAELens 6 wrote (standard, jumprelu, topk).

    A folder of `perimetry train` may be given too: its `sae` folder is read. `d_model` is the width that is wanted.
    Errors: `MissingFile`, `CorruptArtifact` (hash, JSON, missing or unknown tensors, shapes that contradict the
    header), `NonFinite`, `Incompatible` (normalisation that is not folded), `UnknownName`, `WidthMismatch`.
    """
    if not (path / "cfg.json").is_file() and (path / "sae" / "cfg.json").is_file():
        path = path / "sae"
    if not path.is_dir():
        raise MissingFile(f"no SAE at {path}; give the folder that holds sae_weights.safetensors and cfg.json")
    tensors, config, digest = _read(path)
    if not isinstance(config, dict) or not isinstance(config.get("metadata", {}), dict):
        raise CorruptArtifact(f"{path / 'cfg.json'} is no object with an object 'metadata'; fetch or make it again")
    config.setdefault("metadata", {})
    name = _field(path, config, "architecture", str)
    native = _native_name(path, name, config["metadata"])
    d_in, d_sae = _field(path, config, "d_in", int), _field(path, config, "d_sae", int)
    if not (1 <= d_in <= MAX_D_IN and 1 <= d_sae <= MAX_D_SAE):
        raise CorruptArtifact(f"{path / 'cfg.json'}: d_in {d_in} and d_sae {d_sae} are out of range; fetch it again")
    subtract = _field(path, config, "apply_b_dec_to_input", bool)
    _check_semantics(path, config)
    weights = _check_tensors(path, tensors["sae_weights"], name, d_in, d_sae)
    if d_model is not None and d_in != d_model:
        raise WidthMismatch(
            f"the SAE at {path} reads width {d_in} but {d_model} was wanted; pick another layer, another model, or "
            "another SAE"
        )
    cls = ARCHITECTURES[native]
    assert issubclass(cls, AffineSAE), "every exported architecture has an affine encoder"
    sae = cls.rebuild(
        Weights(weights["W_enc"].T.contiguous(), weights["W_dec"], weights["b_enc"], weights["b_dec"]),
        extras={"threshold": weights["threshold"].clamp(min=0)} if native == "jumprelu" else {},
        settings=_settings(path, native, config, weights),
        subtract_b_dec=subtract,
    )
    sae.requires_grad_(False).eval()  # noqa: FBT003
    sparsity = tensors.get("sparsity", {}).get("sparsity")
    return LoadedSAE(sae, _info(path, native, config["metadata"], digest), digest is not None, sparsity)
