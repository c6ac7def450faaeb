import pytest
from rich.console import Console

from perimetry.config import build
from perimetry.errors import ConfigError, UnknownName
from perimetry.pipeline.robustify_config import ROBUSTIFY_PRESETS, RobustifyConfig, with_robustify_preset
from perimetry.pipeline.robustify_table import show_robustify


@pytest.mark.parametrize("preset", ROBUSTIFY_PRESETS)
def test_presets_are_settings(preset: str) -> None:
    found = build(RobustifyConfig, with_robustify_preset({"seed": 4, "tune": {"rank": 3}}, preset), "test")
    assert (found.seed, found.tune.rank) == (4, 3)
    assert found.tune.updates == {"full": 200, "quick": 30, "tiny": 4}[preset]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kinds": ["typpos"]}, "nearest name is 'typos'"),
        ({"doses": [2.0]}, "shares from 0 to 1"),
        ({"selection": "shift"}, "selection and budget belong together"),
        ({"measured": [{"kind": "ocrr", "dose": 0.1}]}, "nearest name is 'ocr'"),
        ({"measured": [{"kind": "ocr", "dose": 0.1}] * 2}, "names a perturbation at a dose twice"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(RobustifyConfig, values, "test")
    with pytest.raises(UnknownName):
        with_robustify_preset({}, "fulll")


def test_what_was_not_tuned_on_is_marked() -> None:
    config = RobustifyConfig()
    assert [one.case for one in config.measured if not config.seen(one)] == ["typos 30 %", "ocr 10 %", "case 10 %"]


def test_the_table_shows_before_and_after_and_what_was_unseen() -> None:
    row = {"seed": 0, "low": 0.1, "high": 0.3, "n": 9, "method": "m"}
    rows = [
        row | {"arm": "base", "metric": "loss", "case": "typos 10 %", "seen": True, "estimate": 4.25},
        row | {"arm": "tuned", "metric": "loss", "case": "typos 10 %", "seen": True, "estimate": 4.125},
        row | {"arm": "tuned", "metric": "recovered", "case": "ocr 10 %", "seen": False, "estimate": 0.21},
    ]
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    made = {"title": "a model", "command": "", "version": "0", "hardware": "none", "date": "2026-01-01"}
    show_robustify(made | {"rows": rows, "metrics": {}, "data": {}}, console)
    said = console.export_text()
    assert "4.250" in said
    assert "4.125" in said
    assert "ocr 10 % (not tuned on)" in said
    assert "21.0 %" in said
