"""SAELens' own evaluation of an SAE on given tokens: run by the Python of the environment `saebench` of environments.py.

PYTHON fidelity_saelens.py JOB   reads the JSON file JOB (`sae`, `model`, `tokens`: paths; `ignore`: token ids; `batch`: rows) and prints
                                 the metrics of `sae_lens.evals.run_evals` as one JSON line, the last of its output

The store of activations that SAELens asks for tokens is replaced by the rows of `tokens`; the rest is its own.
"""

import contextlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file

with contextlib.redirect_stdout(sys.stderr):
    from sae_lens import SAE  # pyright: ignore[reportMissingImports]
    from sae_lens.evals import EvalConfig, run_evals  # pyright: ignore[reportMissingImports]
    from sae_lens.training.activation_scaler import ActivationScaler  # pyright: ignore[reportMissingImports]
    from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]


class Rows:
    """Stands where SAELens asks for tokens: the rows in order, from the first after a reset."""

    def __init__(self, tokens: torch.Tensor, batch: int) -> None:
        self.tokens, self.store_batch_size_prompts, self.context_size = tokens, batch, tokens.shape[1]
        self.at = 0

    def get_batch_tokens(self, size: int) -> torch.Tensor:
        """The next rows; the measures of the variance come after a reset."""
        found = self.tokens[self.at : self.at + size]
        self.at += size
        return found

    def reset_input_dataset(self) -> None:
        """From the first row on."""
        self.at = 0


def main() -> None:
    """Evaluate and print."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    tokens, batch = load_file(job["tokens"])["tokens"], job["batch"]
    if len(tokens) % batch:
        raise SystemExit(f"{len(tokens)} rows are no whole number of batches of {batch}; give another batch")
    with contextlib.redirect_stdout(sys.stderr):
        model = TransformerBridge.boot_transformers(job["model"], device="cpu", dtype=torch.float32)
        sae = SAE.load_from_disk(job["sae"], device="cpu")
        config = EvalConfig(
            batch_size_prompts=batch,
            n_eval_reconstruction_batches=len(tokens) // batch,
            n_eval_sparsity_variance_batches=len(tokens) // batch,
            compute_kl=True,
            compute_ce_loss=True,
            compute_l2_norms=True,
            compute_sparsity_metrics=True,
            compute_variance_metrics=True,
        )
        metrics, _ = run_evals(
            sae, Rows(tokens, batch), model, ActivationScaler(), config, exclude_special_tokens=job["ignore"]
        )
    flat = {name: value for group in metrics.values() for name, value in group.items()}
    print(json.dumps(flat | {"version": version("sae-lens")}))


if __name__ == "__main__":
    main()
