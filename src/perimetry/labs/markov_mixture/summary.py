"""The numbers and lines of one run: what each algorithm would reach, where the model stands, what scores see."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.markov_mixture.algorithms import algorithm_matrices, matrix_kl
from perimetry.labs.markov_mixture.attachment import Attached, separation
from perimetry.labs.markov_mixture.phases import Contexts, Phase, phase_of
from perimetry.labs.markov_mixture.training import MarkovArm
from perimetry.measures.stats import wilson

__all__ = [
    "attached_numbers",
    "curves_of",
    "facts_of",
    "lines_of",
    "mix",
    "phase_numbers",
    "placed",
    "retrieved",
    "shares_of",
    "silly_weights",
    "untrained",
    "without_inference",
]


def lines_of(contexts: Contexts) -> list[Measured]:
    """What each algorithm by itself would reach."""
    mixture = contexts.mixture
    found: list[Measured] = []
    for name, matrices in contexts.fresh_by.items():
        value = float(matrix_kl(matrices, contexts.fresh_chains, contexts.fresh.chain).mean())
        found.append(Measured("KL of an algorithm", value, f"{name}, unseen"))
    for name, matrices in contexts.known_by.items():
        value = float(matrix_kl(matrices, mixture.chains, contexts.known.chain).mean())
        found.append(Measured("KL of an algorithm", value, f"{name}, mixture"))
    for length in (n for n in (10, 50, 100, 400) if n < contexts.fresh.ids.shape[1]):
        short = algorithm_matrices(mixture, contexts.fresh.ids[:, :length])
        for name in ("Bi-Inf", "Bi-Ret"):
            value = float(matrix_kl(short[name], contexts.fresh_chains, contexts.fresh.chain).mean())
            found.append(Measured("KL of an algorithm", value, f"{name}, unseen, context {length}"))
    return found


def untrained(arm: MarkovArm, contexts: Contexts, seed: int) -> Measured:
    """How far an untrained model is above Uni-Inf."""
    phase = phase_of(arm.model(seed), contexts)
    uniform = contexts.fresh_by["Uni-Inf"]
    other = float(matrix_kl(uniform, contexts.fresh_chains, contexts.fresh.chain).mean())
    return Measured("untrained minus Uni-Inf", phase.fresh - other)


def silly_weights(weights: dict[str, float]) -> list[Measured]:
    """Weight of the two algorithms that nobody would run."""
    return [Measured("weight of a silly algorithm", weights[name], name) for name in ("even", "again")]


def without_inference(phase: Phase, whole: Phase) -> list[Measured]:
    """What the mix foretells where the algorithm that infers steps may not take part."""
    return [
        Measured("error of foretelling without Bi-Inf", abs(phase.foretold - whole.fresh)),
        Measured("error of foretelling", abs(whole.foretold - whole.fresh), "last look"),
    ]


def placed(last: Phase, lines: Sequence[Measured]) -> list[Measured]:
    """Where the end lies beside what each algorithm by itself would reach."""
    alone = Outcome(list(lines), {})
    inferring, states = (alone.value("KL of an algorithm", f"{name}, unseen") for name in ("Bi-Inf", "Uni-Inf"))
    nearer = abs(last.shuffled - states) - abs(last.shuffled - inferring)
    return [
        Measured("KL on unseen chains above Bi-Inf", last.fresh - inferring),
        Measured("KL on shuffled contexts, further from Uni-Inf than from Bi-Inf", nearer),
    ]


def mix(last: Phase, ends: Mapping[str, tuple[float, float]]) -> list[Measured]:
    """The mix at the end, with intervals over contexts."""
    return [Measured("weight", weight, name, *ends[name]) for name, weight in last.weights.items()]


def retrieved(nearer: Tensor) -> Measured:
    """Share of unseen chains on which the model answers with a chain of the mixture; a half where it does not retrieve."""
    box = wilson(int(nearer.sum()), len(nearer))
    return Measured.within("nearer to the mixture than to drawn chains", box)


def phase_numbers(seen: Mapping[int, Phase], even: float) -> list[Measured]:
    """Where the run ends, how its error on unseen chains went, and how well the mix foretold it; `even`: what even weights foretell."""
    steps = sorted(seen)
    last = seen[steps[-1]]
    fresh = [seen[s].fresh for s in steps]
    low = min(range(len(steps)), key=lambda i: fresh[i])
    found = [
        Measured("KL on the mixture", last.known),
        Measured("KL on unseen chains", last.fresh),
        Measured("KL apart", abs(last.known - last.fresh)),
        Measured("KL on shuffled contexts", last.shuffled),
        Measured("rise after the least KL on unseen chains", fresh[-1] / fresh[low] - 1),
        Measured("fall on the mixture meanwhile", seen[steps[low]].known - last.known),
        Measured("residual of the mix", last.residual),
        *(Measured("weight on unseen chains", w, name) for name, w in last.fresh_weights.items()),
    ]
    # The induction transition: the error on unseen chains falls below three quarters of what it was near step 100.
    begin = min(steps, key=lambda s: abs(s - 100))
    after = [s for s in steps if s > begin and seen[s].fresh < 0.75 * seen[begin].fresh]
    errors = {s: seen[s].foretold - seen[s].fresh for s in steps}
    if after:
        later = [abs(errors[s]) for s in steps if s >= after[0]]
        before = [abs(errors[s]) for s in steps if s < after[0]]
        found.append(Measured("error of foretelling", sum(later) / len(later), "after the transition"))
        flat = [abs(even - seen[s].fresh) for s in steps if s >= after[0]]
        found.append(Measured("error of foretelling by even weights", sum(flat) / len(flat), "after the transition"))
        found.append(Measured("step of the transition", float(after[0])))
        if before:
            found.append(Measured("error of foretelling", sum(before) / len(before), "before the transition"))
    return found


def attached_numbers(read: Mapping[int, Attached], best: Mapping[int, float], last: int) -> list[Measured]:
    """The last look in full; of every look the share of what is possible."""
    found: list[Measured] = []
    for step, attached in sorted(read.items()):
        found += shares_of(attached, best, "last look" if step == last else f"step {step}")
    return [*found, *read[last].rows, *facts_of(read[last])]


def shares_of(attached: Attached, best: Mapping[int, float], place: str) -> list[Measured]:
    """Share of what is possible that each score tells of unseen chains, the mean over lengths of context where something is to be told."""
    shares = separation(attached.areas["fresh"], best)
    return [
        Measured("share of the optimum", sum(own.values()) / len(own), f"{name}, {place}")
        for name, own in shares.items()
        if own
    ]


def facts_of(attached: Attached, place: str = "") -> list[Measured]:
    """What the latents say of chain, state and step."""
    return [
        Measured("information of a latent", value, f"{label}, {kind}{place}")
        for label, both in attached.informed.items()
        for kind, value in zip(("most", "mean"), both, strict=True)
    ]


def curves_of(seen: Mapping[int, Phase], read: Mapping[int, Attached], best: Mapping[int, float]) -> dict[str, Curve]:
    """The run over its looks: errors, the mix, and the share of the optimum that each score tells."""
    steps = sorted(seen)
    xs = [float(s) for s in steps]
    curves = {
        "mixture": Curve(xs, [seen[s].known for s in steps]),
        "unseen": Curve(xs, [seen[s].fresh for s in steps]),
        "foretold": Curve(xs, [seen[s].foretold for s in steps]),
        **{name: Curve(xs, [seen[s].weights[name] for s in steps]) for name in seen[steps[0]].weights},
    }
    shares = {step: separation(attached.areas["fresh"], best) for step, attached in sorted(read.items())}
    for name in next(iter(shares.values()), {}):
        ys = [sum(own[name].values()) / len(own[name]) for own in shares.values() if own[name]]
        if ys:
            curves[f"share, {name}"] = Curve([float(s) for s in shares], ys)
    return curves
