"""Meters in which something was not learned, each fitted like the one that learned: its dictionary, its decoder, its model."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perimetry.assets import Document, read_texts
from perimetry.axes import Acts
from perimetry.config import build
from perimetry.errors import UsageError
from perimetry.evals.controls import untrained_model
from perimetry.pipeline.calibration import are_prompts, fitted_policy
from perimetry.pipeline.controls_config import ControlsConfig
from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE
from perimetry.sae.controls import permuted_decoder, untrained
from perimetry.sae.formats import LoadedSAE
from perimetry.sae.formats.info import SAEInfo
from perimetry.shift.clean import CleanParts, MeterConfig, split_clean
from perimetry.shift.evidence import Extractor, Prompt
from perimetry.shift.fit import fit_meters
from perimetry.shift.meter import Meter

__all__ = ["Unlearned", "fit_documents", "fit_settings", "mean_l0", "unlearned_model", "unlearned_saes"]

FITTED = ("profile_tokens", "foresight_tokens", "reference_tokens", "calibration_prompts")


class Unlearned(NamedTuple):
    """Meters of the same model, text and settings that differ in their dictionary."""

    trained: Meter
    """With the SAE that was learned, fitted anew so that all three saw the same text."""
    untrained: Meter
    """With the SAE as it was before its first step, made to fire as often."""
    permuted: Meter
    """With the trained codes, each of which means the direction of another latent."""
    l0: tuple[float, float]
    """Mean active count of the first two on the same clean tokens."""


def fit_settings(meter: Meter, config: ControlsConfig) -> MeterConfig:
    """How the meter was fitted, with the sizes that the config names."""
    given = {name: getattr(config, name) for name in FITTED if getattr(config, name) is not None}
    own: dict[str, Any] = meter.details.get("config", {})
    return build(MeterConfig, own | given | {"main": meter.main}, "settings of the meter")


def fit_documents(
    meter: Meter, held: Sequence[Document], config: ControlsConfig, *, progress: bool = False
) -> list[Document]:
    """Clean documents to fit on, none of which is held out.

    Errors: `UsageError` where the meter does not say its text, or nothing is left of it.
    """
    source = config.fit_text or meter.details.get("text", "")
    if not source:
        raise UsageError(
            "the meter does not say which clean text it was fitted on; give it as `fit_text` in [controls]"
        )
    kept = {document.id for document in held}
    found = [document for document in read_texts(source, progress=progress) if document.id not in kept]
    if not found:
        raise UsageError(
            f"every document of {source!r} is held out for the test; the meters of the controls want other clean text; "
            "give some as `fit_text` in [controls]"
        )
    return found


def mean_l0(sae: AbstractSAE, acts: Acts) -> float:
    """Mean active count on some activations."""
    return float((sae(acts).codes.values != 0).sum(1).double().mean())


def _parts(
    extractor: Extractor, meter: Meter, documents: Sequence[Document], config: ControlsConfig
) -> tuple[CleanParts, MeterConfig]:
    settings = fit_settings(meter, config)
    source = config.fit_text or meter.details.get("text", "")
    cut = settings.passages if settings.passages is not None else not are_prompts(source)
    return split_clean(extractor, documents, settings, passages=cut), settings


def _acts(extractor: Extractor, prompts: Sequence[Prompt], config: ControlsConfig) -> Acts:
    """Activations of the first prompts, as many tokens as asked for."""
    wanted: list[Prompt] = []
    for prompt in prompts:
        wanted.append(prompt)
        if sum(sum(p.encoded.countable) for p in wanted) >= config.acts:
            break
    found: list[Tensor] = [
        capture.acts.float() for capture in extractor.capture(wanted, logits=False, batch_tokens=config.batch_tokens)
    ]
    return torch.cat(found)[: config.acts]


def _loaded(sae: AbstractSAE, meter: Meter) -> LoadedSAE:
    # It says nothing of its origin: what was drawn at random comes from nowhere.
    return LoadedSAE(
        sae, SAEInfo(architecture=sae.architecture, seed=meter.info.seed), verified=True, log_sparsity=None
    )


def _affine(meter: Meter) -> AffineSAE:
    if not isinstance(meter.sae, AffineSAE):
        raise UsageError(
            f"an SAE of the architecture {meter.sae.architecture!r} has no untrained twin; one with an encoder matrix is "
            "wanted, such as batchtopk; use a meter with such an SAE"
        )
    return meter.sae


def unlearned_saes(
    meter: Meter, documents: Sequence[Document], config: ControlsConfig, *, progress: bool = False
) -> Unlearned:
    """Fit the three from the same forward passes, on the same text, with the same settings.

    Errors: `UsageError` for an SAE without an encoder matrix, `TooFewSamples` for too little text.
    """
    sae, extractor = _affine(meter), meter.extractor
    parts, settings = _parts(extractor, meter, documents, config)
    acts = _acts(extractor, parts.profile, config)
    count = mean_l0(sae, acts)
    blank = untrained(sae, config.seed, acts, max(1, round(count)))
    saes = [_loaded(one, meter) for one in (sae, blank, permuted_decoder(sae, config.seed))]
    fitted = fit_meters(extractor, saes, parts, settings, progress=progress)
    return Unlearned(fitted[0], fitted[1], fitted[2], (count, mean_l0(blank, acts)))


def unlearned_model(
    meter: Meter, documents: Sequence[Document], config: ControlsConfig, k: int, *, progress: bool = False
) -> Meter:
    """A meter on the untrained model: same architecture, block, tokenizer and text; an untrained SAE of `k` a token.

    The SAE is centred where that model's activations lie. Errors: as `unlearned_saes`.
    """
    sae = _affine(meter)
    lm = untrained_model(meter.lm, config.seed)
    layer = meter.extractor.tap.layer
    rule: dict[str, object] = {**meter.policy.model_dump(mode="json"), "max_norm": None}
    extractor = Extractor(lm, layer, fitted_policy(lm, layer, rule, list(documents)))
    parts, settings = _parts(extractor, meter, documents, config)
    acts = _acts(extractor, parts.profile, config)
    state = sae.state()
    centred = type(sae).restore(state._replace(tensors=state.tensors | {"b_dec": acts.mean(0)}))
    blank = untrained(centred, config.seed, acts, k)
    return fit_meters(extractor, [_loaded(blank, meter)], parts, settings, progress=progress)[0]
