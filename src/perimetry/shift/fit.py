"""Fit meters on clean text: one pass for what is normal, one for the moments of the scores, one to calibrate."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.activations.policy import TokenPolicy
from perimetry.errors import Incompatible, ModelMismatch, PolicyMismatch
from perimetry.runtime import dtype_name
from perimetry.sae.base import AbstractSAE, Codes
from perimetry.sae.formats.info import LoadedSAE, require_measured
from perimetry.shift import DETECTORS
from perimetry.shift.base import AbstractDetector
from perimetry.shift.calibrating import calibration_scores
from perimetry.shift.clean import CleanParts, MeterConfig
from perimetry.shift.conformal import Calibration
from perimetry.shift.contexts import TopContexts
from perimetry.shift.evidence import Capture, Extractor, Prompt
from perimetry.shift.explain import ContextBook, snippet
from perimetry.shift.meter import Meter, Normal
from perimetry.shift.pooling import Reference, parse_score, reference_of
from perimetry.shift.profile import Dictionary, Profile
from perimetry.shift.summaries import Summaries, terms_of
from perimetry.shift.tables import LEVELS
from perimetry.shift.taps import SameTap, Taps
from perimetry.ui import track

__all__ = ["FittedTaps", "check_origin", "fit_meters", "fit_taps"]


def check_origin(sae: LoadedSAE, extractor: Extractor) -> None:
    """Refuse an SAE that was trained on another model, layer, dtype or token policy, as far as it says.

    Errors: `ModelMismatch`, `PolicyMismatch`, `WidthMismatch`; `Incompatible` for a converted SAE that was never checked on
    real activations, and for one of several places.
    """
    lm, info = extractor.lm, sae.info
    if type(sae.sae).targets is not AbstractSAE.targets or sae.sae.reads != "one":
        does = "reads several places at once" if sae.sae.reads == "several" else "writes another place than it reads"
        raise Incompatible(
            f"a {sae.sae.architecture!r} {does}; a meter wants a dictionary of one place, such as batchtopk; train one there"
        )
    require_measured(sae, "a meter")
    sae.sae.check_width(torch.empty(0, lm.d_model), f"layers.{extractor.tap.layer} of this model")
    if info.revision is not None and info.revision != lm.revision:
        raise ModelMismatch(
            f"the SAE was trained on {info.model!r} of revision {info.revision[:12]}, this is {lm.name!r} of revision "
            f"{lm.revision[:12]}; give that model, or another SAE"
        )
    if info.layer is not None and info.layer != extractor.tap.layer:
        raise ModelMismatch(
            f"the SAE was trained after block {info.layer}, block {extractor.tap.layer} was asked for; leave --layer away"
        )
    if info.dtype is not None and info.dtype != dtype_name(lm.dtype):
        raise ModelMismatch(
            f"the SAE was trained on activations in {info.dtype}, this model computes in {dtype_name(lm.dtype)}; use "
            f"--dtype {info.dtype}"
        )
    if info.policy:
        stored = TokenPolicy.model_validate(info.policy)
        if stored.max_norm is not None:
            extractor.policy.require_same(stored, "the SAE")
        elif stored.prepend_bos != extractor.policy.prepend_bos:
            raise PolicyMismatch("the SAE was trained with another BOS rule than this meter's policy; use the SAE's")


class FittedTaps(NamedTuple):
    """Meters that were fitted from the same forward passes."""

    meters: list[Meter]
    """One for each SAE."""
    scores: Float[Tensor, "prompt tap"]
    """Main score of each calibration prompt under each of them."""
    lengths: Float[Tensor, "prompt tap"]
    """Tokens of each calibration prompt that counted there."""


def fit_meters(
    extractor: Extractor,
    saes: Sequence[LoadedSAE],
    parts: CleanParts,
    config: MeterConfig,
    *,
    details: dict[str, Any] | None = None,
    progress: bool = False,
) -> list[Meter]:
    """One meter for each SAE, all from the same forward passes.

    Errors: `UnknownName` for a main detector that is none, `TooFewSamples`, `NonFinite`, and those of `check_origin`.
    """
    return _fit(SameTap(extractor, len(saes)), saes, parts, config, details, progress).meters


def fit_taps(
    taps: Taps,
    saes: Sequence[LoadedSAE],
    parts: CleanParts,
    config: MeterConfig,
    *,
    details: dict[str, Any] | None = None,
    progress: bool = False,
) -> FittedTaps:
    """One meter for each tap, under the SAE that was trained there, all from the same forward passes. Errors: as `fit_meters`."""
    return _fit(taps, saes, parts, config, details, progress)


def _fit(
    source: Taps | SameTap,
    saes: Sequence[LoadedSAE],
    parts: CleanParts,
    config: MeterConfig,
    details: dict[str, Any] | None,
    progress: bool,
) -> FittedTaps:
    parse_score(config.main, LEVELS)
    for extractor, sae in zip(source.extractors, saes, strict=True):
        check_origin(sae, extractor)
    profiles, books, spans = _see(source, saes, parts.profile, config, progress)
    detectors: list[dict[str, AbstractDetector]] = []
    for profile, shares in zip(profiles, source.shares, strict=True):
        # What reads no SAE is the same under each of one tap, so it is fitted once and scored once.
        shared = {name: d for name, d in detectors[0].items() if not d.needs_sae} if shares else {}
        detectors.append({name: shared.get(name) or cls.fit(profile) for name, cls in DETECTORS.items()})
    references = _references(source, saes, parts.reference, detectors, config, progress)
    found = calibration_scores(source, saes, parts.calibration, detectors, references, config, progress)
    codes, scores, lengths = found
    texts = [p.text for p in parts.profile]
    meters: list[Meter] = []
    for i, (extractor, sae) in enumerate(zip(source.extractors, saes, strict=True)):
        calibration = Calibration.fit(scores[i], lengths[i], groups=config.groups, minimum=config.minimum)
        rates = profiles[i].firing_rates()
        terms, groups = terms_of(config.main), calibration.groups.index(lengths[i])
        vectors = torch.cat([torch.stack([scores[i][name] for name in terms], 1), codes[i]], 1)
        book = _book(books[i], texts, spans[i])
        normal = Normal(
            detectors[i], references[i], calibration, rates, book, Summaries(terms, vectors.float(), groups)
        )
        about = {"profile_tokens": profiles[i].tokens, "calibration_prompts": len(parts.calibration)}
        about |= {"profile_prompts": len(parts.profile), "config": config.model_dump(mode="json")} | (details or {})
        meters.append(Meter(extractor, sae.sae, sae.info, normal, main=config.main, details=about))
    return FittedTaps(meters, torch.stack([mine[config.main] for mine in scores], 1), torch.stack(lengths, 1))


class _Seen(NamedTuple):
    """What a pass over the profile prompts leaves."""

    profiles: list[Profile]
    """What is normal under each SAE."""
    books: list[TopContexts]
    """Where each concept fires hardest."""
    spans: list[list[list[tuple[int, int]]]]
    """Under each SAE: characters under each counted token of each prompt."""


def _see(
    source: Taps | SameTap, saes: Sequence[LoadedSAE], prompts: Sequence[Prompt], config: MeterConfig, progress: bool
) -> _Seen:
    lm = source.extractors[0].lm
    vocab = int(lm.model.config.get_text_config().vocab_size)
    unigrams = torch.zeros(vocab, dtype=torch.int64)
    for prompt in prompts:
        counted = torch.tensor(prompt.encoded.ids)[torch.tensor(prompt.encoded.countable)]
        unigrams += torch.bincount(counted, minlength=vocab)

    def profile_of(sae: LoadedSAE) -> Profile:
        nothing = Codes(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1), sae.sae.d_sae)
        dictionary = Dictionary(sae.sae.W_dec.detach(), sae.sae.decode(nothing)[0])
        width = sae.sae.d_sae
        return Profile.empty(
            lm.d_model,
            width,
            vocab,
            config.seed,
            unigrams=unigrams,
            dictionary=dictionary,
            sample=config.bank,
        )

    profiles = [profile_of(sae) for sae in saes]
    books = [TopContexts.empty(sae.sae.d_sae, config.contexts) for sae in saes]
    spans: list[list[list[tuple[int, int]]]] = [[[] for _ in prompts] for _ in saes]
    for first, last, logits, foresight in _passes(prompts, config.foresight_tokens):
        some = prompts[first:last]
        passes = source.capture(some, logits=logits, foresight=foresight, batch_tokens=config.batch_tokens)
        for captures in track(passes, "profile of clean text", len(some), progress, lambda c: len(c[0].rows)):
            for i, capture in enumerate(captures):
                owner = torch.tensor([first + row for row in capture.rows])[capture.prompt]
                for row, counted in zip(capture.rows, capture.counted, strict=True):
                    all_spans = some[row].encoded.spans
                    spans[i][first + row] = [all_spans[t] or (0, 0) for t in counted.nonzero()[:, 0].tolist()]
                evidence = capture.evidence(saes[i].sae)
                profiles[i].update(evidence)
                books[i].update(evidence.codes.indices, evidence.codes.values, owner, _places(capture))
    return _Seen(profiles, books, spans)


class _Pass(NamedTuple):
    """Prompts that are read alike."""

    first: int
    """The first of them."""
    last: int
    """The one after the last."""
    logits: bool
    """Whether next-token statistics are wanted."""
    foresight: bool
    """Whether the whole model reads them."""


def _passes(prompts: Sequence[Prompt], foresight_tokens: int) -> list[_Pass]:
    """The full forward pass costs more than twice one to the tap, the vocabulary a quarter more, so shares will do."""
    with_logits = max(1, len(prompts) // 20)
    totals = accumulate(sum(p.encoded.countable) for p in prompts)
    ahead = max(with_logits, min(len(prompts), 1 + sum(total < foresight_tokens for total in totals)))
    bounds = (0, with_logits, ahead, len(prompts))
    shares = [_Pass(bounds[i], bounds[i + 1], logits=i == 0, foresight=i < 2) for i in range(3)]
    return [share for share in shares if share.first < share.last]


def _places(capture: Capture) -> Tensor:
    """Index of each token among the counted ones of its prompt."""
    starts = torch.bincount(capture.prompt, minlength=len(capture.rows)).cumsum(0)
    starts = torch.cat([starts.new_zeros(1), starts[:-1]])
    return torch.arange(capture.prompt.shape[0]) - starts[capture.prompt]


def _references(
    source: Taps | SameTap,
    saes: Sequence[LoadedSAE],
    prompts: Sequence[Prompt],
    detectors: list[dict[str, AbstractDetector]],
    config: MeterConfig,
    progress: bool,
) -> list[dict[str, Reference]]:
    per_token = [n for n in DETECTORS if LEVELS[n] == "token"]
    tokens: list[dict[str, list[Tensor]]] = [
        {n: [] for n in per_token if not shared or DETECTORS[n].needs_sae} for shared in source.shares
    ]
    passes = source.capture(prompts, logits=True, batch_tokens=config.batch_tokens)
    for captures in track(passes, "moments of the scores", len(prompts), progress, lambda c: len(c[0].rows)):
        for i, (sae, capture) in enumerate(zip(saes, captures, strict=True)):
            evidence = capture.evidence(sae.sae)
            for name, seen in tokens[i].items():
                seen.append(detectors[i][name].score(evidence))
    found = [{name: reference_of(torch.cat(seen)) for name, seen in mine.items()} for mine in tokens]
    return [found[0] | mine if shared else mine for mine, shared in zip(found, source.shares, strict=True)]


def _book(top: TopContexts, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]) -> ContextBook:
    offsets: list[int] = [0]
    found: list[str] = []
    for latent in range(top.passage.shape[0]):
        for passage, place in zip(top.passage[latent].tolist(), top.token[latent].tolist(), strict=True):
            if passage >= 0:
                start, stop = spans[int(passage)][int(place)]
                found.append(snippet(texts[int(passage)], start, stop))
        offsets.append(len(found))
    return ContextBook(torch.tensor(offsets), tuple(found))
