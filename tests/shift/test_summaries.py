"""Summaries of calibration prompts: what they hold, that they are kept, and that a meter without them is one still."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.worlds import World

from perimetry.artifact import MANIFEST
from perimetry.errors import CorruptArtifact
from perimetry.sae.base import Codes
from perimetry.shift.base import Evidence
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter
from perimetry.shift.summaries import DIRECTIONS, Summaries, directions, mean_codes, terms_of
from perimetry.storage import hash_file, hash_json, read_json, write_json

GOLDEN = "9ef1d3d1765c1681"
"""Hash of the signs of 70 concepts, by its beginning."""


def test_directions_are_the_same_everywhere() -> None:
    """Meters that exist were made with these; a change of a single sign would look like drift."""
    found = directions(70)
    assert found.shape == (70, DIRECTIONS)
    assert set(found.unique().tolist()) == {-1.0, 1.0}
    signs = bytes((found > 0).to(torch.uint8).reshape(-1).tolist())
    assert hashlib.sha256(signs).hexdigest().startswith(GOLDEN)
    assert torch.equal(directions(200)[:70], found)
    wide = directions(4_096)
    assert float(wide.mean().abs()) < 4.5 / wide.numel() ** 0.5
    products = (wide.T @ wide / 4_096).fill_diagonal_(0.0)
    assert float(products.abs().max()) < 5.5 / 4_096**0.5


def test_mean_codes_are_projected() -> None:
    draw = torch.Generator().manual_seed(0)
    indices = torch.randint(1, 40, (9, 3), generator=draw)
    values = torch.rand(9, 3, generator=draw)
    indices[2, 1:], values[2, 1:] = 0, 0.0
    codes, prompt = Codes(indices, values, 40), torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 2])
    nothing = torch.zeros(9, 1)
    evidence = Evidence(nothing, codes, nothing, prompt, prompt, prompt, torch.ones(3), None, None)
    wanted = torch.stack([codes.dense()[prompt == row].mean(0) for row in range(3)]) @ directions(40)
    assert torch.allclose(mean_codes(evidence, directions(40)), wanted, atol=1e-5)


def test_the_terms_begin_with_the_main_score() -> None:
    assert terms_of("surprise") == ("surprise", "surprise.cusum", "surprise.max", "surprise.top10")
    assert terms_of("surprise.max")[0] == "surprise.max"
    assert len(terms_of("surprise.max")) == 4


def test_a_meter_keeps_them(meter: Meter) -> None:
    short, calibration = meter.normal.summaries, meter.normal.calibration
    assert short is not None
    assert short.vectors.shape == (60, 4 + DIRECTIONS)
    assert torch.equal(short.vectors[:, :4], calibration.joint(short.terms))
    for place, label in enumerate(calibration.groups.labels):
        mine = short.vectors[short.group == place, 0].sort().values
        assert torch.equal(mine, calibration.scores[meter.main][label])
    assert float(short.vectors[:, 4:].std(0).min()) > 0


def older(world: World, root: Path) -> Path:
    """The same meter as a version wrote it that knew of no summaries."""
    folder = root / "older"
    shutil.copytree(world.meter, folder)
    (folder / "summaries.safetensors").unlink()
    document = read_json(folder / "meter.json")
    del document["summary_terms"]
    write_json(folder / "meter.json", document)
    files = {f.name: hash_file(f) for f in sorted(folder.iterdir()) if f.name != MANIFEST}
    manifest = read_json(folder / MANIFEST) | {"files": files, "digest": hash_json(files)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_an_older_meter_reads_as_before(world: World, meter: Meter, tmp_path: Path) -> None:
    found = load_meter(older(world, tmp_path), lm=meter.lm)
    assert found.normal.summaries is None
    text = "the king crossed the river before the rain."
    mine, theirs = found.score([text])[0], meter.score([text])[0]
    assert (mine.score, mine.p_value) == (theirs.score, theirs.p_value)
    again = tmp_path / "again"
    assert found.save(again) == read_json(older(world, tmp_path / "b") / MANIFEST)["digest"]
    assert not (again / "summaries.safetensors").exists()


@pytest.mark.parametrize(
    ("terms", "state"),
    [
        (("surprise",), {}),
        (("surprise",), {"vectors": torch.zeros(3, 33), "group": torch.zeros(2)}),
        (("surprise",), {"vectors": torch.zeros(3, 30), "group": torch.zeros(3)}),
    ],
)
def test_what_are_no_summaries_is_refused(terms: tuple[str, ...], state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(CorruptArtifact, match="calibrate again"):
        Summaries.from_state(terms, state)
