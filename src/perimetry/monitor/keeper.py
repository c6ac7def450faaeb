"""Keeps a worker alive: starts it, believes it once its sentinel has passed, starts it again when it dies, and gives up in the end."""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, Literal, final

from perimetry.monitor.baseline import Baseline, baseline_of
from perimetry.monitor.config import MonitorConfig
from perimetry.monitor.dispatch import Dispatcher
from perimetry.monitor.encoding import AbstractEncoder, MeterEncoder, MockEncoder
from perimetry.monitor.engine import GroupFacts, Row
from perimetry.monitor.frames import BadFrame, Frame
from perimetry.monitor.problems import Problem
from perimetry.monitor.readings import reading_of
from perimetry.monitor.rows import Ticket
from perimetry.monitor.wire import Answer, answers_of
from perimetry.monitor.worker import Worker

__all__ = ["Keeper", "State", "encoder_of"]

State = Literal["loading", "up", "restarting", "lost", "stopped"]
"""How it stands with the worker."""
_ALL: Final = 2**31
"""More tokens than anything has."""


class _Refused(Exception):
    """The worker says that it cannot work."""


def encoder_of(frame: Frame) -> AbstractEncoder:
    """The encoding that a worker describes when it is ready. Refuses one where the two do not encode alike."""
    facts, rules = frame.header["encoder"], frame.arrays["tokenizer"].tobytes().decode()
    encoder = MockEncoder() if facts is None else MeterEncoder(facts, rules)
    for probe in frame.header["probes"]:
        try:
            same = encoder.encode(Row((("", probe["text"]),)), _ALL).ids == probe["ids"]
        except Problem:
            same = False
        if not same:
            raise _Refused("sentinel: the tokenizer gives other ids here than in the worker")
    return encoder


@final
class Keeper:
    """One worker at a time, for as long as the service runs."""

    def __init__(self, meter: Path, config: MonitorConfig, dispatcher: Dispatcher, pool: Executor) -> None:
        self._meter = meter
        self._config = config
        self._dispatcher = dispatcher
        self._pool = pool
        self._deaths: deque[float] = deque()
        self._worker: Worker | None = None
        self._asked_sentinel = False
        self.state: State = "loading"
        self.why = "The model is being loaded."
        """What is wrong, in one sentence."""
        self.sentinel = "not asked yet"
        """What the sentinel said last, "ok" where it passed."""
        self.artifact: dict[str, str] = {}
        self.groups: tuple[GroupFacts, ...] = ()
        self.card: dict[str, Any] = {}
        self.baseline: Baseline | None = None
        """What the calibration prompts gave; None before the first worker was ready, and where drift cannot be judged."""
        self.encoder: AbstractEncoder | None = None
        self.restarts: Counter[str] = Counter()
        """How often a worker died, by reason."""
        self.changed: Callable[[], object] = lambda: None
        """Called whenever `state` has changed."""

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None where there is none."""
        return None if self._worker is None else self._worker.pid

    @property
    def backoff_s(self) -> float:
        """Seconds before the next start: twice as long after each recent death."""
        time = self._config.time
        return min(time.respawn_most_s, time.respawn_first_s * 2.0 ** max(0, len(self._deaths) - 1))

    def _become(self, state: State, why: str) -> None:
        self.state, self.why = state, why
        self.changed()

    def give_up(self, why: str) -> None:
        """There will be no worker any more."""
        self._become("lost", why)

    async def live(self) -> None:
        """Keep a worker until cancelled, or until too many have died: then the state is `lost`."""
        loop = asyncio.get_running_loop()
        while True:
            reason = await self._one_life()
            if self.state == "stopped":
                return
            now = loop.time()
            self.restarts[reason] += 1
            self._deaths.append(now)
            while self._deaths[0] < now - self._config.time.deaths_s:
                self._deaths.popleft()
            # What fails at its first start is not mended by another one.
            if len(self._deaths) >= self._config.time.deaths or self.state == "loading":
                self.give_up(f"The worker is not started again. {self.why}")
                return
            self._become("restarting", self.why)
            await asyncio.sleep(self.backoff_s)

    async def _one_life(self) -> str:
        """One worker from start to end; says how it ended."""
        try:
            worker = self._worker = await Worker.spawn()
        except OSError as error:
            self.why = f"The worker could not be started ({error.strerror})."
            return "spawn"
        reason = ""
        try:
            worker.open(self._meter, self._config)
            frame = await asyncio.wait_for(self._ready(worker), self._config.time.model_load_s)
            await self._up(worker, frame)
            await self._serve(worker)
        except TimeoutError:
            reason, self.why = "slow", "The model could not be loaded in time."
        except _Refused as error:
            reason, self.why = "refused", str(error)
            if self.why.startswith("sentinel: "):
                reason, self.sentinel = "sentinel", self.why.removeprefix("sentinel: ")
        except (BadFrame, KeyError, TypeError, ValueError) as error:
            reason, self.why = "protocol", f"The worker is not understood ({type(error).__name__})."
        finally:
            self._worker = None
            if self.state == "up":
                # Before anything is awaited: nothing may be let in that nobody takes.
                self._become("restarting", "The worker has died.")
            self._dispatcher.down("restarting", "The worker has died.", math.ceil(self.backoff_s) + 1)
            ended = await worker.end()
        if not reason:
            reason, self.why = ended, f"The worker has ended ({ended})."
        return reason

    async def _ready(self, worker: Worker) -> Frame:
        frame = await worker.next()
        if frame is None:
            raise _Refused("The worker ended while it loaded the model.")
        if frame.kind == "refused":
            raise _Refused(str(frame.header["why"]))
        if frame.kind != "ready":
            raise BadFrame("the worker says something else than that it is ready")
        return frame

    async def _up(self, worker: Worker, frame: Frame) -> None:
        loop = asyncio.get_running_loop()
        encoder = await loop.run_in_executor(self._pool, encoder_of, frame)
        self.baseline = await loop.run_in_executor(self._pool, baseline_of, frame)
        self.encoder, self.artifact = encoder, {str(k): str(v) for k, v in frame.header["artifact"].items()}
        self.groups = tuple(GroupFacts(**group) for group in frame.header["groups"])
        self.card = dict(frame.header["card"])
        self.sentinel, self._asked_sentinel = "ok", False
        self._become("up", "")
        self._dispatcher.up(worker)

    async def _serve(self, worker: Worker) -> None:
        """Hear the worker until it is silent for ever."""
        while True:
            try:
                frame = await asyncio.wait_for(worker.next(), self._config.time.sentinel_idle_s)
            except TimeoutError:
                self._idle(worker)
                continue
            if frame is None:
                return
            if frame.kind == "done":
                self._answered(frame)
            elif frame.kind == "sentinel":
                self._asked_sentinel = False
                if not frame.header["ok"]:
                    self.sentinel = str(frame.header["detail"])
                    worker.kill("sentinel")

    def _idle(self, worker: Worker) -> None:
        """Nothing was heard for long: ask the sentinel; a worker that was asked and still says nothing is stuck."""
        if self._asked_sentinel:
            worker.kill("hung")
        elif not self._dispatcher.flying:
            self._asked_sentinel = True
            worker.ask_sentinel()

    def _answered(self, frame: Frame) -> None:
        """Hand the answers of a batch to those who still wait for them. Errors: `BadFrame`."""
        try:
            number, seconds = int(frame.header["batch"]), float(frame.arrays["seconds"][0])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BadFrame("an answer does not say of what") from error
        answers = answers_of(frame)
        began = self._dispatcher.flying[0].began if self._dispatcher.flying else None
        tickets = self._dispatcher.done(number, seconds)
        alive = [ticket for ticket in tickets if not ticket.settled]
        if alive and len(answers) != len(tickets):
            raise self._contradicted(alive)
        for ticket, answer in zip(tickets, answers, strict=False):
            _settle(ticket, answer, began or ticket.queued_at, seconds)
        self._dispatcher.pump()

    def _contradicted(self, alive: list[Ticket]) -> BadFrame:
        for ticket in alive:
            ticket.settle("failed", problem=Problem("internal", "The worker gave no answer."))
        return BadFrame("the worker answers other rows than it was asked")

    async def stop(self) -> None:
        """End the worker, gently where it lets itself."""
        self._become("stopped", "The service is stopping.")
        if self._worker is not None:
            await self._worker.end(gently=True)


def _settle(ticket: Ticket, answer: Answer, began: float, seconds: float) -> None:
    """End a row with its answer, unless it has ended already."""
    if ticket.settled:
        return
    assert ticket.encoded is not None
    times: dict[str, Any] = {"queue_ms": 1e3 * max(0.0, began - ticket.queued_at), "forward_ms": 1e3 * seconds}
    try:
        result = reading_of(ticket.row, ticket.encoded, answer, **times)
    except Problem as problem:
        ticket.settle("failed", problem=problem)
    else:
        ticket.settle("ok", result=result)
