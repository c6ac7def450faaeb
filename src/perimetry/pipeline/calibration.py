"""`perimetry calibrate`: from an SAE and clean text to a meter on disk."""

from pathlib import Path
from typing import NamedTuple

from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import collate, encode
from perimetry.activations.tap import Tap
from perimetry.artifact import require_replaceable
from perimetry.assets import Document, read_texts
from perimetry.config import build
from perimetry.errors import ConfigError, PerimetryError, TooFewSamples
from perimetry.runtime import DTYPES, Runtime
from perimetry.sae.formats import LoadedSAE, load_sae
from perimetry.shift.clean import MeterConfig, split_clean
from perimetry.shift.evidence import Extractor
from perimetry.shift.fit import check_origin, fit_meters
from perimetry.shift.meter import KIND, Meter

__all__ = ["Calibrated", "are_prompts", "fitted_policy", "run_calibration"]

POLICY_TEXTS = 64


class Calibrated(NamedTuple):
    """A meter that was fitted and saved."""

    meter: Meter
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
    where = layer if layer is not None else sae.info.layer
    if where is None:
        raise ConfigError(f"the SAE at {sae_path} does not say its layer; give --layer")
    if dtype == "auto" and sae.info.dtype in DTYPES:
        runtime = runtime._replace(dtype=DTYPES[sae.info.dtype])
    lm = load_language_model(name, runtime, progress=progress)
    documents = list(read_texts(text, progress=progress))
    extractor = Extractor(lm, where, fitted_policy(lm, where, sae.info.policy, documents))
    check_origin(sae, extractor)
    cut = config.passages if config.passages is not None else not are_prompts(text)
    parts = split_clean(extractor, documents, config, passages=cut)
    meter = fit_meters(extractor, [sae], parts, config, details={"text": text}, progress=progress)[0]
    return Calibrated(meter, meter.save(out))
