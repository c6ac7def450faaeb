"""Moments from a stream: equal to those from all keys at once, and the same bits after a break."""

from pathlib import Path
from typing import Any

import pytest
import torch

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.text import pack
from perimetry.assets.documents import Document
from perimetry.editing.moments import KeyMoments, key_moments
from perimetry.editing.places import projection
from perimetry.errors import TooFewSamples

from .conftest import SMALL


class Killed(Exception):
    pass


def test_they_are_the_mean_over_all_keys_but_the_first(tiny_lm: LanguageModel, texts: list[Document]) -> None:
    """Against keys that are read one row at a time, without padding."""
    found = key_moments(tiny_lm, [1], texts, SMALL)
    keys: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    handle = projection(tiny_lm, 1).module.register_forward_hook(lambda m, inputs, o: seen.append(inputs[0][0]))
    for row in pack(texts, tiny_lm, TokenPolicy(prepend_bos=False), SMALL.context):
        if sum(len(k) for k in keys) >= SMALL.tokens and len(seen) % SMALL.batch_rows == 0:
            break
        with torch.no_grad():
            tiny_lm.model(torch.tensor([row.ids]))
        counts = torch.tensor(row.countable)
        counts[0] = False
        keys.append(seen[-1][counts].double())
    handle.remove()
    every = torch.cat(keys)
    assert found.tokens == len(every) >= SMALL.tokens
    torch.testing.assert_close(found.matrices[1], every.T @ every / len(every), rtol=1e-5, atol=1e-8)


def test_several_blocks_from_one_run(tiny_lm: LanguageModel, texts: list[Document], moments: KeyMoments) -> None:
    alone = key_moments(tiny_lm, [0], texts, SMALL)
    assert torch.equal(alone.matrices[0], moments.matrices[0])
    assert set(moments.matrices) == {0, 1}
    assert all(m.dtype == torch.float64 for m in moments.matrices.values())


def test_a_broken_run_goes_on_to_the_same_bits(
    tiny_lm: LanguageModel, texts: list[Document], moments: KeyMoments, tmp_path: Path
) -> None:
    config = SMALL.model_copy(update={"keep_every": 1})
    calls: list[int] = []

    def kill(tokens: int) -> None:
        calls.append(tokens)
        if len(calls) == 4:
            raise Killed

    with pytest.raises(Killed):
        key_moments(tiny_lm, [0, 1], texts, config, folder=tmp_path / "m", shown=kill)
    again: list[int] = []
    found = key_moments(tiny_lm, [0, 1], texts, config, folder=tmp_path / "m", shown=again.append)
    assert again[0] == sum(calls[:3]) > 0
    assert sum(again) == found.tokens
    assert all(torch.equal(found.matrices[i], moments.matrices[i]) for i in (0, 1))
    once: list[int] = []
    key_moments(tiny_lm, [0, 1], texts, config, folder=tmp_path / "m", shown=once.append)
    assert once == [found.tokens]


def test_sums_of_other_text_are_not_taken(tiny_lm: LanguageModel, texts: list[Document], tmp_path: Path) -> None:
    key_moments(tiny_lm, [1], texts, SMALL, folder=tmp_path / "m")
    seen: list[int] = []
    key_moments(tiny_lm, [1], texts[1:], SMALL, folder=tmp_path / "m", shown=seen.append)
    assert seen[0] == 0
    damaged: Any = next((tmp_path / "m").glob("*.safetensors"))
    damaged.write_bytes(b"0")
    seen.clear()
    key_moments(tiny_lm, [1], texts[1:], SMALL, folder=tmp_path / "m", shown=seen.append)
    assert seen[0] == 0


def test_too_little_text_is_refused(tiny_lm: LanguageModel, texts: list[Document]) -> None:
    with pytest.raises(TooFewSamples, match="keys of block 1 are 64 wide"):
        key_moments(tiny_lm, [1], texts, SMALL.model_copy(update={"tokens": 20, "batch_rows": 1}))
    with pytest.raises(TooFewSamples, match="do not fill"):
        key_moments(tiny_lm, [1], [Document("same", "the" + 900 * " the", {})], SMALL)
