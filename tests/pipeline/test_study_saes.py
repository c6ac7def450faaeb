"""Which SAEs a study has, and which of them are fitted together."""

import pytest

from perimetry.config import build
from perimetry.pipeline.study_config import StudyConfig
from perimetry.pipeline.study_saes import Cell, StudySAE, cells_of, chunks_of


def test_cells_have_words() -> None:
    assert Cell(6, "topk", 64).describe() == "layer 6, topk 64"
    assert Cell(6, "", 0).describe() == "layer 6"


@pytest.mark.parametrize(
    ("together", "sizes"), [(1, [2] * 6), (4, [4, 4, 4]), (5, [4, 4, 4]), (10, [10, 2]), (99, [12])]
)
def test_chunks_hold_whole_cells(together: int, sizes: list[int]) -> None:
    values = {"architectures": ["topk", "batchtopk", "standard"], "widths": [64, 96], "seeds": [0, 7]}
    config = build(StudyConfig, values | {"together": together}, "x")
    chunks = chunks_of(config, 12)
    assert [len(chunk) for chunk in chunks] == sizes
    flat = [sae for chunk in chunks for sae in chunk]
    assert flat == [StudySAE(cell, seed) for cell in cells_of(config, 12) for seed in (0, 7)]
    assert len({sae.name for sae in flat}) == 12
    for chunk in chunks:
        assert all({s.seed for s in chunk if s.cell == sae.cell} == {0, 7} for sae in chunk)
