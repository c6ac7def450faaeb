from pathlib import Path

import pytest
import torch

from perimetry.activations.feed import Kept
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.shards import ActivationStore
from perimetry.activations.text import PackCursor
from perimetry.activations.writer import StoreWriter
from perimetry.errors import TooFewSamples

from .documents import Doc

REQUEST = {"layer": 0, "d_model": 4}
DOCUMENTS = [Doc("a", "x"), Doc("b", "y"), Doc("c", "z")]


def kept(start: int, count: int) -> Kept:
    ids = torch.arange(start, start + count)
    return Kept(ids[:, None].repeat(1, 4).to(torch.bfloat16), ids, ids, ids % 3)


def writer(folder: Path, tokens: int = 25, shard: int = 10) -> StoreWriter:
    folder.mkdir(exist_ok=True)
    out = StoreWriter(folder, (tokens, shard), DOCUMENTS, REQUEST)
    out.resume()
    return out


def test_rows_are_cut_exactly_and_the_last_shard_is_shorter(tmp_path):
    one = writer(tmp_path / "s")
    one.start(TokenPolicy(max_norm=1.0))
    assert [one.add(kept(7 * i, 7), PackCursor(i, 0)) for i in range(5)] == [0, 10, 10, 5, 0]
    assert one.full
    one.finish()
    store = ActivationStore.open(tmp_path / "s")
    assert store.tokens(torch.arange(25)).tolist() == list(range(25))
    assert store.documents(torch.arange(4)) == ["a", "b", "c", "a"]
    assert store.policy.max_norm == 1.0


def test_another_writer_goes_on_in_the_middle_of_a_batch(tmp_path):
    one = writer(tmp_path / "s")
    one.start(TokenPolicy(max_norm=1.0))
    one.add(kept(0, 14), PackCursor(0, 0))
    two = writer(tmp_path / "s")
    assert (two.rows, two.cursor.skip, two.policy) == (10, 10, TokenPolicy(max_norm=1.0))
    two.start(TokenPolicy(max_norm=2.0))
    two.add(kept(0, 14), PackCursor(0, 0))
    two.add(kept(14, 3), PackCursor(1, 0))
    two.finish()
    store = ActivationStore.open(tmp_path / "s")
    assert store.tokens(torch.arange(len(store))).tolist() == list(range(17))
    assert store.policy.max_norm == 1.0


def test_batches_before_the_cursor_are_passed_over(tmp_path):
    one = writer(tmp_path / "s")
    one.start(TokenPolicy(max_norm=1.0))
    for i in range(3):
        one.add(kept(5 * i, 5), PackCursor(i, 0))
    two = writer(tmp_path / "s")
    two.start(TokenPolicy(max_norm=1.0))
    for i in range(6):
        two.add(kept(5 * i, 5), PackCursor(i, 0))
    two.finish()
    assert ActivationStore.open(tmp_path / "s").tokens(torch.arange(25)).tolist() == list(range(25))


def test_nothing_to_write(tmp_path):
    one = writer(tmp_path / "s")
    one.start(TokenPolicy(max_norm=1.0))
    with pytest.raises(TooFewSamples, match="hold no token that counts"):
        one.finish()


def test_a_torn_line_does_not_spoil_the_lines_after_it(tmp_path):
    one = writer(tmp_path / "s")
    one.start(TokenPolicy(max_norm=1.0))
    one.add(kept(0, 10), PackCursor(0, 0))
    with open(tmp_path / "s" / "shards.jsonl", "a") as handle:
        handle.write('{"file": "shard-0')
    two = writer(tmp_path / "s")
    two.start(TokenPolicy(max_norm=1.0))
    two.add(kept(0, 10), PackCursor(0, 0))
    two.add(kept(10, 10), PackCursor(1, 0))
    assert writer(tmp_path / "s").rows == 20
