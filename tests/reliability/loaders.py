"""Every way into the package from a file: what lies there when all is well, and the function that reads it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tests.activations.documents import make_documents
from tests.sae.formats.families.evaluate import GOLDEN
from tests.sae.formats.test_saelens import stranger

from perimetry.activations.adapters import load_adapter
from perimetry.activations.model import LanguageModel, load_language_model, tiny_language_model
from perimetry.activations.store import ActivationStore, HarvestConfig, harvest
from perimetry.artifact import read_artifact, write_artifact
from perimetry.assets import read_jsonl
from perimetry.config import load_values
from perimetry.editing.edit import Edit, load_edit, save_edit
from perimetry.pipeline.steering import read_pairs, read_vector
from perimetry.report import parse_results, read_results
from perimetry.runtime import Runtime, generator
from perimetry.sae import ARCHITECTURES
from perimetry.sae.formats import SAEInfo, load_sae, save_sae
from perimetry.sae.formats.convert import read_foreign
from perimetry.sae.points import read_points, seeded_points, write_points
from perimetry.shift.drift_files import load_reference, read_readings
from perimetry.shift.loading import load_meter
from perimetry.shift.responses import ResponseCalibration, ResponseFacts
from perimetry.suites.jsonl import read_suite

CPU = Runtime(torch.device("cpu"), torch.float32)


class Desk(NamedTuple):
    """Where the valid folders lie, and what is shared by those that read them."""

    root: Path
    """One folder a loader."""
    lm: LanguageModel
    """The model of the meter."""
    tiny: LanguageModel
    """The model of the edit."""


FAMILIES = {
    "sparsify": "sparsify/topk",
    "gemma_scope_2": "gemma_scope_2/resid_post",
    "llama_scope": "llama_scope/residual",
    "llamascopium": "llamascopium/jumprelu",
    "goodfire": "goodfire/llama",
}
"""Family -> a golden folder of it."""


def family(folder: Path, desk: Desk, name: str) -> Any:
    """Read the one dictionary in a copy of a golden folder."""
    place = (folder / "where").read_text()
    return read_foreign(folder / place, family=name)


def adapter(lm: LanguageModel, folder: Path) -> None:
    """A peft adapter of low rank, as `perimetry robustify` leaves one."""
    import peft

    config = peft.LoraConfig(r=2, target_modules=["down_proj"])
    wrapped: Any = peft.get_peft_model(lm.model, config)
    wrapped.save_pretrained(str(folder), safe_serialization=True)
    base = {"name": lm.name, "revision": lm.revision, "dtype": "float32"}
    (folder / "perimetry.json").write_text(json.dumps({"base": base}))


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def reading() -> dict[str, Any]:
    plain = {"id": "a", "score": 1.0, "p_value": 0.5, "flagged": False, "alpha": 0.05, "group": "pooled"}
    more = {"fallback": False, "tokens_scored": 3, "tokens_excluded": 0, "truncated": False}
    return plain | more | {"detector": "surprise", "meter": "m", "scores": {"surprise": 1.0}}


def golden(root: Path, name: str, case: str) -> None:
    """A golden folder, and the place of the dictionary in it."""
    target = root / name
    shutil.copytree(GOLDEN / case, target / "files", ignore=shutil.ignore_patterns("vectors.safetensors"))
    weights = next(p for p in sorted(target.rglob("*")) if p.suffix in (".safetensors", ".pt", ".pth"))
    place = weights.parent.parent if weights.parent.name == "checkpoints" else weights.parent
    place = weights if weights.suffix != ".safetensors" else place
    (target / "where").write_text(str(place.relative_to(target)))


def build(root: Path, meter: Path, model: Path, results: Path | None) -> None:
    """Every folder, whole."""
    tiny = tiny_language_model("llama")
    shutil.copytree(meter, root / "meter")
    shutil.copytree(meter, root / "reference")
    shutil.copytree(model, root / "model")
    sae = ARCHITECTURES["batchtopk"].tiny()
    rates = torch.rand(sae.d_sae, generator=generator(1))
    save_sae(sae, root / "sae", SAEInfo(architecture=sae.architecture, layer=1), rates=rates)
    save_sae(sae, root / "native", SAEInfo(architecture=sae.architecture, layer=1), native=True)
    stranger(root / "stranger")
    for name, case in FAMILIES.items():
        golden(root, name, case)
    config = HarvestConfig(tokens=200, context=24, batch_rows=3, shard_tokens=80, seed=4)
    harvest(tiny, 1, make_documents(30), root / "store", config)
    state = {"state": {"W": torch.randn(4, 3, generator=generator(2)), "step": torch.tensor(3)}}
    write_artifact(root / "checkpoint", "checkpoint", state, {"state": {"step": 3}})
    for name in ("points", "vector", "pairs", "jsonl", "suite", "readings", "config", "report"):
        (root / name).mkdir()
    write_points(seeded_points(5, 8, 0), root / "points" / "p.safetensors")
    write_points(seeded_points(5, 32, 0)[:1], root / "vector" / "p.safetensors")
    adapter(tiny_language_model("llama"), root / "adapter")
    facts = ResponseFacts("m", "surprise", "greedy", 4)
    ResponseCalibration(torch.linspace(0, 1, 5), 1, facts).save(root / "responses")
    save_edit(root / "edit", tiny, Edit({1: torch.ones(4, 3)}, {1: torch.ones(3, 1)}, "an edit"))
    lines(root / "pairs" / "p.jsonl", [{"prompt": "a", "positive": "b", "negative": "c"}] * 3)
    lines(root / "jsonl" / "p.jsonl", [{"id": i, "text": "some words"} for i in range(3)])
    lines(root / "suite" / "p.jsonl", [{"id": str(i), "text": "a b", "shifted": bool(i % 2)} for i in range(8)])
    lines(root / "readings" / "p.jsonl", [reading()] * 3)
    (root / "config" / "c.toml").write_text("[train]\nk = 3\n")
    (root / "report" / "results.json").write_text(results.read_text() if results else json.dumps({"rows": []}))


LOADERS: dict[str, Callable[[Path, Desk], Any]] = {
    "adapter": lambda f, d: load_adapter(tiny_language_model("llama"), f),
    "checkpoint": lambda f, d: read_artifact(f, "checkpoint"),
    "config": lambda f, d: load_values(section="train", file=f / "c.toml", environment={}),
    "edit": lambda f, d: load_edit(f, d.tiny),
    "gemma_scope_2": lambda f, d: family(f, d, "gemma_scope_2"),
    "goodfire": lambda f, d: family(f, d, "goodfire"),
    "jsonl": lambda f, d: sum(1 for _ in read_jsonl(next(iter(f.glob("p.jsonl*")), f / "p.jsonl"))),
    "llama_scope": lambda f, d: family(f, d, "llama_scope"),
    "llamascopium": lambda f, d: family(f, d, "llamascopium"),
    "meter": lambda f, d: load_meter(f, lm=d.lm),
    "model": lambda f, d: load_language_model(str(f), CPU),
    "native": lambda f, d: load_sae(f),
    "pairs": lambda f, d: read_pairs(f / "p.jsonl"),
    "points": lambda f, d: read_points(f / "p.safetensors", 8),
    "readings": lambda f, d: read_readings(f / "p.jsonl"),
    "reference": lambda f, d: load_reference(f),
    "report": lambda f, d: parse_results(read_results(f / "results.json")),
    "responses": lambda f, d: ResponseCalibration.load(f),
    "sae": lambda f, d: load_sae(f),
    "sparsify": lambda f, d: family(f, d, "sparsify"),
    "store": lambda f, d: ActivationStore.open(f),
    "stranger": lambda f, d: load_sae(f),
    "suite": lambda f, d: read_suite(f / "p.jsonl"),
    "vector": lambda f, d: read_vector(f / "p.safetensors", 32),
}
"""Name -> what reads a folder of that name."""
