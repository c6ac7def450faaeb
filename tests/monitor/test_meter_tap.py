"""The service reads as the meter reads: through the worker, in one process with it, poisoned, given up, out of memory."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.monitor.service import mock_config, refused, run, running, score, text_row
from tests.worlds import World, text_of

from perimetry.activations.prompts import encode
from perimetry.monitor.config import MonitorConfig
from perimetry.monitor.engine import Some
from perimetry.monitor.meter_tap import MeterTap
from perimetry.monitor.supervisor import Supervisor
from perimetry.monitor.tap import PROBES, Aborted
from perimetry.monitor.wire import Asked
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter

TEXTS = [text_of(f"served {i}", 3 + i % 20) for i in range(24)] + ["zqx vvw kj !!", "Ünïcödé 日本語 text 🙂 here", "a"]


def config_of(state: Path, **settings: Any) -> MonitorConfig:
    """A real meter, and as much patience as a busy machine needs."""
    return mock_config(
        state, worker={"tap": "meter", "threads": 1, "device": "cpu"} | settings.pop("worker", {}), **settings
    )


@pytest.fixture(scope="module")
def tap(world: World, tmp_path_factory: pytest.TempPathFactory) -> MeterTap:
    return MeterTap.open(world.meter, config_of(tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="module")
def own(world: World) -> Meter:
    """A meter whose model no tap has hooked."""
    return load_meter(world.meter)


def asked(tap: MeterTap, text: str, **more: Any) -> Asked:
    encoded = encode(tap.reader.lm, text, tap.reader.policy)
    return Asked(encoded.ids, encoded.countable, encoded.words, **more)


def never() -> bool:
    return False


def test_the_engine_reads_as_the_meter(world: World, own: Meter, tmp_path: Path) -> None:
    wanted = own.score(TEXTS, alpha=0.01)

    async def work() -> None:
        async with running(config_of(tmp_path), world.meter) as engine:
            found = await score(engine, *TEXTS, detail="concepts", top_concepts=64)
            for mine, theirs in zip(found, wanted, strict=True):
                assert mine.score == pytest.approx(theirs.score, rel=1e-5, abs=1e-5)
                assert mine.p_value == pytest.approx(theirs.p_value, abs=0.02)
                assert (mine.group, mine.fallback, mine.scored_tokens) == (
                    theirs.group,
                    theirs.fallback,
                    theirs.tokens_scored,
                )
                heat = [t.score for t in mine.tokens if t.score is not None]
                assert heat == pytest.approx([t.score for t in theirs.tokens], rel=1e-4, abs=1e-4)
                assert [c.latent for c in mine.concepts[: len(theirs.concepts)]] == [c.latent for c in theirs.concepts]
                for concept, evidence in zip(mine.concepts, theirs.concepts, strict=False):
                    assert concept.energy == pytest.approx(concept.n_tokens * evidence.surprise, rel=1e-6)
                    assert concept.contexts == evidence.contexts
                    assert mine.tokens[concept.max_token].score is not None
            assert ["".join(t.text for t in s.tokens) for s in found] == TEXTS
            await check_stream(engine)
            await check_refusals(engine)
            groups = {g.name: g for g in engine.groups}
            assert groups["pooled"].n == 60
            assert groups["pooled"].alpha_min == pytest.approx(1 / 61)
            assert found[0].n_calibration == groups["pooled" if found[0].fallback else found[0].group].n
            names = {"model_rev", "tap", "sae_sha256", "calibration_sha256", "dtype", "backend", "meter"}
            assert names <= set(engine.artifact)
            assert engine.artifact["model_rev"] == own.lm.revision
            assert engine.artifact["meter"] == own.digest
            assert engine.artifact["tap"] == "resid_post.1"

    run(work)


async def check_stream(engine: Supervisor) -> None:
    """The whole is what `score` says, and the parts agree with it token by token."""
    text, loop = text_of("streamed", 30), asyncio.get_running_loop()
    (whole,) = await score(engine, text, detail="tokens")
    parts = [part async for part in engine.stream(text_row(text), 16, loop.time() + 20)]
    some = [part for part in parts if isinstance(part, Some)]
    assert len(some) > 2
    assert parts[-1].score == whole.score  # pyright: ignore[reportAttributeAccessIssue]
    heat = [t.score for part in some for t in part.tokens if t.score is not None]
    assert heat == pytest.approx([t.score for t in whole.tokens if t.score is not None], rel=1e-4, abs=1e-4)


async def check_refusals(engine: Supervisor) -> None:
    assert (await refused(score(engine, "word " * 300))).kind == "too-many-tokens"
    assert (await refused(score(engine, "\n\t"))).kind == "nothing-to-score"


def test_exact_mode_is_the_meter_to_the_bit_whatever_else_came(world: World, own: Meter, tmp_path: Path) -> None:
    wanted = [own.score([text])[0] for text in TEXTS]

    async def work() -> None:
        async with running(config_of(tmp_path, batch={"mode": "exact"}), world.meter) as engine:
            together = await score(engine, *TEXTS, detail="tokens")
            alone = [(await score(engine, text, detail="tokens"))[0] for text in reversed(TEXTS[:8])]
            for found, theirs in [*zip(together, wanted, strict=True), *zip(alone, wanted[7::-1], strict=True)]:
                assert (found.score, found.p_value) == (theirs.score, theirs.p_value)
                assert [t.score for t in found.tokens if t.score is not None] == [t.score for t in theirs.tokens]
            assert engine.artifact["batching"] == "exact"

    run(work)


@contextmanager
def poisoned(tap: MeterTap, poison: Any) -> Iterator[list[int]]:
    """The output of the tapped block of every batch goes through `poison`; counts the batches."""
    sizes: list[int] = []

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        residual = output[0] if isinstance(output, tuple) else output
        sizes.append(residual.shape[0])
        changed = poison(residual.clone(), inputs)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    assert isinstance(tap.reader, Meter)
    handle = tap.reader.lm.blocks[0].register_forward_hook(hook)
    try:
        yield sizes
    finally:
        handle.remove()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_one_poisoned_row_fails_alone(tap: MeterTap, number: float) -> None:
    rows = [asked(tap, text_of(f"poisoned {i}", 8 + i)) for i in range(8)]
    wanted = [tap.run([row], never)[0] for row in rows]
    length = len(rows[3].ids)

    def poison(residual: torch.Tensor, inputs: Any) -> torch.Tensor:
        # The fourth row, known by its length: the fourth shortest of the batch, or alone.
        if residual.shape[0] == 1 and residual.shape[1] != length:
            return residual
        at = residual.shape[0] - 4 if residual.shape[0] > 1 else 0
        residual[at, length - 2] = number
        return residual

    with poisoned(tap, poison) as sizes:
        found = tap.run(rows, never)
    assert sizes[0] > 1
    assert [answer.problem for answer in found] == [None, None, None, "non-finite", None, None, None, None]
    assert [a for i, a in enumerate(found) if i != 3] == [a for i, a in enumerate(wanted) if i != 3]


def test_a_row_of_which_every_token_is_a_sink_fails_alone(tap: MeterTap) -> None:
    rows = [asked(tap, text_of("plain", 9)), asked(tap, "a")]

    def huge(residual: torch.Tensor, inputs: Any) -> torch.Tensor:
        short = residual.shape[0] - 1 if residual.shape[0] > 1 else 0
        if residual.shape[0] > 1 or residual.shape[1] == len(rows[1].ids):
            residual[short, : len(rows[1].ids)] *= 1e6
        return residual

    with poisoned(tap, huge):
        found = tap.run(rows, never)
    assert [answer.problem for answer in found] == [None, "nothing-to-score"]


def test_a_batch_that_is_given_up_stops_at_the_next_block(tap: MeterTap) -> None:
    row = asked(tap, TEXTS[0])
    seen: list[int] = []

    def after_the_first_block() -> bool:
        return bool(seen)

    def count(residual: torch.Tensor, inputs: Any) -> torch.Tensor:
        seen.append(1)
        return residual

    with poisoned(tap, count), pytest.raises(Aborted):
        tap.run([row], after_the_first_block)
    assert len(seen) == 1
    assert tap.run([row], never)[0].problem is None


def test_memory_that_does_not_suffice_is_told_from_other_errors(tap: MeterTap) -> None:
    rows = [asked(tap, text) for text in TEXTS[:4]]

    def crowded(residual: torch.Tensor, inputs: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    def broken(residual: torch.Tensor, inputs: Any) -> torch.Tensor:
        raise RuntimeError("a fault of one row, or of all")

    with poisoned(tap, crowded), pytest.raises(MemoryError):
        tap.run(rows, never)
    with poisoned(tap, broken):
        assert {answer.problem for answer in tap.run(rows, never)} == {"internal"}


def test_the_sentinel_reads_four_prompts_that_fit(tap: MeterTap) -> None:
    first, second = tap.probe(), tap.probe()
    assert first == second
    assert len(first) == len(PROBES) == 4
    assert max(len(p.ids) for p in first) <= tap.reader.lm.context
    assert all(math.isfinite(p.score) and len(p.vector) == 32 for p in first)
    assert tap.facts.spread > 0
    assert tap.facts.tolerance == 0.02
