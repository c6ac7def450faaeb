"""Many clients, of which some leave, some are late and some poison: every place comes back and no score is another's."""

import asyncio
import os
import random
import signal
from pathlib import Path

from tests.monitor.service import mock_config, run, running, score, text_row, until_up

from perimetry.monitor.engine import Scored
from perimetry.monitor.mock_tap import mock_score
from perimetry.monitor.problems import Problem
from perimetry.monitor.supervisor import Supervisor

CLIENTS = 200


async def client(engine: Supervisor, rng: random.Random, name: int) -> str:
    """One client of the storm; says how it went. A score must be its own."""
    loop = asyncio.get_running_loop()
    text = f"client {name} " + "x" * rng.randrange(40)
    if rng.random() < 0.05:
        text = "mock:nan " + text
    seconds = rng.choice([0.002, 0.05, 30.0])
    work = asyncio.create_task(engine.score([text_row(text)], loop.time() + seconds))
    if rng.random() < 0.3:
        await asyncio.wait([work], timeout=rng.random() * 0.05)
        work.cancel()
    try:
        (found,) = await work
    except asyncio.CancelledError:
        return "cancelled"
    except Problem as problem:
        return problem.kind
    assert isinstance(found, Scored)
    assert found.score == mock_score(text)
    assert not text.startswith("mock:nan")
    return "ok"


def test_a_storm_leaves_nothing_behind(tmp_path: Path) -> None:
    async def work() -> None:
        rng = random.Random(7)
        async with running(mock_config(tmp_path, limits={"queue_rows": 100})) as engine:
            clients = [asyncio.create_task(client(engine, random.Random(rng.random()), i)) for i in range(CLIENTS)]
            outcomes = await asyncio.gather(*clients)
            assert (
                engine.gauges.rows == engine.gauges.queue_rows == engine.gauges.queue_tokens == engine.room.tokens == 0
            )
            kinds = {"ok", "cancelled", "deadline", "deadline-unreachable", "non-finite", "queue-full"}
            assert set(outcomes) <= kinds
            assert {"ok", "cancelled"} <= set(outcomes)
            assert engine.gauges.restarts == {}
            assert (await score(engine, "calm"))[0].score == mock_score("calm")

    run(work)


def test_a_storm_in_which_the_worker_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    async def work() -> None:
        rng = random.Random(8)
        async with running(mock_config(tmp_path, worker={"mock_ms": 20.0}, batch={"rows": 4})) as engine:
            clients = [asyncio.create_task(client(engine, random.Random(rng.random()), i)) for i in range(CLIENTS)]
            while not any(task.done() for task in clients):
                await asyncio.sleep(0.001)
            assert engine.gauges.pid is not None
            os.kill(engine.gauges.pid, signal.SIGKILL)
            outcomes = await asyncio.gather(*clients)
            assert "restarting" in outcomes
            assert engine.gauges.rows == engine.room.tokens == 0
            await until_up(engine)
            assert (await score(engine, "calm"))[0].score == mock_score("calm")

    run(work)
