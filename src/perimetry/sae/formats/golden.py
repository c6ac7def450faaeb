"""Golden inputs: the rows on which a converted dictionary is held against its source.

32 real activations, 16 Gaussian rows of their mean and covariance, 8 rows at the edge of firing, exact ties where they can be made, and
rows that break what is wrong: zero, `b_dec`, one of a thousand times the norm, one coordinate alone, repeats.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Acts
from perimetry.runtime import generator
from perimetry.sae.formats.record import (
    BatchTopKGate,
    GatedGate,
    JumpReLUGate,
    Record,
    TopKGate,
)
from perimetry.sae.formats.wrapped import normalise

__all__ = ["KINDS_OF_ROWS", "Golden", "golden_inputs"]

KINDS_OF_ROWS = ("real", "drawn", "gaussian", "probe", "tie", "edge")
"""What a row is; its place here is its number in the file. `drawn` stands for `real` where no activations were given."""
REAL, GAUSSIAN, PROBES, TIES = 32, 16, 8, 8
NEAR = 1e-4


class Golden(NamedTuple):
    """Inputs and what they are."""

    inputs: Float[Tensor, "row d_in"]
    """float32."""
    kinds: Int[Tensor, " row"]
    """Place in `KINDS_OF_ROWS`."""

    def rows(self, *names: str) -> Tensor:
        """Mask of the rows of some kinds."""
        wanted = torch.tensor([KINDS_OF_ROWS.index(name) for name in names])
        return torch.isin(self.kinds, wanted)


def _drawn(record: Record, rows: int, source: torch.Generator) -> Acts:
    """Rows that use the dictionary: a few latents' directions, at sizes at which they fire, about the centre."""
    towards = record.W_dec if record.d_in == record.d_out else record.W_enc
    assert towards is not None, "a transcoder has an encoder"
    unit = towards / towards.norm(dim=1, keepdim=True).clamp(min=1e-12)
    typical = float(record.b_dec.norm()) / 4 + 1.0
    picks = torch.randint(0, record.d_sae, (rows, 8), generator=source)
    sizes = typical * torch.rand(rows, 8, 1, generator=source)
    centre = record.b_dec if record.d_in == record.d_out else torch.zeros(record.d_in)
    noise = 0.05 * typical * torch.randn(rows, record.d_in, generator=source)
    return (centre + (sizes * unit[picks]).sum(1) + noise).float()


def _gaussian(real: Acts, rows: int, source: torch.Generator) -> Tensor:
    """Gaussian rows of the mean and covariance of `real`: random mixtures of its centred rows."""
    centred = real - real.mean(0)
    mix = torch.randn(rows, real.shape[0], generator=source) / max(1, real.shape[0] - 1) ** 0.5
    return real.mean(0) + mix @ centred


def _cuts(record: Record) -> Tensor | None:
    """The encoder product at which each latent begins to fire, where that is a number of its own."""
    gate = record.gate
    bias = torch.zeros(record.d_sae) if record.b_enc is None else record.b_enc
    if isinstance(gate, GatedGate):
        return -gate.b_gate
    if isinstance(gate, JumpReLUGate):
        return gate.threshold.clamp(min=0) - bias
    if isinstance(gate, BatchTopKGate):
        return max(0.0, gate.threshold) - bias
    return -bias


def _probes(record: Record, starts: Acts) -> Tensor:
    """Rows moved along encoder directions until a latent, or the k-th rank, lies just above or just below its edge."""
    encoder = (record.W_dec if record.W_enc is None else record.W_enc).double()
    rows: list[Tensor] = []
    for i, start in enumerate(starts):
        x = start.double()
        shift: Tensor = torch.zeros(1, dtype=torch.float64)
        scale: Tensor = torch.ones(1, dtype=torch.float64)
        if record.input_norm != "none":
            z, (shift, scale) = normalise(x[None], record.input_norm)
            x = z[0]
        inner = x - record.b_dec.double() if record.subtract_b_dec else x
        product = encoder @ inner
        typical = float(product.abs().median()) + 1e-6
        delta = NEAR * typical * (1 if i % 2 else -1)
        gate = record.gate
        if isinstance(gate, TopKGate) and gate.k < record.d_sae:
            bias = 0 if record.b_enc is None else record.b_enc.double()
            order = (product + bias).argsort(descending=True)
            last, next_ = order[gate.k - 1], order[gate.k]
            gap = (product + bias)[last] - (product + bias)[next_]
            along = encoder[last] - encoder[next_]
            x = x + (delta - gap) * along / along.square().sum().clamp(min=1e-12)
        else:
            cuts = _cuts(record)
            assert cuts is not None, "every gate has an edge"
            far = (cuts.double() - product).abs()
            latent = far.argsort()[i]
            along = encoder[latent]
            x = x + (cuts[latent] + delta - product[latent]) * along / along.square().sum().clamp(min=1e-12)
        rows.append((x * scale.reshape(-1)[0] + shift.reshape(-1)[0]).float())
    return torch.stack(rows)


def _ties(record: Record) -> Acts:
    """Rows of one coordinate at which a latent lies exactly on its edge, in float32 and in float64 alike; few can be made."""
    gate = record.gate
    if record.W_enc is None or record.input_norm != "none" or not isinstance(gate, JumpReLUGate | BatchTopKGate):
        return torch.zeros(0, record.d_in)
    cuts = _cuts(record)
    assert cuts is not None, "every gate has an edge"
    theta = gate.threshold if isinstance(gate, JumpReLUGate) else torch.full((record.d_sae,), gate.threshold)
    bias = torch.zeros(record.d_sae) if record.b_enc is None else record.b_enc
    centre = record.b_dec if record.subtract_b_dec else torch.zeros(record.d_in)
    found: list[Tensor] = []
    for latent in (theta > 0).nonzero()[:, 0][:4096].tolist():
        column = int(record.W_enc[latent].abs().argmax())
        weight = record.W_enc[latent, column]
        row = centre.clone()
        row[column] += cuts[latent] / weight
        inner = row - centre
        exact = inner.double() @ record.W_enc[latent].double() + bias[latent].double()
        if float(exact) == float(theta[latent]) and float(inner[column] * weight + bias[latent]) == float(
            theta[latent]
        ):
            found.append(row)
        if len(found) == TIES:
            break
    return torch.stack(found) if found else torch.zeros(0, record.d_in)


def golden_inputs(record: Record, activations: Acts | None = None, seed: int = 0) -> Golden:
    """At least 64 rows for a record; with `activations` 32 of them are real ones, chosen by `seed`."""
    source = generator(seed)
    if activations is not None:
        picked = torch.randperm(activations.shape[0], generator=source)[:REAL]
        real = activations[picked].float()
        pool = activations[torch.randperm(activations.shape[0], generator=source)[:4096]].float()
    else:
        pool = real = _drawn(record, REAL, source)
    real = real.repeat(-(-REAL // max(1, real.shape[0])), 1)[:REAL]
    one = torch.zeros(record.d_in)
    one[int(torch.randint(0, record.d_in, (1,), generator=source))] = float(real.norm(dim=1).median())
    centre = record.b_dec if record.d_in == record.d_out else real.mean(0)
    edge = torch.stack([torch.zeros(record.d_in), centre, real[0] * 1e3, one, real[0], real[0], real[1], real[1]])
    parts = [
        ("drawn" if activations is None else "real", real),
        ("gaussian", _gaussian(pool, GAUSSIAN, source)),
        ("probe", _probes(record, real[:PROBES])),
        ("tie", _ties(record)),
        ("edge", edge),
    ]
    kinds = [torch.full((rows.shape[0],), KINDS_OF_ROWS.index(name)) for name, rows in parts]
    return Golden(torch.cat([rows for _, rows in parts]), torch.cat(kinds))
