"""What the model's last hidden state foretells of the next token's concepts and activation: sums, and a few whole prompts."""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Acts
from perimetry.errors import NonFinite, TooFewSamples, WidthMismatch
from perimetry.sae.base import Codes
from perimetry.shift.base import Evidence
from perimetry.shift.features import ahead_rows
from perimetry.shift.sketch import BottomK, keyed_hash, row_hash
from perimetry.shift.tallies import add_by_concept

__all__ = ["Foresight", "Held", "Sums"]

_CHUNK: Final = 4096
_ROWS: Final = 4096
_PLACES: Final = 2**20
_LEAST: Final = 10
S = TypeVar("S", bound="Sums")


class Sums(NamedTuple):
    """Sums over tokens, float64; g is the last hidden state at the token before, and a 1."""

    gram: Float[Tensor, "feature feature"]
    """Of g g'."""
    concepts: Float[Tensor, "d_sae feature"]
    """Of g, over the tokens on which a concept is active."""
    acts: Float[Tensor, "d_model feature"]
    """Of x g', x the activation."""
    outer: Float[Tensor, "d_model d_model"]
    """Of x x'."""

    @classmethod
    def zeros(cls: type[S], d_model: int, d_sae: int) -> S:
        """Nothing seen yet."""
        shapes = ((d_model + 1, d_model + 1), (d_sae, d_model + 1), (d_model, d_model + 1), (d_model, d_model))
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add(self, hidden: Acts, acts: Acts, codes: Codes) -> None:
        """See some tokens, in place."""
        features = torch.cat([hidden.double(), torch.ones(hidden.shape[0], 1, dtype=torch.float64)], 1)
        x = acts.double()
        self.gram.addmm_(features.T, features)
        self.acts.addmm_(x.T, features)
        self.outer.addmm_(x.T, x)
        add_by_concept(self.concepts, codes, features)


class Held(NamedTuple):
    """Whole prompts kept aside, about a fifth of all tokens, at most 4,096 of them."""

    known: Sums
    """Sums over all other tokens."""
    sums: Sums
    """Sums over the tokens kept aside."""
    hidden: Acts
    """Last hidden state at the token before each of these, bf16."""
    acts: Acts
    """Their activations, bf16."""
    codes: Codes
    """Their active concepts; a value is 1 where active, else 0."""


@final
class Foresight:
    """Sums over the clean tokens whose pass ran to the end, and a sample of whole prompts of them; merges in any order."""

    def __init__(self, sums: Sums, sample: BottomK, seed: int) -> None:
        """Use `empty` or `from_state`."""
        self.sums = sums
        self.sample = sample
        """Tokens: `hidden` and `acts` bf16, `indices` int32 (sorted; `d_sae` is padding); a prompt's tokens together."""
        self.seed = seed

    @classmethod
    def empty(cls, d_model: int, d_sae: int, seed: int) -> "Foresight":
        """Nothing seen yet."""
        rows = torch.zeros(0, d_model, dtype=torch.bfloat16)
        columns = {"hidden": rows, "acts": rows.clone(), "indices": torch.zeros(0, 1, dtype=torch.int32)}
        none = torch.zeros(0, dtype=torch.int64)
        return cls(Sums.zeros(d_model, d_sae), BottomK(_ROWS, none, columns, {"indices": d_sae}), seed)

    @property
    def tokens(self) -> int:
        """Clean tokens seen."""
        return int(self.sums.gram[-1, -1])

    def update(self, evidence: Evidence) -> None:
        """See clean prompts; those whose pass stopped at the tap tell nothing. Errors: `WidthMismatch`, `NonFinite`."""
        foresight = evidence.foresight
        if foresight is None:
            return
        wanted = self.sums.gram.shape[0] - 1
        if foresight.shape[1] != wanted:
            raise WidthMismatch(
                f"the last hidden state has width {foresight.shape[1]}, wanted {wanted} as after every block; models that "
                "project it are not read, so run the forward pass to the tap only"
            )
        if not bool(foresight.isfinite().all()):
            raise NonFinite(
                "the last hidden state holds NaN or infinity; finite numbers are wanted; compute it in float32"
            )
        keys = self._keys(evidence)
        for rows in ahead_rows(evidence).split(_CHUNK):
            hidden, acts, codes = foresight[rows], evidence.acts[rows], evidence.codes.select(rows)
            self.sums.add(hidden, acts, codes)
            low = self.sample.wants(keys[rows])
            indices = codes.indices.masked_fill(codes.values == 0, codes.width).sort(1).values.int()
            columns = {"hidden": hidden[low].bfloat16(), "acts": acts[low].bfloat16(), "indices": indices[low]}
            self.sample.offer(keys[rows][low], columns)

    def _keys(self, evidence: Evidence) -> Int[Tensor, " token"]:
        """Hash of the prompt's tokens, with the position in its last 20 bits: the lowest keys are whole prompts."""
        words = row_hash(torch.stack([evidence.tokens, evidence.positions], 1), self.seed)
        prompts = torch.zeros(evidence.n_prompts, dtype=torch.int64).index_add_(0, evidence.prompt, words)
        return keyed_hash(prompts)[evidence.prompt] // _PLACES * _PLACES + evidence.positions % _PLACES

    def merge(self, other: "Foresight") -> "Foresight":
        """What both saw."""
        sums = Sums(*(mine + theirs for mine, theirs in zip(self.sums, other.sums, strict=True)))
        return Foresight(sums, self.sample.merge(other.sample), self.seed)

    def held_out(self, name: str) -> Held:
        """Prompts kept aside, for what must be judged on tokens that a fit has not seen.

        Errors: `TooFewSamples` where fewer than ten tokens were seen with a pass that ran to the end.
        """
        if self.tokens < _LEAST:
            raise TooFewSamples(
                f"{name} needs {_LEAST} clean tokens with the model's last hidden state and the profile has seen "
                f"{self.tokens}; run the forward pass to the end for the profile, or leave this detector out"
            )
        d_sae, d_model = self.sums.concepts.shape[0], self.sums.outer.shape[0]
        rows = min(self.tokens // 5, self.sample.keys.numel())
        hidden, acts, indices = (self.sample.columns[name][:rows] for name in ("hidden", "acts", "indices"))
        latents = indices.long()
        codes = Codes(latents % d_sae, (latents < d_sae).float(), d_sae)
        held = Sums.zeros(d_model, d_sae)
        for part in torch.arange(rows).split(_CHUNK):
            held.add(hidden[part], acts[part], codes.select(part))
        known = Sums(*(total - part for total, part in zip(self.sums, held, strict=True)))
        return Held(known, held, hidden, acts, codes)

    def state(self) -> dict[str, Tensor]:
        """Everything but the seed."""
        out = {f"sums.{name}": total for name, total in self.sums._asdict().items()}
        return out | {"keys": self.sample.keys} | {f"sample.{name}": c for name, c in self.sample.columns.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], seed: int) -> "Foresight":
        """What `state` was taken from. Errors: `KeyError`."""
        sums = Sums(*(state[f"sums.{name}"].clone() for name in Sums._fields))
        out = cls.empty(sums.outer.shape[0], sums.concepts.shape[0], seed)
        columns = {name: state[f"sample.{name}"] for name in out.sample.columns}
        return cls(sums, BottomK(_ROWS, state["keys"], columns, out.sample.pads), seed)
