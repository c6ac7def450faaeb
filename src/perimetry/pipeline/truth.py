"""`perimetry study truth`: what dictionaries find, and what they absorb, in synthetic worlds whose features are known."""

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from perimetry import __version__
from perimetry.config import Config, over
from perimetry.errors import UnknownName
from perimetry.evals.sae.architecture_order import ORDER, order_of_architectures
from perimetry.evals.sae.base import Metric
from perimetry.evals.sae.cooccurrence import CAUSAL, CausalTest, causal_rows
from perimetry.evals.sae.ground_truth import GroundTruth
from perimetry.evals.sae.judging import JUDGED
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.truth_rows import TruthRow
from perimetry.pipeline.begun import require_same
from perimetry.pipeline.claims import judged
from perimetry.report import keep_results
from perimetry.runtime import fingerprint
from perimetry.storage import lock, remove_stale

__all__ = [
    "CLAIMS",
    "TRUTH_PRESETS",
    "TruthClaim",
    "TruthStudyConfig",
    "judged_claims",
    "run_truth",
    "with_truth_preset",
]

Part = Literal["order", "causal"]
BEGUN = "truth.json"


class TruthClaim(NamedTuple):
    """What is asked of one difference."""

    part: Part
    """Which part it belongs to."""
    arm: str
    """What is compared."""
    against: str
    """With what."""
    metric: str
    """In which number."""
    sign: int
    """+1 where the claim is that `arm` is above, -1 where it is below."""
    said: str
    """Who says so, or why it is asked."""


PUBLISHED = "arXiv 2602.14687"
CLAIMS = (
    *(TruthClaim("order", one, two, "f1", 1, f"published order of F1, {PUBLISHED}") for one, two in ORDER),
    TruthClaim("causal", "broken", "none", "absorption", -1, "breaking co-occurrence reduces absorption"),
    TruthClaim("causal", "broken", "control", "absorption", -1, "and not because features are lost"),
    TruthClaim(
        "causal", "masked", "none", "absorption", -1, "dropping any features, as masking drops words, does so too"
    ),
)
"""All said before anything was measured."""


class TruthStudyConfig(Config):
    """Which parts are run, and how."""

    parts: tuple[Part, ...] = Field(default=("order", "causal"), min_length=1)
    """`order`: four architectures on a world like that of the published benchmark; `causal`: does breaking co-occurrence reduce absorption?"""
    order: GroundTruth = GroundTruth()
    """World, seeds and length of the first part."""
    causal: CausalTest = CausalTest()
    """World, arms and seeds of the second part."""

    @model_validator(mode="after")
    def _fits(self) -> "TruthStudyConfig":
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts = {list(self.parts)} names one twice; name each once")
        if self.order.own_k:
            raise ValueError(
                "order.own_k: the recipes that are compared have no count of their own; give k, or leave it out"
            )
        return self


TRUTH_PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "published": {"order": {"preset": "published"}},
    "quick": {"order": {"seeds": (0,), "tokens": 2**18, "ceiling": False}, "causal": {"seeds": (0,)}},
    "tiny": {
        "order": {"preset": "tiny", "seeds": (0, 1), "tokens": 640, "blocks": 2},
        "causal": {"seeds": (0, 1), "tokens": 2048, "batch": 256, "blocks": 2},
    },
}
"""`full` is for two cores; `published` has the published world and 200 million tokens a dictionary, days on two cores; `quick` looks
whether anything is wrong; `tiny` is for tests."""


def with_truth_preset(values: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """The values of a configuration on top of those of a preset, table by table. Errors: `UnknownName`."""
    if preset not in TRUTH_PRESETS:
        raise UnknownName("preset", preset, TRUTH_PRESETS)
    return over(TRUTH_PRESETS[preset], values)


def run_truth(
    config: TruthStudyConfig,
    out: Path,
    *,
    command: str = "perimetry study truth",
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train and judge every dictionary, and return what `out/results.json` holds. Killed at any moment, the same call continues.

    Errors: `ConfigError` when `out` holds another study, and those of training.
    """
    with lock(out):
        remove_stale(out)
        require_same(config, out / BEGUN, "a study of known features")
        shelf, rows = Shelf(out / "parts"), dict[str, list[TruthRow]]()
        for number, part in enumerate(config.parts, 1):
            say(f"{number}/{len(config.parts)}  {part}: {_about(config, part)}")
            if part == "order":
                rows[part] = order_of_architectures(config.order, shelf=shelf, progress=progress)
            else:
                rows[part] = causal_rows(config.causal, shelf=shelf, progress=progress)
        return keep_results(_results(config, rows) | {"command": command}, out)


def _about(config: TruthStudyConfig, part: Part) -> str:
    if part == "order":
        return f"the {config.order.preset} world, {len(config.order.seeds)} seeds"
    return f"{len(config.causal.arms)} arms, {len(config.causal.seeds)} seeds"


def judged_claims(rows: Mapping[str, list[TruthRow]]) -> list[dict[str, Any]]:
    """Each claim whose arms were measured: `holds` where the whole interval over all seeds lies on its side, `fails` on the other, else `open`."""
    found: list[dict[str, Any]] = []
    for claim in CLAIMS:
        mine = [
            r for r in rows.get(claim.part, []) if r[1:3] == (claim.arm, claim.against) and r.metric == claim.metric
        ]
        said = judged(mine, claim.sign)
        if said is not None:
            found.append({**claim._asdict(), **said})
    return found


def _plain(metrics: Mapping[str, Metric]) -> dict[str, dict[str, Any]]:
    return {name: {"unit": m.unit, "higher": m.higher, "text": m.text} for name, m in metrics.items()}


def _results(config: TruthStudyConfig, rows: Mapping[str, list[TruthRow]]) -> dict[str, Any]:
    return {
        "kind": "truth",
        "title": "What dictionaries find where the truth is known",
        "subtitle": "; ".join(f"{part}: {_about(config, part)}" for part in config.parts),
        "version": __version__,
        "hardware": fingerprint(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": [{"part": part, **row.to_json()} for part, found in rows.items() for row in found],
        "claims": judged_claims(rows),
        "metrics": _plain(CAUSAL) | _plain(JUDGED),
        "configuration": config.model_dump(mode="json"),
    }
