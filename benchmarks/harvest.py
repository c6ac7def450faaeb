"""What a store costs beyond the forward pass: time of `harvest` over that of the truncated pass alone.

The pass reads the same packed rows up to the tapped block and throws the result away; the harvest also tokenises,
packs, drops what does not count, and writes hashed shards to the disk.

With --peers DIR (see `train_step.py`), SAELens reads the same model and the same texts with its `ActivationsStore` by turns
with the others, in a process of its own: it tokenises, packs and drops the BOS, and throws the result away.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from _common import finish, parser, ratio, row, runtime_of, spread, take_turns
from _crew import Crew
from _meters import clean_documents, save_tiny_model, write_documents
from perimetry import assets
from perimetry.activations.feed import row_batches
from perimetry.activations.model import LanguageModel, load_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import PromptBatch, collate
from perimetry.activations.store import HarvestConfig, harvest
from perimetry.activations.tap import Tap
from perimetry.activations.text import shuffled
from perimetry.runtime import dtype_name

SINK_NORM = 1e6
"""Fixed beforehand, so that no turn spends time on fitting it."""


def truncated_pass(tap: Tap, lm: LanguageModel, batches: Sequence[PromptBatch]) -> None:
    """The blocks up to the tap."""
    for batch in batches:
        tap.read(batch.ids.to(lm.device), batch.attention.to(lm.device))


def saelens_job(lm: LanguageModel, layer: int, text: str, config: HarvestConfig, model: str) -> dict[str, Any]:
    """What SAELens is asked to read."""
    return {
        "model": model,
        "text": text,
        "layer": layer,
        "context": config.context,
        "batch_rows": config.batch_rows,
        "tokens": config.tokens,
        "dtype": dtype_name(lm.dtype),
        "device": str(lm.device),
    }


def main() -> None:
    """Measure and print."""
    found = parser(__doc__)
    found.add_argument("--peers", type=Path, help="folder of the environments of the other libraries")
    arguments = found.parse_args()
    tiny, quick = arguments.tiny, arguments.quick
    runtime = runtime_of(arguments)
    with tempfile.TemporaryDirectory() as folder, Crew(arguments.peers, torch.get_num_threads()) as crew:
        root = Path(folder)
        model = save_tiny_model(root / "model") if tiny else "smollm2-135m-instruct"
        lm = load_language_model(model, runtime)
        documents = clean_documents(tiny=tiny)[:4000]
        layer, rows_a_batch = (1, 4) if tiny else (12, 32)
        policy = TokenPolicy(prepend_bos=lm.bos_id is not None, max_norm=SINK_NORM)
        context, full = 64 if tiny else 128, 1 if tiny or quick else 4
        ordered = shuffled(documents, HarvestConfig(tokens=1).seed)
        packed = row_batches(ordered, lm, policy, context, rows_a_batch)
        batches = [collate(rows, lm.pad_id) for rows in islice(packed, full)]
        # What whole batches hold, so that nobody computes rows that are then thrown away.
        counted = sum(int(batch.countable.sum()) for batch in batches)
        config = HarvestConfig(tokens=counted, context=context, batch_rows=rows_a_batch, policy=policy)
        tap, turns = Tap(lm, layer), count()

        def store() -> None:
            place = root / f"store-{next(turns)}"
            harvest(lm, layer, documents, place, config)
            shutil.rmtree(place)

        calls: dict[str, Callable[[], object]] = {
            "truncated pass": lambda: truncated_pass(tap, lm, batches),
            "harvest": store,
        }
        tokens = {"truncated pass": counted, "harvest": counted}
        if arguments.peers is not None:
            text = write_documents(ordered, root / "texts.jsonl")
            worker = crew.of("saelens")
            where = model if tiny else str(assets.path(model))
            worker.ask("open_reader", arm="saelens", library="saelens", job=saelens_job(lm, layer, text, config, where))
            tokens["saelens"] = worker.ask("read", arm="saelens")["tokens"]
            calls["saelens"] = lambda: worker.ask("read", arm="saelens")
        seconds = take_turns(calls, arguments.repeats)
        libraries = crew.versions({"saelens": ("sae-lens", "transformer-lens")}) if arguments.peers is not None else {}
    about = {"model": lm.name, "layer": layer, "context": config.context, "tokens": config.tokens}
    for_each = {arm: [tokens[arm] / s for s in taken] for arm, taken in seconds.items()}
    per_token = {arm: [1 / speed for speed in speeds] for arm, speeds in for_each.items()}
    pairs = [("harvest", "truncated pass"), *([("saelens", "harvest")] if arguments.peers is not None else [])]
    rows = [row("time_ratio", of, to, ratio(per_token, of, to), **about) for of, to in pairs]
    rows += [row("tokens_per_s", arm, "", spread(speeds), **about) for arm, speeds in for_each.items()]
    finish(arguments, "harvest", rows, libraries=libraries)


if __name__ == "__main__":
    main()
