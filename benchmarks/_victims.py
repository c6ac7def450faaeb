"""Short trainings that a benchmark kills: one for each way in which a step, a source or an artifact is made."""

import random
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

from _data import PIECE, planted
from perimetry.activations.feed import Cursor, Kept, Piece
from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.store import ActivationStore
from perimetry.activations.stream import LiveStream, StreamConfig
from perimetry.activations.writer import StoreWriter
from perimetry.assets import Document
from perimetry.sae.steps.costs import host_costs
from perimetry.sae.steps.native import build as native
from perimetry.train import TrainConfig, train_many

__all__ = ["VICTIMS", "Ground", "Victim"]

D_MODEL, ROWS, BATCH, STEPS = 64, 5 * PIECE, 256, 500
TINY_STEPS = 80
SHARED: dict[str, Any] = {
    "width": 512,
    "k": 4,
    "batch": BATCH,
    "lr": 3e-3,
    "fit_tokens": 2048,
    "threshold_tokens": 2048,
    # Two batches, so that the loss that revives latents is part of most steps.
    "dead_after": 2 * BATCH,
}


class Victim(NamedTuple):
    """One training, of one SAE or of several at once."""

    changes: tuple[dict[str, Any], ...]
    """What the recipe of each SAE has beside `SHARED`."""
    live: bool = False
    """Whether it reads a model while it trains, instead of a store."""
    cost: float = 1.0
    """How long one step takes, about, beside that of `topk`; a dear one gets fewer steps."""


VICTIMS: dict[str, Victim] = {
    "topk": Victim(({"architecture": "topk", "k_start": 64, "k_anneal": 0.5},)),
    "batchtopk": Victim(({"architecture": "batchtopk", "k_start": 32, "k_anneal": 0.7},)),
    "jumprelu": Victim(({"architecture": "jumprelu"},)),
    "gated": Victim(({"architecture": "gated"},), cost=2),
    "matryoshka": Victim(({"architecture": "matryoshka", "k_start": 32, "k_anneal": 0.7},)),
    "transcoder": Victim(({"architecture": "transcoder", "options": {"gate": "batchtopk", "skip": True}},)),
    "crosscoder": Victim(({"architecture": "crosscoder"},), cost=2),
    "hierarchical": Victim(({"architecture": "hierarchical"},), cost=2),
    "temporal": Victim(({"architecture": "temporal", "options": {"context": 32, "heads": 4}},), cost=5),
    "archetypal": Victim(({"architecture": "archetypal"},), cost=2),
    "matching_pursuit": Victim(({"architecture": "matching_pursuit", "width": 128},), cost=2),
    "constrained": Victim(({"architecture": "batchtopk", "ortho": 0.1, "ortho_chunk": 128, "aligned": True},), cost=2),
    "cone": Victim(({"architecture": "jumprelu", "frozen": "soft_decoder"},), cost=2),
    "pairs": Victim(({"architecture": "topk", "smooth": 0.1},), cost=2),
    "several": Victim(
        (
            {"architecture": "topk", "seed": 1, "checkpoint_every": 13},
            {"architecture": "batchtopk", "width": 256, "seed": 2, "checkpoint_every": 29},
        ),
        cost=2,
    ),
    "live": Victim(({"architecture": "batchtopk"},), live=True),
}
"""Name -> training. `constrained` has a term of its own and encoder rows that are brought back, `cone` decoder rows that
may not leave theirs, `pairs` reads adjacent tokens, `several` are two SAEs on the same batches with checkpoints of their
own, `live` reads a tiny model; the others are architectures."""


class Ground(NamedTuple):
    """What the trainings read; made once, then only read."""

    store: Path
    """A store of planted activations."""
    lm: LanguageModel
    """A tiny random model."""
    documents: list[Document]
    """What that model reads."""
    tiny: bool
    """Whether the trainings only show that the script runs."""

    @classmethod
    def make(cls, folder: Path, *, tiny: bool) -> "Ground":
        """Write the store."""
        # Once here, so that every child computes with the same code, whatever becomes of the source meanwhile.
        import_module("perimetry.sae.steps.low")
        native.compiled()
        host_costs()
        write_store(folder)
        rng = random.Random(0)
        words = ("the", "river", "stone", "a", "house", "of", "old", "people", "went", "over", "hill", "and", "sea")
        texts = (" ".join(rng.choice(words) for _ in range(60)) for _ in range(200))
        documents = [Document(f"made-up-{i}", text, {}) for i, text in enumerate(texts)]
        return cls(folder, tiny_language_model("llama"), documents, tiny)

    def configs(self, victim: Victim) -> list[TrainConfig]:
        """The recipes of a training."""
        steps = TINY_STEPS if self.tiny else round(STEPS / victim.cost)
        return [TrainConfig.model_validate(SHARED | {"tokens": steps * BATCH} | more) for more in victim.changes]

    def outs(self, victim: Victim, folder: Path) -> list[Path]:
        """A folder for each SAE of a training."""
        return [folder / f"sae-{i}" for i in range(len(victim.changes))]

    def train(self, victim: Victim, folder: Path) -> None:
        """The training itself; what was killed before goes on."""
        source: ActivationStore | LiveStream
        if victim.live:
            config = StreamConfig(context=64, batch_rows=16, chunk_tokens=4096)
            source = LiveStream(self.lm, 1, self.documents, config)
        else:
            source = ActivationStore.open(self.store)
        train_many(self.configs(victim), source, self.outs(victim, folder))


def write_store(folder: Path) -> None:
    """A store of planted activations, as a harvest would leave it, without a model."""
    folder.mkdir(parents=True)
    request = {"model": "planted", "revision": "planted", "layer": 0, "d_model": D_MODEL}
    documents: Sequence[Document] = [Document("planted", "", {})]
    writer = StoreWriter(folder, (ROWS, PIECE), documents, request)
    writer.start(TokenPolicy())
    for number, acts in enumerate(planted(ROWS, D_MODEL, 0)):
        at = torch.arange(number * PIECE, number * PIECE + len(acts))
        kept = Kept(acts.to(torch.bfloat16), torch.zeros_like(at), at, torch.zeros_like(at))
        writer.write(Piece(kept, Cursor(0, 0, int(at[-1]) + 1, 0)))
    writer.finish()
