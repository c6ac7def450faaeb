"""The causal loss: half way between two codes, the model shall say what lies half way between what it says of each.

With l the codes of a token, l' those of the nearest other token, s a share of the way and g the rest of the model after decoding:
the squared difference of g(l + s(l' - l)) and (1 - s) g(l) + s g(l'), all tokens of a sequence being moved at once (Menon et al.,
arXiv 2410.11767). It asks that directions of the dictionary do to the model what they look like, and it needs that model.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Acts, Latents
from perimetry.errors import ConfigError, TooFewSamples
from perimetry.sae.affine import AffineSAE
from perimetry.sae.base import AbstractSAE
from perimetry.sae.steps.base import Objective
from perimetry.train.causal_config import CausalConfig, CausalTarget

__all__ = [
    "VERSIONS",
    "Heard",
    "Interpolation",
    "Pull",
    "Rest",
    "causal_pull",
    "interpolated",
    "missed",
    "nearest_others",
    "require_rest",
    "straight_way",
]

VERSIONS: Final = 3
"""The codes of each token, those of the nearest other token, and those on the way."""
CHUNK_BYTES = 2**27
"""Bytes of the logits that exist at a time."""

Versions = Float[Tensor, "version token d_model"]


class Interpolation(NamedTuple):
    """How far what is said on the way is from what lies on the way between what is said at its ends."""

    error: Float[Tensor, ""]
    """The causal loss, without its weight; lower is straighter."""
    size: Float[Tensor, ""]
    """The same of the whole move: what the error would be if the model did not move at all. Without a graph."""

    @property
    def relative(self) -> float:
        """Error by size; 0 is a straight way, as is one on which nothing moves."""
        size = float(self.size)
        return float(self.error.detach()) / size if size else 0.0


class Heard(NamedTuple):
    """What the rest of a model makes of several versions of the same tokens."""

    last: Float[Tensor, "version token d_last"]
    """Last hidden states at those tokens, with a graph that leads to the versions."""
    head: Callable[[Float[Tensor, "row d_last"]], Float[Tensor, "row output"]]
    """What the model says in such a state: logits, in float32."""
    outputs: int
    """How many they are."""


@runtime_checkable
class Rest(Protocol):
    """The model after the place whose activations an SAE reads, with sequences of text."""

    def __call__(self, turn: int, replace: Callable[[Acts], Versions]) -> Heard:
        """Run the model on the sequences of `turn`, with `replace` of its activations in their places.

        The sequences depend on `turn` alone, bit for bit. Tokens that do not count stay as they are.
        """
        ...


class Pull(NamedTuple):
    """The causal loss of one turn."""

    gradients: dict[str, Tensor]
    """Gradient of the error by the name of a parameter of the SAE, without the weight."""
    interpolation: Interpolation
    """The error itself."""


@torch.no_grad()
def nearest_others(latents: Latents, *, chunk: int = 1024) -> Int[Tensor, " token"]:
    """The other token whose codes are nearest, of each; of equal ones the first. A token that is alone has itself.

    Errors: `TooFewSamples` without a token.

    >>> nearest_others(torch.tensor([[0.0], [3.0], [1.0]])).tolist()
    [2, 2, 0]
    """
    if not len(latents):
        raise TooFewSamples(
            "no token of a sequence counts, so that none can be moved; wanted two or more; give plain text, or a layer whose "
            "norms are not all above those of a sink"
        )
    found: list[Tensor] = []
    for begin in range(0, len(latents), chunk):
        away = torch.cdist(latents[begin : begin + chunk], latents)
        rows = torch.arange(len(away), device=away.device)
        away[rows, begin + rows] = torch.inf
        found.append(away.argmin(1))
    return torch.cat(found)


def _picked(latents: Latents, places: Int[Tensor, " token"]) -> Latents:
    """Rows by number, with a gradient that adds up in a fixed order on every device."""
    if latents.device.type == "cpu":
        return latents.index_select(0, places)
    return torch.nn.functional.one_hot(places, len(latents)).to(latents.dtype) @ latents


def straight_way(latents: Latents, share: float) -> list[Latents]:
    """The codes, those of the nearest other tokens, and those a share of the way from the one to the other."""
    other = _picked(latents, nearest_others(latents))
    return [latents, other, latents + share * (other - latents)]


def missed(said: Float[Tensor, "version token output"], share: float, target: CausalTarget = "logits") -> Interpolation:
    """How straight the outputs of a `straight_way` are.

    At a half of the way from 0 to 1 a square says 1/4, and 1/2 lies between: an error of 1/16.

    >>> said = torch.tensor([0.0, 1.0, 0.5]).square()[:, None, None]
    >>> float(missed(said, 0.5).error)
    0.0625
    """
    here, there, on_the_way = said
    between = (1 - share) * here + share * there
    if target == "logits":
        with torch.no_grad():
            size = (between - here).square().mean()
        return Interpolation((on_the_way - between).square().mean(), size)
    wanted = between.log_softmax(1)
    with torch.no_grad():
        size = _divergence(wanted, here)
    return Interpolation(_divergence(wanted, on_the_way), size)


def _divergence(wanted: Float[Tensor, "token output"], said: Float[Tensor, "token output"]) -> Float[Tensor, ""]:
    """Mean divergence of what is said from log-probabilities, in nats."""
    return (wanted.exp() * (wanted - said.log_softmax(1))).sum(1).mean()


def interpolated(
    latents: Latents,
    says: Callable[[Latents], Float[Tensor, "token output"]],
    share: float,
    target: CausalTarget = "logits",
) -> Interpolation:
    """Move every token by a share of the way to the nearest other. `says`: what comes out of the model for such latents, all
    tokens of a sequence being moved at once. Errors: `TooFewSamples`."""
    return missed(torch.stack([says(version) for version in straight_way(latents, share)]), share, target)


def require_rest(config: CausalConfig, rest: Rest | None) -> None:
    """Refuse a causal loss without a model to run. Errors: `ConfigError`."""
    if config.causal and rest is None:
        raise ConfigError(
            f"causal = {config.causal:g} runs the model that the activations come from on text, and this training was given "
            "activations alone; train with `perimetry train`, give the job a `rest`, or set causal = 0"
        )


def causal_pull(
    sae: AbstractSAE,
    scale: Tensor,
    heard_of: Callable[[Callable[[Acts], Versions]], Heard],
    objective: Objective,
    *,
    share: float,
    target: CausalTarget = "logits",
) -> Pull:
    """The causal loss and its gradient, which reaches nothing but the SAE.

    `scale` is what the SAE's rows are multiplied with; `heard_of` is a `Rest` at some turn. Codes are by the training rule.
    Errors: `TooFewSamples`.
    """
    assert isinstance(sae, AffineSAE), "the recipe refuses the others"

    def replace(acts: Acts) -> Versions:
        rows = acts.detach().to(scale.device, sae.W_enc.dtype) * scale
        centred = rows - sae.b_dec if sae.subtract_b_dec else rows
        latents = sae.dense_codes(centred @ sae.W_enc.T + sae.b_enc, objective)
        return (
            torch.stack([sae.dense_reconstruction(rows, version) for version in straight_way(latents, share)]) / scale
        )

    with torch.enable_grad():
        heard = heard_of(replace)
        leaf = heard.last.detach().requires_grad_()
        interpolation = _by_chunks(heard, leaf, share, target)
        names, parameters = zip(*sae.named_parameters(), strict=True)
        found = torch.autograd.grad(heard.last, parameters, leaf.grad, allow_unused=True)
    gradients = {n: g for n, g in zip(names, found, strict=True) if g is not None}
    return Pull(gradients, interpolation)


def _by_chunks(
    heard: Heard, leaf: Float[Tensor, "version token d_last"], share: float, target: CausalTarget
) -> Interpolation:
    """The loss, with its gradient left at the last hidden states: memory holds the logits of some tokens at a time."""
    versions, tokens, _ = leaf.shape
    step = max(1, CHUNK_BYTES // (4 * versions * heard.outputs))
    error, size = torch.zeros((), device=leaf.device), torch.zeros((), device=leaf.device)
    for part in leaf.split(step, 1):
        said = heard.head(part.flatten(0, 1)).unflatten(0, (versions, -1))
        found = missed(said, share, target)
        weight = part.shape[1] / tokens
        (weight * found.error).backward()
        error += weight * found.error.detach()
        size += weight * found.size
    return Interpolation(error, size)
