import pytest
import torch

from perimetry.activations.feed import FIT_TOKENS, Cursor, Cutter, Kept, fit_policies, read_kept, row_batches
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.tap import Tap
from perimetry.activations.text import PackCursor
from perimetry.errors import NonFinite, TooFewSamples

from .documents import Doc

POLICY = TokenPolicy()


def test_kept_tokens_are_those_that_count_with_their_places(tiny_lm, documents):
    rows = next(row_batches(documents, tiny_lm, POLICY, 24, 3))
    kept = read_kept(tiny_lm, rows, documents, {1: POLICY}, torch.float32)[1]
    at = 0
    for row in rows:
        residual = Tap(tiny_lm, 1).read(torch.tensor([row.ids]), torch.ones(1, len(row.ids), dtype=torch.long))[0]
        for position, counts in enumerate(row.countable):
            if counts:
                assert kept.tokens[at] == row.ids[position]
                assert kept.positions[at] == position
                assert kept.documents[at] == row.source[position]
                torch.testing.assert_close(kept.acts[at], residual[position], atol=1e-4, rtol=1e-4)
                at += 1
    assert at == kept.tokens.shape[0]


def test_the_threshold_is_the_median_of_what_counts(tiny_lm, documents):
    fitted = fit_policies(tiny_lm, [0, 2], documents, TokenPolicy(sink_ratio=3.0), 32, 4)
    for layer, policy in fitted.items():
        norms, seen = [], 0
        for rows in row_batches(documents, tiny_lm, POLICY, 32, 4):
            if seen >= FIT_TOKENS:
                break
            seen += sum(len(r.ids) for r in rows)
            norms.append(read_kept(tiny_lm, rows, documents, {layer: POLICY}, torch.float32)[layer].acts.norm(dim=1))
        assert policy.max_norm == pytest.approx(3 * torch.cat(norms).median().item())
    assert fitted[0].max_norm != fitted[2].max_norm
    known = TokenPolicy(max_norm=5.0)
    assert fit_policies(tiny_lm, [0], documents, known, 32, 4) == {0: known}


def test_sinks_are_kept_out(tiny_lm, documents):
    rows = next(row_batches(documents, tiny_lm, POLICY, 24, 3))
    everything = read_kept(tiny_lm, rows, documents, {1: POLICY}, torch.float32)[1]
    limit = everything.acts.norm(dim=1).median().item()
    some = read_kept(tiny_lm, rows, documents, {1: TokenPolicy(max_norm=limit)}, torch.float32)[1]
    assert torch.equal(some.acts, everything.acts[everything.acts.norm(dim=1) <= limit])
    assert 0 < some.tokens.shape[0] < everything.tokens.shape[0]


def test_no_countable_token_at_all(tiny_lm):
    with pytest.raises(TooFewSamples, match="none of the tokens of 1 documents counts"):
        fit_policies(tiny_lm, [0], [Doc("a", "")], POLICY, 32, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("policy", [POLICY, TokenPolicy(max_norm=1e6)])
def test_an_activation_that_is_not_finite_is_refused_with_its_place(tiny_lm, value, policy):
    some = [Doc("fine", "the cat"), Doc("poisoned", "of Q")]
    rows = next(row_batches(some, tiny_lm, POLICY, 32, 1))
    bad = tiny_lm.tokenizer(" Q")["input_ids"][-1]
    position = rows[0].ids.index(bad)
    hook = tiny_lm.blocks[1].register_forward_hook(lambda m, i, o: o.index_fill(1, torch.tensor([position]), value))
    try:
        with pytest.raises(
            NonFinite, match=rf"block 1 are NaN or infinite in document 'poisoned' at position {position};"
        ):
            read_kept(tiny_lm, rows, some, {1: policy}, torch.float32)
    finally:
        hook.remove()


def numbered(start: int, count: int) -> Kept:
    ids = torch.arange(start, start + count)
    return Kept(ids[:, None].float(), ids, ids, ids)


def test_pieces_have_the_wanted_size_and_go_on_where_they_say():
    batches = [(PackCursor(i, 0), numbered(10 * i, 7 if i == 2 else 10)) for i in range(6)]
    cutter = Cutter(8)
    pieces = [p for at, kept in batches for p in cutter.add(kept, 0, at)]
    rest = cutter.rest()
    assert rest is not None
    assert [p.kept.tokens.shape[0] for p in [*pieces, rest]] == [8] * 7 + [1]
    whole = torch.cat([kept.tokens for _, kept in batches])
    assert torch.equal(torch.cat([p.kept.tokens for p in [*pieces, rest]]), whole)
    assert cutter.rest() is None
    for i, piece in enumerate(pieces[:-1]):
        end = piece.end
        again = Cutter(8, end.skip)
        following = next(p for at, kept in batches[end.document :] for p in again.add(kept, 0, at))
        assert torch.equal(following.kept.tokens, pieces[i + 1].kept.tokens)
        assert following.end == pieces[i + 1].end


def test_a_piece_that_ends_with_its_batch_skips_the_whole_batch():
    cutter = Cutter(10)
    piece = next(cutter.add(numbered(0, 10), 2, PackCursor(4, 7)))
    assert piece.end == Cursor(2, 4, 7, 10)
    again = Cutter(10, 10)
    assert list(again.add(numbered(0, 10), 2, PackCursor(4, 7))) == []
    assert again.rest() is None
