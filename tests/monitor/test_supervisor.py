"""Deadlines, faults of the worker and room, with a real worker process that misbehaves on demand."""

import asyncio
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.monitor.service import mock_config, refused, run, running, score, text_row, until_up

from perimetry.monitor.dispatch import BatchDone
from perimetry.monitor.engine import Engine, Scored, Some
from perimetry.monitor.mock_tap import mock_score
from perimetry.monitor.problems import Problem
from perimetry.monitor.supervisor import Supervisor

SLACK = 0.1
"""Seconds that an answer may come after its deadline."""


def test_scores_come_in_order_and_say_what_was_asked(tmp_path: Path) -> None:
    async def work() -> None:
        seen: list[BatchDone] = []
        async with running(mock_config(tmp_path), observe=seen.append) as engine:
            checked: Engine = engine
            assert set(checked.checks().values()) == {"ok"}
            assert checked.artifact["backend"] == "mock"
            assert [group.n for group in checked.groups] == [999]
            texts = [f"text number {i}" for i in range(40)]
            found = await score(engine, *texts)
            assert [s.score for s in found] == [mock_score(t) for t in texts]
            assert all(s.tokens == () and s.concepts == () for s in found)
            (one,) = await score(engine, "héllo", detail="tokens")
            assert "".join(t.text for t in one.tokens) == "héllo"
            (two,) = await score(engine, "hello", detail="concepts", top_concepts=3)
            assert [c.latent for c in two.concepts] == [0, 1, 2]
            assert len(two.tokens) == 5
            assert engine.gauges.rows == 0
        assert sum(batch.rows for batch in seen) == 42
        assert max(batch.rows for batch in seen) <= 32

    run(work)


def test_a_deadline_is_kept_while_the_tap_sleeps_and_the_watchdog_ends_it(tmp_path: Path) -> None:
    async def work() -> None:
        config = mock_config(tmp_path, time={"batch_hard_ms": 500})
        async with running(config) as engine:
            loop, pid = asyncio.get_running_loop(), engine.gauges.pid
            begin = loop.time()
            problem = await refused(score(engine, "mock:sleep=30", seconds=0.2))
            assert problem.kind == "deadline"
            assert 0.2 <= loop.time() - begin <= 0.2 + SLACK
            assert engine.gauges.rows == 0
            late = await refused(score(engine, "behind it", seconds=0.1))
            assert late.kind in ("deadline", "deadline-unreachable")
            while engine.gauges.up:
                await asyncio.sleep(0.01)
            assert (await refused(score(engine, "now"))).kind == "restarting"
            await until_up(engine)
            assert engine.gauges.pid != pid
            assert engine.gauges.restarts == {"hung": 1}
            assert (await score(engine, "next"))[0].score == mock_score("next")

    run(work)


def test_a_shared_batch_gives_its_other_rows_their_scores(tmp_path: Path) -> None:
    async def work() -> None:
        async with running(mock_config(tmp_path)) as engine:
            impatient = asyncio.create_task(refused(score(engine, "impatient text", seconds=0.1)))
            patient = asyncio.create_task(score(engine, "mock:slow=0.4 x", seconds=5.0))
            assert (await impatient).kind == "deadline"
            assert engine.gauges.rows == 1
            assert (await patient)[0].score == mock_score("mock:slow=0.4 x")

    run(work)


def test_what_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    async def work() -> None:
        async with running(mock_config(tmp_path)) as engine:
            loop, pid = asyncio.get_running_loop(), engine.gauges.pid
            task = asyncio.create_task(score(engine, "mock:slow=25"))
            while engine.gauges.queue_rows or not engine.gauges.rows:
                await asyncio.sleep(0.002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert engine.gauges.rows == 0
            begin = loop.time()
            assert (await score(engine, "next"))[0].score == mock_score("next")
            assert loop.time() - begin < 5
            assert engine.gauges.pid == pid

    run(work)


def test_a_killed_worker_costs_its_rows_only(tmp_path: Path) -> None:
    async def work() -> None:
        parent = os.getpid()
        async with running(mock_config(tmp_path)) as engine:
            tasks = [asyncio.create_task(refused(score(engine, f"mock:slow=20 {i}"))) for i in range(3)]
            while engine.gauges.rows < 3 or engine.gauges.queue_rows:
                await asyncio.sleep(0.002)
            assert engine.gauges.pid is not None
            os.kill(engine.gauges.pid, signal.SIGKILL)
            problems = await asyncio.gather(*tasks)
            assert {(p.kind, p.status) for p in problems} == {("restarting", 503)}
            assert engine.checks()["worker"] != "ok"
            assert engine.gauges.rows == 0
            await until_up(engine, 5.0)
            assert (await score(engine, "next"))[0].score == mock_score("next")
            assert os.getpid() == parent
            assert engine.gauges.restarts == {"exit -9": 1}

    run(work)


@pytest.mark.parametrize(("what", "reason"), [("mock:exit", "exit 3"), ("mock:raise", "exit 70")])
def test_a_worker_that_ends_itself_is_started_again(tmp_path: Path, what: str, reason: str) -> None:
    async def work() -> None:
        async with running(mock_config(tmp_path)) as engine:
            assert (await refused(score(engine, what))).kind == "restarting"
            await until_up(engine)
            assert engine.gauges.restarts == {reason: 1}

    run(work)


def test_a_number_that_is_none_fails_alone_and_never_reads_as_safe(tmp_path: Path) -> None:
    async def work() -> None:
        async with running(mock_config(tmp_path)) as engine:
            good = [asyncio.create_task(score(engine, f"good one {i}")) for i in range(7)]
            problem = await refused(score(engine, "mock:nan x"))
            assert (problem.kind, problem.status) == ("non-finite", 500)
            found = [s for scores in await asyncio.gather(*good) for s in scores]
            assert [s.score for s in found] == [mock_score(f"good one {i}") for i in range(7)]
            assert all(math.isfinite(s.score) for s in found)
            assert (await refused(score(engine, "fine", "mock:nan", "fine too"))).kind == "non-finite"
            assert engine.gauges.rows == 0

    run(work)


def test_a_batch_too_large_for_the_memory_is_halved_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with running(mock_config(tmp_path)) as engine:
            assert len(await score(engine, "mock:crowd", "other text")) == 2
            assert (await refused(score(engine, "mock:memory"))).kind == "out-of-memory"
            assert engine.gauges.restarts == {}

    run(work)


def test_five_deaths_and_the_engine_gives_up(tmp_path: Path) -> None:
    async def work() -> None:
        config = mock_config(tmp_path, time={"respawn_first_s": 0.01, "deaths": 3})
        async with running(config) as engine:
            lost = asyncio.create_task(engine.lost())
            for _ in range(3):
                await until_up(engine)
                await refused(score(engine, "mock:exit"))
            assert "not started again" in await lost
            assert (await refused(score(engine, "x"))).status == 503
            assert engine.checks()["worker"] != "ok"

    run(work)


def test_a_full_room_refuses_and_empties_again(tmp_path: Path) -> None:
    async def work() -> None:
        async with running(
            mock_config(tmp_path, limits={"queue_rows": 4, "prompt_tokens": 50, "queue_tokens": 60})
        ) as engine:
            held = asyncio.create_task(score(engine, "mock:slow=0.3", "b", "c"))
            while engine.gauges.rows < 3:
                await asyncio.sleep(0.002)
            problem = await refused(score(engine, "d", "e"))
            assert (problem.kind, problem.retry_after_s) == ("queue-full", 1)
            assert (await refused(score(engine, "x" * 48))).kind == "queue-full"
            assert engine.gauges.rows == 3
            assert len(await held) == 3
            assert len(await score(engine, "a", "b", "c", "d")) == 4

    run(work)


def test_what_cannot_be_scored_is_refused_before_it_reaches_the_worker(tmp_path: Path) -> None:
    async def work() -> None:
        limits = {"prompt_tokens": 100, "request_tokens": 150}
        async with running(mock_config(tmp_path, limits=limits)) as engine:
            assert (await refused(score(engine, "x" * 101))).kind == "too-many-tokens"
            assert (await refused(score(engine, "x" * 80, "y" * 80))).kind == "too-many-tokens"
            assert (await refused(score(engine, " \n"))).kind == "nothing-to-score"
            assert (await refused(score(engine, "late", seconds=-1.0))).kind == "deadline"
            assert await score(engine) == []
            assert engine.gauges.rows == 0

    run(work)


def test_a_deadline_that_cannot_be_met_is_refused_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        config = mock_config(tmp_path, worker={"mock_ms": 200.0}, batch={"rows": 1})
        async with running(config) as engine:
            await score(engine, "learn")
            held = asyncio.create_task(score(engine, *"abcdef"))
            while engine.gauges.rows < 6:
                await asyncio.sleep(0.002)
            problem = await refused(score(engine, "hurry", seconds=0.5))
            assert problem.kind == "deadline-unreachable"
            assert len(await held) == 6

    run(work)


def test_a_stop_lets_what_has_begun_finish_and_takes_nothing_new(tmp_path: Path) -> None:
    async def work() -> None:
        engine = Supervisor(Path("none"), mock_config(tmp_path))
        await engine.start()
        held = asyncio.create_task(score(engine, "mock:slow=0.3"))
        while not engine.gauges.rows:
            await asyncio.sleep(0.002)
        stopping = asyncio.create_task(engine.stop())
        await asyncio.sleep(0)
        assert (await refused(score(engine, "new"))).kind == "draining"
        assert engine.checks()["draining"] != "ok"
        assert len(await held) == 1
        await stopping

    run(work)


def test_a_stop_that_takes_too_long_refuses_the_rest(tmp_path: Path) -> None:
    async def work() -> None:
        engine = Supervisor(Path("none"), mock_config(tmp_path, time={"drain_s": 0.1}))
        await engine.start()
        held = asyncio.create_task(refused(score(engine, "mock:sleep=30")))
        while not engine.gauges.rows:
            await asyncio.sleep(0.002)
        await engine.stop()
        assert (await held).status == 503

    run(work)


def test_a_stream_ends_with_the_score_and_never_has_too_many_parts(tmp_path: Path) -> None:
    async def work() -> None:
        async with running(mock_config(tmp_path)) as engine:
            text, loop = "some text of the stream " * 20, asyncio.get_running_loop()
            (whole,) = await score(engine, text)
            for flush, parts in ((128, 4), (480, 1), (1000, 1), (16, 16)):
                found = [part async for part in engine.stream(text_row(text), flush, loop.time() + 20)]
                some = [part for part in found if isinstance(part, Some)]
                final = found[-1]
                assert isinstance(final, Scored)
                assert final._replace(queue_ms=0.0, forward_ms=0.0) == whole._replace(queue_ms=0.0, forward_ms=0.0)
                assert [part.seq for part in some] == list(range(parts))
                assert "".join(t.text for part in some for t in part.tokens) == text
                assert [p.begin for p in some[1:]] == [p.end for p in some[:-1]]
                assert some[-1].running_score == whole.score
            assert engine.gauges.rows == 0

    run(work)


def test_a_stream_that_is_left_gives_its_room_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with running(mock_config(tmp_path)) as engine:
            loop = asyncio.get_running_loop()
            stream = engine.stream(text_row("abc " * 100), 16, loop.time() + 20)
            async for part in stream:
                assert isinstance(part, Some)
                assert engine.gauges.rows == 1
                break
            await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue]
            assert engine.gauges.rows == 0
            with pytest.raises(Problem, match="deadline"):
                async for _ in engine.stream(text_row("mock:slow=9 " + "x" * 100), 16, loop.time() + 0.2):
                    pass
            assert engine.gauges.rows == 0

    run(work)


def test_the_process_that_listens_imports_no_torch() -> None:
    code = (
        "import sys, perimetry.monitor.supervisor, perimetry.monitor.child, perimetry.monitor.mock_tap; "
        "print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
