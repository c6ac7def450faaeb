"""Certificates: a conversion is believed on behaviour, never on names or shapes of tensors.

The converted SAE and its source's own formulas (or its own library) read the same golden rows; codes, supports and outputs are compared,
in float32 as it will run, and in float64 to tell rounding from error. The verdict:

* `exact`: codes and output equal within 1e-5 relative in float32, no other support off the probes, on real activations;
* `toleranced`: right, but with limits that it names (a bfloat16 source, rounding, a count unlike the declared one);
* `structural`: right, but no real activations were there, or it explains nothing of them: for inspection only;
* `failed`: another function than the source's.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perimetry import __version__
from perimetry.axes import Acts
from perimetry.errors import TooFewSamples
from perimetry.measures.reconstruction import ReconstructionSums
from perimetry.sae.base import AbstractSAE
from perimetry.sae.formats.checks import warnings_of
from perimetry.sae.formats.golden import KINDS_OF_ROWS, Golden, golden_inputs
from perimetry.sae.formats.hashing import tensor_hash
from perimetry.sae.formats.record import Record
from perimetry.sae.formats.reference import Reference

__all__ = ["CERTIFICATE_FORMAT", "Certified", "Verdict", "certify"]

CERTIFICATE_FORMAT = "1.0"
EXACT, WRONG64, WRONG32 = 1e-5, 1e-4, 1e-3
DECLARED_SHARE = 0.15
MISMATCH_SHARE = 1e-3
NOTHING = 1e-6
LEAST, MOST = 32, 4096
Verdict = Literal["exact", "toleranced", "structural", "failed"]
Array = NDArray[np.float64]


class Certified(NamedTuple):
    """A certificate and what it rests on."""

    certificate: dict[str, Any]
    """Plain values, for `certificate.json`."""
    golden: dict[str, Tensor]
    """Inputs, kinds of rows, reference codes (indices, values) and outputs, for `golden.safetensors`."""

    @property
    def verdict(self) -> Verdict:
        """What it says."""
        return self.certificate["verdict"]


class _Sides(NamedTuple):
    """The same rows on both sides."""

    codes: Array
    output: Array | None
    skip: Array | None


@torch.no_grad()
def _ours(sae: AbstractSAE, record: Record, inputs: Tensor) -> _Sides:
    if not record.reconstructs:
        return _Sides(sae.encode(inputs).dense().double().numpy(), None, None)
    codes, output = sae(inputs)
    skip = None if record.W_skip is None else (output - sae.decode(codes)).double().numpy()
    return _Sides(codes.dense().double().numpy(), output.double().numpy(), skip)


def _theirs(reference: Reference, record: Record, inputs: Tensor) -> _Sides:
    x = inputs.double().numpy()
    codes = reference.codes(x)
    output = reference.output(x, codes) if record.reconstructs else None
    return _Sides(codes, output, reference.skip(x) if reference.skip is not None else None)


def _error(mine: Array | None, wanted: Array | None, rows: NDArray[np.bool_]) -> dict[str, float] | None:
    """Largest absolute error, and largest relative to the largest number of the row or of the median row, over some rows."""
    if mine is None or wanted is None:
        return None
    if mine.shape != wanted.shape:
        return {"absolute": float("inf"), "relative": float("inf")}
    mine, wanted = mine[rows], wanted[rows]
    if not mine.size:
        return {"absolute": 0.0, "relative": 0.0}
    off, size = np.abs(mine - wanted).max(1), np.abs(wanted).max(1)
    # What cancels to almost nothing, as the output of a zero row may, is rounded like the numbers that it is made of.
    floor = max(float(np.median(size)), np.finfo(np.float64).tiny)
    return {"absolute": float(off.max()), "relative": float((off / np.maximum(size, floor)).max())}


def _compare(mine: _Sides, wanted: _Sides, golden: Golden) -> dict[str, Any]:
    probes: NDArray[np.bool_] = golden.rows("probe").numpy()
    ties = golden.rows("tie").numpy()
    shapes = mine.codes.shape == wanted.codes.shape
    # Below this a code is the rounding of a zero; where firing is a jump, values at the edge are far above.
    least = NOTHING * float(np.median(np.abs(wanted.codes).max(1)))
    fires = np.abs(wanted.codes) > least
    differs = ((np.abs(mine.codes) > least) != fires) if shapes else np.ones_like(fires)
    whole: NDArray[np.bool_] = np.logical_not(np.any(differs, axis=1))
    return {
        "codes": _error(mine.codes, wanted.codes, whole),
        "reconstruction": _error(mine.output, wanted.output, whole),
        "skip": _error(mine.skip, wanted.skip, np.ones_like(whole)),
        "support": {
            "off_probes": int(differs[~probes & ~ties].sum()),
            "on_probes": int(differs[probes].sum()),
            "on_ties": int(differs[ties].sum()),
            "active": int(fires.sum()),
        },
        "rows_compared": int(whole.sum()),
    }


@torch.no_grad()
def _measured(sae: AbstractSAE, record: Record, activations: Acts) -> dict[str, float | int | None]:
    acts = activations[:MOST].float()
    codes = sae.encode(acts)
    found: dict[str, float | int | None] = {
        "tokens": acts.shape[0],
        "l0": float(codes.count().double().mean()),
        "explained_variance": None,
        "gamma": None,
    }
    if record.reconstructs and not record.transcoder:
        sums = ReconstructionSums.start(acts).add(acts, sae(acts).reconstruction)
        found |= {"explained_variance": sums.explained_variance(), "gamma": sums.shrinkage().gamma}
    return found


def _worst(comparison: Mapping[str, Any]) -> float:
    parts = [comparison[name] for name in ("codes", "reconstruction", "skip") if comparison[name] is not None]
    return max(part["relative"] for part in parts)


class _Claims(NamedTuple):
    """The real activations against the source's own claims."""

    apart: list[str]
    """Claims that do not hold within 15 %."""
    hopeless: list[str]
    """Claims so far from what is found that it must be another function or another place."""
    foreign: list[str]
    """Signs that the activations are not what it was trained on."""
    notes: list[str]
    """What was not claimed."""


def _claims(record: Record, measured: Mapping[str, Any]) -> _Claims:
    found = _Claims([], [], [], [])
    said, l0 = record.declared.l0, measured["l0"]
    if said is None:
        found.notes.append("the source declares no L0")
    elif abs(l0 - said) > DECLARED_SHARE * said:
        text = f"mean L0 is {l0:.4g} on the real activations, the source declares {said:.4g}"
        (found.apart if said / 2 <= l0 <= said * 2 else found.hopeless).append(text)
    ev, claimed = measured["explained_variance"], record.declared.explained_variance
    if ev is not None and claimed is not None and abs(ev - claimed) > DECLARED_SHARE * claimed:
        text = f"explained variance is {ev:.4g} on the real activations, the source declares {claimed:.4g}"
        (found.apart if ev >= claimed / 2 else found.hopeless).append(text)
    elif ev is not None and ev <= 0:
        found.foreign.append(
            f"explained variance is {ev:.4g} on the activations given, worse than their mean: is it another layer, model or scale?"
        )
    return found


def _errors(single: Mapping[str, Any], double: Mapping[str, Any]) -> list[str]:
    """What makes it another function than its source."""
    wrong: list[str] = []
    for name, comparison, bound in (("float32", single, WRONG32), ("float64", double, WRONG64)):
        support = comparison["support"]
        if _worst(comparison) > bound:
            wrong.append(f"codes or output are off by {_worst(comparison):.3g} relative in {name}")
        if support["off_probes"] > MISMATCH_SHARE * max(1, support["active"]):
            wrong.append(f"{support['off_probes']} latents fire on one side only, off the probes, in {name}")
    if double["support"]["on_ties"]:
        wrong.append(f"{double['support']['on_ties']} latents that lie exactly on their threshold differ: > is not >=")
    if not double["rows_compared"]:
        wrong.append("no row has the same support on both sides")
    return wrong


def _limits(record: Record, single: Mapping[str, Any]) -> list[str]:
    """What keeps it from being exact."""
    limits: list[str] = []
    if _worst(single) > EXACT:
        limits.append(f"float32 rounding: off by {_worst(single):.3g} relative where 1e-5 is exact")
    if single["support"]["off_probes"]:
        limits.append(f"{single['support']['off_probes']} latents at the edge of firing differ in float32")
    if record.source.dtype not in ("float32", "float64"):
        limits.append(f"the source is {record.source.dtype}")
    return limits


def _judge(
    record: Record, single: Mapping[str, Any], double: Mapping[str, Any], measured: Mapping[str, Any] | None
) -> tuple[Verdict, list[str]]:
    claims = _Claims([], [], [], []) if measured is None else _claims(record, measured)
    wrong = _errors(single, double) + claims.hopeless
    limits = _limits(record, single) + claims.apart
    if wrong:
        return "failed", wrong + limits + claims.notes
    if measured is None:
        return "structural", ["no real activations at the declared hook were given", *limits]
    if claims.foreign:
        return "structural", claims.foreign + limits + claims.notes
    return ("toleranced" if limits else "exact"), limits + claims.notes


def _golden_tensors(golden: Golden, wanted: _Sides) -> dict[str, Tensor]:
    most = max(1, int((wanted.codes != 0).sum(1).max()))
    order = np.argsort(-np.abs(wanted.codes), axis=1, kind="stable")[:, :most]
    values = np.take_along_axis(wanted.codes, order, 1)
    tensors = {
        "inputs": golden.inputs.contiguous(),
        "kinds": golden.kinds.contiguous(),
        "indices": torch.from_numpy(np.where(values != 0, order, 0)),
        "values": torch.from_numpy(values),
    }
    return tensors | ({} if wanted.output is None else {"output": torch.from_numpy(wanted.output)})


def certify(
    sae: AbstractSAE,
    record: Record,
    reference: Reference,
    *,
    activations: Acts | None = None,
    origin: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Certified:
    """Hold an SAE made of `record` against `reference` on golden rows.

    `activations` are real ones at the record's hook, `origin` says of which model, revision, tokenizer and place. A `reference` may be
    the source's own library; by default it is its formulas in NumPy. Errors: `TooFewSamples` for fewer than 32 activations,
    `WidthMismatch` for those of another width.
    """
    if activations is not None:
        if activations.shape[0] < LEAST:
            raise TooFewSamples(f"{activations.shape[0]} activations; at least {LEAST} are wanted; give a larger store")
        sae.check_width(activations, "the store of activations") if record.d_in == record.d_out else None
    golden = golden_inputs(record, activations, seed)
    wanted = _theirs(reference, record, golden.inputs)
    single = _compare(_ours(sae, record, golden.inputs), wanted, golden)
    twin = copy.deepcopy(sae).double()
    double = _compare(_ours(twin, record, golden.inputs.double()), wanted, golden)
    measured = None if activations is None else _measured(sae, record, activations)
    verdict, reasons = _judge(record, single, double, measured)
    certificate = {
        "format": CERTIFICATE_FORMAT,
        "verdict": verdict,
        "reasons": reasons,
        "converter": f"perimetry {__version__}",
        "reference": reference.statement,
        "source": record.source.model_dump(mode="json"),
        "kind": record.architecture,
        "architecture": sae.architecture,
        "tensors": tensor_hash(sae),
        "dtype": "float32",
        "float32": single,
        "float64": double,
        "rows": {name: int((golden.kinds == i).sum()) for i, name in enumerate(KINDS_OF_ROWS)},
        "measured": measured,
        "declared": record.declared.model_dump(mode="json"),
        "hook": record.hook.model_dump(mode="json"),
        "normalisation": record.input_norm,
        "policy": dict(record.policy),
        "how": dict(record.how),
        "model": record.model,
        "activations": None if origin is None else dict(origin),
        "overrides": dict(record.overrides),
        "notes": list(record.notes),
        "warnings": warnings_of(record),
    }
    return Certified(certificate, _golden_tensors(golden, wanted))
