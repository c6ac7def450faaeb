"""A conditional denoiser of small images (Karras et al. 2022), and a classifier that says what an image shows."""

import math
from collections.abc import Iterator
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from perimetry.labs.concept_space.images import CLASSES, CONDITION, PIXELS, Discs, World
from perimetry.labs.descent import descend
from perimetry.runtime import generator

__all__ = ["TRAINED", "Denoiser", "Judge", "judge_of", "train_denoiser", "training_set"]

TRAINED: Final = ("00", "01", "10")
EMBEDDED: Final = 64
"""Width of what a condition is embedded in."""
HIDDEN: Final = 384
LAYERS: Final = 3
WAVES: Final = 16
SPREAD: Final = 0.25
"""Standard deviation of the data that the coefficients assume."""
MIDDLE: Final = 0.25
"""Taken off all images, so that they lie around 0."""
HIGH, LOW, RHO, STEPS = 10.0, 0.02, 7.0, 18
Images = Float[Tensor, "image pixel"]
Conditions = Float[Tensor, "image condition"]


@final
class Denoiser(nn.Module):
    """Says what an image was before noise was put on it: residual layers, each told of condition and noise."""

    def __init__(self, seed: int) -> None:
        """First weights by the seed."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.condition = nn.Sequential(nn.Linear(CONDITION, EMBEDDED), nn.GELU(), nn.Linear(EMBEDDED, EMBEDDED))
            self.noise = nn.Sequential(nn.Linear(2 * WAVES, EMBEDDED), nn.GELU(), nn.Linear(EMBEDDED, EMBEDDED))
            self.first, self.last = nn.Linear(PIXELS, HIDDEN), nn.Linear(HIDDEN, PIXELS)
            self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN) for _ in range(LAYERS))
            self.inner = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(LAYERS))
            self.told = nn.ModuleList(nn.Linear(EMBEDDED, HIDDEN, bias=False) for _ in range(LAYERS))
        self.register_buffer("waves", 2.0 ** torch.linspace(-2, 4, WAVES), persistent=False)
        self.waves: Tensor

    def forward(self, noisy: Images, sigma: Float[Tensor, " image"], conditions: Conditions) -> Images:
        """The clean image, values around 0; `sigma`: standard deviation of the noise of each."""
        size = sigma[:, None]
        whole = size.square() + SPREAD**2
        angle = sigma.log()[:, None] / 4 * self.waves * math.pi
        told = self.condition(conditions) + self.noise(torch.cat([angle.sin(), angle.cos()], 1))
        h = self.first(noisy / whole.sqrt())
        for norm, inner, add in zip(self.norms, self.inner, self.told, strict=True):
            h = h + functional.gelu(inner(norm(h))) + add(told)
        return SPREAD**2 / whole * noisy + size * SPREAD / whole.sqrt() * self.last(h)

    def losses(self, images: Images, conditions: Conditions, sigma: Float[Tensor, " image"], noise: Images) -> Tensor:
        """Weighted squared error of each image, the mean over its pixels."""
        clean = images - MIDDLE
        weight = (sigma.square() + SPREAD**2) / (sigma * SPREAD).square()
        found = self(clean + sigma[:, None] * noise, sigma, conditions)
        return weight * (found - clean).square().mean(1)

    @torch.no_grad()
    def sample(self, conditions: Conditions, noise: Images) -> Images:
        """Images of conditions from fixed noise, by 18 steps of Euler from much noise to none; values as they are drawn."""
        share = torch.linspace(0, 1, STEPS)
        sigmas = (HIGH ** (1 / RHO) + share * (LOW ** (1 / RHO) - HIGH ** (1 / RHO))) ** RHO
        x = HIGH * noise
        for now, after in zip(sigmas, [*sigmas[1:], torch.zeros(())], strict=True):
            clean = self(x, now.expand(len(x)), conditions)
            x = x + (after - now) * (x - clean) / now
        return x + MIDDLE


def training_set(world: World, each: int, seed: int, *, shuffled: bool = False) -> Discs:
    """So many images of each class but the last; `shuffled`: with each other's conditions."""
    draw = generator(122_949_823 + seed)
    parts = [world.draw(name, each, draw) for name in TRAINED]
    images, conditions = (torch.cat(both) for both in zip(*parts, strict=True))
    return Discs(images, conditions[torch.randperm(len(images), generator=draw)] if shuffled else conditions)


def train_denoiser(data: Discs, seed: int, steps: int, every: int) -> Iterator[tuple[int, Denoiser]]:
    """AdamW, 3e-4, batches of 128; the model at step 0 and every so many steps."""
    model = Denoiser(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.01, fused=True)
    draw = generator(334_214_459 + seed)
    yield 0, model
    for step in range(1, steps + 1):
        rows = torch.randint(0, len(data.images), (128,), generator=draw)
        sigma = (-1 + 1.2 * torch.randn(128, generator=draw)).exp()
        noise = torch.randn(128, PIXELS, generator=draw)
        loss = model.losses(data.images[rows], data.conditions[rows], sigma, noise).mean()
        descend(optimiser, loss)
        if step % every == 0 or step == steps:
            yield step, model


@final
class Judge(nn.Module):
    """Chances that an image is blue, and that it is small."""

    def __init__(self, seed: int) -> None:
        """First weights by the seed."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(PIXELS, 128), nn.ReLU(), nn.Linear(128, 2))

    def forward(self, images: Images) -> Float[Tensor, "image 2"]:
        """Blue, small."""
        return self.net(images - MIDDLE).sigmoid()


def judge_of(world: World, seed: int, steps: int) -> tuple[Judge, float]:
    """Trained on all four classes, with noise of .03; and its accuracy on fresh images."""
    draw = generator(433_494_437 + seed)
    judge = Judge(seed)
    optimiser = torch.optim.Adam(judge.parameters(), lr=1e-3, fused=True)
    truth = torch.tensor([[float(one) for one in both] for both in CLASSES.values()])

    def drawn(each: int) -> tuple[Tensor, Tensor]:
        images = torch.cat([world.draw(name, each, draw).images for name in CLASSES])
        return images, truth.repeat_interleave(each, 0)

    for _ in range(steps):
        images, labels = drawn(32)
        loss = functional.binary_cross_entropy(judge(images + 0.03 * torch.randn(images.shape, generator=draw)), labels)
        descend(optimiser, loss)
    judge.requires_grad_(requires_grad=False)
    images, labels = drawn(256)
    return judge, float(((judge(images) > 0.5) == (labels > 0.5)).float().mean())
