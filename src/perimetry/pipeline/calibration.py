"""`perimetry calibrate`: from an SAE and clean text to a meter on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import collate, encode
from perimetry.activations.tap import Tap
from perimetry.artifact import require_replaceable
from perimetry.assets import Document
from perimetry.config import build
from perimetry.errors import ConfigError, ModelMismatch, PerimetryError, TooFewSamples
from perimetry.pipeline.bench_suites import not_held_out
from perimetry.runtime import DTYPES, Runtime
from perimetry.sae.formats import LoadedSAE, load_sae
from perimetry.shift.clean import MeterConfig, split_clean
from perimetry.shift.evidence import Extractor
from perimetry.shift.fit import check_origin, fit_meters, fit_taps
from perimetry.shift.meter import KIND, Meter
from perimetry.shift.multi import MULTI_KIND, MultiMeter
from perimetry.shift.taps import Taps

__all__ = ["Calibrated", "CalibratedTaps", "are_prompts", "fitted_policy", "run_calibration", "run_taps_calibration"]

POLICY_TEXTS = 64


class Calibrated(NamedTuple):
    """A meter that was fitted and saved."""

    meter: Meter
    """Ready to score."""
    digest: str
    """Identity of the artifact."""


class CalibratedTaps(NamedTuple):
    """A meter over several layers that was fitted and saved."""

    meter: MultiMeter
    """Ready to score."""
    digest: str
    """Identity of the artifact."""


def are_prompts(text: str) -> bool:
    """Whether the lines of a text source are prompts as they stand (a .jsonl) rather than text to cut passages from."""
    return text.endswith((".jsonl", ".jsonl.gz"))


def fitted_policy(
    lm: LanguageModel, layer: int, info_policy: dict[str, object], documents: list[Document]
) -> TokenPolicy:
    """The SAE's own token policy; where it has none, or no sink threshold, that is fitted on some of the text."""
    policy = build(TokenPolicy, info_policy, "token policy of the SAE")
    if policy.max_norm is not None:
        return policy
    norms = []
    for document in documents:
        if len(norms) == POLICY_TEXTS:
            break
        try:
            prompt = encode(lm, document.text, policy, truncate=True, limit=min(256, lm.context))
        except PerimetryError:
            continue
        batch = collate([prompt], lm.pad_id)
        residual = Tap(lm, layer).read(batch.ids.to(lm.device), batch.attention.to(lm.device)).float().cpu()
        norms.append(residual[batch.countable].norm(dim=1).median())
    if not norms:
        raise TooFewSamples(f"none of the {len(documents)} texts has a token to fit the policy on; give plain text")
    return policy.fitted(float(sum(norms) / len(norms)))


def _require_block(sae: LoadedSAE, path: Path) -> None:
    """Refuse an SAE that was trained here on another place than the output of one block, whatever --layer says."""
    info = sae.info
    if info.origin is None and info.layer is None and (info.hook_name or info.hook_names):
        raise ConfigError(
            f"the SAE at {path} reads {info.hook_name or ', '.join(info.hook_names)}, a meter reads the output of one block; train "
            "an SAE there, with --layer and without --place and --layers"
        )


def _layer(sae: LoadedSAE, path: Path, layer: int | None) -> int:
    where = layer if layer is not None else sae.info.layer
    if where is None:
        raise ConfigError(f"the SAE at {path} does not say its layer; give --layer")
    return where


def run_calibration(
    sae_path: Path,
    text: str,
    out: Path,
    config: MeterConfig,
    runtime: Runtime,
    *,
    model: str | None = None,
    layer: int | None = None,
    dtype: str = "auto",
    progress: bool = False,
) -> Calibrated:
    """Fit a meter and save it to `out`.

    Model, layer and (where `dtype` is `auto`) the compute dtype default to what the SAE says it was trained on. Errors: `ConfigError` when neither says it,
    `StorageError` when `out` holds something else than a meter, and those of `load_sae`, `check_origin`, `split_clean` and `fit_meters`.
    """
    require_replaceable(out, KIND)
    sae: LoadedSAE = load_sae(sae_path)
    name = model or sae.info.model
    if name is None:
        raise ConfigError(f"the SAE at {sae_path} does not say its model; give --model")
    _require_block(sae, sae_path)
    where = _layer(sae, sae_path, layer)
    if dtype == "auto" and sae.info.dtype in DTYPES:
        runtime = runtime._replace(dtype=DTYPES[sae.info.dtype])
    lm = load_language_model(name, runtime, progress=progress)
    documents = not_held_out(text, progress)
    extractor = Extractor(lm, where, fitted_policy(lm, where, sae.info.policy, documents))
    check_origin(sae, extractor)
    cut = config.passages if config.passages is not None else not are_prompts(text)
    parts = split_clean(extractor, documents, config, passages=cut)
    meter = fit_meters(extractor, [sae], parts, config, details={"text": text}, progress=progress)[0]
    return Calibrated(meter, meter.save(out))


def run_taps_calibration(
    sae_paths: Sequence[Path],
    text: str,
    out: Path,
    config: MeterConfig,
    runtime: Runtime,
    *,
    model: str | None = None,
    layers: Sequence[int] = (),
    dtype: str = "auto",
    progress: bool = False,
) -> CalibratedTaps:
    """Fit a meter over several layers of one model, an SAE for each, from shared forward passes, and save it to `out`.

    `layers`: the block of each SAE in order, where the SAEs do not say it. Errors: as `run_calibration`, `ModelMismatch` for SAEs
    of different models, and those of `Taps`.
    """
    require_replaceable(out, MULTI_KIND)
    if layers and len(layers) != len(sae_paths):
        raise ConfigError(
            f"{len(sae_paths)} SAEs and {len(layers)} layers were given; give --layer once for each --sae, or never"
        )
    saes: list[LoadedSAE] = [load_sae(path) for path in sae_paths]
    names = list(dict.fromkeys(s.info.model for s in saes if s.info.model is not None)) if model is None else [model]
    if not names:
        raise ConfigError(f"the SAE at {sae_paths[0]} does not say its model; give --model")
    if len(names) > 1:
        raise ModelMismatch(
            f"the SAEs were trained on {' and '.join(map(repr, names))}; the taps of one meter read one model; give SAEs of one "
            "model, or say with --model where it lies"
        )
    for sae, path in zip(saes, sae_paths, strict=True):
        _require_block(sae, path)
    given = layers or [None] * len(saes)
    where = [_layer(sae, path, layer) for sae, path, layer in zip(saes, sae_paths, given, strict=True)]
    # The order on the command line says nothing, so that the same SAEs give the same meter.
    saes = [saes[i] for i in sorted(range(len(saes)), key=lambda i: where[i])]
    first = saes[0].info.dtype
    if dtype == "auto" and first in DTYPES:
        runtime = runtime._replace(dtype=DTYPES[first])
    lm = load_language_model(names[0], runtime, progress=progress)
    documents = not_held_out(text, progress)
    taps = Taps(
        [
            Extractor(lm, layer, fitted_policy(lm, layer, sae.info.policy, documents))
            for layer, sae in zip(sorted(where), saes, strict=True)
        ]
    )
    for sae, extractor in zip(saes, taps.extractors, strict=True):
        check_origin(sae, extractor)
    cut = config.passages if config.passages is not None else not are_prompts(text)
    parts = split_clean(taps.extractors[0], documents, config, passages=cut)
    fitted = fit_taps(taps, saes, parts, config, details={"text": text}, progress=progress)
    meter = MultiMeter.of(fitted, parts.reference, config)
    return CalibratedTaps(meter, meter.save(out))
