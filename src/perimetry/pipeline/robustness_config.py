"""`perimetry study robustness`: arms that differ in one thing each, what they are judged by, and what is asked of them."""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from pydantic import Field, model_validator

from perimetry.config import Config, over
from perimetry.errors import UnknownName
from perimetry.pipeline.robustify_config import Dose, RobustifyConfig
from perimetry.robust.recipe import Pull, TuneConfig, Weights
from perimetry.robust.selection import SELECTIONS

__all__ = [
    "ARMS",
    "BASE",
    "CLAIMS",
    "ROBUSTNESS_PRESETS",
    "Arm",
    "Dictionary",
    "RobustnessClaim",
    "RobustnessConfig",
    "with_robustness_preset",
]

Dictionary = Literal["own", "random", "none"]
BASE: Final = "base"
"""The arm that is not tuned."""


class Arm(NamedTuple):
    """One way to tune; all else is the same in every arm."""

    weights: dict[str, float]
    """Terms of the loss; the others are 0."""
    dictionary: Dictionary = "none"
    """What the shift term reads: the meter's SAE, one that learned nothing, or no dictionary at all."""
    pull: Pull = "energy"
    """What it pulls on."""
    selection: str = ""
    """Which of the pool's passages are tuned on; empty: the passages of the other arms."""
    share: float = 1.0
    """Share of the updates."""
    said: str = ""
    """What it is, in words."""


_TWINS: Final = {"clean": 1.0, "perturbed": 1.0}
_CONSISTENT: Final = {**_TWINS, "consistency": 0.5, "retain": 0.1}
_SAE: Final = {**_CONSISTENT, "shift": 0.1}
ARMS: Final[dict[str, Arm]] = {
    BASE: Arm({}, said="the model as it is"),
    "clean": Arm({"clean": 1.0}, said="next-token loss on clean text: what adaptation to the text alone gives"),
    "augmented": Arm(_TWINS, said="next-token loss on clean and corrupted text: plain data augmentation"),
    "consistent": Arm(_CONSISTENT, said="augmentation, consistency and retention"),
    "sae": Arm(_SAE, "own", said="consistent, and the shift term with the meter's SAE"),
    "sae_short": Arm(_SAE, "own", share=2 / 3, said="the same with two thirds of the updates"),
    "sae_centre": Arm(_SAE, "own", "concepts", said="consistent, and mean codes drawn to the clean centre"),
    "random_sae": Arm(_SAE, "random", said="the shift term with a dictionary that learned nothing: control"),
    "residual": Arm(
        _SAE, "none", "residual", said="mean activations drawn to the clean centre, no dictionary: control"
    ),
    "aligned": Arm(
        {**_CONSISTENT, "alignment": 0.5}, said="consistent, and activations at the tap aligned with the clean twin's"
    ),
    **{
        f"select_{name}": Arm({"perturbed": 1.0}, selection=name, said=f"texts of a mixed pool: {one.said}")
        for name, one in SELECTIONS.items()
    },
}
"""The arms by name."""


class RobustnessClaim(NamedTuple):
    """What is asked of one number, or of one difference."""

    arm: str
    """What is judged."""
    against: str
    """What is subtracted; empty where the number itself is judged."""
    metric: str
    """Which number."""
    sign: int
    """+1 where it is to lie above `bound`, -1 where below."""
    bound: float
    """With what it is compared."""
    said: str
    """Who says so, or why it is asked."""
    case: str = "first"
    """`first`: the perturbation that stands in front; empty: the number has no case."""


_SAID: Final = "arXiv 2606.26396"
CLAIMS: Final = (
    RobustnessClaim("consistent", "", "recovered", 1, 0.5, "half of the loss that corruption costs is recovered"),
    RobustnessClaim("consistent", "", "clean_rise", -1, 0.01, "and clean text costs at most 1 % more", ""),
    RobustnessClaim(
        "consistent", "", "gap_closed", 1, 0.5, "half of the gap itself is closed, adaptation to the text apart"
    ),
    RobustnessClaim("augmented", "clean", "gap_closed", 1, 0.0, "corrupted text teaches more than clean text does"),
    RobustnessClaim("consistent", "augmented", "gap_closed", 1, 0.0, "consistency adds to augmentation"),
    RobustnessClaim("sae", "consistent", "gap_closed", 1, 0.0, f"the SAE term adds, {_SAID}"),
    RobustnessClaim("sae", "random_sae", "gap_closed", 1, 0.0, "and not because any dictionary would"),
    RobustnessClaim("sae", "residual", "gap_closed", 1, 0.0, "nor because any pull to the centre would"),
    RobustnessClaim("sae_short", "augmented", "loss", -1, 0.0, "the SAE term saves a third of the text"),
    RobustnessClaim(
        "select_shift", "select_random", "loss", -1, 0.0, f"shifted texts teach more than drawn ones, {_SAID}"
    ),
    RobustnessClaim("select_shift", "select_lowest", "loss", -1, 0.0, f"and more than the least shifted, {_SAID}"),
    RobustnessClaim(
        "select_shift", "select_entropy", "loss", -1, 0.0, f"and more than those chosen by entropy, {_SAID}"
    ),
    RobustnessClaim(
        "select_shift", "select_mahalanobis", "loss", -1, 0.0, f"and more than those chosen by Mahalanobis, {_SAID}"
    ),
    RobustnessClaim("sae", BASE, "refusal", 1, -0.05, "harmful requests are refused as often, to a twentieth", ""),
    RobustnessClaim(
        "sae", BASE, "over_refusal", -1, 0.05, "benign twins are refused no more often, to a twentieth", ""
    ),
)
"""All said before anything was measured."""


class RobustnessConfig(Config):
    """Texts, arms, seeds and length of the study."""

    data: RobustifyConfig = RobustifyConfig(
        passages=1920, guard=16, test=60, tune=TuneConfig(modules="linear", targets="kept", updates=60)
    )
    """Texts, what is measured, and how every arm is tuned; its weights, `pull` and `selection` are those of the arms."""
    arms: tuple[str, ...] = Field(default=tuple(ARMS), min_length=1)
    """Names in `ARMS`; the base is always measured."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Of the low-rank matrices, the order of texts, the corruptions and the draws."""
    pool: int = Field(default=960, ge=2)
    """Passages of the mixed pool that selections choose from: the first ones of `data.passages`."""
    pool_doses: tuple[float, ...] = (0.0, 0.0, 0.05, 0.1, 0.2, 0.3)
    """Doses in the pool, drawn with each passage."""
    pool_share: float = Field(default=0.25, gt=0, le=1)
    """Share of the pool's tokens that a selection takes."""
    questions: int = Field(default=60, ge=0)
    """Multiple-choice questions of each set of `probe-texts`; where the text is one's own, clozes of its passages. 0 leaves them out."""
    harness: tuple[str, ...] = ()
    """Tasks of the lm-evaluation-harness that are put to the arms that are asked; wants the extra `harness`, and for most tasks a hub."""
    harness_folder: str = ""
    """Folder with tasks of one's own (YAML); they run without a hub."""
    harness_limit: int = Field(default=200, ge=0)
    """Documents of each such task; 0 takes all."""
    refusals: bool = True
    """Whether the pairs of harmful and benign requests are put to the arms that are asked."""
    asked: tuple[str, ...] = tuple(ARMS)
    """Arms to which questions, requests and tasks are put, besides the base; the others are judged by text alone."""
    detectors: tuple[str, ...] = ("energy", "surprise", "nll", "mahalanobis")
    """Scores of the judging meters that are compared; the last two read no SAE."""

    @model_validator(mode="after")
    def _known(self) -> "RobustnessConfig":
        for name in (*self.arms, *self.asked):
            if name not in ARMS:
                raise ValueError(str(UnknownName("arm", name, ARMS)))
        if len(set(self.arms)) < len(self.arms) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("arms or seeds name one twice; name each once")
        return self

    def run_config(self, arm: str, seed: int) -> RobustifyConfig:
        """How one arm is tuned under one seed."""
        one, tune = ARMS[arm], self.data.tune
        weights = Weights.model_validate(dict.fromkeys(Weights.model_fields, 0.0) | one.weights)
        updates = max(1, round(one.share * tune.updates))
        made = tune.model_copy(update={"weights": weights, "pull": one.pull, "updates": updates, "seed": seed})
        return self.data.model_copy(update={"tune": made, "seed": seed})

    @property
    def first(self) -> Dose:
        """The perturbation that stands in front."""
        return self.data.measured[0]


ROBUSTNESS_PRESETS: Final[dict[str, dict[str, Any]]] = {
    "full": {},
    "quick": {
        "data": {
            "passages": 64,
            "words": 30,
            "guard": 4,
            "test": 10,
            "shift_tokens": 2000,
            "measured": [{"kind": "typos", "dose": 0.1}, {"kind": "ocr", "dose": 0.1}],
            "tune": {"updates": 2, "batch": 8, "check_every": 2},
        },
        "seeds": (0,),
        "pool": 64,
        "questions": 4,
        "asked": ("augmented", "consistent", "sae"),
    },
    "tiny": {
        "data": {
            "passages": 8,
            "words": 8,
            "guard": 3,
            "test": 5,
            "shift_tokens": 64,
            "measured": [{"kind": "typos", "dose": 0.4}, {"kind": "ocr", "dose": 0.4}],
            "tune": {"updates": 2, "batch": 4, "check_every": 1, "rank": 2, "clean_limit": 5.0, "retain_limit": 5.0},
        },
        "seeds": (0, 1),
        "pool": 16,
        "questions": 4,
    },
}
"""Sizes by name: `full` is hours on two cores, `quick` looks whether anything is wrong, `tiny` is for tests."""


def with_robustness_preset(values: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """The values of a configuration on top of those of a preset, table by table. Errors: `UnknownName`."""
    if preset not in ROBUSTNESS_PRESETS:
        raise UnknownName("preset", preset, ROBUSTNESS_PRESETS)
    plain = RobustnessConfig().data.model_dump(mode="json", exclude_unset=True)
    return over(over({"data": plain}, ROBUSTNESS_PRESETS[preset]), values)
