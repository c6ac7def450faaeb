"""The shift meter in both worlds: which masked entries can be known at all, and where a sum is wrong."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from perimetry.axes import TokenIds
from perimetry.labs.base import Measured
from perimetry.labs.matrix_completion.completer import Completer, CompletionArm
from perimetry.labs.matrix_completion.sums import LENGTH, MODULUS, Sums, joined, sequences, sums
from perimetry.labs.matrix_completion.world import Masked, beside, identifiable, masked, matrices
from perimetry.labs.points import BASELINES, CONCEPTS, PointMeter, aurocs, recipe_of, train_on_points
from perimetry.measures.ranking import auroc_interval
from perimetry.measures.stats import spearman
from perimetry.runtime import generator

__all__ = ["DOSES", "AttachConfig", "attach_completer", "attach_sums", "counts_at"]

DOSES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of the answers that are wrong."""
PLACED = 0.1
"""The one at which places are told apart."""
NAMES = (*CONCEPTS, *BASELINES)


class AttachConfig(NamedTuple):
    """Sizes."""

    tests: int
    """Test sequences or matrices of each kind."""
    latents: int
    """Latents of a dictionary."""
    k: int
    """Active ones on clean input."""
    steps: int
    """Its training steps, of 512 tokens."""

    def meter(self, clean: Float[Tensor, "token d"], seed: int) -> PointMeter:
        """A dictionary of clean states, and scores fitted on them."""
        recipe = recipe_of("batchtopk", width=self.latents, k=self.k, steps=self.steps, seed=seed, lr=2e-3)
        return PointMeter(train_on_points(clean, recipe), clean, NAMES)


Scores = dict[str, Tensor]


@torch.no_grad()
def _states(model: Sums, ids: TokenIds) -> Float[Tensor, "sequence answer d"]:
    """After the last norm, where answers stand that are read: the first to the last but one."""
    return model.read(ids[:, :-1]).states[:, LENGTH + 1 :]


@torch.no_grad()
def _likelihoods(model: Sums, ids: TokenIds) -> Scores:
    """Loss of each of these answers, and the entropy of what was foretold of it."""
    logs = model(ids[:, :-1]).log_softmax(-1)[:, LENGTH:-1]
    answers = ids[:, LENGTH + 1 : -1]
    return {"nll": -logs.gather(2, answers[..., None])[..., 0], "entropy": -(logs.exp() * logs).sum(-1)}


def _spoilt(ids: TokenIds, share: float, draw: torch.Generator) -> tuple[TokenIds, Bool[Tensor, "sequence answer"]]:
    """Answers replaced by others, each with that chance; and where."""
    wrong = torch.rand(ids.shape[0], LENGTH, generator=draw) < share
    answers = ids[:, LENGTH + 1 :]
    other = (answers + torch.randint(1, MODULUS, answers.shape, generator=draw)) % MODULUS
    return joined(ids[:, :LENGTH], torch.where(wrong, other, answers)), wrong


def _odd(count: int, draw: torch.Generator) -> dict[str, TokenIds]:
    """Sums of three; inputs that are right and rare; a mark in the wrong place; and clean ones again."""
    numbers = sequences(count, draw)[:, :LENGTH]
    same = numbers[:, :1].expand(-1, LENGTH).contiguous()
    rising = numbers.sort(1).values
    clean = sequences(count, draw)
    early = torch.cat([clean[:, : LENGTH // 2], clean[:, LENGTH : LENGTH + 1], clean[:, LENGTH // 2 : LENGTH]], 1)
    return {
        "known again": sequences(count, draw),
        "sums of three": joined(numbers, sums(numbers, 3)),
        "one number": joined(same, sums(same)),
        "rising numbers": joined(rising, sums(rising)),
        "mark in the middle": torch.cat([early, clean[:, LENGTH + 1 :]], 1),
    }


def attach_sums(model: Sums, at: AttachConfig, seed: int) -> tuple[list[Measured], PointMeter]:
    """Rank correlation with the share of wrong answers, AUROC of the wrong place, and AUROC of what is odd in other ways."""
    draw = generator(179_424_673 + seed)
    meter = at.meter(_states(model, sequences(4 * at.tests, draw)).flatten(0, 1), seed)

    def scores(ids: TokenIds) -> Scores:
        states = _states(model, ids)
        pairs = functional.normalize(states, dim=-1)
        # How alike the states of a sequence are; the same at all its places.
        alike = (pairs @ pairs.transpose(1, 2)).mean(2)
        return meter.by_place(states) | _likelihoods(model, ids) | {"collapse": alike}

    clean = sequences(at.tests, draw)
    doses: list[Tensor] = []
    by_dose: dict[str, list[Tensor]] = {}
    measured: list[Measured] = []
    for share in DOSES:
        ids, wrong = _spoilt(clean, share, draw)
        found = scores(ids)
        doses.append(torch.full((at.tests,), share))
        for name, values in found.items():
            by_dose.setdefault(name, []).append(values.mean(1))
        if share == PLACED:
            measured += _placed(found, wrong[:, :-1])
    for name, parts in by_dose.items():
        box = spearman(torch.cat(parts), torch.cat(doses))
        measured.append(Measured.within("score follows the share of wrong answers", box, name))
    usual = {name: values.mean(1) for name, values in scores(clean).items()}
    for kind, ids in _odd(at.tests, draw).items():
        measured += aurocs(f"AUROC of {kind}", usual, {name: values.mean(1) for name, values in scores(ids).items()})
    return measured, meter


def _placed(found: Mapping[str, Tensor], wrong: Bool[Tensor, "sequence answer"]) -> list[Measured]:
    """Wrong places against right ones of the same sequences."""
    measured: list[Measured] = []
    for name, values in found.items():
        box = auroc_interval(values[~wrong], values[wrong], pairs=False)
        measured.append(Measured.within("AUROC of the wrong place", box, name))
    return measured


def counts_at(meter: PointMeter, model: Sums, ids: TokenIds) -> float:
    """Mean active latents at the places of the answers, of a meter that may have been made at another step."""
    return float(meter.scores(_states(model, ids).flatten(0, 1), ("l0",))["l0"].double().mean())


@torch.no_grad()
def _entries(model: Completer, given: Masked) -> Float[Tensor, "matrix row column d"]:
    device = model.out.weight.device
    kept = model.read(given.values.to(device), given.observed.to(device), 2)[1]
    return kept.view(*given.values.shape, -1).float().cpu()


def _dialled(arm: CompletionArm, count: int, draw: torch.Generator) -> dict[str, Masked]:
    """Each kind of matrix; `known` as trained on, what must stay quiet next."""
    size = (count, arm.rows, arm.columns)
    known = arm.draw(count, draw)
    rows = torch.rand(count, arm.rows, generator=draw).argsort(1)[..., None].expand(-1, -1, arm.columns)
    again = arm.draw(count, draw)
    found = {
        "known": known,
        "known again": again,
        "signs turned": again._replace(values=-again.values),
        "rows exchanged": Masked(again.values.gather(1, rows), again.observed.gather(1, rows)),
    }
    for rank in range(1, 6):
        if rank != arm.rank:
            found[f"rank {rank}"] = masked(matrices(*size, rank, draw), arm.hidden, draw)
    for share in (0.1, 0.5, 0.7):
        found[f"masked {share:g}"] = masked(known.values, share, draw)
    for law in ("gaussian", "laplace", "full"):
        found[law] = masked(matrices(*size, arm.rank, draw, law=law), arm.hidden, draw)
    return found


def attach_completer(model: Completer, arm: CompletionArm, at: AttachConfig, seed: int) -> list[Measured]:
    """AUROC of entries that nothing determines against those that something does, and of matrices of another kind."""
    draw = generator(160_481_183 + seed)
    reference = arm.draw(4 * at.tests, draw)
    states = _entries(model, reference)
    meters = {
        "masked": at.meter(states[~reference.observed], seed),
        "shown": at.meter(states[reference.observed], seed),
    }
    measured = _determined(model, arm, meters["masked"], at, draw)
    kinds = _dialled(arm, at.tests, draw)
    for where, meter in meters.items():
        read = {kind: _by_matrix(model, given, meter, masked_ones=where == "masked") for kind, given in kinds.items()}
        clean = read.pop("known")
        for kind, own in read.items():
            measured += [m._replace(case=f"{m.case}, {where}") for m in aurocs(f"AUROC of {kind}", clean, own)]
    return measured


def _determined(
    model: Completer, arm: CompletionArm, meter: PointMeter, at: AttachConfig, draw: torch.Generator
) -> list[Measured]:
    given = arm.draw(8 * at.tests, draw)
    hidden = ~given.observed
    known = identifiable(given.observed)[hidden]
    scores = meter.scores(_entries(model, given)[hidden])
    # What a count of the shown entries in the same row and column would say.
    scores["few beside"] = -beside(given.observed)[hidden]
    measured: list[Measured] = []
    for name, values in scores.items():
        box = auroc_interval(values[known], values[~known], pairs=False)
        measured.append(Measured.within("AUROC of what nothing determines", box, name))
    return [*measured, Measured("share that nothing determines", float((~known).float().mean()))]


def _by_matrix(model: Completer, given: Masked, meter: PointMeter, *, masked_ones: bool) -> Scores:
    """Mean score over the masked or the shown entries of each matrix that has any."""
    where = ~given.observed if masked_ones else given.observed
    scores = meter.scores(_entries(model, given)[where])
    rows: Int[Tensor, " entry"] = where.nonzero()[:, 0]
    counts = torch.bincount(rows, minlength=len(where))
    kept = counts > 0
    return {
        name: (torch.zeros(len(where)).index_add(0, rows, values) / counts.clamp_min(1))[kept]
        for name, values in scores.items()
    }
