from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.train.planted import Planted, config

from perimetry.errors import ConfigError
from perimetry.train import TrainConfig, train, train_many
from perimetry.train.source import Feed, Paired


class Neighbours(Planted):
    """Pairs of adjacent tokens that share a topic: the second is the first, moved a little."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs_opened: list[int] = []

    def pairs(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[torch.Tensor]:
        self.pairs_opened.append(start_step)
        step = start_step
        while True:
            first = self.draw(batch // 2, seed * 1_000_003 + step)
            second = first + 0.05 * self.draw(batch // 2, 77 + step)
            yield torch.stack([first, second], 1).reshape(batch, -1)
            step += 1


def smooth(**changes: object) -> TrainConfig:
    return config(architecture="matryoshka", options={"fractions": [0.2, 0.8]}, smooth=1.0, **changes)


def agreement(out: Path, made: TrainConfig) -> float:
    """Mean cosine of the first latents' codes on adjacent tokens."""
    result = train(made, Neighbours(), out)
    acts = next(Neighbours().pairs(400, seed=9))
    high = result.sae.encode(acts).dense()[:, :26]
    return float(torch.nn.functional.cosine_similarity(high[0::2], high[1::2]).mean())


def test_the_feed_asks_for_pairs_where_the_recipe_wants_them() -> None:
    assert isinstance(Neighbours(), Paired)
    assert not isinstance(Planted(), Paired)
    source = Neighbours()
    feed = Feed(source, smooth())
    assert torch.equal(feed.take(3), next(Neighbours().pairs(64, 0, 3)))
    assert source.opened == []
    assert Feed(source, smooth()).held_out().unseen is None
    plain = Feed(source, config())
    assert torch.equal(plain.take(3), next(Planted().batches(64, 0, 3)))


def test_a_source_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="smooth wants pairs of adjacent tokens and Planted gives none; train from a store"
    ):
        train(smooth(), Planted(), tmp_path)


def test_with_and_without_pairs_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"need the same paired, these have \[False, True\]"):
        train_many([config(), smooth()], Neighbours(), [tmp_path / "a", tmp_path / "b"])


def test_training_on_pairs_resumes_and_makes_neighbours_agree(tmp_path: Path) -> None:
    made = smooth(tokens=64 * 20)
    whole = train(made, Neighbours(), tmp_path / "whole")

    class Dies(Neighbours):
        def pairs(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[torch.Tensor]:
            for step, acts in enumerate(super().pairs(batch, seed, start_step), start_step):
                if step == 11:
                    raise KeyboardInterrupt
                yield acts

    with pytest.raises(KeyboardInterrupt):
        train(made, Dies(), tmp_path / "killed")
    source = Neighbours()
    assert train(made, source, tmp_path / "killed").digest == whole.digest
    assert source.pairs_opened[-1] == 7


def test_neighbours_agree_more_with_the_term(tmp_path: Path) -> None:
    without = smooth().model_copy(update={"smooth": 1e-9})
    assert agreement(tmp_path / "with", smooth()) > agreement(tmp_path / "without", without)
