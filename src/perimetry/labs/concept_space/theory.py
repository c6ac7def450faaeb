"""Two concepts of different strength in the identity task: how soon each is there on a combination that was never trained on."""

from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perimetry.labs.base import Curve, Measured, Outcome
from perimetry.labs.descent import descend
from perimetry.labs.lines import first_where
from perimetry.measures.stats import spearman
from perimetry.runtime import generator

__all__ = ["SIGNALS", "Learner", "Learning", "learn", "run_theory"]

SIGNALS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Strength of the weak concept; that of the strong one is 1."""
WIDTH: Final = 32
DEVIATION: Final = 0.05
SPREADS: Final = (0.05, 0.2, 0.4)
"""Standard deviations of the weak concept at which its time is measured as well, at `SPREAD_AT`."""
SPREAD_AT: Final = 0.6
EVERY: Final = 10
THERE, MISSING = 0.8, 0.2
"""Share of a concept's size from which it counts as learned, and below which as missing."""
Learner = Literal["linear", "mlp"]


class Learning(NamedTuple):
    """One run: what the output at the combination has of each concept, in shares of its size."""

    steps: list[float]
    """Steps looked at."""
    strong: list[float]
    """Share of the strong concept."""
    weak: list[float]
    """Share of the weak one."""

    def time(self, name: Literal["strong", "weak"]) -> float:
        """First step at which a concept is learned; twice the last step where it never is."""
        return first_where(self.steps, (share >= THERE for share in getattr(self, name)))

    def bend(self) -> int:
        """Looks at which the strong concept is there and the weak one is missing."""
        return sum(s >= THERE and w <= MISSING for s, w in zip(self.strong, self.weak, strict=True))


class _Linear(nn.Module):
    """x U U': symmetric, from weights near 0."""

    def __init__(self, draw: torch.Generator) -> None:
        super().__init__()
        self.u = nn.Parameter(0.01 * torch.randn(WIDTH, WIDTH, generator=draw))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.u @ self.u.T


def _net(seed: int) -> nn.Module:
    """Two layers of ReLU without biases, from the usual first weights times .3."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH, bias=False), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH, bias=False))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.3)
    return net


def _points(count: int, weak: float, spread: float, draw: torch.Generator) -> Float[Tensor, "point d"]:
    """Of two clusters, one a concept, on its axis; both scatter along both axes."""
    x = torch.zeros(count, WIDTH)
    x[:, :2] = torch.randn(count, 2, generator=draw) * torch.tensor([DEVIATION, spread])
    which = torch.randint(0, 2, (count,), generator=draw)
    x[torch.arange(count), which] += torch.tensor([1.0, weak])[which]
    return x


def learn(learner: Learner, weak: float, seed: int, steps: int, *, spread: float = DEVIATION) -> Learning:
    """Gradient descent on half the squared error, rate .02, batches of 256 that are never the same. `weak`: strength of the weak concept;
    `spread`: its standard deviation."""
    draw = generator(86_028_121 + seed)
    model = _Linear(draw) if learner == "linear" else _net(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
    size = torch.tensor([1.0, weak])
    test = torch.zeros(1, WIDTH)
    test[0, :2] = size
    found = Learning([], [], [])
    for step in range(steps + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                share = model(test)[0, :2] / size
            found.steps.append(float(step))
            found.strong.append(float(share[0]))
            found.weak.append(float(share[1]))
        x = _points(256, weak, spread, draw)
        loss = 0.5 * (model(x) - x).square().sum(1).mean()
        descend(optimiser, loss)
    return found


def run_theory(learner: Learner, seed: int, steps: int) -> Outcome:
    """Every strength of the weak concept under one seed."""
    runs = {weak: learn(learner, weak, seed, steps) for weak in SIGNALS}
    times = {weak: run.time("weak") for weak, run in runs.items()}
    measured = [
        *(Measured("step of the weak concept", t, f"strength {weak:g}") for weak, t in times.items()),
        *(Measured("steps between the two", times[w] - r.time("strong"), f"strength {w:g}") for w, r in runs.items()),
        *(Measured("looks at a bend", float(r.bend()), f"strength {weak:g}") for weak, r in runs.items()),
    ]
    order = spearman(torch.tensor(list(times.values())), torch.tensor(list(times)))
    scaled = [t * weak**2 for weak, t in times.items()]
    middle = sum(scaled) / len(scaled)
    measured += [
        Measured("order of time and strength", order.estimate),
        Measured("time times strength squared", middle),
        Measured("scatter of that", max(abs(value / middle - 1) for value in scaled)),
    ]
    spreads = {s: learn(learner, SPREAD_AT, seed, steps, spread=s).time("weak") for s in SPREADS}
    measured += [Measured("step of the weak concept", t, f"spread {s:g}") for s, t in spreads.items()]
    gains = [a - b for a, b in zip(list(spreads.values()), list(spreads.values())[1:], strict=False)]
    measured.append(Measured("least gain of a wider spread", min(gains)))
    weakest = runs[SIGNALS[0]]
    curves = {
        "time": Curve(list(times), list(times.values())),
        "strong": Curve(weakest.steps, weakest.strong),
        "weak": Curve(weakest.steps, weakest.weak),
    }
    return Outcome(measured, curves)
