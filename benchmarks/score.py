"""What a reading costs beyond the forward pass: time of `Meter.score` over that of the truncated pass alone.

The pass reads the same batches of the same prompts up to the tapped block and throws the result away. `main` is the
main detector with its p-value, `explained` adds the concepts with their clean contexts, `concepts` computes every concept
score that needs no more than the truncated pass; `all` computes every detector and baseline, which takes the whole model for
the likelihoods; `full pass` is the model to its logits, for comparison.
Tokenising is part of every arm but the passes.

Without --meter a small dictionary is trained and calibrated first, on SmolLM2-135M-Instruct and the encyclopaedia.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from _common import finish, parser, ratio, row, runtime_of, spread, take_turns
from _meters import clean_documents, make_meter, passages_of
from perimetry.activations.prompts import PromptBatch, collate, length_batches
from perimetry.shift import DETECTORS
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter

BATCH_TOKENS = 4096


def batches_of(meter: Meter, texts: Sequence[str]) -> list[PromptBatch]:
    """The batches that the meter itself would make."""
    prompts = [p.encoded for p in meter.extractor.prepare([str(i) for i in range(len(texts))], texts)]
    groups = length_batches([len(p.ids) for p in prompts], BATCH_TOKENS)
    return [collate([prompts[i] for i in rows], meter.lm.pad_id) for rows in groups]


def truncated_pass(meter: Meter, batches: Sequence[PromptBatch]) -> None:
    """The blocks up to the tap."""
    for batch in batches:
        meter.extractor.tap.read(batch.ids.to(meter.lm.device), batch.attention.to(meter.lm.device))


@torch.no_grad()
def full_pass(meter: Meter, batches: Sequence[PromptBatch]) -> None:
    """The whole model."""
    for batch in batches:
        ids, attention = batch.ids.to(meter.lm.device), batch.attention.to(meter.lm.device)
        meter.lm.model(input_ids=ids, attention_mask=attention, use_cache=False)


def main() -> None:
    """Measure and print."""
    found = parser(__doc__)
    found.add_argument("--meter", type=Path, help="a meter of your own")
    found.add_argument("--prompts", type=int, default=0, help="number of prompts (default: 32, with --tiny 8)")
    arguments = found.parse_args()
    runtime = runtime_of(arguments)
    documents = clean_documents(tiny=arguments.tiny)
    if arguments.meter is not None:
        meter = load_meter(arguments.meter, runtime=runtime)
    else:
        with tempfile.TemporaryDirectory() as folder:
            meter = make_meter(Path(folder), documents, runtime, tiny=arguments.tiny)
    n = arguments.prompts or (8 if arguments.tiny else 32)
    texts = passages_of(documents[::-1], n, *((5, 20) if arguments.tiny else (15, 120)))
    batches = batches_of(meter, texts)
    tokens = sum(int(batch.countable.sum()) for batch in batches)
    concepts = [
        name for name, kind in DETECTORS.items() if not (kind.baseline or kind.needs_logits or kind.needs_foresight)
    ]
    calls = {
        "truncated pass": lambda: truncated_pass(meter, batches),
        "main": lambda: meter.score(texts, explain=False, batch_tokens=BATCH_TOKENS),
        "concepts": lambda: meter.score(texts, detectors=concepts, explain=False, batch_tokens=BATCH_TOKENS),
        "explained": lambda: meter.score(texts, explain=True, batch_tokens=BATCH_TOKENS),
    }
    if not arguments.quick:
        calls["full pass"] = lambda: full_pass(meter, batches)
        calls["all"] = lambda: meter.score(texts, detectors="all", explain=False, batch_tokens=BATCH_TOKENS)
    seconds = take_turns(calls, arguments.repeats)
    about = {"model": meter.lm.name, "layer": meter.extractor.tap.layer, "width": meter.sae.d_sae}
    about |= {"prompts": len(texts), "tokens": tokens}
    rows = [
        row("time_ratio", arm, "truncated pass", ratio(seconds, arm, "truncated pass"), **about)
        for arm in calls
        if arm != "truncated pass"
    ]
    rows += [
        row("tokens_per_s", arm, "", spread([tokens / s for s in taken]), **about) for arm, taken in seconds.items()
    ]
    finish(arguments, "score", rows)


if __name__ == "__main__":
    main()
