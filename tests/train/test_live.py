"""Training straight from a language model, interrupted and resumed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.train.test_loop import weights_hash

from perimetry.activations.model import LanguageModel
from perimetry.activations.stream import LiveStream, StreamConfig
from perimetry.runtime import generator
from perimetry.train import TrainConfig, train

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "looked",
    "at",
    "the",
    "moon",
    "while",
    "rain",
    "fell",
    "over",
    "an",
    "old",
    "grey",
    "town",
    "by",
    "the",
    "sea",
]


class Document:
    def __init__(self, number: int) -> None:
        chosen = torch.randint(len(WORDS), (60,), generator=generator(number)).tolist()
        self.id, self.text = str(number), " ".join(WORDS[i] for i in chosen)


class Dying:
    """A live stream whose reader is interrupted at a step."""

    def __init__(self, stream: LiveStream, at: int) -> None:
        self.stream, self.at = stream, at

    def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[torch.Tensor]:
        for step, acts in enumerate(self.stream.batches(batch, seed, start_step), start_step):
            if step == self.at:
                raise KeyboardInterrupt
            yield acts

    def state(self) -> dict[str, object]:
        return self.stream.state()

    def restore(self, state: dict[str, object]) -> None:
        self.stream.restore(state)


def test_a_live_training_ends_with_the_same_bytes(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    documents = [Document(i) for i in range(20)]

    def stream() -> LiveStream:
        return LiveStream(tiny_lm, 1, documents, StreamConfig(context=32, batch_rows=4, chunk_tokens=256))

    config = TrainConfig(
        width=64, k=4, tokens=32 * 40, batch=32, fit_tokens=128, threshold_tokens=128, checkpoint_every=6
    )
    whole = train(config, stream(), tmp_path / "whole", model_info={"layer": 1})
    with pytest.raises(KeyboardInterrupt):
        train(config, Dying(stream(), 21), tmp_path / "cut", model_info={"layer": 1})
    again = train(config, stream(), tmp_path / "cut", model_info={"layer": 1})
    assert again.digest == whole.digest
    assert weights_hash(tmp_path / "cut") == weights_hash(tmp_path / "whole")
    assert again.sae.d_model == tiny_lm.d_model
