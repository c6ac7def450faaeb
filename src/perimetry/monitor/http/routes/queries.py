"""Parameters in addresses, read as strictly as bodies."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from perimetry.monitor.http.sinks import EventQuery

__all__ = ["Asked", "whole"]

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?\d*([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def whole(value: object) -> object:
    """Digits as a number; everything else is refused, also what Python would read as one.

    >>> whole("12"), whole(7)
    (12, 7)
    """
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]{1,19}", value, re.ASCII) is None:
            raise ValueError("a whole number is wanted")
        return int(value)
    return value


def _moment(value: object) -> object:
    if isinstance(value, str):
        if _MOMENT.fullmatch(value) is None:
            raise ValueError("a moment with its zone is wanted, as 2026-01-31T12:00:00Z")
        return datetime.fromisoformat(value.upper())
    return value


Whole = BeforeValidator(whole)
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]


class Asked(BaseModel):
    """Which events are wanted."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)

    since: Annotated[int, Whole, Field(ge=0, le=2**63 - 1)] = 0
    """Only ids above this one."""
    begin: Moment | None = Field(None, alias="from")
    """Only from then on."""
    end: Moment | None = Field(None, alias="to")
    """Only before."""
    flagged: Literal["true", "false"] | None = None
    """Only flagged ones, or only the others."""
    group: Annotated[str, StringConstraints(max_length=64)] | None = None
    """Only of this group of the calibration."""
    limit: Annotated[int, Whole, Field(ge=1, le=1000)] = 100
    """How many at most."""

    def query(self) -> EventQuery:
        """The same for the store."""
        flagged = None if self.flagged is None else self.flagged == "true"
        return EventQuery(self.since or None, self.begin, self.end, flagged, self.group, self.limit)
