"""Tuned models on disk: a peft adapter, or a whole model, with a card that says what it was made with."""

import shutil
import warnings
from pathlib import Path
from typing import Any

from perimetry import __version__
from perimetry.activations.adapters import CARD, CONFIG, WEIGHTS, adapted_revision
from perimetry.errors import StorageError
from perimetry.robust.adapter import Tunable
from perimetry.runtime import dtype_name
from perimetry.storage import atomic_directory, hash_file, write_json

__all__ = ["save_tuned"]

README = """---
base_model: {base}
library_name: {library}
tags: [perimetry, robustness]
---

# {title}

Made by perimetry {version} from `{base}` (revision `{revision}`, {dtype}). What it was trained on, with which terms, and what it
measured before and after stands in `{card}` beside this file.

{rows}
"""


def save_tuned(tunable: Tunable, folder: Path, about: dict[str, Any]) -> str:
    """Write what was learned to `folder`, atomically, and return the revision of the tuned model.

    Low-rank matrices become a peft adapter folder, tuned weights a whole model folder with its tokenizer. `about`: data, arm,
    settings and numbers for the card, plain JSON values; its `summary`, a list of lines, also goes into `README.md`. Errors:
    `StorageError` where something else than an earlier one lies in `folder`, `StorageFull`.
    """
    lm = tunable.lm
    if folder.exists() and any(folder.iterdir()) and not (folder / CARD).is_file():
        raise StorageError(
            f"{folder} exists and is nothing that perimetry tuned; choose another folder, or remove it first"
        )
    lora = tunable.config.method == "lora"
    card = {
        "perimetry": __version__,
        "base": {"name": lm.name, "origin": lm.origin, "revision": lm.revision, "dtype": dtype_name(lm.dtype)},
        "method": tunable.config.method,
        "blocks": tunable.blocks,
        **about,
    }
    with atomic_directory(folder) as made:
        if lora:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the base is no folder here
                tunable.wrapped.save_pretrained(str(made), safe_serialization=True)
        else:
            lm.model.save_pretrained(str(made), safe_serialization=True)
            lm.tokenizer.save_pretrained(str(made))
        shutil.rmtree(made / ".cache", ignore_errors=True)
        write_json(made / CARD, card)
        (made / "README.md").write_text(
            README.format(
                base=lm.origin,
                library="peft" if lora else "transformers",
                title=str(about.get("title", "A model whose limit was moved")),
                version=__version__,
                revision=lm.revision,
                dtype=dtype_name(lm.dtype),
                card=CARD,
                rows="\n".join(f"* {line}" for line in about.get("summary", [])),
            ),
            encoding="utf-8",
        )
    if not lora:
        return lm.revision
    return adapted_revision(lm.revision, hash_file(folder / WEIGHTS), hash_file(folder / CONFIG))
