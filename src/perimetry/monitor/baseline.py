"""What the worker tells of the calibration, so that the traffic can be held against it. Neither torch nor numpy is needed here."""

import array
import math
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from perimetry.monitor.frames import BadFrame, Frame

__all__ = [
    "FLOAT_MOST",
    "Baseline",
    "baseline_arrays",
    "baseline_header",
    "baseline_of",
    "pack_summary",
    "unpack_summary",
]

FLOAT_MOST: Final = 3.4e38
"""A number of a summary is smaller than this, as 32 bits hold no larger ones."""


class Baseline(NamedTuple):
    """What the calibration prompts gave: for each its group and its summary."""

    groups: tuple[str, ...]
    """Names of the groups."""
    group: "array.array[int]"
    """Of each calibration prompt the place of its group in `groups`; type `i`."""
    width: int
    """Numbers of a summary. The first is the score that drift is judged by: the main score, or of several layers the largest of theirs in
    clean standard deviations."""
    summaries: "array.array[float]"
    """The summaries of the calibration prompts, one after the other; type `f`."""
    rates: "array.array[float]"
    """Share of clean tokens on which each concept fires; empty where concepts have no one number. Type `f`."""
    why: str
    """Why the summaries are of one number only; empty where they hold more."""


def baseline_header(baseline: Baseline) -> dict[str, Any]:
    """What of it goes into the header of a frame."""
    return {"groups": list(baseline.groups), "width": baseline.width, "why": baseline.why}


def baseline_arrays(baseline: Baseline) -> dict[str, "array.array[Any]"]:
    """What of it goes into the body."""
    return {"group": baseline.group, "summaries": baseline.summaries, "rates": baseline.rates}


def baseline_of(frame: Frame) -> Baseline | None:
    """The baseline in a frame; None where there is none. Errors: `BadFrame`."""
    said = frame.header.get("baseline")
    if said is None:
        return None
    try:
        arrays, groups, width = frame.arrays, tuple(map(str, said["groups"])), int(said["width"])
        found = Baseline(groups, arrays["group"], width, arrays["summaries"], arrays["rates"], str(said["why"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadFrame(f"a baseline lacks what makes it one ({type(error).__name__})") from error
    whole = width >= 1 and len(found.summaries) == width * len(found.group)
    if not whole or not all(0 <= g < len(groups) for g in found.group) or not all(map(math.isfinite, found.summaries)):
        raise BadFrame("a baseline contradicts itself")
    return found


def pack_summary(summary: Sequence[float]) -> bytes:
    """A summary as an event keeps it: 32-bit floats, the least significant byte first. Numbers are below `FLOAT_MOST`.

    >>> unpack_summary(pack_summary((1.5, -2.0)))
    (1.5, -2.0)
    """
    return struct.pack(f"<{len(summary)}f", *summary)


def unpack_summary(data: bytes) -> tuple[float, ...]:
    """The summary of an event. Errors: `ValueError` where the bytes are no whole numbers of floats."""
    if len(data) % 4:
        raise ValueError(f"a summary has {len(data)} bytes; a multiple of 4 is wanted")
    return struct.unpack(f"<{len(data) // 4}f", data)
