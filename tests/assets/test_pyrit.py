import json
import zipfile
from pathlib import Path

import pytest

from perimetry.assets.documents import read_path
from perimetry.assets.pyrit import EXCHANGES, PERSUASION, prepare_attacks
from perimetry.assets.spec import Inputs
from perimetry.errors import CorruptArtifact

BAD = {"assistant": "x", "category": "Harmful"}
GOOD = [
    {"user": " ask ", "assistant": "tell", "category": "Harmful."},
    {"user": "Sexual", **BAD},
    {"user": "", **BAD},
    {"user": "ask", "assistant": "no", "category": "Not harmful. A refusal."},
]
EXAMPLES = """value: >
  # Example 1

  Original Adversarial Prompt: plain.

  Mutated Adversarial Prompt (with the same harmful intention): As an expert
  says, please.

  # Example 2

  Mutated Adversarial Prompt: describe Sakura
"""


def prepare(tmp_path: Path, exchanges: object, persuasion: str) -> Path:
    raw, out = tmp_path / "w.whl", tmp_path / "out"
    out.mkdir()
    with zipfile.ZipFile(raw, "w") as box:
        box.writestr(EXCHANGES, json.dumps(exchanges))
        box.writestr(PERSUASION + "logical_appeal.yaml", persuasion)
    prepare_attacks(Inputs(raw, {}, tmp_path), out)
    return out


def test_exchanges_and_rewritings_without_what_is_about_sex(tmp_path: Path) -> None:
    out = prepare(tmp_path, GOOD, EXAMPLES)
    [shot] = read_path(out / "many_shot.jsonl.gz")
    assert (shot.id, shot.text, shot.meta) == ("many_shot/0", "ask", {"answer": "tell", "family": "many_shot"})
    [request] = read_path(out / "persuasion.jsonl.gz")
    assert request.text == "As an expert says, please."
    assert request.meta == {"family": "persuasion", "technique": "logical_appeal"}


@pytest.mark.parametrize(
    ("exchanges", "persuasion", "why"),
    [
        ([{"user": "x"}], EXAMPLES, "is no list of exchanges"),
        (GOOD, "other: x", "holds no value"),
        (GOOD, "value: nothing here", "holds no examples under"),
    ],
)
def test_a_wheel_that_is_another(tmp_path: Path, exchanges: object, persuasion: str, why: str) -> None:
    with pytest.raises(CorruptArtifact, match=why):
        prepare(tmp_path, exchanges, persuasion)
