"""The tap of a meter. Runs in the worker only: it imports torch."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, final

import torch
import transformers

from perimetry import __version__
from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import EncodedPrompt, policy_ids
from perimetry.artifact import MANIFEST
from perimetry.errors import NonFinite, NoScorableToken, PerimetryError, PromptTooLong
from perimetry.monitor.config import MonitorConfig
from perimetry.monitor.engine import GroupFacts
from perimetry.monitor.meter_answers import answers_of_batch, calibration_spread, group_facts
from perimetry.monitor.meter_baseline import Summariser, meter_baseline
from perimetry.monitor.meter_card import card_of, written_on
from perimetry.monitor.tap import PROBES, Aborted, AbstractTap, Facts, Probe
from perimetry.monitor.wire import Answer, Asked
from perimetry.runtime import RuntimeConfig, dtype_name, start
from perimetry.shift.base import Evidence
from perimetry.shift.evidence import Prompt
from perimetry.shift.meter import Meter
from perimetry.shift.multi import MultiMeter
from perimetry.shift.multi_loading import load_reader
from perimetry.shift.reader import Depth
from perimetry.storage import hash_json, read_json

__all__ = ["TOLERANCES", "MeterTap", "encoder_facts"]

TOLERANCES: Final = {"float32": 0.02, "bfloat16": 0.2}
"""How far the sentinel's scores may move, in standard deviations of the calibration, by compute dtype."""
_ALPHA: Final = 0.5
"""A reading is flagged by the service, not here, so that this rate means nothing."""


@final
class MeterTap(AbstractTap):
    """Reads rows as the meter itself reads prompts. Only what is asked for leaves: no text comes in, no residual goes out."""

    def __init__(
        self, reader: Meter | MultiMeter, config: MonitorConfig, calibration: str, written: str | None = None
    ) -> None:
        """`calibration`: SHA-256 of the file of calibration scores. `written`: when the meter was, of `written_on`."""
        self.reader = reader
        self._written = written
        self._config = config
        self._calibration = calibration
        self._summariser = Summariser(reader)
        self._names = self._summariser.names
        self._depth = Depth.of(self._names)
        self._cancelled: Callable[[], bool] = lambda: False
        self._exact = config.batch.mode == "exact"
        if self._exact:
            torch.use_deterministic_algorithms(mode=True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        for block in reader.lm.blocks:
            block.register_forward_pre_hook(self._leave_if_cancelled)

    @classmethod
    def open(cls, folder: Path, config: MonitorConfig) -> "MeterTap":
        """The meter of a folder with its model. Errors: as `load_reader`."""
        worker = config.worker
        runtime = start(RuntimeConfig(device=worker.device, threads=worker.threads))
        reader = load_reader(folder, runtime=runtime, model=worker.model, adapter=worker.adapter)
        file = "joint.safetensors" if isinstance(reader, MultiMeter) else "calibration.safetensors"
        return cls(reader, config, str(read_json(folder / MANIFEST)["files"][file]), written_on(folder))

    @property
    def facts(self) -> Facts:
        """The meter, as it was loaded and verified."""
        lm, policy = self.reader.lm, self.reader.policy
        dtype = dtype_name(lm.dtype)
        groups: list[GroupFacts] = group_facts(self.reader, self._config.alpha)
        spread = calibration_spread(self.reader)
        rules = lm.plain_tokenizer.to_str()
        digest = self.reader.identity
        card = card_of(self.reader, self._config.alpha, self._written)
        encoder, baseline = encoder_facts(lm, policy), meter_baseline(self.reader)
        return Facts(
            self._artifact(), groups, digest, spread, TOLERANCES[dtype], encoder, rules, baseline=baseline, card=card
        )

    def _artifact(self) -> dict[str, str]:
        lm, reader = self.reader.lm, self.reader
        meters = list(reader.meters.values()) if isinstance(reader, MultiMeter) else [reader]
        saes = [str(m.info.digest) for m in meters]
        template = str(lm.tokenizer.chat_template) if reader.policy.template == "chat" else ""
        return {
            "model_rev": lm.revision,
            "tap": "+".join(f"resid_post.{m.extractor.tap.layer}" for m in meters),
            "sae_sha256": saes[0] if len(saes) == 1 else hash_json(saes),
            "calibration_sha256": self._calibration,
            "dtype": dtype_name(lm.dtype),
            "backend": f"transformers/{lm.device.type}",
            "batching": self._config.batch.mode,
            "meter": reader.identity,
            "model": lm.name,
            "detector": reader.main,
            "template_sha256": hashlib.sha256(template.encode()).hexdigest() if template else "none",
            "perimetry": __version__,
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
        }

    def _leave_if_cancelled(self, module: Any, inputs: Any) -> None:  # noqa: ARG002
        if self._cancelled():
            raise Aborted

    def run(self, rows: Sequence[Asked], cancelled: Callable[[], bool]) -> list[Answer]:
        """As promised. A batch in which a row cannot be read is read again, each row alone."""
        self._cancelled = cancelled
        try:
            if self._exact:
                return [self._alone(row) for row in rows]
            try:
                return self._read(rows)
            except Aborted:
                raise
            except Exception as error:
                self._require_usable(error)
                return [self._alone(row) for row in rows]
        finally:
            self._cancelled = lambda: False

    def _alone(self, row: Asked) -> Answer:
        if self._cancelled():
            raise Aborted
        try:
            return self._read([row])[0]
        except NonFinite:
            return Answer(problem="non-finite")
        except NoScorableToken:
            return Answer(problem="nothing-to-score")
        except PromptTooLong:
            return Answer(problem="too-many-tokens")
        except Aborted:
            raise
        except Exception as error:
            self._require_usable(error)
            return Answer(problem="internal")

    def _require_usable(self, error: Exception) -> None:
        """Raise where the error is not one of a row: of memory as `MemoryError`, of a device as it is."""
        if isinstance(error, PerimetryError):
            return
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            if self.reader.lm.device.type == "cuda":
                torch.cuda.empty_cache()
            raise MemoryError from error
        if self.reader.lm.device.type != "cpu":
            raise error

    def _read(self, rows: Sequence[Asked]) -> list[Answer]:
        """Answers in order, by the meter's own read path. Errors: whatever it raises."""
        prompts = [
            Prompt(
                str(at),
                "",
                EncodedPrompt(row.ids, row.countable, [None] * len(row.ids), truncated=False, words=row.words),
            )
            for at, row in enumerate(rows)
        ]
        found: dict[int, Answer] = {}
        for places, captured in self._captures(prompts):
            mine = [prompts[at] for at in places]
            seen = self._evidence(captured)
            given: Any = seen if isinstance(self.reader, MultiMeter) else seen[0]
            readings = self.reader.read(captured, mine, self._names, _ALPHA, evidence=given)  # pyright: ignore[reportArgumentType]
            short = self._summariser.of(readings, seen)
            made = answers_of_batch(self.reader, captured, readings, [rows[at] for at in places], seen, short)
            found |= dict(zip(places, made, strict=True))
        return [found[at] for at in range(len(rows))]

    def _evidence(self, captured: Any) -> tuple[Evidence, ...]:
        """What each tap gave, under its dictionary: made once, for scores, concepts and summaries."""
        if not isinstance(self.reader, MultiMeter):
            return (captured.evidence(self.reader.sae),)
        return tuple(c.evidence(m.sae) for c, m in zip(captured, self.reader.meters.values(), strict=True))

    def _captures(self, prompts: Sequence[Prompt]) -> Iterator[tuple[tuple[int, ...], Any]]:
        budget = self._config.batch.tokens
        for batch in self.reader.batches(prompts, self._depth, batch_tokens=budget, side="right"):
            yield batch.rows, batch.captured

    def probe(self) -> list[Probe]:
        """The prompts of the sentinel, each alone. Errors: `NonFinite`, `NoScorableToken`."""
        found: list[Probe] = []
        for text in PROBES:
            prompt = self._fitting(text)
            ((_, captured),) = self._captures([prompt])
            reading = self.reader.read(captured, [prompt], self._names, _ALPHA)[0]  # pyright: ignore[reportArgumentType]
            first = captured[0] if isinstance(self.reader, MultiMeter) else captured
            mean = first.acts.double().mean(0)
            found.append(Probe(prompt.text, prompt.encoded.ids, reading.score, mean.tolist()))
        return found

    def _fitting(self, text: str) -> Prompt:
        """The beginning of a text that fits into the context, cut between words where there are some."""
        while True:
            try:
                return self.reader.prepare(["sentinel"], [text], truncate=False)[0]
            except PromptTooLong:
                if len(text) == 1:
                    raise
            text = text[: max(1, math.floor(len(text) * 0.7))].rpartition(" ")[0] or text[: max(1, len(text) // 2)]


def encoder_facts(lm: LanguageModel, policy: TokenPolicy) -> dict[str, Any]:
    """What the service needs to encode as the meter does, beside the tokenizer."""
    before, after = policy_ids(lm, policy)
    tokenizer: Any = lm.tokenizer
    template = tokenizer.get_chat_template() if tokenizer.chat_template else None
    return {
        "before": before,
        "after": after,
        "special_ids": sorted(lm.special_ids),
        "exclude_special": policy.exclude_special,
        "template": policy.template,
        "bos": lm.bos_id if policy.prepend_bos else None,
        "context": lm.context,
        "names": {name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)},
        "chat_template": template,
    }
