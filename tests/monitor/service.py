"""A real worker with the mock behind a real supervisor, for as long as a test takes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from perimetry.config import over
from perimetry.monitor.config import MonitorConfig
from perimetry.monitor.engine import Row, Scored
from perimetry.monitor.problems import Problem
from perimetry.monitor.supervisor import Supervisor

__all__ = ["mock_config", "refused", "run", "running", "score", "text_row", "until_up"]


def mock_config(state: Path, **settings: Any) -> MonitorConfig:
    """Everything short, so that a test need not wait."""
    plain: dict[str, Any] = {
        "worker": {"tap": "mock", "mock_ms": 1.0, "state": str(state)},
        "time": {"respawn_first_s": 0.05, "drain_s": 5.0},
    }
    return MonitorConfig.model_validate(over(plain, settings))


def text_row(text: str, **more: Any) -> Row:
    """A plain text."""
    return Row((("", text),), **more)


@asynccontextmanager
async def running(config: MonitorConfig, meter: Path = Path("none"), **more: Any) -> AsyncIterator[Supervisor]:
    """A supervisor whose worker is ready."""
    engine = Supervisor(meter, config, **more)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


async def score(engine: Supervisor, *texts: str, seconds: float = 20.0, **more: Any) -> list[Scored]:
    """Readings of texts within so many seconds."""
    return await engine.score([text_row(t, **more) for t in texts], asyncio.get_running_loop().time() + seconds)


async def refused(work: Awaitable[object]) -> Problem:
    """The problem that something ends with."""
    with pytest.raises(Problem) as caught:
        await work
    return caught.value


async def until_up(engine: Supervisor, seconds: float = 20.0) -> None:
    """Until there is a worker; an error where there is none in time."""
    async with asyncio.timeout(seconds):
        while not engine.gauges.up:
            await asyncio.sleep(0.01)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """A test that is a coroutine."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(bounded())
