"""What refusal looks like inside: sides of activations, the update of a matrix, the spread of a class, and how steep an answer is."""

import copy
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.labs.nano import Nano
from perimetry.labs.safety_finetuning.answers import asked
from perimetry.labs.safety_finetuning.world import Prompts
from perimetry.runtime import generator

__all__ = [
    "Centres",
    "Inner",
    "Update",
    "between",
    "centres_of",
    "inner",
    "leading_share",
    "outside",
    "pull",
    "separation",
    "shuffled_separation",
    "steepness",
    "tau",
    "update_of",
]

KEPT: Final = 0.99
"""Share of the squared singular values that a column space holds."""
SHUFFLES: Final = 256
Hidden = Float[Tensor, "prompt hidden"]


class Inner(NamedTuple):
    """The MLP of one block, where the answer begins."""

    read: Float[Tensor, "prompt d_model"]
    """What its first matrix reads."""
    hidden: Float[Tensor, "prompt hidden"]
    """After the GELU."""


class Centres(NamedTuple):
    """Mean activations of two classes."""

    safe: Float[Tensor, " hidden"]
    """Of safe prompts."""
    unsafe: Float[Tensor, " hidden"]
    """Of unsafe ones."""


class Update(NamedTuple):
    """What fine-tuning did to the first matrix of the last MLP."""

    left: Float[Tensor, "hidden direction"]
    """Left singular vectors of the difference."""
    sizes: Float[Tensor, " direction"]
    """Singular values, falling."""
    right: Float[Tensor, "direction d_model"]
    """Right singular vectors."""


@torch.no_grad()
def inner(model: Nano, prompts: Prompts) -> list[Inner]:
    """Every block, at the end of the text: there the first token of the answer is decided."""
    seen: list[Tensor] = []
    rows = torch.arange(len(prompts.ids))

    def keep(_: object, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0][rows, prompts.eot].float().cpu())

    hooks = [
        part.register_forward_pre_hook(keep)
        for block in model.blocks
        for part in (block.get_submodule("up"), block.get_submodule("down"))
    ]
    try:
        asked(model, prompts.ids[:, : int(prompts.eot.max()) + 1], prompts)
    finally:
        for hook in hooks:
            hook.remove()
    return [Inner(*both) for both in zip(seen[::2], seen[1::2], strict=True)]


def centres_of(safe: Hidden, unsafe: Float[Tensor, "other hidden"]) -> Centres:
    """Means of both."""
    return Centres(safe.mean(0), unsafe.mean(0))


def tau(hidden: Hidden, centres: Centres) -> Float[Tensor, " prompt"]:
    """Distance from the unsafe mean less that from the safe one: above 0 on the safe side.

    >>> tau(torch.tensor([[0.0, 1.0]]), Centres(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 4.0])))
    tensor([3.])
    """
    return (hidden - centres.unsafe).norm(dim=1) - (hidden - centres.safe).norm(dim=1)


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[: len(x) // 2], x[len(x) // 2 :]


def separation(safe: Hidden, unsafe: Float[Tensor, "other hidden"]) -> float:
    """Mean side of safe prompts less that of unsafe ones; the means are of the first halves, the sides of the second."""
    (a, left), (b, right) = _halves(safe), _halves(unsafe)
    centres = centres_of(a, b)
    return float(tau(left, centres).mean() - tau(right, centres).mean())


def shuffled_separation(safe: Hidden, unsafe: Float[Tensor, "other hidden"], seed: int) -> float:
    """The same with labels that say nothing: half of each class under the other's, mean over several draws."""
    (a, left), (b, right) = _halves(safe), _halves(unsafe)
    draw = generator(941_083_981 + seed)
    found: list[Tensor] = []
    for _ in range(SHUFFLES):
        (one, two), (three, four) = (_halves(x[torch.randperm(len(x), generator=draw)]) for x in (a, b))
        centres = centres_of(torch.cat([one, three]), torch.cat([two, four]))
        found.append(tau(left, centres).mean() - tau(right, centres).mean())
    return float(torch.stack(found).mean())


def _matrix(model: Nano) -> Float[Tensor, "hidden d_model"]:
    weight = model.blocks[-1].get_submodule("up").weight
    assert isinstance(weight, Tensor)
    return weight.detach().double().cpu()


def update_of(before: Nano, after: Nano) -> Update:
    """Singular vectors of the difference of the first matrices of the last MLP."""
    return Update(*torch.linalg.svd(_matrix(after) - _matrix(before), full_matrices=False))


def outside(vectors: Float[Tensor, "hidden vector"], before: Nano) -> tuple[Float[Tensor, " vector"], int]:
    """Sine of the angle of each unit vector and the column space of that matrix before fine-tuning (99 % of its squared singular values),
    and the dimension of that space.

    A direction drawn at random has sqrt(1 - dimension / hidden) on average: only what lies above that avoids the space.
    """
    left, sizes, _ = torch.linalg.svd(_matrix(before), full_matrices=False)
    share = sizes.square().cumsum(0) / sizes.square().sum()
    rank = int((share < KEPT).sum()) + 1
    along = (left[:, :rank].T @ vectors.double()).square().sum(0)
    return (1 - along).clamp_min(0).sqrt(), rank


def pull(update: Update, read: Float[Tensor, "prompt d_model"]) -> Float[Tensor, " prompt"]:
    """How much the first direction of the update moves each prompt: its singular value times the size of the cosine with what the matrix
    reads."""
    along = torch.nn.functional.normalize(read.double(), dim=1) @ update.right[0]
    return update.sizes[0] * along.abs()


def leading_share(hidden: Hidden) -> float:
    """Share of the variance that lies along the first principal direction.

    >>> leading_share(torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 1.0], [2.0, -1.0]]))
    0.8
    """
    sizes = torch.linalg.svdvals((hidden - hidden.mean(0)).double()).square()
    return float(sizes[0] / sizes.sum().clamp_min(1e-300))


def steepness(model: Nano, prompts: Prompts) -> Float[Tensor, " prompt"]:
    """Norm of the gradient of the greatest logit at the end of the text with respect to the embeddings of the prompt."""
    kept: list[Tensor] = []

    def embed(x: Tensor) -> Tensor:
        kept.append(x.detach().requires_grad_())
        return kept[0]

    ids = prompts.ids[:, : int(prompts.eot.max()) + 1].to(model.embed.weight.device)
    logits = model.read(ids, embed=embed).logits[torch.arange(len(ids)), prompts.eot]
    (slope,) = torch.autograd.grad(logits.amax(1).sum(), kept[0])
    return slope.flatten(1).norm(dim=1).cpu()


@torch.no_grad()
def between(before: Nano, after: Nano, share: float) -> Nano:
    """The model before fine-tuning and this share of what that changed in it."""
    model = copy.deepcopy(before)
    for own, old, new in zip(model.parameters(), before.parameters(), after.parameters(), strict=True):
        own.copy_(old + share * (new - old))
    return model
