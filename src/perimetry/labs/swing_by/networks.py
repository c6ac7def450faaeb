"""Networks that learn the identity on the clusters by gradient descent, watched at the composition that they never see."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perimetry.axes import Acts
from perimetry.config import Config
from perimetry.labs.descent import descend
from perimetry.labs.swing_by.world import SimWorld
from perimetry.runtime import generator

__all__ = ["NetworkArm", "Watched", "above_least", "hidden_net", "make_network", "rebound", "train_network"]

TAIL = 0.05
"""Share of the first loss below which the running minimum is noise."""
EVERY = 100
"""Steps between two looks at the loss on the whole training set."""


class NetworkArm(Config):
    """How a network is made and trained."""

    layers: int
    """Linear layers."""
    relu: bool = False
    """Whether a ReLU follows each but the last."""
    factor: float = 1.0
    """What the default first weights and biases are multiplied by."""
    mu: tuple[float, ...] = (2.0, 4.0)
    """Sizes of the concepts."""
    variance: tuple[float, ...] = (0.05, 0.05)
    """Their variances."""
    origin: bool = True
    """Whether a cluster lies at 0."""
    loss: Literal["sum", "mean"] = "sum"
    """Half the squared error summed over coordinates, or the squared error averaged over them."""
    lr: float = 0.005
    """Learning rate of plain gradient descent."""
    batch: int = 128
    """Points of a step."""
    steps: int = 2500
    """Steps."""

    def world(self, seed: int) -> SimWorld:
        """The world, rotated into 64 dimensions by the seed."""
        return SimWorld(self.mu, self.variance, rotated=True, origin=self.origin, truncated=True, seed=seed)


class Watched(NamedTuple):
    """What was seen during training."""

    loss: list[float]
    """Half the squared error at the test point, before each step and after the last."""
    train: list[float]
    """Half the mean squared error on the training set, every hundredth step."""
    along: Float[Tensor, "look concept"]
    """Coordinates of the output at the test point along the concepts, at the same times as `loss`."""
    outputs: Float[Tensor, "look d"]
    """Output at the test point, at the same times as `loss`."""


def make_network(arm: NetworkArm, width: int, seed: int) -> nn.Sequential:
    """Square layers with biases, first weights as torch draws them by default, times the factor."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number in range(arm.layers):
            layers.append(nn.Linear(width, width))
            if arm.relu and number + 1 < arm.layers:
                layers.append(nn.ReLU())
    made = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(arm.factor)
    return made


def hidden_net(width: int, hidden: int, seed: int) -> nn.Sequential:
    """One hidden layer of ReLU units."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))


def train_network(
    net: nn.Sequential,
    points: Acts,
    world: SimWorld,
    *,
    steps: int,
    lr: float,
    batch: int,
    seed: int,
    loss: Literal["sum", "mean"] = "sum",
) -> Watched:
    """Plain gradient descent on the identity, batches drawn without replacement in each epoch."""
    draw = generator(seed)
    optimiser = torch.optim.SGD(net.parameters(), lr=lr)
    test = world.test_point()[None]
    outputs, train = [_at(net, test)], [_whole(net, points)]
    order = torch.empty(0, dtype=torch.long)
    for step in range(1, steps + 1):
        if order.shape[0] < batch:
            order = torch.cat([order, torch.randperm(points.shape[0], generator=draw)])
        x, order = points[order[:batch]], order[batch:]
        error = (net(x) - x).square()
        value = 0.5 * error.sum(1).mean() if loss == "sum" else error.mean()
        descend(optimiser, value)
        outputs.append(_at(net, test))
        if step % EVERY == 0:
            train.append(_whole(net, points))
    seen = torch.cat(outputs)
    return Watched((0.5 * (seen - test).square().sum(1)).tolist(), train, world.concepts_of(seen), seen)


@torch.no_grad()
def _at(net: nn.Sequential, points: Acts) -> Acts:
    return net(points)


@torch.no_grad()
def _whole(net: nn.Sequential, points: Acts) -> float:
    return float(0.5 * (net(points) - points).square().sum(1).mean())


def above_least(loss: list[float]) -> Float[Tensor, " look"]:
    """Each loss over its running minimum, 1 where that minimum is not above 5 % of the first loss, in float64."""
    values = torch.tensor(loss, dtype=torch.float64)
    least = values.cummin(0).values
    return (values / least).where(least > TAIL * values[0], 1.0)


def rebound(loss: list[float]) -> float:
    """How many times its running minimum the loss came to be, while that minimum was above 5 % of the first loss; 1 = it never rose.

    >>> rebound([4.0, 2.0, 3.0, 0.001, 0.1])
    1.5
    """
    return float(above_least(loss).max())
