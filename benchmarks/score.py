"""What a reading costs beyond the forward pass: time of `Meter.score` over that of the truncated pass alone.

The pass tokenises the same prompts, reads the same batches of them up to the tapped block and throws the result away. Scores that stop at the tap:
`surprise` is that detector with its p-value, as a meter calibrated with `--main surprise` gives it; `concepts` computes every concept
score of the tap, in all poolings; `explained` is `surprise` with its concepts and their clean contexts. Scores that need the last hidden state
or the likelihoods, and therefore the whole model: `main` is the meter's own main score, `all` every detector and baseline. `full pass` is the
model to its logits, for comparison.

Without --meter a small dictionary is trained and calibrated first, on SmolLM2-135M-Instruct and the encyclopaedia.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from _common import finish, parser, ratio, row, runtime_of, spread, take_turns
from _meters import clean_documents, make_meter, passages_of
from perimetry.activations.prompts import PromptBatch, batch_runs, collate
from perimetry.shift import DETECTORS
from perimetry.shift.loading import load_meter
from perimetry.shift.meter import Meter

BATCH_TOKENS = 4096


def batches_of(meter: Meter, texts: Sequence[str]) -> list[PromptBatch]:
    """The runs of the model that the meter itself would make."""
    prompts = [p.encoded for p in meter.extractor.prepare([str(i) for i in range(len(texts))], texts)]
    batches = batch_runs([len(p.ids) for p in prompts], BATCH_TOKENS)
    return [collate([prompts[i] for i in rows], meter.lm.pad_id) for runs in batches for rows in runs]


def truncated_pass(meter: Meter, texts: Sequence[str]) -> None:
    """From text through the blocks up to the tap."""
    for batch in batches_of(meter, texts):
        meter.extractor.tap.read(batch.ids.to(meter.lm.device), batch.attention.to(meter.lm.device))


@torch.no_grad()
def full_pass(meter: Meter, texts: Sequence[str]) -> None:
    """From text through the whole model."""
    for batch in batches_of(meter, texts):
        ids, attention = batch.ids.to(meter.lm.device), batch.attention.to(meter.lm.device)
        meter.lm.model(input_ids=ids, attention_mask=attention, use_cache=False)


def judging_by(meter: Meter, main: str) -> Meter:
    """The same meter with another main score."""
    return Meter(meter.extractor, meter.sae, meter.info, meter.normal, main=main, details=meter.details)


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
    tokens = sum(int(batch.countable.sum()) for batch in batches_of(meter, texts))
    ours = {n for n, kind in DETECTORS.items() if not (kind.baseline or kind.needs_logits or kind.needs_foresight)}
    concepts = [n for n in meter.names("all") if n.partition(".")[0] in ours]
    tapped = judging_by(meter, "surprise")
    calls = {
        "truncated pass": lambda: truncated_pass(meter, texts),
        "surprise": lambda: tapped.score(texts, explain=False, batch_tokens=BATCH_TOKENS),
        "concepts": lambda: tapped.score(texts, detectors=concepts, explain=False, batch_tokens=BATCH_TOKENS),
        "explained": lambda: tapped.score(texts, explain=True, batch_tokens=BATCH_TOKENS),
    }
    if not arguments.quick:
        calls["full pass"] = lambda: full_pass(meter, texts)
        calls["main"] = lambda: meter.score(texts, explain=False, batch_tokens=BATCH_TOKENS)
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
