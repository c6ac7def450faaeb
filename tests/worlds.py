"""A tiny world on disk that every end-to-end test shares: a model folder, texts, an SAE and a meter, made by commands."""

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.cli import main

__all__ = [
    "FLAGS",
    "METER_SETTINGS",
    "Outcome",
    "World",
    "child_environment",
    "make_world",
    "run_child",
    "run_main",
    "save_model",
    "sentences",
    "train_arguments",
    "write_jsonl",
]

SUBJECTS = ("the cat", "an old man", "the river", "a child", "the town", "her sister", "the king", "a grey horse")
VERBS = ("sat on", "looked at", "crossed", "forgot", "built", "found", "painted", "went around")
OBJECTS = ("the mat", "a stone wall", "the sea", "an open door", "the hill", "a silver coin", "the garden", "a letter")
WHEN = ("in the morning", "at night", "before the rain", "after the war", "on a Sunday", "without a word")

FLAGS = ("--dtype", "float32")
"""The weights are float32; without the flag a machine with native bfloat16 would choose that."""

METER_SETTINGS = """
[calibrate]
main = "surprise"
profile_tokens = 2000
reference_tokens = 500
calibration_prompts = 60
words_low = 5
words_high = 24
groups = 2
minimum = 19
bank = 256
"""


class Outcome(NamedTuple):
    """What a command left."""

    code: int
    """Exit code."""
    out: str
    """Standard output."""
    err: str
    """Standard error."""

    def json(self) -> Any:
        """Standard output as one JSON value."""
        return json.loads(self.out)

    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    def error(self) -> tuple[str, str]:
        """Type and message of an error printed with `--json`; both channels must agree."""
        assert self.code == 2, self
        found = self.json()
        assert set(found) == {"error"}
        assert set(found["error"]) == {"type", "message"}
        kind, message = found["error"]["type"], found["error"]["message"]
        assert f"{kind}: {message}" in self.err
        return kind, message


class World(NamedTuple):
    """Where everything lies."""

    root: Path
    model: Path
    """Model folder with tokenizer, as transformers saves it."""
    corpus: Path
    """Clean documents, JSONL."""
    prompts: Path
    """Clean prompts of mixed lengths, JSONL."""
    settings: Path
    """Configuration of the meter, TOML."""
    sae: Path
    """Folder of `perimetry train`."""
    meter: Path
    """Folder of `perimetry calibrate`."""


def run_main(*arguments: str | Path) -> Outcome:
    """The command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(a) for a in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def in_a_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; its exit status (negative: the signal that killed it)."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def child_environment(**extra: str) -> dict[str, str]:
    """The environment of a child: one thread, nothing that would change its settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PERIMETRY_") or k == "PERIMETRY_CACHE"}
    return kept | {"OMP_NUM_THREADS": "1"} | extra


def run_child(*arguments: str | Path, **extra: str) -> Outcome:
    """The command line as a user starts it."""
    done = subprocess.run(
        [sys.executable, "-m", "perimetry", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=child_environment(**extra),
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def sentences(seed: int | str) -> Iterator[str]:
    """Endless plain sentences, seeded."""
    rng = random.Random(f"sentences:{seed}")
    while True:
        yield f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)} {rng.choice(WHEN)}."


def text_of(seed: int | str, words: int) -> str:
    """Exactly so many words."""
    found: list[str] = []
    for sentence in sentences(seed):
        found += sentence.split()
        if len(found) >= words:
            break
    return " ".join(found[:words])


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def save_model(lm: LanguageModel, folder: Path) -> Path:
    """A model folder as a user has it."""
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def train_arguments(model: Path, text: Path, out: Path, *, tokens: int = 2048) -> list[str]:
    """The command that trains the SAE of the world."""
    numbers = {"--layer": 1, "--width": 64, "--k": 6, "--tokens": tokens, "--batch": 128, "--context": 64}
    flat = [str(x) for pair in numbers.items() for x in pair]
    return ["train", "--model", str(model), "--text", str(text), "--out", str(out), *flat, *FLAGS]


def calibrate_arguments(sae: Path, text: Path, out: Path, *, config: Path, more: Sequence[str] = ()) -> list[str]:
    """The command that fits the meter of the world."""
    paths = ["--sae", str(sae), "--text", str(text), "--out", str(out), "--config", str(config)]
    return ["calibrate", *paths, *FLAGS, *more]


def make_world(root: Path) -> World:
    """Save the model and the texts, then train and calibrate by the commands."""
    model = save_model(tiny_language_model("llama"), root / "model")
    corpus = write_jsonl(root / "corpus.jsonl", [{"id": f"c{i}", "text": text_of(i, 120)} for i in range(80)])
    rng = random.Random(3)
    prompts = write_jsonl(
        root / "prompts.jsonl", [{"id": f"p{i}", "text": text_of(f"p{i}", rng.randint(5, 24))} for i in range(200)]
    )
    settings = root / "meter.toml"
    settings.write_text(METER_SETTINGS)
    trained = run_main(*train_arguments(model, corpus, root / "sae"))
    assert trained.code == 0, trained.err
    fitted = run_main(
        *calibrate_arguments(root / "sae", prompts, root / "meter", config=settings, more=("--model", str(model)))
    )
    assert fitted.code == 0, fitted.err
    return World(root, model, corpus, prompts, settings, root / "sae", root / "meter")
