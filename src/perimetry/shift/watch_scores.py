"""Scores of the tokens of a generation as they come, by the code that scores whole prompts."""

from collections.abc import Sequence
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import EncodedPrompt, PromptBatch, policy_ids, scorable, token_text
from perimetry.activations.tap import TapLogits
from perimetry.axes import Attention, PerPrompt, TokenIds, TokenMask
from perimetry.errors import ConfigError, NonFinite, PolicyMismatch
from perimetry.shift.base import LogitStats
from perimetry.shift.evidence import Capture, Pass, Prompt
from perimetry.shift.meter import Meter
from perimetry.shift.pooling import parse_score, pool
from perimetry.shift.reader import Depth
from perimetry.shift.reading import Reading
from perimetry.shift.tables import LEVELS
from perimetry.shift.watch_hooks import Columns

__all__ = ["TokenScorer", "prompt_of"]

BEFORE: Final = 2
"""Counted tokens that a score of a token may look back at (`transition`)."""


def prompt_of(lm: LanguageModel, policy: TokenPolicy, name: str, ids: list[int]) -> Prompt:
    """Tokens as the prompt that the token policy makes of a text. Special tokens inside do not count where the policy says so.

    Errors: `PolicyMismatch` where they do not begin and end as the policy wants.
    """
    before, after = policy_ids(lm, policy)
    inner = ids[len(before) : len(ids) - len(after)]
    whole = ids[: len(before)] == before and ids[len(ids) - len(after) :] == after and inner
    if not whole or (not before and lm.bos_id is not None and ids[0] == lm.bos_id):
        wanted = "a beginning-of-sequence token" if policy.prepend_bos and lm.bos_id is not None else "none"
        raise PolicyMismatch(
            f"prompt {name!r} is not made as the meter's token policy makes it (template {policy.template!r}, {wanted} first, "
            "then the text); encode it so, as perimetry.activations.prompts.encode does"
        )
    pieces = [token_text(lm, i) for i in inner]
    spans: list[tuple[int, int] | None] = []
    at = 0
    for piece in pieces:
        spans.append((at, at + len(piece)))
        at += len(piece)
    text = lm.plain_tokenizer.decode(inner, skip_special_tokens=False)
    counts = [not (policy.exclude_special and i in lm.special_ids) for i in inner]
    outside = policy.template == "none" and not policy.exclude_special
    encoded = EncodedPrompt(
        ids=ids,
        countable=[outside] * len(before) + counts + [False] * len(after),
        spans=[*[None] * len(before), *spans, *[None] * len(after)],
        truncated=False,
        words=max(1, len(text.split())),
    )
    return Prompt(name, "".join(pieces), encoded)


@final
class TokenScorer:
    """The scores of a batch of growing rows: the prompts first, then some columns at a time.

    Errors: `ConfigError` for a meter whose main score is of whole prompts, or whose SAE reads sequences.
    """

    def __init__(self, meter: Meter, alpha: float) -> None:
        self.meter, self.alpha = meter, alpha
        self.name = parse_score(meter.main, LEVELS)
        self.depth = Depth.of([meter.main])
        if LEVELS[self.name.detector] != "token":
            raise ConfigError(
                f"the meter judges by {meter.main!r}, which scores whole prompts, and a response is scored token by token; "
                "calibrate a meter with a token score as main, such as surprise"
            )
        if meter.sae.in_order:
            raise ConfigError(
                f"the SAE of the meter ({meter.sae.architecture}) reads sequences of a fixed length and cannot follow a response; "
                "take a meter with another SAE"
            )
        self.prompts: list[Prompt] = []
        self.table: Float[Tensor, "batch seq"] = torch.zeros(0, 0)
        """Score of each token; NaN where it does not count."""
        self._recent: Capture | None = None

    def begin(self, ids: TokenIds, attention: Attention, columns: Columns) -> list[Reading]:
        """Read the prompts, as `Meter.score` would. Errors: as there, and `PolicyMismatch`."""
        lm, policy, real = self.meter.lm, self.meter.policy, attention.bool()
        self.prompts = [
            prompt_of(lm, policy, str(i), row[m].tolist()) for i, (row, m) in enumerate(zip(ids, real, strict=True))
        ]
        countable = torch.zeros_like(real)
        countable[real] = torch.tensor([c for p in self.prompts for c in p.encoded.countable])
        batch = PromptBatch(ids, attention, countable)
        rows = range(len(self.prompts))
        capture = self._gather(list(rows), batch, columns.residual, columns.hidden)
        readings = self.meter.read(capture, self.prompts, [self.meter.main], self.alpha)
        where = torch.zeros_like(real)
        where[real] = torch.cat(capture.counted)
        self.table = torch.full(ids.shape, torch.nan)
        self.table[where] = torch.tensor([t.score for r in readings for t in r.tokens])
        self._recent = _recent(capture)
        return readings

    def more(self, ids: TokenIds, attention: Attention, columns: Columns) -> None:
        """Score what came after the columns of before. `columns` begins one column earlier, with what foretold the first new one.

        `ids` and `attention`: of all columns so far. Errors: `NonFinite`.
        """
        first = self.table.shape[1]
        window = slice(first - 1, ids.shape[1])
        countable = attention[:, window].bool() & self._plain(ids[:, window])
        countable[:, 0] = False
        residual = columns.residual.cpu()
        counts = scorable(residual, countable, self.meter.policy)
        rows = counts.any(1).nonzero()[:, 0]
        self.table = torch.cat([self.table, torch.full(counts[:, 1:].shape, torch.nan)], 1)
        if not rows.numel():
            return
        batch = PromptBatch(ids[rows, window], attention[rows, window], countable[rows])
        hidden = None if columns.hidden is None else columns.hidden[rows.to(columns.hidden.device)]
        capture = self._gather(rows.tolist(), batch, residual[rows], hidden)
        before = attention[rows, : first - 1].sum(1)
        capture = capture._replace(positions=capture.positions + before[capture.prompt], prompt=rows[capture.prompt])
        where = torch.zeros(self.table.shape, dtype=torch.bool)
        where[:, window] = counts
        self.table[where] = self._score(capture)

    def pooled(self) -> PerPrompt:
        """The main score of all that is scored, prompt and response."""
        held = ~self.table.isnan()
        reference = self.meter.normal.references.get(self.name.detector)
        return pool(self.table[held], held.nonzero()[:, 0], len(self.table), self.name.pooling, reference)

    def _plain(self, ids: TokenIds) -> TokenMask:
        if not self.meter.policy.exclude_special:
            return torch.ones_like(ids, dtype=torch.bool)
        return ~torch.isin(ids, torch.tensor(sorted(self.meter.lm.special_ids), dtype=ids.dtype))

    def _gather(self, rows: list[int], batch: PromptBatch, residual: Tensor, hidden: Tensor | None) -> Capture:
        full = None if hidden is None else TapLogits(self.meter.lm, residual, hidden)
        prompts = [self.prompts[i] for i in rows]
        return self.meter.extractor.gather(rows, prompts, batch, Pass(residual, full), logits=self.depth.logits)

    def _score(self, new: Capture) -> Float[Tensor, " token"]:
        """Scores of new tokens, which may look back at the last ones of before."""
        assert self._recent is not None, "a prompt comes before its response"
        whole = _joined([self._recent, new])
        order = whole.prompt.argsort(stable=True)
        whole, fresh = _select(whole, order), order >= len(self._recent.tokens)
        rows, compact = whole.prompt.unique(return_inverse=True)
        evidence = whole._replace(prompt=compact, words=torch.ones(len(rows))).evidence(self.meter.sae)
        scores = self.meter.normal.detectors[self.name.detector].score(evidence)[fresh]
        if not bool(scores.isfinite().all()):
            bad = int(whole.prompt[fresh][~scores.isfinite()][0])
            raise NonFinite(f"row {bad} has no finite {self.name.detector!r}; finite scores are wanted; leave it out")
        self._recent = _recent(whole)
        return scores


def _joined(parts: Sequence[Capture]) -> Capture:
    """The tokens of captures of the same rows, one capture after the other."""
    stats = [part.logits for part in parts if part.logits is not None]
    ahead = [part.foresight for part in parts if part.foresight is not None]
    return parts[0]._replace(
        acts=torch.cat([part.acts for part in parts]),
        tokens=torch.cat([part.tokens for part in parts]),
        positions=torch.cat([part.positions for part in parts]),
        prompt=torch.cat([part.prompt for part in parts]),
        logits=LogitStats(*(torch.cat(field) for field in zip(*stats, strict=True))) if stats else None,
        foresight=torch.cat(ahead) if ahead else None,
    )


def _select(capture: Capture, index: Int[Tensor, " index"]) -> Capture:
    """Some of its tokens."""
    return capture._replace(
        acts=capture.acts[index],
        tokens=capture.tokens[index],
        positions=capture.positions[index],
        prompt=capture.prompt[index],
        logits=None if capture.logits is None else LogitStats(*(field[index] for field in capture.logits)),
        foresight=None if capture.foresight is None else capture.foresight[index],
    )


def _recent(capture: Capture) -> Capture:
    """The last tokens of each row of a capture in the order of its rows."""
    ends = torch.bincount(capture.prompt).cumsum(0)
    left = ends[capture.prompt] - torch.arange(len(capture.prompt))
    return _select(capture, (left <= BEFORE).nonzero()[:, 0])
