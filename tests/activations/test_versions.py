import pytest
import torch

from perimetry.activations.feed import row_batches
from perimetry.activations.masking import Masker, Masking
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.store import HarvestConfig, harvest
from perimetry.activations.versions import PairedVersions, harvest_versions
from perimetry.errors import ConfigError, Incompatible

from .test_masking import LONG

MASKING = Masking(kind="eos", positions="unmasked", variant="denoising")
CONFIG = HarvestConfig(tokens=900, context=32, batch_rows=4, shard_tokens=250, dtype="float32", masking=MASKING)


def test_row_i_is_the_same_position_in_both(tiny_lm, tmp_path):
    versions = harvest_versions(tiny_lm, 1, LONG, tmp_path, CONFIG)
    assert len(versions.masked) == len(versions.clean) == 900
    ids = torch.arange(900)
    assert torch.equal(versions.masked.tokens(ids), versions.clean.tokens(ids))
    assert torch.equal(versions.masked.positions(ids), versions.clean.positions(ids))
    assert versions.masked.documents(ids) == versions.clean.documents(ids)
    # What was not replaced and has nothing replaced before it in its row reads the same.
    gap = (versions.masked.rows(ids) - versions.clean.rows(ids)).abs().amax(1)
    assert float(gap.max()) > 0.01
    assert bool((gap < 1e-5).any())


def test_the_clean_version_is_the_clean_text(tiny_lm, tmp_path):
    versions = harvest_versions(tiny_lm, 1, LONG, tmp_path / "both", CONFIG)
    clean = harvest(tiny_lm, 1, LONG, tmp_path / "clean", CONFIG.model_copy(update={"masking": None, "tokens": 5000}))
    known = {tuple(row) for row in clean.rows(torch.arange(len(clean))).mul(1e4).round().long().tolist()}
    rows = versions.clean.rows(torch.arange(900)).mul(1e4).round().long().tolist()
    assert sum(tuple(row) in known for row in rows) > 0.97 * 900


def test_a_killed_harvest_goes_on(tiny_lm, tmp_path, monkeypatch):
    whole = harvest_versions(tiny_lm, 1, LONG, tmp_path / "whole", CONFIG)
    calls = iter(range(100))

    def dying(self, rows, epoch=0):
        if next(calls) == 6:
            raise KeyboardInterrupt
        return plain(self, rows, epoch)

    plain = Masker.__call__
    with monkeypatch.context() as patched:
        patched.setattr(Masker, "__call__", dying)
        with pytest.raises(KeyboardInterrupt):
            harvest_versions(tiny_lm, 1, LONG, tmp_path / "killed", CONFIG)
    again = harvest_versions(tiny_lm, 1, LONG, tmp_path / "killed", CONFIG)
    assert [store.digest for store in again] == [store.digest for store in whole]
    assert [store.digest for store in harvest_versions(tiny_lm, 1, LONG, tmp_path / "killed", CONFIG)] == [
        store.digest for store in whole
    ]


def test_rows_beside_and_in_pairs(tiny_lm, tmp_path):
    versions = harvest_versions(tiny_lm, 1, LONG, tmp_path, CONFIG)
    beside = versions.beside()
    rows = next(iter(beside.batches(10, 3)))
    pairs = PairedVersions(versions)
    assert len(pairs) == 1800
    (batch,) = [next(iter(pairs.pairs(20, 3)))]
    width = tiny_lm.d_model
    assert torch.equal(batch[0::2], rows[:, :width])
    assert torch.equal(batch[1::2], rows[:, width:])
    assert torch.equal(next(iter(pairs.batches(20, 3))), batch)


def test_refusals(tiny_lm, tmp_path):
    with pytest.raises(ConfigError, match="set masking"):
        harvest_versions(tiny_lm, 1, LONG, tmp_path / "a", CONFIG.model_copy(update={"masking": None}))
    versions = harvest_versions(tiny_lm, 1, LONG, tmp_path / "b", CONFIG)
    with pytest.raises(ConfigError, match="even number"):
        next(PairedVersions(versions).batches(7))
    with pytest.raises(Incompatible, match="another harvest"):
        harvest_versions(tiny_lm, 1, LONG, tmp_path / "b", CONFIG.model_copy(update={"tokens": 10}))


def test_the_positions_are_those_of_the_masking(tiny_lm, tmp_path):
    versions = harvest_versions(tiny_lm, 1, LONG, tmp_path, CONFIG.model_copy(update={"tokens": 5000}))
    masker = Masker(MASKING, tiny_lm, LONG, TokenPolicy())
    wanted = sum(sum(r.countable) for b in row_batches(LONG, tiny_lm, TokenPolicy(), 32, 4) for r in masker(b))
    assert 0.95 * wanted <= len(versions.masked) <= wanted
