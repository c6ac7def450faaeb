"""Meters of tiny models, made in memory, and generations of them."""

from typing import Any, NamedTuple

import torch
from tests.shift.test_evidence import small_sae
from transformers import LogitsProcessor

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import EncodedPrompt, PromptBatch, collate, encode
from perimetry.sae.formats.info import SAEInfo
from perimetry.shift.conformal import Calibration
from perimetry.shift.evidence import Extractor, Pass, Prompt
from perimetry.shift.explain import ContextBook
from perimetry.shift.likelihood import NLL
from perimetry.shift.meter import Meter, Normal
from perimetry.shift.surface import Norm
from perimetry.shift.tables import score_table

TEXTS = (
    "the cat sat on the mat",
    "one",
    "she opened the letter and read it twice before the rain began",
)
DETECTORS = {"norm": Norm(), "nll": NLL()}


class Written(NamedTuple):
    """What a call of `generate` left."""

    sequences: torch.Tensor
    inputs: dict[str, torch.Tensor]


class Force(LogitsProcessor):
    """Makes a row say a token at a column, whatever the model thinks."""

    def __init__(self, row: int, column: int, token: int) -> None:
        self.row, self.column, self.token = row, column, token

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] == self.column:
            scores = scores.clone()
            scores[self.row] = -torch.inf
            scores[self.row, self.token] = 0.0
        return scores


def other_main(meter: Meter, main: str) -> Meter:
    """The same meter, judging by another score."""
    return Meter(
        meter.extractor, meter.sae, meter.info, meter.normal, main=main, details=meter.details, digest=meter.digest
    )


def small_meter(lm: LanguageModel, main: str = "norm", *, max_norm: float = 1e9, **policy: Any) -> Meter:
    """A meter that has learned nothing: its p-values are places on a scale."""
    clean = torch.logspace(-1, 3, 400)
    calibration = Calibration.fit({main: clean}, torch.full((400,), 9.0))
    nothing = ContextBook(torch.zeros(49, dtype=torch.int64), ())
    normal = Normal(dict(DETECTORS), {}, calibration, torch.full((48,), 0.1), nothing)
    info = SAEInfo(architecture="batchtopk")
    extractor = Extractor(lm, 1, TokenPolicy(**policy).fitted(max_norm / 10))
    return Meter(extractor, small_sae(), info, normal, main=main, details={}, digest="small")


def inputs_of(meter: Meter, texts: tuple[str, ...] = TEXTS) -> dict[str, torch.Tensor]:
    """Prompts as the policy makes them, padded on the left."""
    lm = meter.lm
    batch = collate([encode(lm, text, meter.policy) for text in texts], lm.pad_id, "left")
    return {"input_ids": batch.ids, "attention_mask": batch.attention}


def write(meter: Meter, texts: tuple[str, ...] = TEXTS, seed: int = 0, tokens: int = 12, **more: Any) -> Written:
    """Greedy by default, without an end of text by chance."""
    inputs = inputs_of(meter, texts)
    torch.manual_seed(seed)
    model: Any = meter.lm.model
    settings = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": None} | more
    return Written(model.generate(**inputs, **settings), inputs)


def by_hand(meter: Meter, ids: list[int], prompt_tokens: int) -> tuple[list[float | None], float]:
    """Score of each of the tokens, and the main score of all, from one pass over them without padding or cache."""
    lm, policy = meter.lm, meter.policy
    special = policy.exclude_special
    counts = [not (special and i in lm.special_ids) for i in ids]
    encoded = EncodedPrompt(ids, counts, [None] * len(ids), truncated=False, words=1)
    prompt = Prompt("by hand", "", encoded)
    one = torch.tensor([ids])
    batch = PromptBatch(one, torch.ones_like(one), torch.tensor([counts]))
    full = meter.extractor.tap.read_with_logits(one, batch.attention)
    capture = meter.extractor.gather([0], [prompt], batch, Pass(full.residual, full), logits=True)
    evidence = capture.evidence(meter.sae)
    name = meter.main.partition(".")[0]
    scores = iter(meter.normal.detectors[name].score(evidence).tolist())
    whole = score_table(evidence, [meter.main], meter.normal.detectors, meter.normal.references)[meter.main]
    return [next(scores) if counted else None for counted in capture.counted[0].tolist()], float(whole[0])


def real_row(written: Written, row: int) -> list[int]:
    """The tokens of a row without the padding before it."""
    times = len(written.sequences) // len(written.inputs["input_ids"])
    padding = int((written.inputs["attention_mask"][row // times] == 0).sum())
    return written.sequences[row, padding:].tolist()
