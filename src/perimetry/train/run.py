"""One training on disk: opened or resumed, advanced, saved, finished."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perimetry.artifact import MANIFEST
from perimetry.axes import Acts
from perimetry.config import build
from perimetry.errors import ConfigError, WidthMismatch
from perimetry.measures.reconstruction import ReconstructionSums
from perimetry.measures.sparsity import dead_share, density, fires, l0
from perimetry.runtime import computes_with
from perimetry.sae.base import AbstractSAE, Codes
from perimetry.sae.formats import SAEInfo, load_sae, save_sae
from perimetry.sae.steps.dispatch import ways_taken
from perimetry.storage import hash_json, remove_stale
from perimetry.train.causal import Rest, require_rest
from perimetry.train.checkpoint import Checkpoint, latest_checkpoint, remove_checkpoints, save_checkpoint
from perimetry.train.fits import fit_centre, fit_scales, require_finite, scale_row
from perimetry.train.log import TrainLog
from perimetry.train.recipe import TrainConfig
from perimetry.train.source import Held, View
from perimetry.train.trainer import Trainer

__all__ = ["Job", "Run", "TrainResult"]

EVALUATION_ROWS = 4096


class Job(NamedTuple):
    """One SAE to train."""

    config: TrainConfig
    """How."""
    out: Path
    """Folder of the training."""
    view: View = View()
    """What it reads of the rows of the source."""
    model_info: Mapping[str, Any] = {}
    """Fields of `SAEInfo` that say what the activations are."""
    rest: Rest | None = None
    """The model after the place that is read, for a causal loss."""


class TrainResult(NamedTuple):
    """A finished training."""

    path: Path
    """Folder of the SAE artifact."""
    sae: AbstractSAE
    """The SAE, for raw activations."""
    info: SAEInfo
    """What is stored beside it."""
    digest: str
    """Identity of the artifact."""
    fvu: float
    """Fraction of variance unexplained on tokens of after the budget, by the inference rule; lower is better."""
    l0: float
    """Mean active count there."""
    dead: float
    """Share of latents that never fired there, 0 to 1; lower is better."""
    tokens: int
    """Training tokens."""


class _Held(NamedTuple):
    fvu: float
    l0: float
    dead: float
    rates: Tensor


def measure(sae: AbstractSAE, acts: Acts) -> _Held:
    """FVU, L0, dead share and firing rates on `acts`, by the inference rule."""
    sums = ReconstructionSums.start(sae.targets(acts))
    counts = torch.zeros(sae.d_sae, dtype=torch.int64, device=acts.device)
    active = 0.0
    for part in acts.split(EVALUATION_ROWS):
        codes: Codes
        codes, reconstruction = sae(sae.inputs(part))
        sums = sums.add(sae.targets(part), reconstruction)
        counts += fires(codes.indices, codes.values, sae.d_sae)
        active += float(l0(codes.values).double().sum())
    tokens = acts.shape[0]
    return _Held(sums.fvu(), active / tokens, dead_share(counts), density(counts, tokens))


class Run:
    """The folder of one training: `checkpoints/` and `log.jsonl` while it lasts, `sae/` at the end.

    The caller holds the lock of the folder.
    """

    def __init__(self, job: Job, *, resume: bool) -> None:
        """Find what is there already. Errors: `ConfigError` when it is the work of another config, or a model is missing."""
        require_rest(job.config, job.rest)
        self.config, self.out, self.view, self.rest = job.config, job.out, job.view, job.rest
        self.info = build(SAEInfo, {**job.model_info, "architecture": self.config.architecture}, "model_info")
        self.trainer: Trainer | None = None
        self.data: str | None = None
        self.result: TrainResult | None = None
        self.across: list[str] = []
        """Where a resumed run computes with other things than the one before: bits may differ from there on."""
        self.log = TrainLog(self.out / "log.jsonl", self.config.log_every)
        # What a kill in the middle of a save leaves would pile up, kill by kill.
        remove_stale(self.out)
        remove_stale(self.checkpoints)
        if not resume:
            remove_checkpoints(self.checkpoints)
            return
        if (self.path / MANIFEST).is_file():
            self.result = self._finished()
            remove_checkpoints(self.checkpoints)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.out / "checkpoints"

    @property
    def path(self) -> Path:
        """Where the SAE goes."""
        return self.out / "sae"

    @property
    def step(self) -> int:
        """Steps done."""
        return 0 if self.trainer is None else self.trainer.step

    def _require_same(self, before: Mapping[str, Any]) -> None:
        now = self.config.model_dump(mode="json")
        keys = sorted(now.keys() | before.keys())
        different = [
            f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in keys if now.get(key) != before.get(key)
        ]
        if different:
            raise ConfigError(
                f"{self.out} holds a training with another config: {'; '.join(different)}; give the same config, another "
                "folder, or ask not to resume"
            )

    def _require_same_info(self, before: str) -> None:
        if before != self._info_hash():
            raise ConfigError(
                f"{self.out} holds a training on another model, layer or token policy; give the same ones, another folder, "
                "or ask not to resume"
            )

    def _info_hash(self) -> str:
        return hash_json(self.info.model_dump(mode="json"))

    def _finished(self) -> TrainResult:
        loaded = load_sae(self.path)
        self._require_same(loaded.info.train)
        details = loaded.info.details
        self._require_same_info(str(details["model_info"]))
        assert loaded.info.digest is not None, "a manifest gives a digest"
        return TrainResult(
            self.path,
            loaded.sae,
            loaded.info,
            loaded.info.digest,
            float(details["fvu"]),
            float(details["l0"]),
            float(details["dead"]),
            self.config.steps * self.config.batch,
        )

    def begin(self, sample: Acts) -> None:
        """Start from seeded weights, with scale and centre fitted on `sample`. Errors: `NonFinite`, `TooFewSamples`."""
        rows = self.view.of(sample)
        require_finite(rows, "the tokens for the fits")
        parts = self.config.row_parts(rows.shape[1])
        scales = fit_scales(rows, self.config.scale_rule, parts)
        self.trainer = Trainer(self.config, scales, fit_centre(rows * scale_row(scales, parts), parts), self.rest)
        self.log.start(0)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Start from a checkpoint. Errors: `ConfigError` when it is of another config or model."""
        document = checkpoint.document
        self._require_same(document["config"])
        self._require_same_info(document["model_info"])
        scale = document["scale"]
        scales = scale if isinstance(scale, list) else [float(scale)]
        self.trainer = Trainer(self.config, scales, torch.zeros(int(document["row_width"])), self.rest)
        self.trainer.load(checkpoint)
        self.data = document["data"]
        before, now = document.get("computes_with", {}), computes_with() | ways_taken()
        changed = [f"step {self.step}: {k} {before[k]} -> {now[k]}" for k in sorted(before) if before[k] != now.get(k)]
        self.across = [*document.get("across", []), *changed]
        self.log.start(self.step)

    def require_data(self, first: Acts) -> None:
        """Remember the first batch, or check it. Errors: `ConfigError` when it is not the one trained on before."""
        rows = self.view.of(first)
        assert self.trainer is not None, "begin or resume comes first"
        if rows.shape[1] != self.trainer.row_width:
            raise WidthMismatch(
                f"{self.out} holds a training on rows of width {self.trainer.row_width}, this source gives {rows.shape[1]}; "
                "give the same data, or another folder"
            )
        identity = hashlib.sha256(rows.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        if self.data not in (None, identity):
            raise ConfigError(
                f"{self.out} holds a training on other activations than this source gives; give the same data, dtype and "
                "number of threads, another folder, or ask not to resume"
            )
        self.data = identity

    def find_checkpoint(self) -> Checkpoint | None:
        """The newest whole checkpoint of the folder."""
        return latest_checkpoint(self.checkpoints)

    def advance(self, acts: Acts) -> dict[str, Any] | None:
        """One step on a batch; gives the line of the log, where one was due."""
        assert self.trainer is not None, "begin or resume comes first"
        return self.log.add(self.trainer, self.trainer.advance(self.view.of(acts)))

    def checkpoint_due(self) -> bool:
        """Whether the step just made ends with a checkpoint."""
        return self.step % self.config.checkpoint_steps == 0 or self.step == self.config.steps

    def save(self, source_state: dict[str, Any] | None) -> None:
        """Write a checkpoint."""
        assert self.trainer is not None, "begin or resume comes first"
        state = self.trainer.state()
        more = {
            "data": self.data,
            "model_info": self._info_hash(),
            "source": source_state,
            "computes_with": computes_with() | ways_taken(),
            "across": self.across,
        }
        save_checkpoint(self.checkpoints, state._replace(document=state.document | more))

    def finish(self, held: Held) -> TrainResult:
        """Fit the threshold, fold the scale, measure, write the SAE, remove the checkpoints."""
        trainer, config, acts = self.trainer, self.config, self.view.of(held.acts)
        assert trainer is not None, "begin or resume comes first"
        sae = trainer.sae
        sae.requires_grad_(False).eval()  # noqa: FBT003
        sae.fold_scales(trainer.scales)
        scale = trainer.scales[0] if len(trainer.scales) == 1 else list(trainer.scales)
        # A causal loss reads the text itself, from which the held-out tokens come, too.
        unseen = None if config.causal else held.unseen
        details: dict[str, Any] = {"scale": scale, "model_info": self._info_hash(), "held_unseen": unseen}
        if self.across:
            details["resumed_across"] = self.across
        settled = sae.settle(acts, config.k)
        if settled:
            details |= {"threshold_ema": trainer.threshold} | settled
        measured = measure(sae, acts)
        details |= {"fvu": measured.fvu, "l0": measured.l0, "dead": measured.dead, "held_tokens": acts.shape[0]}
        info = self.info.model_copy(
            update={
                "tokens": trainer.tokens,
                "seed": config.seed,
                "train": config.model_dump(mode="json"),
                "details": details,
            }
        )
        digest = save_sae(sae, self.path, info, rates=measured.rates)
        remove_checkpoints(self.checkpoints)
        info = info.model_copy(update={"digest": digest})
        return TrainResult(self.path, sae, info, digest, measured.fvu, measured.l0, measured.dead, trainer.tokens)
