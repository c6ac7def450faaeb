"""The corpus: every attack against every file of every loader where it applies."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from tests.reliability.attacks import (
    JSON_FILES,
    LINK,
    TENSOR_FILES,
    UNSEALED,
    Attack,
    Canary,
    document,
    reseal,
    tensors,
)

__all__ = ["CASES", "Case", "spoil"]


class Case(NamedTuple):
    """One hostile folder."""

    loader: str
    """Name of the loader and of the valid folder."""
    file: str
    """The file that is spoilt, as a pattern in the folder."""
    name: str
    """What is done."""
    error: str
    """Name of the error that is wanted, itself or above the one that comes."""
    attack: Attack
    """Does it."""
    sealed: bool
    """Whether the folder has a manifest, which is made to agree."""

    @property
    def id(self) -> str:
        """Loader, file and attack."""
        return f"{self.loader}-{self.file.rpartition('/')[2]}-{self.name}"


TENSORS: list[tuple[str, str, bool]] = [
    ("sae", "sae_weights.safetensors", True),
    ("native", "dictionary.safetensors", True),
    ("stranger", "sae_weights.safetensors", False),
    ("sparsify", "files/layers.3/sae.safetensors", False),
    ("gemma_scope_2", "files/**/params.safetensors", False),
    ("llama_scope", "files/**/final.safetensors", False),
    ("llamascopium", "files/**/sae_weights.safetensors", False),
    ("store", "shard-00000.safetensors", True),
    ("meter", "calibration.safetensors", True),
    ("meter", "sae.safetensors", True),
    ("reference", "calibration.safetensors", True),
    ("checkpoint", "state.safetensors", True),
    ("adapter", "adapter_model.safetensors", False),
    ("points", "p.safetensors", False),
    ("vector", "p.safetensors", False),
    ("responses", "responses.safetensors", True),
    ("edit", "edit.safetensors", True),
    ("model", "model.safetensors", False),
]
"""Loader, file, whether there is a manifest."""
JSONS: list[tuple[str, str, bool]] = [
    ("sae", "manifest.json", False),
    ("sae", "cfg.json", True),
    ("native", "dictionary.json", True),
    ("stranger", "cfg.json", False),
    ("sparsify", "files/layers.3/cfg.json", False),
    ("llama_scope", "files/**/hyperparams.json", False),
    ("llamascopium", "files/**/config.json", False),
    ("store", "manifest.json", False),
    ("store", "plan.json", True),
    ("meter", "manifest.json", False),
    ("meter", "meter.json", True),
    ("reference", "meter.json", True),
    ("checkpoint", "state.json", True),
    ("adapter", "adapter_config.json", False),
    ("responses", "about.json", True),
    ("edit", "edit.json", True),
    ("model", "config.json", False),
    ("report", "results.json", False),
]
READS_ANYTHING = {
    *(("checkpoint", name) for name in ("wider", "fewer", "integers", "list", "null", "hollow", "numbers")),
    *(("edit", name) for name in ("wider", "fewer", "integers")),
    *(("responses", "wider"), ("responses", "fewer"), ("meter", "fewer"), ("reference", "fewer")),
    *(("points", "integers"), ("vector", "integers"), ("adapter", "integers"), ("model", "integers")),
    *(("adapter", "hollow"), ("adapter", "numbers"), ("report", "numbers")),
    *(("store", "infinity"), ("store", "nan"), ("points", "wider")),
    *(("gemma_scope_2", "integers"), ("llamascopium", "integers"), ("responses", "numbers"), ("report", "wide")),
}
"""What leaves a file whole, or is seen later: rows of a store are checked where they are read, a checkpoint by what resumes it,
whole numbers are made numbers."""
SOFTER = {"pipe": "PerimetryError", "device": "PerimetryError"}
"""Without a manifest that lists it, what is no plain file is a file that is missing."""


def _of_kind() -> Iterator[Case]:
    for loader, file, sealed in TENSORS:
        for name, (error, attack) in TENSOR_FILES.items():
            if (loader, name) not in READS_ANYTHING:
                wanted = error if sealed else SOFTER.get(name, error)
                wanted = "PerimetryError" if loader == "model" and wanted == "ArtifactError" else wanted
                yield Case(loader, file, name, wanted, attack, sealed)
        if sealed:
            yield Case(loader, file, "link", *LINK, sealed)
    for loader, file, sealed in JSONS:
        for name, (error, attack) in JSON_FILES.items():
            if (loader, name) not in READS_ANYTHING:
                strict = sealed or (loader, file) in (("sae", "manifest.json"), ("report", "results.json"))
                yield Case(loader, file, name, error if strict else SOFTER.get(name, error), attack, sealed)


LINES: dict[str, bytes] = {
    "no-json": b"{nonsense}\n",
    "bottomless": b"[" * 200_000 + b"\n",
    "binary": bytes(range(256)) * 4,
    "utf16": '{"id": "a", "text": "b"}\n'.encode("utf-16"),
    "list": b"[1, 2]\n",
    "hollow": b"{}\n",
    "number": b"7\n",
    "nan": b'{"id": NaN, "text": 3}\n',
    "half-character": b'{"id": "a", "text": "\\ud800"}\n',
    "wrong-kinds": b'{"id": [], "text": {}, "shifted": "yes", "prompt": 1}\n',
}


def _lines() -> Iterator[Case]:
    for loader in ("jsonl", "suite", "readings", "pairs"):
        for name, text in LINES.items():
            yield Case(loader, "p.jsonl", name, "PerimetryError", lambda f, t=text: document(f, t), False)
        yield Case(loader, "p.jsonl", "gone", "MissingFile", Path.unlink, False)


def _bomb(file: Path) -> None:
    file.unlink()
    with gzip.open(file.with_name("p.jsonl.gz"), "wb") as handle:
        handle.write(b'{"id": "a", "text": "')
        for _ in range(200):
            handle.write(b"x" * 2**20)
        handle.write(b'"}\n')


def _many(file: Path) -> None:
    file.unlink()
    with gzip.open(file.with_name("p.jsonl.gz"), "wb") as handle:
        for _ in range(200):
            handle.write(b'{"id": "a", "text": "' + b"x" * 2**20 + b'"}\n')


def _torn(file: Path) -> None:
    packed = gzip.compress(file.read_bytes() * 1000)
    file.unlink()
    file.with_name("p.jsonl.gz").write_bytes(packed[:-20])


def _names(name: str) -> Attack:
    def attack(file: Path) -> None:
        manifest = json.loads(file.read_text())
        manifest["files"][name] = "0" * 64
        file.write_text(json.dumps(manifest))

    return attack


def _calibration(change: str) -> Attack:
    def attack(file: Path) -> None:
        def spoil_scores(found: dict[str, torch.Tensor]) -> None:
            names = [n for n in found if n.startswith("scores|")]
            for name in names:
                if change == "none":
                    found[name] = found[name][:0]
                elif change == "unsorted":
                    found[name] = found[name].flip(0) + torch.arange(found[name].numel()).flip(0)
                else:
                    found[name] = found[name][:, None]

        tensors(file, spoil_scores)

    return attack


def _rates(value: float) -> Attack:
    def attack(file: Path) -> None:
        tensors(
            file,
            lambda found: found.update(
                {k: torch.full_like(v, value) for k, v in found.items() if v.is_floating_point()}
            ),
        )

    return attack


def _clean_rate(file: Path) -> None:
    tensors(file, lambda found: found.update(clean_rate=torch.full_like(found["clean_rate"], 1.5)))


def _setting(**values: object) -> Attack:
    def attack(file: Path) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return attack


def _only_bin(file: Path) -> None:
    torch.save({"w": torch.ones(2), "x": Canary()}, file.with_name("pytorch_model.bin"))
    file.unlink()


def _index(name: str) -> Attack:
    def attack(file: Path) -> None:
        index = {"metadata": {}, "weight_map": {"lm_head.weight": name}}
        file.with_name("model.safetensors.index.json").write_text(json.dumps(index))
        file.unlink()

    return attack


def _adapter(file: Path) -> None:
    file.with_name("adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))


def _special() -> Iterator[Case]:
    for name in ("../outside.json", "/etc/hostname", "sub/x.json", "a\x00b.json", ""):
        for loader in ("sae", "meter"):
            label = f"names-{name!r}".replace("/", "|")
            yield Case(loader, "manifest.json", label, "CorruptArtifact", _names(name), False)
    yield Case("meter", "manifest.json", "other-kind", "Incompatible", _setting(kind="sae"), False)
    yield Case("meter", "manifest.json", "newer", "Incompatible", _setting(schema=99), False)
    yield Case("sae", "cfg.json", "unsealed", "CorruptArtifact", _setting(d_in=3), False)
    yield Case("sae", "cfg.json", "narrow", "ArtifactError", _setting(d_in=3), True)
    yield Case("sae", "sparsity.safetensors", "rates", "BadValue", _rates(1.0), True)
    for loader in ("meter", "reference"):
        yield Case(loader, "calibration.safetensors", "nobody", "Incompatible", _calibration("none"), True)
        yield Case(loader, "calibration.safetensors", "unsorted", "BadValue", _calibration("unsorted"), True)
        yield Case(loader, "calibration.safetensors", "matrix", "CorruptArtifact", _calibration("matrix"), True)
    yield Case("meter", "normal.safetensors", "rates", "BadValue", _clean_rate, True)
    yield Case("meter", "meter.json", "revision", "ModelMismatch", _setting(revision="0" * 64), True)
    yield Case("meter", "meter.json", "dtype", "DtypeMismatch", _setting(dtype="bfloat16"), True)
    yield Case("meter", "meter.json", "layer", "PerimetryError", _setting(layer=99), True)
    yield Case("meter", "meter.json", "detectors", "PerimetryError", _setting(detectors=["no such"]), True)
    yield Case("goodfire", "files/**/*.pth", "pickle", "UnsafeFormat", lambda f: None, False)
    yield Case("model", "model.safetensors", "only-bin", "UnsafeFormat", _only_bin, False)
    yield Case("model", "model.safetensors", "index-to-bin", "UnsafeFormat", _index("pytorch_model.bin"), False)
    yield Case("model", "model.safetensors", "index-outside", "BadPath", _index("../x.safetensors"), False)
    code = _setting(auto_map={"AutoModelForCausalLM": "evil.Model"}, model_type="evil")
    yield Case("model", "config.json", "remote-code", "UnsafeFormat", code, False)
    yield Case("model", "config.json", "adapter", "Incompatible", _adapter, False)
    yield Case("jsonl", "p.jsonl", "gzip-line", "TooLarge", _bomb, False)
    yield Case("jsonl", "p.jsonl", "gzip-lines", "TooLarge", _many, False)
    yield Case("jsonl", "p.jsonl", "gzip-torn", "CorruptArtifact", _torn, False)
    for name, text in {"torn": "[train", "deep": "[train]\nk = " + "[" * 100_000, "other": "[other]\n"}.items():
        yield Case("config", "c.toml", name, "PerimetryError", lambda f, t=text: document(f, t), False)
    yield Case("config", "c.toml", "huge", "ConfigError", lambda f: document(f, "#" * 5 * 2**20), False)
    yield Case("config", "c.toml", "binary", "ConfigError", lambda f: document(f, bytes(range(256))), False)


CASES: list[Case] = [*_of_kind(), *_lines(), *_special()]
"""Every hostile folder."""


def spoil(case: Case, valid: Path, target: Path) -> None:
    """A copy of the valid folder, spoilt."""
    shutil.copytree(valid / case.loader, target)
    (file,) = [f for f in target.glob(case.file) if f.name != "vectors.safetensors"]
    case.attack(file)
    if case.sealed and case.name not in UNSEALED:
        reseal(target)
