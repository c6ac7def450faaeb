import math
import threading
from typing import Any

import pytest
import torch

from perimetry.activations import tap as tap_module
from perimetry.activations.model import BLOCKS, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import collate, encode, position_ids
from perimetry.activations.tap import Tap, hook_name, read_layers
from perimetry.errors import ConfigError, UnknownName, WidthMismatch

TEXTS = ["The cat sat on the mat and the streets", "hi", "Ships sail in winter, ranting", "toast of the town"]


@pytest.fixture(scope="module", params=sorted(BLOCKS))
def lm(request):
    return tiny_language_model(request.param)


def batch_of(lm, texts=TEXTS, side: Any = "right"):
    return collate([encode(lm, text, TokenPolicy()) for text in texts], lm.pad_id, side)


def hooks_of(lm):
    return [len(block._forward_hooks) for block in lm.blocks]


def full_pass(lm, batch):
    with torch.no_grad():
        return lm.model(
            input_ids=batch.ids,
            attention_mask=batch.attention,
            position_ids=position_ids(batch.attention),
            output_hidden_states=True,
            use_cache=False,
        )


@pytest.mark.parametrize("side", ["right", "left"])
def test_read_equals_hidden_states(lm, side):
    batch = batch_of(lm, side=side)
    states = full_pass(lm, batch).hidden_states
    for layer in range(lm.n_layers - 1):
        assert torch.equal(Tap(lm, layer).read(batch.ids, batch.attention), states[layer + 1])


def test_the_last_block_is_read_before_the_final_norm(lm):
    batch, seen = batch_of(lm), []
    handle = lm.blocks[-1].register_forward_hook(lambda m, i, o: seen.append(o[0] if isinstance(o, tuple) else o))
    states = full_pass(lm, batch).hidden_states
    handle.remove()
    read = Tap(lm, lm.n_layers - 1).read(batch.ids, batch.attention)
    assert torch.equal(read, seen[0])
    assert not torch.allclose(read, states[-1])


def test_a_read_stops_after_the_block(lm):
    batch, ran, before = batch_of(lm), [], hooks_of(lm)
    watched = [*lm.blocks, lm.model.get_output_embeddings()]
    handles = [m.register_forward_hook(lambda m, i, o, n=n: ran.append(n)) for n, m in enumerate(watched)]
    for layer in range(lm.n_layers):
        ran.clear()
        Tap(lm, layer).read(batch.ids, batch.attention)
        assert ran == list(range(layer + 1))
    ran.clear()
    Tap(lm, 0).read_with_logits(batch.ids, batch.attention)
    assert ran == list(range(lm.n_layers))
    for handle in handles:
        handle.remove()
    assert hooks_of(lm) == before


def test_several_layers_come_from_one_pass(lm):
    batch = batch_of(lm)
    found = read_layers(lm, [2, 0], batch.ids, batch.attention)
    assert list(found) == [2, 0]
    for layer, residual in found.items():
        assert torch.equal(residual, Tap(lm, layer).read(batch.ids, batch.attention))


def test_replacing_by_itself_changes_nothing_and_by_zero_does(lm):
    batch, tap = batch_of(lm), Tap(lm, 1)
    logits = full_pass(lm, batch).logits
    assert torch.equal(tap.replace(batch.ids, batch.attention, lambda x: x), logits)
    assert torch.equal(tap.read_with_logits(batch.ids, batch.attention).logits(), logits)
    zeroed = tap.run_replaced(batch.ids, batch.attention, torch.zeros_like)
    assert not zeroed.residual.any()
    assert (zeroed.logits() - logits).abs().max() > 0.1


def test_readings_do_not_depend_on_padding_or_batch(lm):
    tap = Tap(lm, 1)
    alone = []
    for text in TEXTS:
        batch = batch_of(lm, [text])
        alone.append((tap.read(batch.ids, batch.attention)[0], full_pass(lm, batch).logits[0]))
    for side in ("right", "left"):
        for order in ([0, 1, 2, 3], [3, 1, 0, 2], [1, 0]):
            batch = batch_of(lm, [TEXTS[i] for i in order], side)
            out = tap.read_with_logits(batch.ids, batch.attention)
            logits = out.logits()
            for row, i in enumerate(order):
                real = batch.attention[row].bool()
                torch.testing.assert_close(out.residual[row, real], alone[i][0], atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(logits[row, real], alone[i][1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", ["right", "left"])
def test_logit_statistics_equal_log_softmax(lm, side, monkeypatch):
    batch, tap = batch_of(lm, side=side), Tap(lm, 1)
    monkeypatch.setattr(tap_module, "CHUNK_BYTES", 4 * 300 * 7)
    mask = batch.attention.bool()
    stats = tap.read_with_logits(batch.ids, batch.attention).logit_stats(batch.ids, batch.attention, mask)
    logits = full_pass(lm, batch).logits.double()
    at, vocabulary = 0, logits.shape[-1]
    for row in range(len(TEXTS)):
        real = mask[row].nonzero()[:, 0].tolist()
        assert stats.nll[at].item() == pytest.approx(math.log(vocabulary))
        assert stats.entropy[at].item() == pytest.approx(math.log(vocabulary))
        assert stats.energy[at].item() == pytest.approx(-math.log(vocabulary))
        for offset, column in enumerate(real[1:], 1):
            log_p = torch.log_softmax(logits[row, column - 1], -1)
            assert stats.nll[at + offset].item() == pytest.approx(-log_p[batch.ids[row, column]].item(), abs=1e-4)
            assert stats.entropy[at + offset].item() == pytest.approx(-(log_p.exp() * log_p).sum().item(), abs=1e-4)
            energy = -math.log(logits[row, column - 1].exp().sum().item())
            assert stats.energy[at + offset].item() == pytest.approx(energy, abs=1e-4)
        at += len(real)
    assert at == stats.nll.shape[0]


@pytest.mark.parametrize("side", ["right", "left"])
def test_foresight_is_the_state_one_token_before(lm, side):
    batch, tap = batch_of(lm, side=side), Tap(lm, 1)
    out = tap.read_with_logits(batch.ids, batch.attention)
    found = out.foresight(batch.attention, batch.attention.bool())
    at = 0
    for row in range(len(TEXTS)):
        real = batch.attention[row].nonzero()[:, 0].tolist()
        assert not found[at].any(), "nothing stands before the first token"
        for offset, column in enumerate(real[1:], 1):
            assert torch.equal(found[at + offset], out.hidden[row, column - 1])
        at += len(real)
    assert at == found.shape[0]
    with pytest.raises(ConfigError, match="covers padding"):
        out.foresight(batch.attention, torch.ones_like(batch.countable))


def test_logit_statistics_of_some_tokens_are_those_of_all(tiny_lm):
    batch = batch_of(tiny_lm)
    out = Tap(tiny_lm, 1).read_with_logits(batch.ids, batch.attention)
    everything = out.logit_stats(batch.ids, batch.attention, batch.attention.bool())
    some = out.logit_stats(batch.ids, batch.attention, batch.countable)
    assert torch.equal(some.nll, everything.nll[batch.countable[batch.attention.bool()]])
    with pytest.raises(ConfigError, match="covers padding"):
        out.logit_stats(batch.ids, batch.attention, torch.ones_like(batch.countable))


def test_no_large_logits_exist_during_statistics(tiny_lm, monkeypatch):
    monkeypatch.setattr(tap_module, "CHUNK_BYTES", 4 * 300 * 5)
    batch = batch_of(tiny_lm)
    out = Tap(tiny_lm, 1).read_with_logits(batch.ids, batch.attention)
    sizes = []
    head = tiny_lm.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda m, i, o: sizes.append(o.shape[0]))
    out.logit_stats(batch.ids, batch.attention, batch.countable)
    handle.remove()
    assert sum(sizes) == int(batch.countable.sum())
    assert max(sizes) <= 5


def test_the_cap_on_gemma_logits_is_honoured():
    lm = tiny_language_model("gemma2")
    assert lm.model.config.final_logit_softcapping == 30.0
    batch = batch_of(lm)
    out = Tap(lm, 0).run_replaced(batch.ids, batch.attention, lambda x: x * 1000)
    out.hidden.mul_(1000)
    assert out.logits().abs().max() <= 30.0


def test_what_is_read_can_be_trained_on(tiny_lm):
    batch = batch_of(tiny_lm)
    weight = torch.ones(32, requires_grad=True)
    (Tap(tiny_lm, 1).read(batch.ids, batch.attention) * weight).sum().backward()
    assert weight.grad is not None


def test_two_threads_do_not_see_each_others_hooks(tiny_lm):
    batch, wrong = batch_of(tiny_lm), []
    wanted = {layer: Tap(tiny_lm, layer).read(batch.ids, batch.attention) for layer in range(3)}

    def work(layer: int) -> None:
        for _ in range(20):
            if not torch.equal(Tap(tiny_lm, layer).read(batch.ids, batch.attention), wanted[layer]):
                wrong.append(layer)

    threads = [threading.Thread(target=work, args=(layer,)) for layer in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_hooks_are_gone_after_an_error(tiny_lm):
    batch, before = batch_of(tiny_lm), hooks_of(tiny_lm)

    def fail(x):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Tap(tiny_lm, 1).replace(batch.ids, batch.attention, fail)
    assert hooks_of(tiny_lm) == before


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_out_of_range_is_refused(tiny_lm, layer):
    with pytest.raises(ConfigError, match=rf"layer {layer} is not in 'tiny-llama', .* 3 blocks; .* 0 to 2"):
        Tap(tiny_lm, layer)


def test_a_replacement_of_another_shape_is_refused(tiny_lm):
    batch = batch_of(tiny_lm)
    with pytest.raises(WidthMismatch, match=r"the replacement at model\.layers\.1 has shape .* keep the shape"):
        Tap(tiny_lm, 1).replace(batch.ids, batch.attention, lambda x: x[..., :5])


def test_a_row_longer_than_the_context_is_refused(tiny_lm):
    ids = torch.ones(1, 129, dtype=torch.long)
    with pytest.raises(ConfigError, match="129 positions and 'tiny-llama' has a context of 128"):
        Tap(tiny_lm, 0).read(ids, torch.ones_like(ids))


def test_names_of_the_place(tiny_lm):
    assert Tap(tiny_lm, 2).hook == ("blocks.2.hook_resid_post", "model.layers.2")
    assert hook_name(0, "gpt_neox").hugging_face == "gpt_neox.layers.0"
    with pytest.raises(UnknownName, match="unknown model family 'bert'"):
        hook_name(0, "bert")


def test_every_module_path_leads_to_the_block(lm):
    block = lm.model.get_submodule(hook_name(1, lm.family).hugging_face)
    assert block is lm.blocks[1]
