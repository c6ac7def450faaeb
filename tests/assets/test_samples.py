from pathlib import Path

import pytest
import torch
from tests.assets.test_llama2c import model_file, vocabulary_file

from perimetry.assets import samples
from perimetry.assets.documents import read_path
from perimetry.assets.llama2c import convert
from perimetry.assets.samples import prepare_samples, sample_ids, sample_stories
from perimetry.assets.spec import Inputs
from perimetry.runtime import generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    convert(model_file(), vocabulary_file(), made)
    return made


def test_the_seed_decides(folder: Path) -> None:
    one = sample_stories(folder, 5, seed=1, batch=2)
    assert one == sample_stories(folder, 5, seed=1, batch=2)
    assert one != sample_stories(folder, 5, seed=2, batch=2)
    assert len(one) == 5


def test_tokens_follow_the_model_with_and_without_the_cache() -> None:
    """A model whose next token depends on the last one by a known table: the draws must have its frequencies."""
    table = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.25, 0.75], [0.5, 0.25, 0.25]])

    class Chain(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, past_key_values: object, use_cache: bool) -> object:
            assert input_ids.shape[1] == 1

            class Answer:
                logits = table[input_ids].log()

            Answer.past_key_values = None  # pyright: ignore[reportAttributeAccessIssue]
            return Answer

    ids = sample_ids(Chain(), 4000, 1, {0}, 6, generator(0))
    assert ids.shape[1] == 6
    for last in (1, 2):
        following = torch.cat([ids[:, i + 1][ids[:, i] == last] for i in range(5)])
        seen = torch.bincount(following, minlength=3) / len(following)
        torch.testing.assert_close(seen, table[last], atol=0.02, rtol=0)


def test_stories_become_a_text(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "STORIES", 4)
    prepare_samples(Inputs(None, {"model": folder}, tmp_path), tmp_path)
    found = list(read_path(tmp_path))
    assert found
    for document in found:
        assert document.id.startswith("story-000")
        assert document.meta["finished"] in ("true", "false")
