"""Text that a dictionary is judged on: rows of tokens from documents that no training has seen."""

from abc import ABC
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from perimetry.activations.prompts import PromptBatch, collate, scorable
from perimetry.activations.tap import Tap
from perimetry.activations.text import PackedRow, pack, shuffled, take_split
from perimetry.assets import ASSETS, read_texts
from perimetry.errors import Incompatible, TooFewSamples
from perimetry.evals.sae.base import AbstractEvaluation, Place, Subject, require_rows_alone
from perimetry.evals.sae.shelf import Shelf
from perimetry.storage import hash_json
from perimetry.ui import track

__all__ = ["HeldRows", "TextEvaluation", "counted", "require_readable"]

LEAST_ROWS = 2


class HeldRows(NamedTuple):
    """Rows that a model reads, the units of what is measured on text."""

    rows: list[PackedRow]
    """Each with a position that may count."""
    names: tuple[str, ...]
    """Place in the order, document and token where each starts: distinct, and the same for every dictionary."""

    def key(self) -> str:
        """Identity of the tokens and of which of them may count."""
        return hash_json([[row.ids, row.countable] for row in self.rows])

    def batches(self, size: int, pad_id: int) -> Iterator[tuple[slice, PromptBatch]]:
        """The rows in batches, each with its place among all of them."""
        for start in range(0, len(self.rows), size):
            part = slice(start, min(start + size, len(self.rows)))
            yield part, collate(self.rows[part], pad_id)


class TextEvaluation(AbstractEvaluation, ABC):
    """An evaluation on running text."""

    text: str = "wikipedia"
    """Asset, file or folder of documents."""
    split: tuple[float, float] = (0.95, 1.0)
    """Share of an asset's documents, by the hash of their id, that is read: by default the one that no training, profile or
    calibration sees. All of a source of the user's own is read, unless `split_own`."""
    split_own: bool = False
    """Whether `split` goes for a source of the user's own as well."""
    context: int = Field(default=128, ge=2)
    """Tokens of a row, with what the token policy adds."""
    rows: int = Field(default=256, ge=LEAST_ROWS)
    """Most rows to read."""
    apart: bool = True
    """Take only rows that share no document with one another, so that they are independent units; False takes them one after
    the other, for a source of few long documents, whose intervals are then too narrow."""
    batch: int = Field(default=8, ge=1)
    """Rows in a pass of the model; changes nothing but memory and rounding."""
    seed: int = 0
    """Of the order in which documents are taken, and of every other random choice."""

    def held_rows(self, place: Place, *, progress: bool = False) -> HeldRows:
        """The rows of the setting. Errors: `TooFewSamples` for fewer than two, those of `read_texts` and `pack`."""
        documents = list(read_texts(self.text, progress=progress))
        if self.text in ASSETS or self.split_own:
            documents = take_split(documents, *self.split)
        found: list[PackedRow] = []
        taken: set[int] = set()
        for row in pack(shuffled(documents, f"evaluation:{self.seed}"), place.lm, place.policy, self.context):
            if len(found) == self.rows:
                break
            if not any(row.countable) or (self.apart and not taken.isdisjoint(row.source)):
                continue
            found.append(row)
            taken.update(row.source)
        if len(found) < LEAST_ROWS:
            raise TooFewSamples(
                f"{self.text!r} gives {len(found)} rows of {self.context} tokens from {len(documents)} documents, at least "
                f"{LEAST_ROWS} are wanted{' that share no document' if self.apart else ''}; give more text"
                f"{', or set apart to false' if self.apart else ''}"
            )
        names = tuple(f"{i}:{row.document_ids[0]}@{row.start.offset}" for i, row in enumerate(found))
        return HeldRows(found, names)

    def rows_once(self, place: Place, shelf: Shelf, *, progress: bool = False) -> HeldRows:
        """`held_rows`, read once for all dictionaries of a shelf. Errors: as there."""
        chosen = ("text", "split", "split_own", "context", "rows", "apart", "seed")
        settings = {name: value for name, value in self.model_dump(mode="json").items() if name in chosen}
        key = {"what": "held rows", "place": place.key()} | settings
        return shelf.once(key, lambda: self.held_rows(place, progress=progress))

    def acts_once(self, place: Place, held: HeldRows, shelf: Shelf, *, progress: bool = False) -> dict[str, Tensor]:
        """`counted_acts`, from the shelf where all dictionaries of a place find them."""
        key = self.shelf_key(place, held, "counted activations, 1")
        return shelf.get(key, lambda: self.counted_acts(place, held, progress=progress))

    def counted_acts(self, place: Place, held: HeldRows, *, progress: bool = False) -> dict[str, Tensor]:
        """Activations (float32) of the positions that count, `acts`, row by row, and how many each row has, `counts`."""
        acts: list[Float[Tensor, "token d_model"]] = []
        counts: list[Int[Tensor, " row"]] = []
        tap = Tap(place.lm, place.layer)
        parts = held.batches(self.batch, place.lm.pad_id)
        for _, batch in track(parts, "activations", len(held.rows), progress, lambda item: len(item[1].ids)):
            residual = tap.read(batch.ids, batch.attention)
            where = counted(residual, batch.countable, place)
            acts.append(residual[where].float().cpu())
            counts.append(where.sum(1).cpu())
        return {"acts": torch.cat(acts), "counts": torch.cat(counts)}

    def shelf_key(self, place: Place, held: HeldRows, what: str) -> dict[str, Any]:
        """What tensors of these rows at this place depend on."""
        return {"what": what, "place": place.key(), "rows": held.key()}


def counted(residual: Float[Tensor, "row seq d_model"], countable: Bool[Tensor, "row seq"], place: Place) -> Tensor:
    """The positions that count by the token policy, the norm rule included, on the device of the activations."""
    return scorable(residual, countable.to(residual.device), place.policy)


def require_readable(subject: Subject) -> None:
    """Refuse a dictionary that does not read and give back the output of one block of its place.

    Errors: `Incompatible` for one that reads several places, gives another than it reads, or reads tokens in order; `WidthMismatch`.
    """
    sae, place = subject.sae, subject.place
    if sae.reads != "one":
        raise Incompatible(
            f"{subject.name!r} is a {sae.architecture}, which reads {'two' if sae.reads == 'pair' else 'several'} places; this "
            "evaluation judges dictionaries that give back what they read at one place; give one of these"
        )
    require_rows_alone(sae)
    if sae.d_model != place.lm.d_model:
        sae.check_width(torch.empty(0, place.lm.d_model), f"layer {place.layer} of {place.lm.name!r}")
