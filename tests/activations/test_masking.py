import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.activations.feed import as_read, row_batches
from perimetry.activations.masking import Masker, Masking
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.store import ActivationStore, HarvestConfig, harvest
from perimetry.activations.stream import LiveStream, StreamConfig
from perimetry.activations.text import PackCursor, PackedRow
from perimetry.config import build
from perimetry.errors import ConfigError, TooFewSamples

from .documents import Doc

LONG = [Doc(f"d{i}", "the cat and the dog sat in the sun on a stone " * 40) for i in range(6)]
POLICY = TokenPolicy()


def rows_of(lm, documents=LONG, context=64):
    return [row for batch in row_batches(documents, lm, POLICY, context, 4) for row in batch]


def replaced(rows, masked):
    """Which positions differ, row by row."""
    return [
        torch.tensor([a != b for a, b in zip(r.ids, m.ids, strict=True)]) for r, m in zip(rows, masked, strict=True)
    ]


@pytest.mark.parametrize("span", [1, 3])
@pytest.mark.parametrize("probability", [0.1, 0.3, 0.6])
def test_the_share_that_is_replaced_is_the_probability(tiny_lm, probability, span):
    rows = rows_of(tiny_lm)
    masker = Masker(Masking(probability=probability, span=span, kind="token", token="<|pad|>"), tiny_lm, LONG, POLICY)
    changed = torch.cat(replaced(rows, masker(rows)))
    countable = torch.tensor([c for row in rows for c in row.countable])
    assert not bool((changed & ~countable).any())
    n = int(countable.sum())
    # Spans make neighbours alike: as if there were n / span positions.
    assert float(changed[countable].float().mean()) == pytest.approx(
        probability, abs=4 * (probability * (1 - probability) * span / n) ** 0.5
    )


def test_spans_are_replaced_together(tiny_lm):
    rows = rows_of(tiny_lm)
    masker = Masker(Masking(probability=0.05, span=4, kind="token", token="<|pad|>"), tiny_lm, LONG, POLICY)
    runs = []
    for row, changed in zip(rows, replaced(rows, masker(rows)), strict=True):
        text = "".join("x" if c else "." if ok else " " for c, ok in zip(changed.tolist(), row.countable, strict=True))
        # Runs that touch an edge or an uncountable position may be cut.
        runs += [len(part) for part in text.replace(" ", "").strip("x").split(".") if part]
    assert runs
    assert min(runs) >= 4


def test_a_row_depends_on_its_place_alone(tiny_lm):
    masker = Masker(Masking(), tiny_lm, LONG, POLICY)
    rows = rows_of(tiny_lm)
    together = masker(rows)
    assert [masker([row])[0] for row in rows] == together
    assert masker(rows, epoch=1) != together
    assert Masker(Masking(seed=1), tiny_lm, LONG, POLICY)(rows) != together


def test_what_takes_the_place(tiny_lm):
    rows = rows_of(tiny_lm)
    vocabulary = tiny_lm.plain_tokenizer.get_vocab_size()
    seen = {i for row in rows for i in row.ids}
    for kind, token, allowed in (
        ("string", None, set(tiny_lm.plain_tokenizer.encode("[MASK]", add_special_tokens=False).ids)),
        ("token", "<|im_start|>", {tiny_lm.plain_tokenizer.token_to_id("<|im_start|>")}),
        ("eos", None, {tiny_lm.separator_id}),
        ("random", None, set(range(vocabulary)) - tiny_lm.special_ids),
        ("unigram", None, seen - tiny_lm.special_ids),
    ):
        masked = Masker(Masking(kind=kind, token=token), tiny_lm, LONG, POLICY)(rows)
        found = {m.ids[i] for r, m in zip(rows, masked, strict=True) for i in range(len(r.ids)) if r.ids[i] != m.ids[i]}
        assert found
        assert found <= allowed, kind
    assert [m.ids for m in Masker(Masking(kind="kept"), tiny_lm, LONG, POLICY)(rows)] == [r.ids for r in rows]


def test_a_string_of_several_tokens_stands_whole_in_a_long_span(tiny_lm):
    ids = tiny_lm.plain_tokenizer.encode("[MASK]", add_special_tokens=False).ids
    assert len(ids) > 1
    rows = rows_of(tiny_lm)
    masked = Masker(Masking(probability=0.1, span=len(ids)), tiny_lm, LONG, POLICY)(rows)
    starts = [
        row.ids[i : i + len(ids)] for row in masked for i in range(len(row.ids)) if row.ids[i : i + len(ids)] == ids
    ]
    assert starts


def test_unigram_draws_by_frequency(tiny_lm):
    rows = rows_of(tiny_lm)
    masked = Masker(Masking(kind="unigram", probability=0.5), tiny_lm, LONG, POLICY)(rows)
    drawn = torch.bincount(torch.tensor([i for row in masked for i in row.ids]), minlength=400).double()
    before = torch.bincount(torch.tensor([i for row in rows for i in row.ids]), minlength=400).double()
    assert float(torch.corrcoef(torch.stack([drawn, before]))[0, 1]) > 0.95


@pytest.mark.parametrize("positions", ["all", "unmasked", "after"])
def test_which_positions_are_learnt_from(tiny_lm, positions):
    rows = rows_of(tiny_lm)
    masker = Masker(Masking(positions=positions, kind="string", string="Z"), tiny_lm, LONG, POLICY)
    for row, masked, changed in zip(rows, masker(rows), replaced(rows, masker(rows)), strict=True):
        allowed = torch.tensor(row.countable)
        if positions != "all":
            allowed &= ~changed
        if positions == "after":
            allowed &= changed.cumsum(0) > 0
        assert masked.countable == allowed.tolist()


def test_a_special_mask_counts_where_special_tokens_do(tiny_lm):
    rows = rows_of(tiny_lm)
    eos = Masker(Masking(kind="eos"), tiny_lm, LONG, POLICY)(rows)
    assert all(not c for row in eos for i, c in zip(row.ids, row.countable, strict=True) if i == tiny_lm.separator_id)
    loose = TokenPolicy(exclude_special=False)
    rows = [row for batch in row_batches(LONG, tiny_lm, loose, 64, 4) for row in batch]
    eos = Masker(Masking(kind="eos"), tiny_lm, LONG, loose)(rows)
    assert any(c for row in eos for i, c in zip(row.ids, row.countable, strict=True) if i == tiny_lm.separator_id)


def test_schedules(tiny_lm):
    rows = rows_of(tiny_lm)
    falling = Masking(schedule="annealed", probability=0.6, final=0.0, over=3, kind="eos")
    changed = replaced(rows, Masker(falling, tiny_lm, LONG, POLICY)(rows))
    by_document = {
        n: torch.cat([c for r, c in zip(rows, changed, strict=True) if r.start.document == n]) for n in range(6)
    }
    assert by_document[0].float().mean() > by_document[1].float().mean() > by_document[2].float().mean() > 0
    assert not bool(torch.cat([by_document[n] for n in (3, 4, 5)]).any())
    # The second epoch goes on where the first one ended.
    assert not any(bool(c.any()) for c in replaced(rows, Masker(falling, tiny_lm, LONG, POLICY)(rows, epoch=1)))
    mixed = replaced(
        rows, Masker(Masking(schedule="mixture", share=0.5, probability=0.5, kind="eos"), tiny_lm, LONG, POLICY)(rows)
    )
    whole = [bool(c.any()) for c in mixed]
    assert 0 < sum(whole) < len(whole)
    masked = torch.cat([c[torch.tensor(r.countable)] for r, c in zip(rows, mixed, strict=True) if bool(c.any())])
    assert float(masked.float().mean()) == pytest.approx(0.5, abs=0.08)


@settings(deadline=None, max_examples=60)
@given(
    countable=st.lists(st.booleans(), min_size=1, max_size=40),
    probability=st.floats(0.01, 0.99),
    span=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_only_what_counts_is_touched(tiny_lm, countable, probability, span, seed):
    row = PackedRow([7] * len(countable), countable, [0] * len(countable), ("d0",), PackCursor(0, seed))
    masker = Masker(Masking(probability=probability, span=span, kind="eos", seed=seed), tiny_lm, LONG, POLICY)
    (masked,) = masker([row])
    assert len(masked.ids) == len(masked.countable) == len(countable)
    assert all(i == 7 for i, c in zip(masked.ids, countable, strict=True) if not c)
    assert not any(now and not before for now, before in zip(masked.countable, countable, strict=True))


def test_a_store_of_masked_text(tiny_lm, tmp_path):
    plain = HarvestConfig(tokens=900, context=32, batch_rows=4, shard_tokens=300, dtype="float32")
    masking = Masking(kind="unigram", positions="unmasked")
    config = plain.model_copy(update={"masking": masking})
    store = harvest(tiny_lm, 1, LONG, tmp_path / "masked", config)
    assert store.plan["config"]["masking"] == masking.model_dump(mode="json")
    clean = harvest(tiny_lm, 1, LONG, tmp_path / "clean", plain)
    assert "masking" not in clean.plan["config"]
    assert clean.policy == store.policy, "the sink threshold is that of clean text"
    assert not torch.equal(store.rows(torch.arange(50)), clean.rows(torch.arange(50)))
    again = harvest(tiny_lm, 1, LONG, tmp_path / "again", config.model_copy(update={"shard_tokens": 128}))
    ids = torch.arange(900)
    assert torch.equal(again.rows(ids), store.rows(ids))
    assert ActivationStore.open(tmp_path / "masked").digest == store.digest


def test_a_live_stream_of_masked_text(tiny_lm):
    config = StreamConfig(context=32, batch_rows=4, chunk_tokens=200, background=False)
    masked = config.model_copy(update={"masking": Masking(kind="eos")})
    one, other = (next(iter(LiveStream(tiny_lm, 1, LONG, c).batches(50))) for c in (config, masked))
    assert not torch.equal(one, other)
    assert (
        config.fingerprint() == StreamConfig(context=32, batch_rows=4, chunk_tokens=200, background=False).fingerprint()
    )
    assert masked.fingerprint() != config.fingerprint()
    stream = LiveStream(tiny_lm, 1, LONG, masked)
    batches = stream.batches(50)
    first = [next(batches) for _ in range(9)]
    batches.close()
    late = stream.batches(50, start_step=7)
    assert torch.equal(next(late), first[7])
    late.close()


def test_refusals(tiny_lm, tmp_path):
    with pytest.raises(ConfigError, match="give token = TEXT"):
        build(Masking, {"kind": "token"}, "masking")
    with pytest.raises(ConfigError, match="leave token out"):
        build(Masking, {"token": "x"}, "masking")
    with pytest.raises(ConfigError, match="mask string is empty"):
        build(Masking, {"string": ""}, "masking")
    with pytest.raises(ConfigError, match="is constant"):
        build(Masking, {"schedule": "annealed", "final": 0.3}, "masking")
    with pytest.raises(ConfigError, match="masks nothing"):
        build(Masking, {"kind": "kept", "variant": "denoising"}, "masking")
    with pytest.raises(ConfigError, match="no entry of the vocabulary"):
        Masker(Masking(kind="token", token="<|nowhere|>"), tiny_lm, LONG, POLICY)
    with pytest.raises(TooFewSamples, match="no plain token"):
        Masker(Masking(kind="unigram"), tiny_lm, [Doc("empty", "")], POLICY)
    both = Masking(kind="eos", variant="denoising")
    with pytest.raises(ConfigError, match="side by side"):
        harvest(tiny_lm, 1, LONG, tmp_path, HarvestConfig(masking=both))
    with pytest.raises(ConfigError, match="side by side"):
        LiveStream(tiny_lm, 1, LONG, StreamConfig(masking=both))


def test_without_masking_rows_are_left_alone(tiny_lm):
    rows = rows_of(tiny_lm)
    assert as_read(rows, None) is rows
