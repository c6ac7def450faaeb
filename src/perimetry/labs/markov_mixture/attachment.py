"""The shift meter on the residual stream of the last token, against detectors without concepts and against the best possible one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from perimetry.labs.base import Measured
from perimetry.labs.markov_mixture.optimal import log_fresh, log_iid, log_known, log_near, log_unordered
from perimetry.labs.markov_mixture.world import Mixture, Sample
from perimetry.labs.nano import Nano
from perimetry.labs.points import BASELINES, CONCEPTS, PointMeter, evidence_of, recipe_of, train_on_points
from perimetry.measures.ranking import auroc_interval
from perimetry.runtime import generator
from perimetry.sae.base import Codes

__all__ = ["Attached", "Attachment", "attach", "mutual_information", "optimal_areas", "separation", "tests_of"]

SCORES = (*CONCEPTS, *BASELINES)


class Attachment(NamedTuple):
    """What is drawn once for all looks at a run."""

    reference: Int[Tensor, "sequence time"]
    """Sequences of the mixture that dictionaries and scores are fitted on."""
    chain: Int[Tensor, " sequence"]
    """The chain of each."""
    tests: Mapping[str, Int[Tensor, "sequence time"]]
    """Test sequences by kind; `known` are of the mixture."""
    contexts: tuple[int, ...]
    """Lengths of context."""
    layer: int
    """Block that is read."""
    latents: int
    """Latents of the dictionary."""
    steps: int
    """Its training steps, of 512 tokens."""

    def brief(self) -> "Attachment":
        """The same where only unseen chains are asked about."""
        return self._replace(tests={kind: self.tests[kind] for kind in ("known", "fresh")})


def tests_of(
    mixture: Mixture, n: int, length: int, seed: int, betas: Sequence[float]
) -> dict[str, Int[Tensor, "sequence time"]]:
    """Every kind of sequence; `relabelled` are of the mixture too and must not be told from `known`. `betas`: how near the chains are
    that are drawn around those of the mixture; more is nearer."""
    draw = generator(15_485_863 + seed)
    found: dict[str, Sample] = {
        "known": mixture.known(n, length, draw),
        "relabelled": mixture.known(n, length, draw),
        "fresh": mixture.fresh(n, length, draw)[0],
        **{f"near, beta {beta:g}": mixture.near(beta, n, length, draw) for beta in betas},
        "shuffled": mixture.shuffled(n, length, draw),
        "iid": mixture.iid(n, length, draw),
        "rarest chain": mixture.of_chain(int(mixture.prior.argmin()), n, length, draw),
    }
    if mixture.k % 2 == 0:
        found["block"] = mixture.block(n, length, draw)
    return {name: sample.ids for name, sample in found.items()}


def optimal_areas(
    mixture: Mixture, tests: Mapping[str, Int[Tensor, "sequence time"]], contexts: tuple[int, ...]
) -> list[Measured]:
    """AUROC of the exact likelihood ratio and of the likelihood alone, by kind and length of context."""
    found: list[Measured] = []
    for length in contexts:
        clean = tests["known"][:, :length]
        alone = -log_known(mixture, clean)
        for kind in (k for k in tests if k in ("relabelled", "fresh", "shuffled", "iid") or k.startswith("near")):
            other = tests[kind][:, :length]
            for name, values in (
                ("likelihood ratio", [_other(mixture, kind, ids) - log_known(mixture, ids) for ids in (clean, other)]),
                ("likelihood", [alone, -log_known(mixture, other)]),
            ):
                box = auroc_interval(values[0].float(), values[1].float(), pairs=False)
                case = f"{name}, {kind}, context {length}"
                found.append(Measured.within("optimal AUROC", box, case))
    return found


def _other(mixture: Mixture, kind: str, ids: Tensor) -> Tensor:
    if kind.startswith("near"):
        return log_near(mixture, float(kind.rpartition(" ")[2]), ids)
    if kind == "shuffled":
        return log_unordered(mixture, ids)
    return log_iid(mixture.k, ids) if kind == "iid" else log_fresh(mixture.k, ids)


class _Read(NamedTuple):
    acts: Float[Tensor, "sequence time d_model"]
    nll: Float[Tensor, "sequence time"]
    entropy: Float[Tensor, "sequence time"]


@torch.no_grad()
def _read(model: Nano, ids: Tensor, layer: int) -> _Read:
    """What stands at each token; the loss is of that token given those before, 0 for the first."""
    acts, nll, entropy = [], [], []
    for some in ids.split(256):
        output = model.read(some, (layer,))
        logs = output.logits.log_softmax(-1)
        acts.append(output.residuals[layer])
        own = -logs[:, :-1].gather(2, some[:, 1:, None])[..., 0]
        nll.append(functional.pad(own, (1, 0)))
        entropy.append(-(logs.exp() * logs).sum(-1))
    return _Read(torch.cat(acts), torch.cat(nll), torch.cat(entropy))


class Attached(NamedTuple):
    """What the meter said at one look."""

    rows: list[Measured]
    """Every area, and facts of the dictionary."""
    areas: dict[str, dict[str, dict[int, float]]]
    """Kind -> score -> context -> area."""
    informed: dict[str, tuple[float, float]]
    """Label -> most and mean information of a latent about it, in nats."""


def attach(model: Nano, at: Attachment, seed: int) -> Attached:
    """AUROC of every score at every kind and length of context, by a dictionary that is trained for this look."""
    reference = _read(model, at.reference, at.layer)
    flat = reference.acts[:, 1:].flatten(0, 1)
    recipe = recipe_of("batchtopk", width=at.latents, k=8, steps=at.steps, seed=seed, lr=2e-3)
    made = train_on_points(flat, recipe)
    tests = {kind: _read(model, ids, at.layer) for kind, ids in at.tests.items()}
    rows: list[Measured] = []
    areas: dict[str, dict[str, dict[int, float]]] = {}
    for length in at.contexts:
        meter = PointMeter(made, reference.acts[:, length - 1], SCORES)

        def scores(read: _Read, meter: PointMeter = meter, length: int = length) -> dict[str, Tensor]:
            own = meter.scores(read.acts[:, length - 1])
            # Of the whole context, as a user of likelihoods would.
            return own | {"nll": read.nll[:, :length].mean(1), "entropy": read.entropy[:, :length].mean(1)}

        clean = scores(tests["known"])
        for kind, read in tests.items():
            if kind == "known":
                continue
            for name, values in scores(read).items():
                box = auroc_interval(clean[name], values, pairs=False)
                case = f"{name}, {kind}, context {length}"
                rows.append(Measured.within("AUROC", box, case))
                areas.setdefault(kind, {}).setdefault(name, {})[length] = box.estimate
    chosen = torch.randperm(flat.shape[0], generator=generator(seed))[:4096]
    codes = evidence_of(made.sae, made.inputs(flat[chosen])).codes
    rows.append(Measured("active latents", float(codes.count().mean())))
    return Attached(rows, areas, _informed(codes, at, chosen))


def _informed(codes: Codes, at: Attachment, chosen: Tensor) -> dict[str, tuple[float, float]]:
    """What firing says of the chain, of the state here, and of the step that led to it."""
    k = int(at.reference.max()) + 1
    labels = {
        "chain": at.chain[:, None].expand(-1, at.reference.shape[1] - 1).flatten()[chosen],
        "state": at.reference[:, 1:].flatten()[chosen],
        "step": (at.reference[:, :-1] * k + at.reference[:, 1:]).flatten()[chosen],
    }
    fires = codes.dense() != 0
    often = fires.float().mean(0) > 0.001
    found: dict[str, tuple[float, float]] = {}
    for name, label in labels.items():
        told = [mutual_information(fires[:, i], label) for i in often.nonzero()[:, 0].tolist()] or [0.0]
        found[name] = max(told), sum(told) / len(told)
    return found


def separation(
    areas: Mapping[str, Mapping[int, float]], optimal: Mapping[int, float], low: float = 0.6, high: float = 0.98
) -> dict[str, dict[int, float]]:
    """Score -> context -> share of what is possible, (AUROC - .5) / (best - .5), where the best lies between `low` and `high`."""
    usable = [length for length, best in optimal.items() if low <= best <= high]
    return {
        name: {length: (own[length] - 0.5) / (optimal[length] - 0.5) for length in usable}
        for name, own in areas.items()
    }


def mutual_information(fires: Tensor, label: Tensor) -> float:
    """Of whether a latent fires with a label, in nats.

    >>> round(mutual_information(torch.tensor([True, True, False, False]), torch.tensor([0, 0, 1, 1])), 4)
    0.6931
    """
    joint = torch.stack([torch.bincount(label[fires == on], minlength=int(label.max()) + 1) for on in (False, True)])
    chance = joint.double() / joint.sum()
    apart = chance.sum(0) * chance.sum(1, keepdim=True)
    there = chance > 0
    return float((chance[there] * (chance[there] / apart[there]).log()).sum())
