"""Fidelity of one SAE by perimetry and by SAELens, on the same tokens: `python benchmarks/fidelity_agreement.py --sae DIR --peers DIR`.

`--peers` is the folder of `peers/environments.py`, with its environment `saebench`. Both read the same packed rows in float32; special
tokens are left out by both, and no sink is (SAELens knows no such rule). Not compared: gamma, of
which SAELens gives the mean over batches. Exit code 1 where a number differs by more than `--tolerance`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from _common import finish, parser, runtime_of
from _meters import given_sae, sae_flag
from _probes import subject_of
from peers.environments import python_of
from perimetry.assets import resolve_model
from perimetry.evals.sae.fidelity import Fidelity
from perimetry.evals.sae.held_out import HeldRows
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Units, interval

__all__ = ["NAMES", "full_rows", "rows_of", "write_job"]

HERE = Path(__file__).resolve().parent
NAMES = {
    ("explained_variance", "sae"): "explained_variance",
    ("l0", "sae"): "l0",
    ("cosine", "sae"): "cossim",
    ("norm_ratio", "sae"): "l2_ratio",
    ("loss_recovered", "sae"): "ce_loss_score",
    ("kl_recovered", "sae"): "kl_div_score",
    ("cross_entropy", "sae"): "ce_loss_with_sae",
    ("cross_entropy", "raw"): "ce_loss_without_sae",
    ("cross_entropy", "zero"): "ce_loss_with_ablation",
    ("kl", "sae"): "kl_div_with_sae",
    ("kl", "zero"): "kl_div_with_ablation",
}
"""Metric and arm here -> name there."""


class Compared(NamedTuple):
    """What was compared."""

    rows: list[dict[str, Any]]
    """One a number: `estimate` is ours minus theirs."""
    worst: float
    """The largest difference."""


def full_rows(held: HeldRows, context: int, batch: int) -> HeldRows:
    """Rows of the whole context, as many as fill batches: SAELens knows no padding."""
    chosen = [i for i, row in enumerate(held.rows) if len(row.ids) == context]
    chosen = chosen[: len(chosen) // batch * batch]
    return HeldRows([held.rows[i] for i in chosen], tuple(held.names[i] for i in chosen))


def write_job(folder: Path, held: HeldRows, sae: Path, model: Path, ignore: list[int], batch: int) -> Path:
    """The file that tells peers/fidelity_saelens.py what to do."""
    save_file({"tokens": torch.tensor([row.ids for row in held.rows])}, folder / "tokens.safetensors")
    job = {"sae": str(sae), "model": str(model), "tokens": str(folder / "tokens.safetensors")}
    (folder / "job.json").write_text(json.dumps(job | {"ignore": ignore, "batch": batch}), encoding="utf-8")
    return folder / "job.json"


def rows_of(ours: list[Units], theirs: dict[str, Any], seed: int) -> Compared:
    """Numbers side by side."""
    found = {(units.cell.metric, units.cell.arm): units for units in ours}
    rows: list[dict[str, Any]] = []
    for (metric, arm), name in NAMES.items():
        number = interval(found[metric, arm])
        rows.append(
            {
                "metric": metric,
                "arm": arm,
                "against": f"SAELens {theirs['version']} {name}",
                "estimate": number.estimate - theirs[name],
                "low": number.low - theirs[name],
                "high": number.high - theirs[name],
                "n": number.n,
                "seed": seed,
                "method": f"ours minus theirs on the same tokens; low and high: {number.method} of ours",
                "ours": number.estimate,
                "theirs": theirs[name],
            }
        )
    return Compared(rows, max(abs(row["estimate"]) for row in rows))


def main() -> int:
    """Evaluate twice and compare."""
    found = parser(__doc__)
    sae_flag(found)
    found.add_argument("--peers", type=Path, required=True, help="folder of the peers' environments")
    found.add_argument("--text", default="wikipedia", help="asset, file or folder (default: wikipedia)")
    found.add_argument("--rows", type=int, default=16, help="packed rows (default: 16)")
    found.add_argument("--context", type=int, default=128, help="tokens of a row (default: 128)")
    found.add_argument("--batch", type=int, default=4, help="rows of a pass (default: 4)")
    found.add_argument("--tolerance", type=float, default=1e-3, help="largest difference (default: 0.001)")
    arguments = found.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return _compare(arguments, given_sae(arguments, Path(folder), runtime_of(arguments)))


def _compare(arguments: argparse.Namespace, sae: Path) -> int:
    found = subject_of(sae, runtime_of(arguments)._replace(dtype=torch.float32), tiny=False)
    lm, policy = found.place.lm, found.place.policy.model_copy(update={"max_norm": None})
    subject = found._replace(place=found.place._replace(policy=policy))
    evaluation = Fidelity(
        text=arguments.text, rows=arguments.rows, context=arguments.context, batch=arguments.batch, losses=True
    )
    held = full_rows(evaluation.held_rows(subject.place), arguments.context, arguments.batch)
    ours = evaluation.on_rows(subject, held, Shelf())
    ignore = sorted(lm.special_ids if lm.separator_id is None else lm.special_ids | {lm.separator_id})
    with tempfile.TemporaryDirectory() as place:
        model = Path(str(resolve_model(lm.origin).location))
        job = write_job(Path(place), held, sae, model, ignore, arguments.batch)
        command = [str(python_of(arguments.peers, "saebench")), str(HERE / "peers" / "fidelity_saelens.py"), str(job)]
        theirs = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        )
    compared = rows_of(ours, theirs, evaluation.seed)
    finish(arguments, "fidelity_agreement", compared.rows, worst=compared.worst, tolerance=arguments.tolerance)
    return 0 if compared.worst <= arguments.tolerance else 1


if __name__ == "__main__":
    sys.exit(main())
