"""SAELens' `ActivationsStore` on a local model: what it reads and filters, batch after batch, kept nowhere.

The model is loaded by TransformerLens' bridge from its folder, in the dtype that perimetry uses. Its mixing buffer and its cache on
the disk are left out, so this is less work than perimetry's harvest, which writes shards and their hashes.
"""

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # pyright: ignore[reportMissingImports]
from sae_lens import ActivationsStore  # pyright: ignore[reportMissingImports]
from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]

__all__ = ["Reader"]


class Reader:
    """A model and texts."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        dtype = getattr(torch, job["dtype"])
        self.model = TransformerBridge.boot_transformers(job["model"], device=job["device"], dtype=dtype)
        lines = Path(job["text"]).read_text(encoding="utf-8").splitlines()
        self.texts = Dataset.from_list([{"text": json.loads(line)["text"]} for line in lines])

    @torch.no_grad()
    def read(self) -> int:
        """Read at least the wanted number of tokens from the first text on; returns how many counted."""
        job, found = self.job, 0
        bos = self.model.tokenizer.bos_token_id
        store = ActivationsStore(
            model=self.model,
            dataset=self.texts,
            streaming=False,
            hook_name=f"blocks.{job['layer']}.hook_resid_post",
            hook_head_index=None,
            context_size=job["context"],
            d_in=self.model.cfg.d_model,
            n_batches_in_buffer=2,
            total_training_tokens=job["tokens"],
            store_batch_size_prompts=job["batch_rows"],
            train_batch_size_tokens=job["context"] * job["batch_rows"],
            prepend_bos=bos is not None,
            normalize_activations="none",
            device=torch.device(job["device"]),
            dtype="float32",
            exclude_special_tokens=None if bos is None else torch.tensor([bos], device=job["device"]),
        )
        while found < job["tokens"]:
            found += store.get_filtered_llm_batch().shape[0]
        return found
