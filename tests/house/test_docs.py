"""The pages say what is so: their commands parse, their examples run, their links lead somewhere, their floors are the floors."""

import ast
import importlib
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_floors import FLOORS, SOURCE
from tests.worlds import FLAGS, World, run_main

from perimetry.cli import app
from perimetry.config import Config, load_config
from perimetry.errors import ConfigError
from perimetry.pipeline.demo import DemoConfig
from perimetry.pipeline.robustify_config import RobustifyConfig
from perimetry.pipeline.robustness_config import RobustnessConfig
from perimetry.pipeline.study_config import StudyConfig
from perimetry.shift.clean import MeterConfig
from perimetry.train import TrainConfig

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if page.name != "cli.md"]
"""Pages that people wrote; `cli.md` is held to the help by its own test."""
SECTIONS: dict[str, type[Config]] = {
    "train": TrainConfig,
    "calibrate": MeterConfig,
    "demo": DemoConfig,
    "study": StudyConfig,
    "robustify": RobustifyConfig,
    "robustness": RobustnessConfig,
}
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
DEAR = (
    *("perimetry demo", "perimetry doctor", "perimetry train", "perimetry bench", "perimetry eval", "perimetry study"),
    *("perimetry robustify", "perimetry lab run", "perimetry edit-check", "perimetry serve"),
)
"""Commands of the README that need a downloaded model or long runs, or that run until stopped; the tests of the command line and of the service run them."""
GENERATED = re.compile(r"<!-- results:.*?<!-- end -->", re.DOTALL)
MEASURE = r"(?:AUROC|AUC|FVU|FPR|TPR|L0|accuracy|recall|precision|interval)"
QUOTED = [
    re.compile(rf"\b{MEASURE}\b[^.|`\n]{{0,40}}?(?<![\w.])\d?\.\d{{2,}}"),
    re.compile(r"\d[\d.,]*\s*(?:times|x|×)\s+(?:as\s+)?(?:faster|slower|better|fast|quick)", re.IGNORECASE),
    re.compile(
        r"\d[\d.,]*\s*(?:k\s*)?(?:tokens?\s*(?:/|a|per)\s*s(?:econd)?\b|tok/s|ms\b|milliseconds)", re.IGNORECASE
    ),
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def fenced(text: str, *languages: str) -> Iterator[str]:
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language in languages:
            yield code


def commands(text: str) -> list[str]:
    """Every line of code that starts with `perimetry`, and every such command between backticks in running text."""
    plain = GENERATED.sub("", text)
    fences = "".join(
        code for _, code in re.findall(r"^```(sh|console|text|)\n(.*?)^```", plain, re.DOTALL | re.MULTILINE)
    )
    running = re.sub(r"^```.*?^```", "", plain, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^    ((?:\$ )?perimetry .*)$", running, re.MULTILINE)
    lines = [line.removeprefix("$ ") for line in [*fences.splitlines(), *indented]]
    inline = [" ".join(found.split()) for found in re.findall(r"`(perimetry [^`]+)`", running)]
    return list(dict.fromkeys([*(line for line in lines if line.startswith("perimetry ")), *inline]))


def refusal(command: str) -> str:
    """Why the command line would not take it; empty where it would."""
    words = shlex.split(command, comments=True)[1:]
    try:
        app.parse_args(words, exit_on_error=False, print_error=False)
    except Exception as error:
        return f"{command}: {type(error).__name__}: {error}"
    return ""


def is_named_only(command: str) -> bool:
    """A command that is mentioned by its name, such as `perimetry score`, without its arguments."""
    words = shlex.split(command)[1:]
    return not any(word.startswith("-") for word in words) and refusal(f"perimetry {' '.join(words)} --help") == ""


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_every_command_parses(page: Path) -> None:
    found = [c for c in commands(text_of(page)) if not ("|" in c or is_named_only(c))]
    assert [why for why in map(refusal, found) if why] == []


def test_the_check_of_commands_sees_a_wrong_flag() -> None:
    assert "perimetry score runs/demo/meter" in commands("    perimetry score runs/demo/meter\n")[0]
    assert refusal("perimetry score METER 'a' --alpha 0.1") == ""
    assert "Unknown" in refusal("perimetry score METER 'a' --alfa 0.1")
    assert refusal("perimetry scour METER 'a'") != ""
    assert is_named_only("perimetry bench shift")
    assert not is_named_only("perimetry score --alfa")


def test_the_pages_show_every_command() -> None:
    shown = "\n".join(c for page in WRITTEN for c in commands(text_of(page)))
    for verb in ("demo", "doctor", "assets list", "train", "calibrate", "score", "bench shift", "study", "report"):
        assert f"perimetry {verb}" in shown


def test_readme_opens_with_the_two_commands() -> None:
    lines = [line.split("#")[0].strip() for line in text_of(README).splitlines()[1:6] if line.strip()]
    assert text_of(README).startswith("# perimetry\n")
    assert lines[:2] == ["make demo", "make test"]


@pytest.fixture
def after_demo(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the paths of the README exist, with the tiny world behind them."""
    (tmp_path / "runs" / "demo" / "sae").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "meter").symlink_to(world.meter)
    (tmp_path / "runs" / "demo" / "sae" / "seed-0").symlink_to(world.sae)
    (tmp_path / "YOUR_PROMPTS.jsonl").symlink_to(world.prompts)
    row = {
        **{"suite": "typos", "family": "typos", "dose": 0.2, "negatives": "all", "detector": "surprise"},
        **{"kind": "concept", "metric": "auroc", "against": "", "best_baseline": False, "selection": ""},
        **{
            "estimate": 0.5,
            "low": 0.4,
            "high": 0.6,
            "n_shifted": 9,
            "n_clean": 9,
            "n_pairs": 9,
            "seed": 0,
            "method": "",
        },
    }
    results = {
        "command": "",
        "version": "0",
        "hardware": "none",
        "date": "2026-01-01",
        "main": "surprise",
        "rows": [row],
    }
    (tmp_path / "runs" / "demo" / "results.json").write_text(json.dumps(results))
    for key, value in tomllib.loads(world.settings.read_text())["calibrate"].items():
        monkeypatch.setenv(f"PERIMETRY_CALIBRATE_{key.upper()}", str(value))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell_commands(page: Path) -> list[str]:
    lines = "".join(fenced(text_of(page), "sh")).splitlines()
    return [line for line in lines if line.startswith("perimetry ")]


def test_the_cheap_commands_of_the_readme_run(after_demo: Path) -> None:
    run = [c for c in shell_commands(README) if not c.startswith(DEAR)]
    verbs = {c.split()[1] for c in run}
    assert verbs == {"score", "calibrate", "report", "assets", "convert", "lab"}
    for command in run:
        words = shlex.split(command)[1:]
        outcome = run_main(*words, *(FLAGS if words[0] == "calibrate" else ()))
        assert outcome.code == 0, f"{command}: {outcome.err}"
    assert (after_demo / "my-meter" / "manifest.json").is_file()
    assert (after_demo / "report.html").is_file()
    assert (after_demo / "runs" / "elsewhere" / "certificate.json").is_file()


def test_the_dear_commands_are_there_for_a_reason() -> None:
    found = shell_commands(README)
    assert found
    assert [prefix for prefix in DEAR if not any(c.startswith(prefix) for c in found)] == ["perimetry demo"]


def test_the_python_of_the_readme_runs(after_demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = list(fenced(text_of(README), "python"))
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["0", "1"]


@pytest.mark.parametrize("page", [p for p in PAGES if list(fenced(text_of(p), "python"))], ids=name_of)
def test_the_python_of_the_pages_imports_what_is_there(page: Path) -> None:
    for block in fenced(text_of(page), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, f"{name_of(page)}: {node.module} has no {missing}"


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        place = (page.parent / target).resolve() if target else page
        if not place.exists() or (anchor and page.name != "cli.md" and anchor not in anchors(place)):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_index() -> None:
    index = text_of(ROOT / "docs" / "index.md")
    pages = [p.name for p in (ROOT / "docs").glob("*.md") if p.name != "index.md"]
    assert [name for name in pages if f"({name})" not in index] == []
    assert "(docs/index.md)" in text_of(README)


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_no_result_is_quoted_by_hand(page: Path) -> None:
    plain = GENERATED.sub("", text_of(page))
    if page.name == "LOG.md":
        return
    assert [found.group() for pattern in QUOTED for found in pattern.finditer(plain)] == []


@pytest.mark.parametrize(
    "claim",
    ["surprise reaches AUROC 0.97", "an AUROC of .951 there", "FVU is about 0.21", "4.2 times faster than dense",
     "11x faster", "reads 5,000 tokens per second", "takes 30 ms"],
)  # fmt: skip
def test_the_check_sees_a_quoted_result(claim: str) -> None:
    assert any(pattern.search(claim) for pattern in QUOTED)


def test_the_picture_has_the_floors_of_the_test() -> None:
    text = text_of(ROOT / "docs" / "architecture.md")
    block = re.search(r"<!-- floors -->(.*?)<!-- end -->", text, re.DOTALL)
    assert block is not None
    lines = [line.strip() for line in block[1].splitlines() if line.strip()]
    floors = [{room.strip().strip("[]") for room in line.split("·")} for line in lines]
    assert floors == FLOORS[::-1]
    planned = {room.strip("[]") for line in lines for room in line.split(" · ") if room.startswith("[")}
    there = {p.name.removesuffix(".py") for p in SOURCE.iterdir()}
    assert not planned & there, "a room that was planned is built; say so in the picture"
    assert {room for floor in floors for room in floor} - planned <= there


def test_the_picture_names_the_files_that_are_there() -> None:
    text = text_of(ROOT / "docs" / "architecture.md")
    picture = text.partition("## Rooms")[2].partition("Planned, not there yet")[0]
    named = set(re.findall(r"\b\w+\.py\b", picture))
    there = {p.name for p in SOURCE.rglob("*.py")}
    assert named - there == set()
    drawn = {"sae", "activations", "train", "shift", "measures"}
    for room in drawn:
        files = {p.name for p in (SOURCE / room).glob("*.py")} - {"__init__.py"}
        assert files <= named, f"{room}: the picture lacks {sorted(files - named)}"
    for entry in SOURCE.iterdir():
        if entry.name not in ("__pycache__", "__main__.py", "py.typed"):
            assert entry.name in picture, f"the picture lacks {entry.name}"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.name)
def test_recipes_load(recipe: Path) -> None:
    document: dict[str, Any] = tomllib.loads(text_of(recipe))
    assert document
    assert set(document) <= set(SECTIONS)
    for section in document:
        made = load_config(SECTIONS[section], section=section, file=recipe, environment={})
        given = document[section]
        dumped = made.model_dump()
        for key, value in given.items():
            if not isinstance(value, dict):
                assert dumped[key] == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.name)
def test_every_line_of_a_recipe_has_its_reason(recipe: Path) -> None:
    lines = text_of(recipe).splitlines()
    assert lines[0].startswith("# ")
    bare = [line for line in lines if "=" in line and not line.startswith("#") and not re.search(r"  # \w+", line)]
    assert bare == []


def test_there_is_a_recipe_for_each_command_that_takes_one(tmp_path: Path) -> None:
    assert {p.stem for p in RECIPES} == set(SECTIONS)
    bad = tmp_path / "bad.toml"
    bad.write_text("[train]\nwidht = 3\n")
    with pytest.raises(ConfigError, match="the nearest key is 'width'"):
        load_config(TrainConfig, section="train", file=bad, environment={})


def test_the_log_says_how_entries_look() -> None:
    text = text_of(ROOT / "LOG.md")
    assert all(word in text for word in ("Expected:", "Found:", "Therefore:"))
    entries = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert all(re.match(r"\d{4}-\d{2}-\d{2}: \S", entry) for entry in entries)
    dates = [entry[:10] for entry in entries]
    assert dates == sorted(dates, reverse=True)
