"""From prompts to evidence, against the model run by hand, one prompt at a time."""

import copy

import pytest
import torch

from perimetry.activations.model import LanguageModel, from_pretrained_parts, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.errors import ConfigError, EmptyText, NonFinite, NoScorableToken, PromptTooLong
from perimetry.runtime import generator
from perimetry.sae import BatchTopKSAE
from perimetry.sae.affine import Weights
from perimetry.shift.base import Evidence, concatenate
from perimetry.shift.evidence import Extractor, Side

TEXTS = (
    "the cat sat on the mat",
    "one",
    "Teh captial fo 😀 Frnace, si Prais.",
    "she opened the letter and read it twice before the rain began to fall on the hill",
    "a  b\n\tc",
)
OPEN = TokenPolicy().fitted(1e9)


def small_sae(d_model: int = 32, d_sae: int = 48) -> BatchTopKSAE:
    draw = generator(5)
    basic = Weights(
        W_enc=torch.randn(d_sae, d_model, generator=draw),
        W_dec=torch.nn.functional.normalize(torch.randn(d_sae, d_model, generator=draw), dim=1),
        b_enc=torch.zeros(d_sae),
        b_dec=torch.randn(d_model, generator=draw) * 0.1,
    )
    sae = BatchTopKSAE.rebuild(basic, extras={}, settings={"k": 6, "threshold": 4.0}, subtract_b_dec=True)
    return sae.requires_grad_(requires_grad=False).eval()


def poisoned() -> LanguageModel:
    """A model of its own (the session's is shared) whose second block gives NaN."""
    lm = tiny_language_model("llama")
    lm.model.get_parameter("model.layers.1.mlp.down_proj.weight").data[0, 0] = torch.nan
    return lm


def gather(extractor: Extractor, *, batch_tokens: int = 4096, side: Side = "right", texts=TEXTS) -> list[Evidence]:
    """One evidence a prompt, in the order of the texts."""
    found: dict[int, Evidence] = {}
    prompts = extractor.prepare([str(i) for i in range(len(texts))], texts)
    for capture in extractor.capture(prompts, logits=True, batch_tokens=batch_tokens, side=side):
        whole = capture.evidence(small_sae())
        for row, index in enumerate(capture.rows):
            mine = whole.prompt == row
            stats = whole.logits
            assert stats is not None
            found[index] = Evidence(
                acts=whole.acts[mine],
                codes=whole.codes.select(mine),
                reconstruction=whole.reconstruction[mine],
                tokens=whole.tokens[mine],
                positions=whole.positions[mine],
                prompt=torch.zeros_like(whole.prompt[mine]),
                words=whole.words[row : row + 1],
                logits=type(stats)(*(s[mine] for s in stats)),
                foresight=None if whole.foresight is None else whole.foresight[mine],
            )
    return [found[i] for i in range(len(texts))]


def test_equals_the_model_run_by_hand(tiny_lm: LanguageModel) -> None:
    for text, evidence in zip(TEXTS, gather(Extractor(tiny_lm, 1, OPEN)), strict=True):
        ids = [tiny_lm.bos_id, *tiny_lm.plain_tokenizer.encode(text, add_special_tokens=False).ids]
        with torch.no_grad():
            output = tiny_lm.model(torch.tensor([ids]), output_hidden_states=True)
        assert evidence.tokens.tolist() == ids[1:]
        assert evidence.positions.tolist() == list(range(1, len(ids)))
        assert evidence.words.tolist() == [max(1, len(text.split()))]
        torch.testing.assert_close(evidence.acts, output.hidden_states[2][0, 1:], rtol=0, atol=1e-5)
        logs = output.logits[0, :-1].log_softmax(-1)
        assert evidence.logits is not None
        torch.testing.assert_close(evidence.logits.nll, -logs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0])
        torch.testing.assert_close(evidence.logits.entropy, -(logs.exp() * logs).sum(1))
        torch.testing.assert_close(evidence.logits.energy, -output.logits[0, :-1].logsumexp(-1))
        torch.testing.assert_close(evidence.reconstruction, small_sae()(evidence.acts).reconstruction)
        assert evidence.foresight is not None
        last = tiny_lm.model.base_model(torch.tensor([ids])).last_hidden_state[0, :-1]
        torch.testing.assert_close(evidence.foresight, last.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gpt_neox"])
def test_neither_batch_nor_side_nor_order_changes_it(family: str) -> None:
    extractor = Extractor(tiny_language_model(family), 1, OPEN)
    base = gather(extractor)
    turned = gather(extractor, texts=TEXTS[::-1])[::-1]
    for other in (gather(extractor, batch_tokens=1), gather(extractor, side="left"), turned):
        for one, two in zip(base, other, strict=True):
            torch.testing.assert_close(one.acts, two.acts, rtol=1e-4, atol=1e-4)
            assert one.tokens.tolist() == two.tokens.tolist()
            assert one.positions.tolist() == two.positions.tolist()
            assert one.logits is not None
            assert two.logits is not None
            torch.testing.assert_close(one.logits.nll, two.logits.nll, rtol=1e-4, atol=1e-4)
            assert one.foresight is not None
            assert two.foresight is not None
            torch.testing.assert_close(one.foresight, two.foresight, rtol=1e-4, atol=1e-4)


def test_without_logits_no_later_block_runs(tiny_lm: LanguageModel) -> None:
    extractor = Extractor(tiny_lm, 0, OPEN)
    ran: list[int] = []
    handle = tiny_lm.blocks[1].register_forward_hook(lambda *_: ran.append(1))
    try:
        captures = list(extractor.capture(extractor.prepare(["a"], ["the cat"]), logits=False))
        assert captures[0].logits is None
        assert captures[0].foresight is None
        assert ran == []
        list(extractor.capture(extractor.prepare(["a"], ["the cat"]), logits=True))
        assert ran == [1]
    finally:
        handle.remove()


def test_foresight_alone_spares_the_vocabulary(tiny_lm: LanguageModel) -> None:
    extractor = Extractor(tiny_lm, 0, OPEN)
    prompts = extractor.prepare(["a", "b"], TEXTS[:2])
    (whole,) = extractor.capture(prompts, logits=True)
    ran: list[int] = []
    handle = tiny_lm.model.get_output_embeddings().register_forward_hook(lambda *_: ran.append(1))
    try:
        (some,) = extractor.capture(prompts, logits=False, foresight=True)
    finally:
        handle.remove()
    assert ran == []
    assert some.logits is None
    assert some.foresight is not None
    assert whole.foresight is not None
    assert torch.equal(some.foresight, whole.foresight)


def test_what_comes_first_was_not_foreseen(tiny_lm: LanguageModel) -> None:
    policy = TokenPolicy(prepend_bos=False).fitted(1e9)
    extractor = Extractor(tiny_lm, 0, policy)
    (capture,) = extractor.capture(extractor.prepare(["a"], [TEXTS[0]]), logits=True)
    assert capture.foresight is not None
    assert not bool(capture.foresight[0].any())
    assert bool((capture.foresight[1:].norm(dim=1) > 0.1).all())


def test_a_last_hidden_state_that_is_no_number_is_refused_by_name() -> None:
    extractor = Extractor(poisoned(), 0, OPEN)
    prompts = extractor.prepare(["bad"], ["the cat sat"])
    (capture,) = extractor.capture(prompts, logits=False)
    assert capture.foresight is None, "the pass stops before the block that is sick"
    for logits in (False, True):
        with pytest.raises(NonFinite, match="prompt 'bad' gives NaN or infinity in the model's last hidden state"):
            list(extractor.capture(prompts, logits=logits, foresight=True))


def test_one_capture_serves_several_dictionaries(tiny_lm: LanguageModel) -> None:
    extractor = Extractor(tiny_lm, 1, OPEN)
    (capture,) = extractor.capture(extractor.prepare(["a"], [TEXTS[0]]), logits=False)
    one, two = capture.evidence(small_sae()), capture.evidence(small_sae(d_sae=16))
    assert torch.equal(one.acts, two.acts)
    assert (one.codes.width, two.codes.width) == (48, 16)


def test_sinks_are_counted_as_excluded(tiny_lm: LanguageModel) -> None:
    free = Extractor(tiny_lm, 1, OPEN)
    (capture,) = free.capture(free.prepare(["a"], [TEXTS[3]]), logits=False)
    norms = capture.acts.norm(dim=1)
    bound = float(norms.median())
    tight = Extractor(tiny_lm, 1, TokenPolicy(max_norm=bound))
    (cut,) = tight.capture(tight.prepare(["a"], [TEXTS[3]]), logits=False)
    kept = norms <= bound
    assert torch.equal(cut.acts, capture.acts[kept])
    assert cut.excluded == (int((~kept).sum()) + 1,), "the BOS is excluded besides"
    assert cut.counted[0].tolist() == [False, *kept.tolist()]


def test_a_prompt_of_sinks_only_is_refused_by_name(tiny_lm: LanguageModel) -> None:
    extractor = Extractor(tiny_lm, 1, TokenPolicy(max_norm=1e-6))
    with pytest.raises(NoScorableToken, match=r"prompt 'second': every token is special or an attention sink"):
        list(extractor.capture(extractor.prepare(["second"], ["the cat"]), logits=False))


def test_activations_that_are_no_numbers_are_refused_by_name() -> None:
    extractor = Extractor(poisoned(), 1, OPEN)
    prompts = extractor.prepare(["bad"], ["the cat sat"])
    for logits in (False, True):
        with pytest.raises(NonFinite, match=r"prompt 'bad' gives NaN or infinite activations after block 1"):
            list(extractor.capture(prompts, logits=logits))


def test_errors_name_the_prompt(tiny_lm: LanguageModel) -> None:
    extractor = Extractor(tiny_lm, 1, OPEN)
    with pytest.raises(EmptyText, match="prompt 'b': the text is empty"):
        extractor.prepare(["a", "b"], ["fine", " \n"])
    with pytest.raises(PromptTooLong, match=r"prompt 'long': the text has \d+ tokens, at most 128 fit"):
        extractor.prepare(["long"], ["word " * 200])
    (cut,) = extractor.prepare(["long"], ["word " * 200], truncate=True)
    assert cut.encoded.truncated
    assert len(cut.encoded.ids) == 128


def test_an_unfitted_policy_is_refused(tiny_lm: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="the token policy has no max_norm"):
        Extractor(tiny_lm, 1, TokenPolicy())


def test_half_precision_leaves_as_float32() -> None:
    lm = tiny_language_model("llama")
    half = from_pretrained_parts(copy.deepcopy(lm.model).bfloat16(), lm.tokenizer, "half")
    extractor = Extractor(half, 1, OPEN)
    (capture,) = extractor.capture(extractor.prepare(["a"], [TEXTS[0]]), logits=True)
    assert capture.acts.dtype == torch.bfloat16
    evidence = capture.evidence(small_sae())
    assert evidence.acts.dtype == torch.float32
    both = concatenate([evidence, evidence])
    assert both.n_prompts == 2
    assert capture.foresight is not None
    assert capture.foresight.dtype == torch.bfloat16
    assert evidence.foresight is not None
    assert both.foresight is not None
    assert torch.equal(both.foresight, evidence.foresight.repeat(2, 1))
    assert concatenate([evidence, evidence._replace(foresight=None)]).foresight is None
