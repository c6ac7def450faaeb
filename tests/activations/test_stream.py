import json
import threading
from collections import Counter
from typing import Any

import pytest
import torch

from perimetry.activations import stream as stream_module
from perimetry.activations.feed import read_kept, row_batches
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.site import Site
from perimetry.activations.stream import LiveStream, StreamConfig
from perimetry.activations.text import shuffled
from perimetry.errors import ConfigError, Incompatible, NonFinite, TooFewSamples

from .documents import Doc

CONFIG = StreamConfig(context=24, batch_rows=3, chunk_tokens=200, background=False)


def take(stream: LiveStream, n: int, *args: int) -> list[Any]:
    batches: Any = stream.batches(*args)
    out = [next(batches) for _ in range(n)]
    batches.close()
    return out


def kept_in_order(lm, documents, policy, epoch):
    ordered = shuffled(documents, f"0:{epoch}")
    batches = row_batches(ordered, lm, policy, 24, 3)
    return torch.cat([read_kept(lm, rows, ordered, {1: policy}, torch.float32)[1].acts for rows in batches])


def counted(rows):
    return Counter(map(tuple, rows.tolist()))


def test_the_batches_are_the_tokens_of_every_epoch_mixed_over_two_chunks(tiny_lm, documents):
    stream = LiveStream(tiny_lm, 1, documents, CONFIG)
    rows = torch.cat([kept_in_order(tiny_lm, documents, stream.policy, epoch) for epoch in (0, 1)])
    pools = rows.shape[0] // 200 - 1
    got = torch.cat(take(stream, 1 + 2 * pools, 100, 5))
    for pool in range(1, pools + 1):
        part = counted(got[200 * pool - 100 : 200 * pool + 100])
        before, after = counted(rows[200 * (pool - 1) : 200 * pool]), counted(rows[200 * pool : 200 * (pool + 1)])
        assert part <= before + after
        assert part & before
        assert part & after
    handed, whole = counted(got), counted(rows[: 200 * pools])
    assert whole <= handed
    assert (handed - whole).total() == 100


def test_the_seed_changes_the_order(tiny_lm, documents):
    stream = LiveStream(tiny_lm, 1, documents, CONFIG)
    one, other = take(stream, 1, 100, 5)[0], take(stream, 1, 100, 6)[0]
    assert not torch.equal(one, other)


def test_the_background_thread_changes_nothing(tiny_lm, documents):
    quiet = take(LiveStream(tiny_lm, 1, documents, CONFIG), 60, 64, 3)
    busy = LiveStream(tiny_lm, 1, documents, CONFIG.model_copy(update={"background": True}))
    assert all(torch.equal(a, b) for a, b in zip(quiet, take(busy, 60, 64, 3), strict=True))
    assert not [t for t in threading.enumerate() if t.name.startswith("live-stream")]


def test_any_step_can_be_the_first(tiny_lm, documents):
    wanted = take(LiveStream(tiny_lm, 1, documents, CONFIG), 41, 64, 3)
    for start in (1, 7, 40):
        assert torch.equal(take(LiveStream(tiny_lm, 1, documents, CONFIG), 1, 64, 3, start)[0], wanted[start])


def test_a_restored_stream_goes_on_after_reading_two_chunks_at_most(tiny_lm, documents, monkeypatch):
    stream = LiveStream(tiny_lm, 1, documents, CONFIG)
    wanted = take(stream, 82, 64, 3)
    first = LiveStream(tiny_lm, 1, documents, CONFIG)
    take(first, 80, 64, 3)
    state = first.state()
    read, real = [0], stream_module.read_kept

    def counting(*args, **more):
        out = real(*args, **more)
        read[0] += out[Site(1)].tokens.shape[0]
        return out

    monkeypatch.setattr(stream_module, "read_kept", counting)
    again = LiveStream(tiny_lm, 1, documents, CONFIG.model_copy(update={"background": True}))
    again.restore(state)
    assert again.policy == first.policy
    batches: Any = again.batches(64, 3, 80)
    assert torch.equal(next(batches), wanted[80])
    assert torch.equal(next(batches), wanted[81])
    batches.close()
    assert read[0] <= 4 * 200 + 4 * 3 * 24


def test_a_state_of_another_stream_is_refused(tiny_lm, documents):
    state = LiveStream(tiny_lm, 1, documents, CONFIG).state()
    LiveStream(tiny_lm, 1, documents, CONFIG).restore(state)
    others = [
        LiveStream(tiny_lm, 2, documents, CONFIG),
        LiveStream(tiny_lm, 1, documents[1:], CONFIG),
        LiveStream(tiny_lm, 1, documents, CONFIG.model_copy(update={"seed": 1})),
    ]
    for other in others:
        with pytest.raises(Incompatible, match="the saved state is of another live stream"):
            other.restore(state)


def test_batches_are_float32_and_trainable(tiny_lm, documents):
    acts = take(LiveStream(tiny_lm, 1, documents, CONFIG), 1, 64)[0]
    assert acts.dtype == torch.float32
    assert not acts.is_inference()


def test_a_batch_larger_than_a_chunk(tiny_lm, documents):
    small = CONFIG.model_copy(update={"chunk_tokens": 20})
    one = take(LiveStream(tiny_lm, 1, documents, small), 2, 150)
    assert [b.shape for b in one] == [(150, 32)] * 2
    assert torch.equal(take(LiveStream(tiny_lm, 1, documents, small), 1, 150, 0, 1)[0], one[1])


@pytest.mark.parametrize("background", [False, True])
def test_what_goes_wrong_while_reading_reaches_the_caller(tiny_lm, documents, background):
    config = CONFIG.model_copy(update={"background": background, "policy": TokenPolicy(max_norm=1e9)})
    with pytest.raises(TooFewSamples, match="hold no token that counts"):
        take(LiveStream(tiny_lm, 1, [Doc("a", "")], config), 1, 8)
    hook = tiny_lm.blocks[0].register_forward_hook(lambda m, i, o: o * float("nan"))
    try:
        with pytest.raises(NonFinite, match="at position 1"):
            take(LiveStream(tiny_lm, 1, documents, config), 1, 8)
    finally:
        hook.remove()


def test_chunks_must_be_even(tiny_lm, documents):
    with pytest.raises(ConfigError, match="chunk_tokens is 201; wanted an even number"):
        LiveStream(tiny_lm, 1, documents, CONFIG.model_copy(update={"chunk_tokens": 201}))


def test_several_places_come_side_by_side_from_one_pass(tiny_lm, documents):
    sites = [Site(2), Site(0, "mlp_out")]
    both = LiveStream(tiny_lm, sites, documents, CONFIG)
    taken = take(both, 12, 64, 3)
    assert taken[0].shape == (64, 64)
    assert list(both.policies) == sites
    assert both.policies[sites[0]].max_norm != both.policies[sites[1]].max_norm
    # Where no token is a sink at either place, each half is what that place alone gives.
    free = TokenPolicy(max_norm=1e9)
    config = CONFIG.model_copy(update={"policy": free})
    halves = [take(LiveStream(tiny_lm, site, documents, config), 12, 64, 3) for site in sites]
    whole = take(LiveStream(tiny_lm, sites, documents, config), 12, 64, 3)
    for row, left, right in zip(whole, *halves, strict=True):
        assert torch.equal(row, torch.cat([left, right], 1))


def test_a_stream_of_several_places_is_restored(tiny_lm, documents):
    sites = [Site(0, "mlp_in"), Site(1)]
    first = LiveStream(tiny_lm, sites, documents, CONFIG)
    wanted = take(first, 21, 64, 3)
    again = LiveStream(tiny_lm, sites, documents, CONFIG)
    again.restore(json.loads(json.dumps(first.state())))
    assert again.policies == first.policies
    assert torch.equal(take(again, 1, 64, 3, 20)[0], wanted[20])
    with pytest.raises(Incompatible, match="another live stream"):
        LiveStream(tiny_lm, sites[::-1], documents, CONFIG).restore(first.state())
