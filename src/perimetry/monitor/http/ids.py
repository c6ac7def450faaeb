"""Names of requests and of scores."""

import os
import re
import time
from collections.abc import Callable
from typing import final

__all__ = ["Names", "valid_name"]

_VALID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def valid_name(name: str) -> bool:
    """Whether a client may give a request this name.

    >>> valid_name("gw-17.a"), valid_name("a b"), valid_name("x" * 65)
    (True, False, False)
    """
    return _VALID.fullmatch(name) is not None


@final
class Names:
    """UUIDs of version 7 (RFC 9562): ascending as text within this process, whatever the wall clock does."""

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._now, self._last, self._count = now_ms, -1, 0

    def fresh(self) -> str:
        """A new one.

        >>> a, b = Names(lambda: 5), Names(lambda: 5)
        >>> first, second = a.fresh(), a.fresh()
        >>> first < second, len(first), first[14]
        (True, 36, '7')
        """
        now = self._now()
        if now > self._last:
            self._last, self._count = now, 0
        else:
            self._count += 1
            if self._count > 0xFFF:
                self._last, self._count = self._last + 1, 0
        tail = int.from_bytes(os.urandom(8), "big") & (2**62 - 1) | 2**63
        value = (self._last & (2**48 - 1)) << 80 | 7 << 76 | self._count << 64 | tail
        hexed = f"{value:032x}"
        return "-".join((hexed[:8], hexed[8:12], hexed[12:16], hexed[16:20], hexed[20:]))
