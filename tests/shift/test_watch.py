"""Scores while generating: those of whole passes, at every place of every row, and the same tokens as without the watch."""

from typing import Any

import pytest
import torch
from tests.shift.watch_worlds import (
    TEXTS,
    Force,
    by_hand,
    inputs_of,
    other_main,
    real_row,
    small_meter,
    write,
)
from tests.worlds import World
from transformers import AutoModelForCausalLM, StaticCache

import perimetry
from perimetry.activations.model import BLOCKS, LanguageModel, tiny_language_model
from perimetry.errors import NonFinite
from perimetry.shift.evidence import Extractor
from perimetry.shift.meter import Meter
from perimetry.shift.watch import Watch, watch
from perimetry.shift.watch_rows import WatchedRow

WAYS: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "static": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
    "chunked prefill": {"prefill_chunk_size": 4},
    "sampled": {"do_sample": True, "top_k": 0, "num_return_sequences": 2},
}


@pytest.fixture(scope="module")
def small(tiny_lm: LanguageModel) -> Meter:
    return small_meter(tiny_lm)


def assert_by_hand(meter: Meter, rows: tuple[WatchedRow, ...], written: Any) -> None:
    for index, row in enumerate(rows):
        ids = real_row(written, index)[: row.prompt_tokens + row.generated]
        scores, whole = by_hand(meter, ids[:-1], row.prompt_tokens)
        assert len(row.scores) == row.prompt_tokens + row.generated - 1
        assert [s is None for s in row.scores] == [s is None for s in scores]
        counted = [(a, b) for a, b in zip(row.scores, scores, strict=True) if a is not None]
        assert [a for a, _ in counted] == pytest.approx([b for _, b in counted], rel=1e-4, abs=1e-4)
        assert row.running_score == pytest.approx(whole, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("every", [1, 5, 100])
def test_the_tokens_are_those_without_the_watch(small: Meter, way: str, every: int) -> None:
    plain = write(small, **WAYS[way])
    with watch(small.lm, small, every=every) as w:
        watched = write(small, stopping_criteria=[w], **WAYS[way])
    assert torch.equal(plain.sequences, watched.sequences)
    assert len(w.rows) == len(watched.sequences)
    assert_by_hand(small, w.rows, watched)


@pytest.mark.parametrize(
    "main", ["surprise", "transition", "unforeseen.cusum", "nll.top10", "l0_excess.max", "mahalanobis"]
)
def test_scores_of_a_fitted_meter_are_those_of_one_pass(meter: Meter, main: str) -> None:
    judging = other_main(meter, main)
    with watch(judging.lm.model, judging, every=3) as w:
        written = write(judging, tokens=20, stopping_criteria=[w])
    assert_by_hand(judging, w.rows, written)
    for reading, row in zip(judging.score(TEXTS, explain=False), w.rows, strict=True):
        assert row.prompt.score == pytest.approx(reading.score, rel=1e-4, abs=1e-4)
        assert row.prompt.p_value == reading.p_value
        assert [t.text for t in row.prompt.tokens] == [t.text for t in reading.tokens]
        assert row.prompt[6:10] == reading[6:10]
        assert row.response is None
        assert row.flagged == reading.flagged


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "qwen3"])
def test_other_families(family: str) -> None:
    assert family in BLOCKS
    meter = small_meter(tiny_language_model(family), "nll")
    plain = write(meter)
    with watch(meter.lm, meter, every=4) as w:
        written = write(meter, stopping_criteria=[w])
    assert torch.equal(plain.sequences, written.sequences)
    assert_by_hand(meter, w.rows, written)


def test_a_row_that_ends_early_has_no_score_after_its_end(small: Meter) -> None:
    eos = int(small.lm.tokenizer.eos_token_id)  # pyright: ignore[reportArgumentType]
    columns = inputs_of(small)["input_ids"].shape[1]
    settings = {"eos_token_id": eos, "pad_token_id": small.lm.pad_id, "logits_processor": [Force(1, columns + 3, eos)]}
    with watch(small.lm, small, every=2) as w:
        written = write(small, stopping_criteria=[w], **settings)
    assert [row.ended for row in w.rows] == [False, True, False]
    assert [row.generated for row in w.rows] == [12, 4, 12]
    assert (written.sequences[1, columns + 4 :] == small.lm.pad_id).all()
    assert len(w.rows[1].running) == 1
    assert_by_hand(small, w.rows, written)


def test_what_follows_the_end_of_a_row_counts_nowhere(tiny_lm: LanguageModel) -> None:
    """Special tokens count here, and the model reads the end of a row and the padding after it beside rows that go on."""
    meter = small_meter(tiny_lm, exclude_special=False)
    eos, columns = int(tiny_lm.tokenizer.eos_token_id), inputs_of(meter)["input_ids"].shape[1]  # pyright: ignore[reportArgumentType]

    def other(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([False, False, input_ids.shape[1] >= columns + 6])

    settings = {"eos_token_id": eos, "pad_token_id": tiny_lm.pad_id, "logits_processor": [Force(1, columns + 3, eos)]}
    with watch(tiny_lm, meter, every=2) as w:
        written = write(meter, stopping_criteria=[w, other], **settings)
    assert [row.generated for row in w.rows] == [12, 4, 6]
    assert [row.ended for row in w.rows] == [False, True, False]
    assert_by_hand(meter, w.rows, written)


def test_the_end_of_text_counts_as_little_as_the_padding_that_is_the_same_token(small: Meter) -> None:
    eos = int(small.lm.tokenizer.eos_token_id)  # pyright: ignore[reportArgumentType]
    columns = inputs_of(small)["input_ids"].shape[1]
    settings = {"eos_token_id": eos, "pad_token_id": eos, "logits_processor": [Force(0, columns + 5, eos)]}
    with watch(small.lm, small) as w:
        written = write(small, stopping_criteria=[w], **settings)
    assert [row.generated for row in w.rows] == [6, 12, 12]
    assert_by_hand(small, w.rows, written)


def test_sinks_and_special_tokens_do_not_count(tiny_lm: LanguageModel) -> None:
    free = small_meter(tiny_lm)
    with watch(tiny_lm, free) as w:
        write(free, stopping_criteria=[w])
    norms = sorted(s for row in w.rows for s in row.of_response() if s is not None)
    limit = norms[len(norms) // 2]
    strict = small_meter(tiny_lm, max_norm=limit)
    columns = inputs_of(strict)["input_ids"].shape[1]
    special = next(iter(tiny_lm.special_ids))
    with watch(tiny_lm, strict, every=3) as w:
        written = write(strict, stopping_criteria=[w], logits_processor=[Force(0, columns + 2, special)])
    assert w.rows[0].of_response()[2] is None
    found = [s for row in w.rows for s in row.scores if s is not None]
    assert found
    assert max(found) <= limit
    assert_by_hand(strict, w.rows, written)


def test_one_look_in_so_many_tokens(small: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    gather = Extractor.gather

    def counted(self: Extractor, rows: Any, *args: Any, **named: Any) -> Any:
        looks.append(len(rows))
        return gather(self, rows, *args, **named)

    monkeypatch.setattr(Extractor, "gather", counted)
    with watch(small.lm, small, every=5) as w:
        write(small, tokens=18, stopping_criteria=[w])
    # The prompts, 17 tokens that were read by fives, and the rest.
    assert len(looks) == 1 + 3 + 1
    assert [row.generated for row in w.rows] == [18] * 3


def test_rows_can_be_read_on_the_way(small: Meter) -> None:
    seen: list[int] = []

    def look(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        seen.append(w.rows[0].generated)
        return torch.zeros(len(input_ids), dtype=torch.bool)

    with watch(small.lm, small, every=4) as w:
        write(small, tokens=10, stopping_criteria=[w, look])
    assert seen == [1, 1, 1, 1, 5, 5, 5, 5, 9, 9]
    assert w.rows[0].generated == 10


def test_flagged_rows_stop_and_others_go_on(small: Meter) -> None:
    plain = write(small, eos_token_id=small.lm.separator_id, pad_token_id=small.lm.pad_id)
    with watch(small.lm, small) as w:
        write(small, stopping_criteria=[w])
    p = sorted(row.prompt.p_value for row in w.rows)
    assert p[0] < p[1]
    with watch(small.lm, small, every=4, on_flag="stop", alpha=p[0]) as w:
        written = write(small, stopping_criteria=[w], eos_token_id=small.lm.separator_id, pad_token_id=small.lm.pad_id)
    flagged = [row.flagged for row in w.rows]
    assert sum(flagged) == 1
    assert [row.stopped for row in w.rows] == flagged
    assert [row.generated for row in w.rows] == [1 if f else 12 for f in flagged]
    columns = written.inputs["input_ids"].shape[1]
    for row, stopped in enumerate(flagged):
        keep = slice(None, columns + 1) if stopped else slice(None)
        assert torch.equal(written.sequences[row, keep], plain.sequences[row, keep])
    with watch(small.lm, small, alpha=p[0]) as w:
        write(small, stopping_criteria=[w])
    assert [row.flagged for row in w.rows] == flagged
    assert not any(row.stopped for row in w.rows)


def test_generation_ends_where_all_rows_are_flagged(small: Meter) -> None:
    with watch(small.lm, small, on_flag="stop", alpha=0.999) as w:
        written = write(small, tokens=50, stopping_criteria=[w])
    columns = written.inputs["input_ids"].shape[1]
    assert [row.flagged for row in w.rows] == [True] * 3
    assert written.sequences.shape[1] == columns + 1


def test_a_number_that_is_none_is_refused_and_never_safe(small: Meter) -> None:
    calls: list[int] = []

    def poison(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        calls.append(1)
        if len(calls) != 4:
            return None
        output = output.clone()
        output[1, -1, 0] = torch.nan
        return output

    handle = small.lm.blocks[1].register_forward_hook(poison)
    try:
        with watch(small.lm, small, every=1) as w, pytest.raises(NonFinite, match="prompt '1' gives NaN"):
            write(small, stopping_criteria=[w])
    finally:
        handle.remove()
    assert [row.generated for row in w.rows] == [3] * 3


def test_a_token_that_generate_takes_back_is_taken_back(small: Meter) -> None:
    """As on devices where it learns one step late that all rows have ended."""
    model: Any = small.lm.model
    generate = model.generate
    model.generate = lambda **named: generate(**named)[:, :-1]
    try:
        with watch(small.lm, small) as w:
            written = write(small, stopping_criteria=[w])
    finally:
        del model.generate
    assert [row.generated for row in w.rows] == [11] * 3
    assert_by_hand(small, w.rows, written)


def test_the_model_is_left_as_it_was(small: Meter) -> None:
    before = dict(vars(small.lm.model))
    hooks = [len(m._forward_hooks) for m in small.lm.model.modules()]
    with watch(small.lm, small) as w:
        assert isinstance(w, Watch)
        write(small, stopping_criteria=[w])
        assert [len(m._forward_hooks) for m in small.lm.model.modules()] == hooks
        # Between two generations the meter may score, and taps may stop the pass.
        small.score(TEXTS)
        write(small, stopping_criteria=[w], past_key_values=StaticCache(small.lm.model.config, max_cache_len=64))
    assert dict(vars(small.lm.model)) == before
    assert [len(m._forward_hooks) for m in small.lm.model.modules()] == hooks


def test_a_model_from_its_folder_and_a_meter_from_its_folder(world: World, meter: Meter) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(world.model)
    trained = [p.requires_grad for p in model.parameters()]
    with perimetry.watch(model, world.meter) as w:
        inputs = inputs_of(meter)
        model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None, stopping_criteria=[w])
    assert [p.requires_grad for p in model.parameters()] == trained
    assert w.meter.digest == meter.digest
    p_values = [reading.p_value for reading in meter.score(TEXTS)]
    assert [row.prompt.p_value for row in w.rows] == p_values
