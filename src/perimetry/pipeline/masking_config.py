"""The comparison of masked with plain training: its arms, its sizes, all of it said before anything is measured."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from perimetry.activations.masking import Masking, require_plain
from perimetry.config import Config, over
from perimetry.errors import UnknownName
from perimetry.evals.sae.absorption import Absorption
from perimetry.evals.sae.fidelity import Fidelity
from perimetry.evals.sae.ood_probing import PUBLISHED, OodProbing
from perimetry.evals.sae.probe_sets import SETS, ProbeData
from perimetry.evals.sae.probing import Probing
from perimetry.pipeline.evaluation_config import EvaluationConfig
from perimetry.pipeline.sweep import RunConfig
from perimetry.sae import ARCHITECTURES
from perimetry.train import TrainConfig

__all__ = ["ARMS", "CLAIMS", "MASKING_PRESETS", "PLAIN", "Claim", "MaskingStudyConfig", "with_masking_preset"]

PLAIN: Final = "none"
"""The arm that the others are compared with."""
ARMS: Final[dict[str, dict[str, Any] | None]] = {
    PLAIN: None,
    "masked": {},
    "random": {"kind": "random"},
    "drop-masked": {"positions": "unmasked"},
    "same-compute": {"kind": "kept", "positions": "unmasked"},
}
"""Arm -> what it changes of the masking: nothing is masked; the published method; random tokens of the vocabulary in place of the
mask; masked positions are read and not learnt from; as many positions left out of the loss, of text that is read as it is."""


class Claim(Config):
    """What was published of masked against plain training."""

    evaluation: str
    """Name of the evaluation."""
    metric: str
    """Its number here."""
    case: str = ""
    """Kind of shift that it is about; empty for all together."""
    sign: int
    """+1 where the number rises with masking, -1 where it falls."""
    said: str
    """What was published, in its own words and direction."""


CLAIMS: Final = (
    Claim(
        evaluation="absorption",
        metric="full_absorption",
        sign=-1,
        said="full absorption score 94.65 to 96.44 % (one minus absorption)",
    ),
    Claim(evaluation="probing", metric="auroc", sign=-1, said="sparse probing 78.71 to 77.75 %"),
    Claim(evaluation="fidelity", metric="explained_variance", sign=-1, said="explained variance drops slightly"),
    Claim(
        evaluation="ood_probing",
        metric="auroc_ood",
        case="published",
        sign=1,
        said="OOD probing AUC 58.65 to 60.13 %",
    ),
)
"""arXiv 2604.06495, its table: MatryoshkaBatchTopK of width 4,096, mean over L0."""
OWN: Final = ("k", "seed")


class MaskingStudyConfig(Config):
    """Arms, counts and seeds that are compared, on which model, and by which evaluations."""

    model: str = "smollm2-135m-instruct"
    """Asset name, local folder or hub id."""
    text: str = "wikipedia"
    """Training text; of an asset not the held-out documents, on which fidelity is measured."""
    layer: NonNegativeInt = 12
    """Block whose output is read, from 0."""
    context: int = Field(default=128, ge=8)
    """Tokens of one packed row of training text."""
    live: bool = False
    """Train straight from the model, without a store: for more tokens than a disk holds."""
    arms: tuple[str, ...] = tuple(ARMS)
    """Names in `ARMS`."""
    masking: Masking = Masking()
    """What `masked` does; the other arms change parts of it."""
    ks: tuple[PositiveInt, ...] = Field(default=(20, 80), min_length=1)
    """Target counts (L0)."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Seeds of the dictionaries; all arms see the same documents in the same order."""
    recipe: TrainConfig = TrainConfig(architecture="matryoshka", width=4096, k=20, tokens=400_000, lr=1e-3)
    """How every dictionary is trained; count and seed are not said here."""
    settle: bool = True
    """Settle the threshold of every dictionary on plain text before it is measured, so that all arms of a count have that count there:
    training settles it on the arm's own text, and on plain text a dictionary of masked text then fires two fifths more. False measures
    them as trained."""
    evaluation: EvaluationConfig = EvaluationConfig(
        suites=("fidelity", "absorption", "probing", "ood_probing"),
        controls=(),
        fidelity=Fidelity(losses=False),
        absorption=Absorption(words=100),
        probing=Probing(data=ProbeData(sets=SETS[::5], rows=600, context=64), ks=(1, 5, 16)),
        ood_probing=OodProbing(data=ProbeData(sets=(*PUBLISHED, *SETS[9::14]), rows=600, context=64), ks=(16,)),
    )
    """What is measured. On two cores that is every fifth of the labelled sets for probing; out of distribution those with a published
    shift and some others; of fidelity, what needs no pass of the whole model."""

    @model_validator(mode="after")
    def _fits_together(self) -> "MaskingStudyConfig":
        for name in ("arms", "ks", "seeds"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name} = {list(given)} names one twice; name each once")
        for arm in self.arms:
            if arm not in ARMS:
                raise UnknownName("arm", arm, ARMS)
        if PLAIN not in self.arms or len(self.arms) < 2:
            raise ValueError(f"arms = {list(self.arms)}; wanted {PLAIN!r} and at least one to compare with it")
        require_plain(self.masking, "perimetry train")
        if ARCHITECTURES[self.recipe.architecture].reads != "one":
            raise ValueError(
                f"{self.recipe.architecture} reads several places or writes another; give one of one place"
            )
        said = [name for name in OWN if getattr(self.recipe, name) != getattr(TrainConfig(k=20), name)]
        if said:
            raise ValueError(f"the recipe names {said[0]}; name it in {said[0]}s, which are compared")
        return self

    def masking_of(self, arm: str) -> Masking | None:
        """How the text of an arm is masked."""
        changes = ARMS[arm]
        return None if changes is None else self.masking.model_copy(update=changes)

    def runs(self) -> list[RunConfig]:
        """The dictionaries of an arm, count by count."""
        plain = self.recipe.model_dump()
        return [
            RunConfig.model_validate(plain | {"k": k, "seed": seed, "layer": self.layer})
            for k in self.ks
            for seed in self.seeds
        ]


TINY = {
    "architecture": "batchtopk",
    "width": 64,
    "tokens": 4096,
    "batch": 256,
    "fit_tokens": 1024,
    "threshold_tokens": 512,
    "lr": 1e-3,
    "k": 20,
}
MASKING_PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {
        "arms": (PLAIN, "masked"),
        "ks": (40,),
        "seeds": (0, 1),
        "recipe": {"width": 2304, "tokens": 100_000},
        "evaluation": {"suites": ("fidelity", "absorption"), "fidelity": {"rows": 64}},
    },
    "paper": {
        "model": "EleutherAI/pythia-160m-deduped",
        "layer": 8,
        "context": 1024,
        "live": True,
        "ks": (20, 40, 80, 160),
        "recipe": {"tokens": 500_000_000, "lr": None},
        "evaluation": {
            "fidelity": {"losses": True},
            "absorption": {"words": 200},
            "probing": {"data": {"sets": "all", "rows": 5000, "context": 1024}, "ks": (1, 2, 5, 16, 128)},
            "ood_probing": {"data": {"sets": "all", "rows": 1200, "context": 128}, "ks": (16, 128)},
        },
    },
    "tiny": {
        "layer": 1,
        "context": 32,
        "ks": (4,),
        "seeds": (0, 1),
        "recipe": TINY,
        "evaluation": {
            "fidelity": {"rows": 16, "context": 32, "batch": 8},
            "absorption": {
                "given": tuple(a + b + c for a in "bdfkpt" for b in "aeio" for c in "lmnrs"),
                "words": 20,
                "examples": 2,
                "least_words": 3,
                "least_f1": 0.0,
                "least_letters": 2,
            },
            "probing": {"data": {"sets": ("toy_animals", "toy_moods")}, "seeds": 2, "ks": (1, 4)},
            "ood_probing": {"data": {"sets": ("toy_animals", "toy_moods")}, "seeds": 2, "ks": (1, 4), "held": 40},
        },
    },
}
"""`full` is for two cores; `paper` has the published model, tokens and counts and wants a GPU; its text is `wikipedia` until another one is
given, since Pile-CC is no asset; `quick` looks whether anything is wrong; `tiny` is for tests."""


def with_masking_preset(values: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """The values of a configuration on top of those of a preset, and these on top of the defaults, table by table. Errors: `UnknownName`."""
    if preset not in MASKING_PRESETS:
        raise UnknownName("preset", preset, MASKING_PRESETS)
    plain = MaskingStudyConfig().model_dump(mode="json", include={"masking", "recipe", "evaluation"})
    return over(over(plain, MASKING_PRESETS[preset]), values)
