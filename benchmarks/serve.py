"""What the service costs beside direct scoring: its throughput over that of `Meter.score`, and the latency that it adds to one prompt.

The same meter is loaded here, and by `perimetry serve` in a process of its own; both have the same threads, and they take turns, so that one rests while the
other works. `direct` is `Meter.score` on all prompts in one call, which sorts them by length and batches them by tokens. `batches` sends
them as requests of 32 prompts, two at a time; `single` as requests of one prompt, 32 at a time. For latency each prompt is scored directly
and then over HTTP, alone. Before any of it the scores of both are compared: they must be equal within the tolerance of batching.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from _common import Spread, finish, parser, ratio, row, runtime_of, spread, take_turns
from _meters import clean_documents, make_meter, passages_of
from _service import Client, Service, serving
from perimetry.runtime import Runtime
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter

BATCH_TOKENS = 16_384
"""As the service has it."""
TOGETHER = 32
"""Prompts of one request, and requests of one prompt at once."""
ASKED = {"timeout_ms": 60_000, "alpha": 0.05}
TOLERANCE = 1e-3
"""Of the scores' own spread."""


def bodies_of(texts: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Requests of many prompts, and of one."""
    many = [{"inputs": list(texts[i : i + TOGETHER])} | ASKED for i in range(0, len(texts), TOGETHER)]
    return many, [{"input": text} | ASKED for text in texts]


def asked(service: Service, bodies: Sequence[dict[str, Any]], connections: int) -> list[dict[str, Any]]:
    """Answers, over so many connections."""

    async def talk() -> list[dict[str, Any]]:
        async with Client(service, min(connections, len(bodies))) as client:
            return await client.score(bodies)

    return asyncio.run(talk())


def differences(meter: Meter, service: Service, texts: Sequence[str]) -> float:
    """Largest difference of a score to the direct one, in spreads of the scores. Errors: `RuntimeError` where it is too large."""
    direct = [r.score for r in meter.score(list(texts), explain=False, batch_tokens=BATCH_TOKENS)]
    served = [one["score"] for answer in asked(service, bodies_of(texts)[0], 2) for one in answer["results"]]
    width = max(max(direct) - min(direct), 1e-9)
    found = max(abs(a - b) / width for a, b in zip(direct, served, strict=True))
    if found > (0.05 if meter.lm.dtype.itemsize < 4 else TOLERANCE):
        raise RuntimeError(
            f"the service scores otherwise than the meter itself: a difference of {found:.3g} of the scores' range"
        )
    return found


async def _latencies(meter: Meter, service: Service, texts: Sequence[str]) -> tuple[list[float], list[float]]:
    """Milliseconds of each text directly and over HTTP; every second time HTTP goes first."""
    seconds: dict[str, list[float]] = {"direct": [], "served": []}
    async with Client(service, 1) as client:
        for at, text in enumerate(texts):
            for arm in ("direct", "served") if at % 2 else ("served", "direct"):
                began = time.perf_counter()
                if arm == "direct":
                    meter.score([text], explain=False)
                else:
                    await client.score([{"input": text} | ASKED])
                seconds[arm].append(1e3 * (time.perf_counter() - began))
    return seconds["direct"], seconds["served"]


def median_interval(values: Sequence[float], draws: int = 2000) -> Spread:
    """The median with its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (draws, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return Spread(float(np.median(values)), float(low), float(high), len(values))


def latencies(meter: Meter, service: Service, texts: Sequence[str], rounds: int) -> dict[str, Spread]:
    """Milliseconds of each prompt alone: directly, over HTTP, and the difference prompt by prompt."""
    asyncio.run(_latencies(meter, service, texts[:4]))
    direct, served = asyncio.run(_latencies(meter, service, list(texts) * rounds))
    added = median_interval([b - a for a, b in zip(direct, served, strict=True)])
    return {"direct": spread(direct), "single": spread(served), "added": added}


def measure(meter: Meter, service: Service, texts: Sequence[str], repeats: int) -> list[dict[str, Any]]:
    """Rows of the results."""
    many, single = bodies_of(texts)
    about: dict[str, Any] = {
        "model": meter.lm.name,
        "prompts": len(texts),
        "difference": differences(meter, service, texts),
    }
    calls = {
        "direct": lambda: meter.score(list(texts), explain=False, batch_tokens=BATCH_TOKENS),
        "batches": lambda: asked(service, many, 2),
        "single": lambda: asked(service, single, TOGETHER),
    }
    seconds = take_turns(calls, repeats)
    # A throughput is one over a time.
    rows = [
        row("throughput_ratio", arm, "direct", ratio(seconds, "direct", arm), **about) for arm in ("batches", "single")
    ]
    rows += [
        row("prompts_per_s", arm, "", spread([len(texts) / s for s in taken]), **about)
        for arm, taken in seconds.items()
    ]
    for arm, taken in latencies(meter, service, texts, repeats).items():
        method = {"method": "median over pairs, 95 % bootstrap interval"} if arm == "added" else {}
        rows.append(row("latency_ms", arm, "", taken, **about | method))
    return [*rows, row("resident_mb", "service", "", spread([service.resident_bytes() / 2**20]), **about)]


def run(meter: Meter, folder: Path, texts: Sequence[str], runtime: Runtime, arguments: Any) -> list[dict[str, Any]]:
    """Start the service over a meter that lies in `folder`, and measure."""
    threads = arguments.threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
    with (
        tempfile.TemporaryDirectory() as place,
        serving(folder, Path(place), threads=threads, device=str(runtime.device)) as service,
    ):
        return measure(meter, service, texts, arguments.repeats)


def main() -> None:
    """Measure and print."""
    found = parser(__doc__)
    found.add_argument("--meter", type=Path, help="a meter of your own, or of the demo (runs/demo/meter)")
    found.add_argument("--prompts", type=int, default=0, help="number of prompts (default: 256, with --tiny 8)")
    arguments = found.parse_args()
    runtime = runtime_of(arguments)
    documents = clean_documents(tiny=arguments.tiny)
    texts = passages_of(
        documents[::-1],
        arguments.prompts or (8 if arguments.tiny else 256),
        *((5, 20) if arguments.tiny else (15, 120)),
    )
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.meter or Path(place) / "meter"
        if arguments.meter is None:
            make_meter(Path(place), documents, runtime, tiny=arguments.tiny)
        rows = run(load_meter(folder, runtime=runtime), folder, texts, runtime, arguments)
    finish(arguments, "serve", rows)


if __name__ == "__main__":
    main()
