"""How much of the activations, and of what the model does with them, a dictionary gives back on held-out text.

Against `run_evals` of SAELens 6.54, on the same rows with the same tokens left out, these agree: `explained_variance`, `l0`,
`cosine` (their `cossim`), `norm_ratio` (`l2_ratio`), `gamma` (`relative_reconstruction_bias` of one batch), `cross_entropy` and
`kl` in each arm but `mean`, `loss_recovered` (`ce_loss_score`) and `kl_recovered` (`kl_div_score`; theirs is of means over the
same positions). Zeros take the place of every position of a row there, and so here in `zero`, while the dictionary stands in
at the counted positions only; the arm `mean` replaces what the dictionary replaces.

These differ. Their `explained_variance_legacy` is a mean over tokens of one minus a ratio (here `explained_variance_token_mean`
of the measures). They leave out special tokens by id, and nothing with `exclude_special_tokens=False`: then their L0 and
variance include the BOS. Here the token policy decides: separators between documents and sinks by norm are left out too, of
the numbers and of the replacement. Their `relative_reconstruction_bias` of several batches is a mean of ratios.
"""

from collections.abc import Callable
from typing import ClassVar, Final, TypeVar, final

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from perimetry.activations.prompts import PromptBatch
from perimetry.activations.tap import Tap
from perimetry.axes import Acts, Residual, TokenMask
from perimetry.errors import Incompatible
from perimetry.evals.sae.base import Metric, Subject
from perimetry.evals.sae.held_out import HeldRows, TextEvaluation, counted, require_readable
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.splice import Effect, effect, floors, spliced
from perimetry.evals.sae.units import Cell, Units, means, ratios
from perimetry.measures.reconstruction import ReconstructionSums
from perimetry.measures.sparsity import density, fires
from perimetry.ui import track

__all__ = ["DENSE", "Fidelity"]

DENSE: Final = 0.1
"""Firing rate above which a latent is dense."""
ZEROS, MEAN = "zeros at every position", "the mean activation at the counted positions"
METRICS: Final = {
    "explained_variance": Metric(
        unit="share",
        higher=True,
        text="One minus squared error over squared distance to the mean of all counted activations.",
    ),
    "loss_recovered": Metric(
        unit="share", higher=True, text=f"Of the cross-entropy that {ZEROS} add, what the dictionary does not add."
    ),
    "loss_recovered_over_mean": Metric(
        unit="share", higher=True, text=f"Of the cross-entropy that {MEAN} adds, what the dictionary does not add."
    ),
    "kl_recovered": Metric(
        unit="share", higher=True, text=f"One minus divergence with the dictionary over divergence with {ZEROS}."
    ),
    "kl_recovered_over_mean": Metric(
        unit="share", higher=True, text=f"One minus divergence with the dictionary over divergence with {MEAN}."
    ),
    "cross_entropy": Metric(unit="nats", higher=False, text="Loss of the token after a counted position."),
    "kl": Metric(
        unit="nats", higher=False, text="Divergence at a counted position from what the untouched model says."
    ),
    "l0": Metric(unit="latents", higher=None, text="Latents that fire at a token."),
    "cosine": Metric(unit="cosine", higher=True, text="Of activation and reconstruction, mean over tokens."),
    "norm_ratio": Metric(
        unit="ratio",
        higher=None,
        text="Length of the reconstruction over that of the activation, mean over tokens; 1 is right.",
    ),
    "gamma": Metric(
        unit="ratio",
        higher=None,
        text="Mean |x_hat|^2 over mean <x, x_hat>; 1 where no other length fits better, below it the reconstruction is too short; "
        "left out where every reconstruction is zero.",
    ),
    "dead": Metric(unit="share", higher=False, text="Latents that fire at none of the tokens."),
    "dense": Metric(unit="share", higher=False, text=f"Latents that fire at more than {DENSE:.0%} of the tokens."),
}
"""By name."""
F = TypeVar("F", bound="Fidelity")


@final
class _Tally:
    """What a dictionary does to the rows, summed a row at a time."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.sums: list[ReconstructionSums] = []
        """A row each, all about the same first guess of the mean."""
        self.cosine: list[float] = []
        """Sums over tokens; 0 for a token whose activation or reconstruction is zero."""
        self.active: list[int] = []
        """Latents that fire, over all tokens of a row."""
        self.fired: Int[Tensor, " d_sae"] = torch.zeros(subject.sae.d_sae, dtype=torch.int64)
        """Tokens at which each latent fires."""
        self.effects: list[Effect] = []
        """What the model loses, batch by batch."""
        self._start: ReconstructionSums | None = None

    @torch.no_grad()
    def add(self, acts: Acts, counts: list[int]) -> Acts:
        """Count the tokens of some rows, so many of each; their reconstructions."""
        sae = self.subject.sae
        codes, made = sae(acts.to(sae.W_dec.device))
        made = made.to(acts.device)
        self.fired += fires(codes.indices, codes.values, codes.width).cpu()
        for x, y, n in zip(acts.split(counts), made.split(counts), codes.count().cpu().split(counts), strict=True):
            if self._start is None:
                self._start = ReconstructionSums.start(x)
            self.sums.append(self._start.add(x, y))
            self.cosine.append(float(cosine_similarity(x.double(), y.double()).sum()))
            self.active.append(int(n.sum()))
        return made


@final
class Fidelity(TextEvaluation):
    """Reconstruction, sparsity, and what the model loses; the dictionary stands in at the counted positions only."""

    name: ClassVar[str] = "fidelity"
    definition: ClassVar[str] = "1"
    source: ClassVar[str] = (
        "SAELens run_evals; Gao et al., arXiv 2406.04093; Rajamanoharan et al., arXiv 2404.16014 (gamma)"
    )
    metrics: ClassVar[dict[str, Metric]] = METRICS

    losses: bool = True
    """Run the model to its end: losses and divergences too. False measures the reconstruction alone, in a fraction of the time."""

    @classmethod
    def tiny(cls: type[F]) -> F:
        """Few short rows; without losses, as a random model predicts nothing that it could lose."""
        return cls(rows=8, context=32, batch=4, losses=False)

    def measure(self, subject: Subject, shelf: Shelf, *, progress: bool = False) -> list[Units]:
        """All metrics; units are rows, of `dead` and `dense` latents. Arms of `cross_entropy` and `kl`: `sae`; `raw` is the
        model untouched; `zero` and `mean` are the floors.

        Errors: `TooFewSamples`, `WidthMismatch`, `NonFinite`, and `Incompatible` for a dictionary of several places, and where
        ablation does not raise the loss, so that nothing can be recovered.
        """
        require_readable(subject)
        return self.on_rows(subject, self.rows_once(subject.place, shelf, progress=progress), shelf, progress=progress)

    def on_rows(self, subject: Subject, held: HeldRows, shelf: Shelf, *, progress: bool = False) -> list[Units]:
        """`measure` on rows that are there already."""
        floor: dict[str, Tensor] | None = None
        if self.losses:
            key = self.shelf_key(subject.place, held, "floors of fidelity, 1")
            floor = shelf.get(key, lambda: floors(subject.place, held, self.batch, progress=progress))
            _require_floor(floor, subject)
        seen = (
            self._stored(subject, held, shelf, progress)
            if floor is None
            else self._spliced(subject, held, floor, progress)
        )
        found = _reconstruction(seen, held.names) + _latents(seen)
        return found if floor is None else found + _losses(floor, seen, held.names)

    def _stored(self, subject: Subject, held: HeldRows, shelf: Shelf, progress: bool) -> _Tally:
        """What it does to activations that all dictionaries of a place share."""
        stored = self.acts_once(subject.place, held, shelf, progress=progress)
        found, counts = _Tally(subject), stored["counts"]
        rows = counts.split(self.batch)
        for part, acts in zip(rows, stored["acts"].split([int(r.sum()) for r in rows]), strict=True):
            found.add(acts, part.tolist())
        return found

    def _spliced(self, subject: Subject, held: HeldRows, floor: dict[str, Tensor], progress: bool) -> _Tally:
        """The same while the model runs on, with the reconstruction in place of what it read."""
        place, found = subject.place, _Tally(subject)
        tap = Tap(place.lm, place.layer)
        batches = held.batches(self.batch, place.lm.pad_id)
        for part, batch in track(batches, subject.name, len(held.rows), progress, lambda item: len(item[1].ids)):
            masks: list[TokenMask] = []

            def stand_in(residual: Residual, batch: PromptBatch = batch, masks: list[TokenMask] = masks) -> Residual:
                masks.append(counted(residual, batch.countable, place))
                made = found.add(residual[masks[0]].float(), masks[0].sum(1).tolist())
                return spliced(residual, masks[0], made)

            hidden = tap.run_replaced(batch.ids, batch.attention, stand_in).hidden
            clean = floor["hidden"][part, : batch.ids.shape[1]].to(hidden.device)
            found.effects.append(effect(place.lm, batch, masks[0], clean, hidden))
        return found


def _require_floor(floor: dict[str, Tensor], subject: Subject) -> None:
    tokens = floor["predicted"].sum().clamp(min=1)
    raw = float(floor["raw/loss"].sum() / tokens)
    for name, what in (("zero", "zeros"), ("mean", "the mean")):
        ablated = float(floor[f"{name}/loss"].sum() / tokens)
        if not ablated > raw:
            raise Incompatible(
                f"{what} at layer {subject.place.layer} of {subject.place.lm.name!r} give a cross-entropy of {ablated:.4g} nats a "
                f"token and the model untouched {raw:.4g}: there is no loss to recover; give text that the model predicts, or set "
                "losses to false"
            )


def _reconstruction(tally: _Tally, names: tuple[str, ...]) -> list[Units]:
    whole = tally.sums[0]
    for sums in tally.sums[1:]:
        whole = whole.merge(sums)
    mean = whole.first / max(1, whole.tokens)

    def spread(row: ReconstructionSums) -> float:
        """Squared distance to the mean of all rows."""
        return row.second - 2 * float(row.first @ mean) + row.tokens * float(mean @ mean)

    def column(read: Callable[[ReconstructionSums], float]) -> Tensor:
        return torch.tensor([read(row) for row in tally.sums], dtype=torch.float64)

    def unit(metric: str, over: Tensor, under: Tensor, *, complement: bool = False) -> Units:
        return ratios(Cell(metric), names, over, under, complement=complement)

    tokens = column(lambda row: row.tokens)
    found = [
        unit("explained_variance", column(lambda row: row.error), column(spread), complement=True),
        unit("l0", torch.tensor(tally.active), tokens),
        unit("cosine", torch.tensor(tally.cosine, dtype=torch.float64), tokens),
        unit("norm_ratio", column(lambda row: row.norm_ratio), column(lambda row: row.nonzero)),
    ]
    # A dictionary that gives nothing back has no length that could be too short.
    return (
        found if not whole.norm_sq else [*found, unit("gamma", column(lambda r: r.norm_sq), column(lambda r: r.inner))]
    )


def _latents(tally: _Tally) -> list[Units]:
    # Latents of dictionaries of two widths are not the same units.
    width, tokens = tally.fired.numel(), sum(row.tokens for row in tally.sums)
    names = [f"{i} of {width}" for i in range(width)]
    rate = density(tally.fired, tokens)
    return [means(Cell("dead"), names, rate == 0), means(Cell("dense"), names, rate > DENSE)]


def _losses(floor: dict[str, Tensor], tally: _Tally, names: tuple[str, ...]) -> list[Units]:
    loss = torch.cat([part.loss for part in tally.effects])
    divergence = torch.cat([part.divergence for part in tally.effects])
    raw, tokens = floor["raw/loss"], floor["predicted"]
    found = [
        ratios(Cell("cross_entropy"), names, loss, tokens),
        ratios(Cell("kl"), names, divergence, floor["positions"]),
    ]
    found.append(ratios(Cell("cross_entropy", arm="raw"), names, raw, tokens))
    for arm, tail in (("zero", ""), ("mean", "_over_mean")):
        ablated, apart = floor[f"{arm}/loss"], floor[f"{arm}/divergence"]
        found += [
            ratios(Cell("cross_entropy", arm=arm), names, ablated, tokens),
            ratios(Cell("kl", arm=arm), names, apart, floor["positions"]),
            ratios(Cell(f"loss_recovered{tail}"), names, ablated - loss, ablated - raw),
            ratios(Cell(f"kl_recovered{tail}"), names, divergence, apart, complement=True),
        ]
    return found
