"""What `perimetry eval` measures of dictionaries, and three sizes of it."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from perimetry.config import Config, over
from perimetry.errors import UnknownName
from perimetry.evals.sae import SAE_EVALS, AbstractEvaluation
from perimetry.evals.sae.absorption import Absorption
from perimetry.evals.sae.fidelity import Fidelity
from perimetry.evals.sae.ground_truth import GroundTruth
from perimetry.evals.sae.ood_probing import OodProbing
from perimetry.evals.sae.probing import Probing
from perimetry.evals.sae.scr import SpuriousCorrelationRemoval
from perimetry.evals.sae.stability import Stability
from perimetry.evals.sae.tpp import TargetedProbePerturbation

__all__ = ["CONTROLS", "EVALUATION_PRESETS", "Control", "EvaluationConfig", "with_evaluation_preset"]

Control = Literal["untrained_dictionary", "frozen_decoder", "untrained_model"]
CONTROLS: tuple[Control, ...] = ("untrained_dictionary", "frozen_decoder", "untrained_model")
"""A dictionary before its first step, firing as often; one trained with the same recipe whose random decoder stays; one trained
with the same recipe on a model whose weights were never trained."""


class EvaluationConfig(Config):
    """Which evaluations, with which settings, beside which controls."""

    suites: tuple[str, ...] = Field(default=tuple(SAE_EVALS), min_length=1)
    """Names in `SAE_EVALS`."""
    seeds: PositiveInt | None = None
    """Draws of the rows of every probe and of the divisions of `scr`, and dictionaries of `ground_truth`; None is what each
    evaluation has itself: five, three and three."""
    controls: tuple[Control, ...] = CONTROLS
    """Of each dictionary, what it is held against; the two that are trained take the subject's own recipe and text."""
    control_seed: int = 1
    """Seed of what is random in a control."""
    control_tokens: PositiveInt | None = None
    """Training tokens of controls that are trained; None is as many as the subject had."""
    fidelity: Fidelity = Fidelity()
    """Settings of that evaluation, as below."""
    absorption: Absorption = Absorption()
    """As above."""
    probing: Probing = Probing()
    """As above."""
    ood_probing: OodProbing = OodProbing()
    """As above."""
    ground_truth: GroundTruth = GroundTruth()
    """As above."""
    stability: Stability = Stability()
    """As above."""
    tpp: TargetedProbePerturbation = TargetedProbePerturbation()
    """As above."""
    scr: SpuriousCorrelationRemoval = SpuriousCorrelationRemoval()
    """As above."""

    @model_validator(mode="after")
    def _known(self) -> "EvaluationConfig":
        for name in self.suites:
            if name not in SAE_EVALS:
                raise UnknownName("evaluation", name, SAE_EVALS)
        for field in ("suites", "controls"):
            given = getattr(self, field)
            if len(set(given)) < len(given):
                raise ValueError(f"{field} = {list(given)} names one twice; name each once")
        return self

    def evaluation(self, name: str) -> AbstractEvaluation:
        """The evaluation of that name with its settings, and with `seeds` where that is given."""
        found: AbstractEvaluation = getattr(self, name)
        return found if self.seeds is None else found.model_copy(update=_seeded(name, self.seeds))


def _seeded(name: str, seeds: int) -> dict[str, Any]:
    """Fields of an evaluation that say how often it draws."""
    if name in ("probing", "ood_probing"):
        return {"seeds": seeds}
    if name == "ground_truth":
        return {"seeds": tuple(range(seeds))}
    return {"draws": seeds} if name == "scr" else {}


FEW_SETS = (
    "5_hist_fig_ismale",
    "36_sciq_tf",
    "49_cm_isshort",
    "67_social-security",
    "87_glue_cola",
    "92_glue_sst2",
    "96_spam_is",
    "105_click_bait",
    "158_code_C",
    "161_agnews_0",
)
EVALUATION_PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {
        "suites": ("fidelity", "absorption", "probing", "ood_probing"),
        "seeds": 2,
        "controls": ("untrained_dictionary",),
        "fidelity": {"rows": 64},
        "absorption": {"words": 80},
        "probing": {"data": {"sets": FEW_SETS, "rows": 500}},
        "ood_probing": {"data": {"sets": FEW_SETS[:5], "rows": 500}},
    },
    "tiny": {
        "seeds": 2,
        "control_tokens": 4096,
        **{name: cls.tiny().model_dump(mode="json") for name, cls in SAE_EVALS.items()},
    },
}
"""`full` is for numbers that are reported; `quick` looks whether anything is wrong; `tiny` runs every step in seconds, for
tests: its numbers mean nothing."""


def with_evaluation_preset(values: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """The values of a configuration on top of those of a preset, table by table. Errors: `UnknownName`.

    >>> with_evaluation_preset({"fidelity": {"batch": 2}}, "quick")["fidelity"]
    {'rows': 64, 'batch': 2}
    """
    if preset not in EVALUATION_PRESETS:
        raise UnknownName("preset", preset, EVALUATION_PRESETS)
    return over(EVALUATION_PRESETS[preset], values)
