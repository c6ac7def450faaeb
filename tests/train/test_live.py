"""Training straight from a language model, interrupted and resumed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.train.test_loop import weights_hash

from perimetry.activations.model import LanguageModel
from perimetry.activations.site import Site
from perimetry.activations.stream import LiveStream, StreamConfig
from perimetry.pipeline.causal import rest_of
from perimetry.runtime import generator
from perimetry.train import Job, Source, TrainConfig, TrainResult, train, train_jobs
from perimetry.train.log import read_log

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


def test_with_a_causal_loss_it_does_too(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    """The stream is read by another thread, without a graph, while the loss runs the same model with one."""
    documents = [Document(i) for i in range(20)]
    config = TrainConfig(
        **{"width": 64, "k": 4, "tokens": 32 * 40, "batch": 32, "fit_tokens": 128, "threshold_tokens": 128},
        **{"checkpoint_every": 6, "causal": 2.0, "causal_every": 3, "causal_share": "uniform", "causal_sequences": 2},
    )

    def trained(out: Path, at: int | None = None) -> TrainResult:
        stream = LiveStream(tiny_lm, 1, documents, StreamConfig(context=32, batch_rows=4, chunk_tokens=256))
        rest = rest_of(tiny_lm, Site(1), stream.policy, documents, config, context=32)
        source: Source = stream if at is None else Dying(stream, at)
        return train_jobs([Job(config, out, model_info={"layer": 1}, rest=rest)], source)[0]

    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", 21)
    assert trained(tmp_path / "cut").digest == whole.digest
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("whole", "cut")]
    assert [row["causal"] for row in logs[0]] == [row["causal"] for row in logs[1]]
