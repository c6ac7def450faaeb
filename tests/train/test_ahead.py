import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.train.planted import Planted, config

from perimetry.errors import NonFinite
from perimetry.train import Job, View, train_jobs
from perimetry.train.ahead import ReadAhead
from perimetry.train.source import Feed

ROOT = Path(__file__).parents[2]


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "read-ahead"]


def numbers(made: list[int], stop: int = 1000) -> Iterator[torch.Tensor]:
    for i in range(stop):
        made.append(i)
        yield torch.full((1, 1), float(i))


def test_it_gives_the_batches_in_order_and_ends_where_they_end() -> None:
    ahead = ReadAhead(numbers([], 20), lambda: None, 3)
    assert [int(x) for x in ahead] == list(range(20))
    assert next(ahead, None) is None
    assert readers() == []


def test_it_never_reads_further_ahead_than_it_may() -> None:
    made: list[int] = []
    ahead = ReadAhead(numbers(made), lambda: None, 2)
    for wanted in range(5):
        assert int(next(ahead)) == wanted
        deadline = time.monotonic() + 5
        # Two wait in the queue and one in the reader's hands.
        while len(made) < wanted + 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(made) == wanted + 4
    ahead.close()
    assert len(made) == 8
    assert readers() == []


def test_the_state_is_of_the_batch_that_was_handed_out() -> None:
    made: list[int] = []
    ahead = ReadAhead(numbers(made), lambda: {"made": made[-1]}, 4)
    for wanted in range(6):
        next(ahead)
        assert ahead.state == {"made": wanted}
    ahead.close()


@pytest.mark.parametrize("error", [NonFinite("document 'a' at position 3"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_comes_at_its_batch_as_it_is(error: BaseException) -> None:
    def broken() -> Iterator[torch.Tensor]:
        yield from numbers([], 2)
        raise error

    ahead = ReadAhead(broken(), lambda: None, 5)
    assert [int(next(ahead)) for _ in range(2)] == [0, 1]
    with pytest.raises(type(error)) as caught:
        next(ahead)
    assert caught.value is error
    assert readers() == []


def test_a_generator_is_closed_by_the_thread_that_runs_it() -> None:
    closed: list[str] = []

    def watched() -> Iterator[torch.Tensor]:
        try:
            yield from numbers([])
        finally:
            closed.append(threading.current_thread().name)

    ahead = ReadAhead(watched(), lambda: None, 2)
    next(ahead)
    ahead.close()
    assert closed == ["read-ahead"]


def test_a_program_that_forgets_it_ends_all_the_same() -> None:
    program = (
        "import torch\nfrom perimetry.train.ahead import ReadAhead\n"
        "def forever():\n    while True:\n        yield torch.zeros(1, 1)\n"
        "next(ReadAhead(forever(), lambda: None, 2))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60, cwd=ROOT).returncode == 0


class Stateful(Planted):
    """Tells how many batches it has made."""

    made = 0

    def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[torch.Tensor]:
        for step, acts in enumerate(super().batches(batch, seed, start_step), start_step):
            self.made = step + 1
            yield acts

    def state(self) -> dict[str, object]:
        return {"made": self.made}

    def restore(self, state: dict[str, object]) -> None:
        pass


def test_the_feed_gives_the_same_batches_ahead_or_not() -> None:
    feeds = [Feed(Stateful(), config(), ahead) for ahead in (0, 1, 7)]
    assert all(torch.equal(feeds[0].sample(), feed.sample()) for feed in feeds)
    for step in range(12):
        wanted, *others = [feed.take(step) for feed in feeds]
        assert all(torch.equal(wanted, other) for other in others)
        if step >= 4:
            assert [feed.state() for feed in feeds] == [{"made": step + 1}] * 3
    for feed in feeds:
        feed.close()
    assert readers() == []


def test_an_sae_reads_its_columns_alone(tmp_path: Path) -> None:
    class Columns(Planted):
        def __init__(self, start: int, stop: int) -> None:
            super().__init__()
            self.part = slice(start, stop)

        def batches(self, batch: int, seed: int = 0, start_step: int = 0) -> Iterator[torch.Tensor]:
            for acts in super().batches(batch, seed, start_step):
                yield acts[:, self.part].contiguous()

    views = {"left": View(((0, 16),)), "right": View(((16, 32),)), "swapped": View(((16, 32), (0, 16)))}
    jobs = [Job(config(seed=n), tmp_path / name, view, {"layer": n}) for n, (name, view) in enumerate(views.items())]
    together = train_jobs(jobs, Planted())
    assert [result.info.layer for result in together] == [0, 1, 2]
    for n, (start, stop) in enumerate([(0, 16), (16, 32)]):
        job = jobs[n]._replace(out=tmp_path / f"alone-{n}", view=View())
        assert train_jobs([job], Columns(start, stop), ahead=0)[0].digest == together[n].digest
    assert together[2].sae.d_model == 32
    assert readers() == []
