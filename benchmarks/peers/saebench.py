"""SAEBench's core evaluation of an SAE from here, on a local model and local text, offline: `PYTHON benchmarks/peers/saebench.py --sae DIR`.

Runs in the environment `saebench` of environments.py. What runs is `sae_bench.evals.core.main.multiple_evals` on `Adapter`. One thing of it is
replaced: it fetches a model by its name from a hub, here the same call reads the model's folder (`TransformerBridge` of
TransformerLens, so without folding or centring of weights). The text is split into parts; each is evaluated alone, so that every number has
a spread.
"""

import argparse
import datetime
import gzip
import json
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from adapter import Adapter
from sae_bench.evals.core import main as core  # pyright: ignore[reportMissingImports]
from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]

__all__ = ["evaluate", "flat", "texts"]

HERE = Path(__file__).resolve().parents[2]
PROJECT_VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)
PACKAGES = ("sae-bench", "sae-lens", "transformer-lens", "transformers", "torch")


class LocalModel:
    """Stands where SAEBench asks for its model class."""

    folder: Path

    @classmethod
    def from_pretrained_no_processing(cls, name: str, device: str, dtype: torch.dtype, **_: Any) -> Any:  # noqa: ARG003
        """The model of the folder, whatever its name."""
        return TransformerBridge.boot_transformers(str(cls.folder), device=device, dtype=dtype)


def texts(file: Path) -> Iterator[str]:
    """The field `text` of each line, of plain or compressed JSON lines."""
    whole = file.read_bytes()
    for line in (gzip.decompress(whole) if file.suffix == ".gz" else whole).splitlines():
        yield json.loads(line)["text"]


def flat(metrics: dict[str, Any], above: str = "") -> dict[str, float]:
    """Numbers by their path."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        path = f"{above}.{name}" if above else name
        if isinstance(value, dict):
            found |= flat(value, path)
        elif isinstance(value, int | float):
            found[path] = float(value)
    return found


def evaluate(sae: Adapter, dataset: Path, out: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """The core evaluation on one part of the text."""
    found = core.multiple_evals(
        [("perimetry", sae)],
        n_eval_reconstruction_batches=arguments.batches,
        n_eval_sparsity_variance_batches=arguments.batches,
        eval_batch_size_prompts=arguments.prompts,
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
        exclude_special_tokens_from_reconstruction=True,
        dataset=str(dataset),
        context_size=arguments.context,
        output_folder=str(out),
        dtype="float32",
        device="cpu",
        force_rerun=True,
    )
    if not found:
        raise SystemExit("SAEBench evaluated nothing; its log above says why")
    return flat(found[0]["metrics"])


def rows_of(parts: list[dict[str, float]], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a metric: mean over the parts of the text."""
    rows: list[dict[str, Any]] = []
    for metric in parts[0]:
        values = [part[metric] for part in parts if part[metric] == part[metric]]
        if not values:
            continue
        rows.append(
            {
                "metric": metric,
                "arm": arguments.sae.name,
                "estimate": statistics.fmean(values),
                "low": min(values),
                "high": max(values),
                "n": len(values),
                "seed": 0,
                "method": "mean over parts of the text; low and high are the least and the greatest",
            }
        )
    return rows


def main() -> None:
    """Evaluate and write."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--sae", type=Path, required=True, help="folder of an SAE that perimetry wrote")
    found.add_argument("--model", type=Path, required=True, help="folder of the model it was trained on")
    found.add_argument("--text", type=Path, required=True, help="JSON lines with `text`, plain or .gz")
    found.add_argument("--out", type=Path, help="write the results here")
    found.add_argument("--parts", type=int, default=5, help="parts of the text (default: 5)")
    found.add_argument("--documents", type=int, default=400, help="documents of a part, from the end (default: 400)")
    found.add_argument("--batches", type=int, default=2, help="batches of a part (default: 2)")
    found.add_argument("--prompts", type=int, default=8, help="prompts of a batch (default: 8)")
    found.add_argument("--context", type=int, default=128, help="tokens of a prompt (default: 128)")
    arguments = found.parse_args()
    LocalModel.folder = arguments.model
    core.HookedTransformer = LocalModel
    sae = Adapter(arguments.sae)
    documents = list(texts(arguments.text))
    parts: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as place:
        for part in range(arguments.parts):
            end = len(documents) - part * arguments.documents
            folder = Path(place) / f"part-{part}"
            folder.mkdir()
            lines = (json.dumps({"text": text}) for text in documents[max(0, end - arguments.documents) : end])
            (folder / "text.jsonl").write_text("\n".join(lines), encoding="utf-8")
            parts.append(evaluate(sae, folder, Path(place) / "out", arguments))
    # Of a path only its name: the rest is of one machine.
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    results = {
        "command": " ".join(["python", "benchmarks/peers/saebench.py", *words]),
        "version": PROJECT_VERSION.findall((HERE / "src" / "perimetry" / "__init__.py").read_text(encoding="utf-8"))[0],
        "hardware": {"python": platform.python_version(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "libraries": {name: version(name) for name in PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "sae": sae.cfg.to_dict(),
        "rows": rows_of(parts, arguments),
    }
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results["rows"], indent=1))


if __name__ == "__main__":
    main()
