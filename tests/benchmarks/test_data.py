"""Rows for all libraries."""

from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from perimetry.activations.store import ActivationStore

MODULE = "_data"


def test_planted_rows_are_structured_seeded_and_not_the_held_out_ones(module: ModuleType, tmp_path: Path) -> None:
    files = module.write_rows(tmp_path, 600, 100, 32, None)
    assert files.name == "planted"
    data, held_out = np.load(files.data), np.load(files.held_out)
    assert data.shape == (600, 32)
    assert held_out.shape == (100, 32)
    assert data.dtype == np.float32
    (tmp_path / "again").mkdir()
    again = module.write_rows(tmp_path / "again", 600, 100, 32, None)
    assert np.array_equal(np.load(again.data), data)
    assert not np.isclose(data[:100], held_out).all(axis=1).any()
    values = np.linalg.svd(data - data.mean(0), compute_uv=False)
    assert values[0] > 2 * values[-1]


def test_rows_of_a_store_are_shuffled_and_held_out_ones_apart(module: ModuleType, tmp_path: Path) -> None:
    store = fake_store(tmp_path)
    files = module.write_rows(tmp_path, 500, 50, store.d_model, store.path)
    assert files.name == "store"
    source = ActivationStore.open(store.path)
    everything = source.rows(torch.arange(len(source))).float().numpy()
    both = np.concatenate([np.load(files.held_out), np.load(files.data)])
    assert both.shape == everything.shape
    assert not np.array_equal(both, everything)
    assert np.array_equal(np.sort(both, axis=0), np.sort(everything, axis=0))
    assert len(np.load(files.held_out)) == 50
    wrong = module.write_rows(tmp_path, 500, 50, store.d_model + 1, store.path)
    assert wrong.name == "planted"
    assert np.load(wrong.data).shape == (500, store.d_model + 1)


class Made:
    """A store of the tiny model."""

    def __init__(self, path: Path, d_model: int) -> None:
        self.path, self.d_model = path, d_model


def fake_store(folder: Path) -> Made:
    from perimetry.activations.model import tiny_language_model
    from perimetry.activations.policy import TokenPolicy
    from perimetry.activations.store import HarvestConfig, harvest
    from perimetry.assets import Document

    torch.manual_seed(0)
    lm = tiny_language_model("llama")
    words = [
        "the",
        "river",
        "stone",
        "a",
        "house",
        "of",
        "old",
        "people",
        "went",
        "over",
        "hill",
        "and",
        "sea",
        "light",
    ]
    rng = np.random.default_rng(0)
    documents = [Document(f"{i}", " ".join(rng.choice(words, 30)), {}) for i in range(40)]
    policy = TokenPolicy(prepend_bos=lm.bos_id is not None, max_norm=1e6)
    harvest(lm, 1, documents, folder / "store", HarvestConfig(tokens=400, context=32, policy=policy, dtype="float32"))
    return Made(folder / "store", lm.d_model)
