"""The sceptic's table in a terminal: a line a control, and how many hold."""

import io
from typing import Any

from rich.console import Console

from perimetry.pipeline.controls_table import show_controls

ROW: dict[str, Any] = {
    **{"control": "untrained_sae", "detector": "surprise", "against": "surprise, untrained SAE", "dose": 0.2},
    **{"metric": "auroc_difference", "expected": "above 0", "holds": True, "estimate": 0.1234, "low": 0.1, "high": 0.2},
    **{"n": 40, "seed": 0, "method": "bootstrap by pair 95 %"},
}


def shown(*rows: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=200, record=True)
    show_controls({"controls": rows}, console)
    return console.export_text().splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]


def test_a_line_a_control_whichever_way_it_went() -> None:
    lines = shown(ROW, {**ROW, "detector": "[l0]", "holds": False, "dose": 0.0}, {**ROW, "holds": None, "expected": ""})
    body = [cells(line) for line in lines if line.startswith("│")]
    numbers = ["0.123", "0.100 to 0.200", "40", "above 0"]
    assert body == [
        ["untrained sae", "surprise", "surprise, untrained SAE", "auroc difference", "20 %", *numbers, "holds"],
        ["", "[l0]", "surprise, untrained SAE", "auroc difference", "", *numbers, "fails"],
    ]
    assert lines[-1] == "1 of 2 controls hold, 1 fail."
