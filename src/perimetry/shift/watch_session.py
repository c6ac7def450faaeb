"""One watched call of `generate`: tokens are taken as they come, scored some at a time, and judged."""

from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from perimetry.axes import TokenIds
from perimetry.errors import ConfigError, PromptTooLong, UsageError
from perimetry.shift.meter import Meter
from perimetry.shift.reading import Reading
from perimetry.shift.responses import ResponseCalibration
from perimetry.shift.watch_hooks import Columns, Recorder, join_columns
from perimetry.shift.watch_rows import WatchedRow, running_means
from perimetry.shift.watch_rules import Call
from perimetry.shift.watch_scores import TokenScorer

__all__ = ["OnFlag", "Session", "Watching"]

OnFlag = Literal["record", "stop"]
"""What is done with a flagged row: it is recorded, or stopped too."""


class Watching(NamedTuple):
    """How generations are watched."""

    meter: Meter
    """Scores."""
    every: int
    """Tokens between two looks."""
    on_flag: OnFlag
    """What is done with flagged rows."""
    alpha: float
    """False-alarm rate of prompts, and of responses."""
    responses: ResponseCalibration | None
    """Clean responses, if there are any."""


class _Ends(NamedTuple):
    """Where the rows end."""

    length: Int[Tensor, " batch"]
    """Columns up to the last token, that one included."""
    ended: Bool[Tensor, " batch"]
    """Whether the model ended the row itself."""


@final
class Session:
    """Follows one call of `generate`. Errors: `PromptTooLong`, `Incompatible` and those of `TokenScorer` at once."""

    def __init__(self, watching: Watching, call: Call) -> None:
        meter = watching.meter
        self.watching, self.call = watching, call
        self.scorer = TokenScorer(meter, watching.alpha)
        hidden = self.scorer.depth.logits or self.scorer.depth.foresight
        self.recorder = Recorder(meter.extractor.tap, hidden=hidden)
        self._attention = call.attention.cpu()
        self._prompt = self._attention.shape[1]
        self._ids: TokenIds = call.ids
        self._pending: list[Columns] = []
        self._left: Columns | None = None
        self._readings: list[Reading] = []
        self._ends: _Ends | None = None
        self._stop_at = torch.full((len(self._attention),), torch.iinfo(torch.int64).max)
        self._halt = torch.zeros(len(self._attention), dtype=torch.bool, device=call.ids.device)
        self._require(meter)

    def _require(self, meter: Meter) -> None:
        longest = int(self._attention.sum(1).max())
        if longest > meter.lm.context:
            raise PromptTooLong(
                f"a prompt has {longest} tokens, at most {meter.lm.context} fit the context of {meter.lm.name!r}; shorten it"
            )
        if self.watching.responses is not None:
            self.watching.responses.require(meter.identity, meter.main, self.call.sampling)

    @property
    def rows(self) -> tuple[WatchedRow, ...]:
        """The rows as of the last look; none before the first."""
        if self._ends is None:
            return ()
        pooled, (length, ended) = self.scorer.pooled().tolist(), self._ends
        return tuple(self._row(i, pooled[i], int(length[i]), bool(ended[i])) for i in range(len(pooled)))

    def step(self, input_ids: TokenIds) -> Bool[Tensor, " batch"]:
        """See one more token of each row; which rows shall stop. Errors: `ConfigError`, `UsageError`, those of scoring."""
        wanted = len(self._attention), 1 + (self.recorder.seen + 1 if self.recorder.seen else self._prompt)
        if input_ids.shape != wanted:
            raise ConfigError(
                f"generate shows {tuple(input_ids.shape)} tokens to the watch, wanted {wanted}, one more a step for each row; only "
                "plain greedy search or sampling can be watched"
            )
        self._pending.append(self.recorder.take(input_ids.shape[1] - 1))
        self._ids = input_ids
        if not self._readings or sum(part.width for part in self._pending) >= self.watching.every:
            self._look(stop=self.watching.on_flag == "stop")
        return self._halt.to(input_ids.device)

    def finish(self, width: int) -> None:
        """Score what is left of rows that turned out `width` wide. Errors: as `step`."""
        if self._pending:
            self._look(stop=False)
        if width < self._ids.shape[1]:
            # On some devices generate goes one token too far and takes it back.
            self._ids, self.scorer.table = self._ids[:, :width], self.scorer.table[:, : width - 1]
            self._ends = self._find_ends(self._ids.cpu())

    def _look(self, *, stop: bool) -> None:
        """Bring over what is pending, score it and judge the rows: the one time that the host waits for the device."""
        columns, self._pending = join_columns(self._pending), []
        ids = self._ids.cpu()
        ends, read = self._find_ends(ids), ids[:, :-1]
        same = torch.equal(columns.ids.cpu(), read[:, read.shape[1] - columns.width :])
        if not same or not torch.equal(read[:, : self._prompt], self.call.ids.cpu()):
            raise UsageError(
                "the model read other tokens than generate was given and shows; only plain greedy search or sampling can be watched"
            )
        if self._left is None:
            self._readings = self.scorer.begin(read, self._attention, columns)
        else:
            # The last token of a row has no score, even where its neighbours went on and it was read.
            held = torch.arange(self._prompt, read.shape[1]) < (ends.length - 1)[:, None]
            attention = torch.cat([self._attention, held.long()], 1)
            self.scorer.more(read, attention, join_columns([self._left, columns]))
        self._left = columns.last(1)
        self._ends = ends
        if stop:
            live = torch.tensor([row.flagged for row in self.rows]) & (ends.length == ids.shape[1])
            self._stop_at[live & ~ends.ended] = ids.shape[1]
            self._halt = (self._stop_at <= ids.shape[1]).to(self._halt.device)

    def _find_ends(self, ids: TokenIds) -> _Ends:
        response, width = ids[:, self._prompt :], ids.shape[1]
        stop = torch.isin(response, torch.tensor(self.call.eos, dtype=ids.dtype))
        own = torch.where(stop.any(1), self._prompt + 1 + stop.long().argmax(1), width + 1)
        pad = torch.zeros_like(stop)
        if self.call.pad is not None and self.call.pad not in self.call.eos:
            # Rows that something else ended, such as a stop string, go on with padding.
            pad = response == self.call.pad
        filled = torch.where(pad.any(1), self._prompt + pad.long().argmax(1), width)
        length = torch.minimum(torch.minimum(own, filled), self._stop_at).clamp(max=width)
        return _Ends(length, own <= length)

    def _row(self, index: int, pooled: float, length: int, ended: bool) -> WatchedRow:
        reading, table = self._readings[index], self.scorer.table
        first = self._prompt - int(self._attention[index].sum())
        response = table[index, self._prompt : length - 1].double()
        scores = table[index, first : max(length - 1, self._prompt)]
        running = running_means(response[~response.isnan()], closed=ended)
        row = WatchedRow(
            prompt=reading,
            scores=tuple(None if nan else s for s, nan in zip(scores.tolist(), scores.isnan().tolist(), strict=True)),
            prompt_tokens=self._prompt - first,
            generated=length - self._prompt,
            running_score=pooled,
            running=tuple(running.tolist()),
            response=None,
            flagged=reading.flagged,
            stopped=bool(self._stop_at[index] <= length) and not ended,
            ended=ended,
            sampling=self.call.sampling,
        )
        calibration = self.watching.responses
        found = None if calibration is None else calibration.read(row)
        return row if found is None else row._replace(response=found, flagged=row.flagged or found.flagged)
