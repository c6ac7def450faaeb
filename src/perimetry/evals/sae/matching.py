"""How well latents stand for known features: one-to-one matching, and latents read as classifiers. Pure functions of tensors.

Geometry compares decoder rows with feature directions by absolute cosine, as the published benchmark does. Firing is counted
over sparse entries: what is joined is a token's few active latents with its few true features, never all pairs.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from perimetry.axes import Decoder
from perimetry.errors import Incompatible, NonFinite, WidthMismatch

__all__ = [
    "Best",
    "Entries",
    "Looked",
    "Pairs",
    "Scores",
    "Tallies",
    "assign",
    "best",
    "cosines",
    "joint",
    "look",
    "scores",
    "tally",
]

Similarity = Float[Tensor, "d_sae feature"]
PerLatentCount = Int[Tensor, " d_sae"]
PerFeatureCount = Int[Tensor, " feature"]


class Entries(NamedTuple):
    """What is active where, sparse; no (token, column) comes twice."""

    tokens: Int[Tensor, " entry"]
    """Token of each entry."""
    columns: Int[Tensor, " entry"]
    """Latent or feature that is active there."""
    width: int
    """Number of latents or features that there are."""


class Pairs(NamedTuple):
    """The one-to-one matching with the largest sum of cosines; as many pairs as the smaller side has members."""

    latents: Int[Tensor, " pair"]
    """Latent of each pair, rising."""
    features: Int[Tensor, " pair"]
    """Its feature."""
    cosines: Float[Tensor, " pair"]
    """Absolute cosine, float64, 0 to 1; their mean is the MCC."""


class Best(NamedTuple):
    """Nearest neighbours, each chosen without regard to the others."""

    feature: Int[Tensor, " d_sae"]
    """Feature of the largest cosine with each latent; several latents may share one."""
    latent: Int[Tensor, " feature"]
    """Latent of the largest cosine with each feature."""


class Tallies(NamedTuple):
    """Counts over tokens; batches add up."""

    latent: PerLatentCount
    """Tokens at which each latent is active."""
    feature: PerFeatureCount
    """Tokens at which each feature fires."""
    by_latent: PerLatentCount
    """Tokens at which a latent is active together with its best feature."""
    by_feature: PerFeatureCount
    """Tokens at which a feature fires together with its best latent."""

    def add(self, other: "Tallies") -> "Tallies":
        """The counts of both."""
        return Tallies(*[a + b for a, b in zip(self, other, strict=True)])


class Scores(NamedTuple):
    """A classifier against the truth, each 0 to 1, higher is better; 0 where it never fires or is never asked."""

    precision: Float[Tensor, " column"]
    """Share of its alarms that are true."""
    recall: Float[Tensor, " column"]
    """Share of the true cases that it finds."""
    f1: Float[Tensor, " column"]
    """Harmonic mean of both."""


def cosines(decoder: Decoder, directions: Float[Tensor, "feature width"]) -> Similarity:
    """Absolute cosine of every latent with every feature, float64; rows of length 0 have 0 with all.

    Errors: `WidthMismatch` for two widths, `NonFinite`.

    >>> cosines(torch.tensor([[0.0, -2.0]]), torch.eye(2)).tolist()
    [[0.0, 1.0]]
    """
    if decoder.shape[1] != directions.shape[1]:
        raise WidthMismatch(
            f"the dictionary writes width {decoder.shape[1]} and the features are of width {directions.shape[1]}; judge a "
            "dictionary that was trained on this world"
        )
    found = []
    for rows in (decoder, directions):
        rows = rows.detach().cpu().double()
        if not bool(rows.isfinite().all()):
            raise NonFinite(
                "a decoder row or a feature direction is NaN or infinite; give a dictionary of finite weights"
            )
        lengths = rows.norm(dim=1, keepdim=True)
        found.append(torch.where(lengths > 0, rows / lengths.clamp(min=1e-300), 0))
    return (found[0] @ found[1].T).abs().clamp(max=1)


def assign(similarity: Similarity) -> Pairs:
    """The Hungarian matching of latents and features.

    >>> assign(torch.tensor([[0.9, 0.8], [0.9, 0.1]]).double()).features.tolist()
    [1, 0]
    """
    latents, features = linear_sum_assignment(similarity.numpy(), maximize=True)
    rows, columns = torch.from_numpy(latents), torch.from_numpy(features)
    return Pairs(rows, columns, similarity[rows, columns])


def best(similarity: Similarity) -> Best:
    """The nearest of the other side for every latent and every feature.

    >>> best(torch.tensor([[0.9, 0.8], [0.95, 0.1]]).double())
    Best(feature=tensor([0, 0]), latent=tensor([1, 0]))
    """
    return Best(similarity.argmax(1), similarity.argmax(0))


class Looked(NamedTuple):
    """Where keys are in a rising list."""

    there: Bool[Tensor, " entry"]
    """Whether a key is in it."""
    place: Int[Tensor, " entry"]
    """Where, of those that are."""


def look(keys: Int[Tensor, " entry"], ordered: Int[Tensor, " other"]) -> Looked:
    """Look keys up in a rising list.

    >>> look(torch.tensor([5, 2]), torch.tensor([1, 5])).there.tolist()
    [True, False]
    """
    if not ordered.numel():
        return Looked(torch.zeros_like(keys, dtype=torch.bool), torch.zeros_like(keys))
    places = torch.searchsorted(ordered, keys).clamp(max=ordered.numel() - 1)
    return Looked(ordered[places] == keys, places)


def joint(asked: Entries, partner: Int[Tensor, " column"], other: Entries) -> Int[Tensor, " column"]:
    """Tokens at which a column of `asked` is active together with its `partner`, a column of `other`.

    >>> some = Entries(torch.tensor([0, 1]), torch.tensor([0, 0]), 1)
    >>> joint(some, torch.tensor([2]), Entries(torch.tensor([1, 2]), torch.tensor([2, 2]), 3))
    tensor([1])
    """
    wanted = asked.tokens * other.width + partner[asked.columns]
    hit = look(wanted, (other.tokens * other.width + other.columns).sort().values).there
    return torch.bincount(asked.columns[hit], minlength=asked.width)


def tally(active: Entries, fired: Entries, nearest: Best) -> Tallies:
    """The counts of a batch of tokens. Errors: `Incompatible` where `nearest` is of another dictionary or world."""
    if (active.width, fired.width) != (nearest.feature.shape[0], nearest.latent.shape[0]):
        raise Incompatible(
            f"{active.width} latents and {fired.width} features are counted, the nearest ones are of "
            f"{nearest.feature.shape[0]} and {nearest.latent.shape[0]}; give those of the same dictionary and world"
        )
    return Tallies(
        torch.bincount(active.columns, minlength=active.width),
        torch.bincount(fired.columns, minlength=fired.width),
        joint(active, nearest.feature, fired),
        joint(fired, nearest.latent, active),
    )


def scores(both: Tensor, said: Tensor, true: Tensor) -> Scores:
    """Precision, recall and F1 from counts: right alarms, all alarms, true cases.

    >>> [round(float(x), 3) for x in scores(torch.tensor([2]), torch.tensor([4]), torch.tensor([2]))]
    [0.5, 1.0, 0.667]
    """
    hits, alarms, cases = both.double(), said.double(), true.double()
    precision = torch.where(alarms > 0, hits / alarms.clamp(min=1), 0)
    recall = torch.where(cases > 0, hits / cases.clamp(min=1), 0)
    # 2 P R / (P + R) is this ratio; written so, nothing is divided by 0.
    f1 = torch.where(alarms + cases > 0, 2 * hits / (alarms + cases).clamp(min=1), 0)
    return Scores(precision, recall, f1)
