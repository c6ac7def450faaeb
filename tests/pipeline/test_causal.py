"""The rest of a language model: what stands where, what moves, and the loss against passes by the tap."""

import pytest
import torch
from tests.worlds import text_of
from torch import Tensor

from perimetry.activations.masking import Masking
from perimetry.activations.model import BLOCKS, LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import scorable
from perimetry.activations.site import Site
from perimetry.activations.tap import Tap, read_sites
from perimetry.errors import ConfigError, TooFewSamples
from perimetry.pipeline import causal
from perimetry.pipeline.causal import RestOfModel, require_plain_text, rest_of
from perimetry.sae import TopKSAE, initial_weights
from perimetry.sae.steps.base import Objective
from perimetry.train import Rest, TrainConfig
from perimetry.train.causal import causal_pull, nearest_others

SITE = Site(1)
CONTEXT = 32


class Document:
    def __init__(self, number: int, words: int = 60) -> None:
        self.id, self.text = f"d{number}", text_of(f"causal {number}", words)


DOCUMENTS = [Document(i) for i in range(12)]


def recipe(**changes: object) -> TrainConfig:
    values = {"width": 96, "k": 5, "tokens": 2048, "batch": 128, "causal": 1.0, "architecture": "topk"}
    return TrainConfig.model_validate(values | {"causal_sequences": 2} | changes)


def large(lm: LanguageModel, site: Site, made: RestOfModel) -> float:
    """A norm that one in four of the tokens that count exceeds: they are sinks then."""
    found = read_sites(lm, [site], made.text.ids, made.text.attention)[site]
    return float(found[made.text.countable].norm(dim=1).quantile(0.75))


def rest(lm: LanguageModel, site: Site = SITE, **changes: object) -> RestOfModel:
    policy = TokenPolicy()
    made = rest_of(lm, site, policy, DOCUMENTS, recipe(**changes), context=CONTEXT)
    return RestOfModel(
        lm,
        site,
        policy.model_copy(update={"max_norm": large(lm, site, made)}),
        made.text,
        sequences=made.sequences,
        seed=0,
    )


def dictionary(lm: LanguageModel) -> TopKSAE:
    return TopKSAE(initial_weights(lm.d_model, 96, seed=1, b_dec=0.1 * torch.ones(lm.d_model)), k=5)


def same(acts: Tensor) -> Tensor:
    return acts.expand(3, *acts.shape)


def read(made: RestOfModel, turn: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention and the tokens that count of a turn, by another way: the rows that the pass was given."""
    given: list[Tensor] = []
    handle = made.lm.model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    made(turn, same)
    handle.remove()
    ids = given[0].unflatten(0, (3, -1))
    assert torch.equal(ids[0], ids[1])
    assert torch.equal(ids[0], ids[2])
    rows = [int((made.text.ids == row).all(1).nonzero()[0]) for row in ids[0]]
    acts = read_sites(made.lm, [made.site], ids[0], made.text.attention[rows])[made.site]
    counts = scorable(acts, made.text.countable[rows], made.policy)
    return ids[0], made.text.attention[rows], counts


@pytest.mark.parametrize("family", sorted(BLOCKS))
def test_activations_that_stay_give_what_the_model_says(family: str) -> None:
    lm = tiny_language_model(family)
    made = rest(lm)
    assert isinstance(made, Rest)
    ids, attention, counts = read(made, 0)
    assert 0 < int(counts.sum()) < int(made.text.countable[:2].sum()), "some tokens are sinks"
    logits = Tap(lm, 1).read_with_logits(ids, attention).logits()[counts].float()
    heard = made(0, same)
    for version in range(3):
        torch.testing.assert_close(heard.head(heard.last[version]), logits, rtol=1e-4, atol=1e-4)
    assert heard.outputs == logits.shape[1]


@pytest.mark.parametrize("place", ["resid_post", "mlp_in", "mlp_out"])
def test_only_tokens_that_count_move_at_every_place(place: str, tiny_lm: LanguageModel) -> None:
    site = Site(1, "mlp_in" if place == "mlp_in" else "mlp_out" if place == "mlp_out" else "resid_post")
    made = rest(tiny_lm, site)
    ids, attention, counts = read(made, 0)
    before = read_sites(tiny_lm, [site], ids, attention)[site]
    given: list[Tensor] = []

    def replace(acts: Tensor) -> Tensor:
        torch.testing.assert_close(acts, before[counts], rtol=1e-5, atol=1e-5)
        return torch.stack([acts, 0 * acts, acts + 1])

    handle = tiny_lm.blocks[2].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    heard = made(0, replace)
    handle.remove()
    # An MLP reads each position by itself, so that those that do not count leave the block as they would have.
    after = read_sites(tiny_lm, [SITE], ids, attention)[SITE]
    versions = given[0].unflatten(0, (3, -1))
    for version in versions:
        torch.testing.assert_close(version[~counts], after[~counts], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(versions[0], after, rtol=1e-5, atol=1e-5)
    assert float((versions[1] - after)[counts].abs().max()) > 0.01
    if place == "resid_post":
        torch.testing.assert_close(versions[2][counts], before[counts] + 1, rtol=1e-5, atol=1e-5)
    assert heard.last.shape == (3, int(counts.sum()), tiny_lm.d_model)
    assert not torch.allclose(heard.last[0], heard.last[1], atol=1e-3)


def test_the_loss_is_that_of_three_passes_by_the_tap(tiny_lm: LanguageModel) -> None:
    """In the units of the model: the dictionary reads activations times the scale."""
    sae, made, scale, share = dictionary(tiny_lm), rest(tiny_lm), 0.3, 0.2
    pull = causal_pull(sae, torch.tensor(scale), lambda replace: made(2, replace), Objective(), share=share)
    ids, attention, counts = read(made, 2)
    tap = Tap(tiny_lm, 1)
    codes = sae.encode(tap.read(ids, attention)[counts] * scale).dense()
    other = codes[nearest_others(codes)]

    def logits(latents: Tensor) -> Tensor:
        def put(residual: Tensor) -> Tensor:
            residual = residual.clone()
            residual[counts] = ((latents @ sae.W_dec + sae.b_dec) / scale).detach()
            return residual

        return tap.replace(ids, attention, put)[counts]

    here, there, moved = (logits(version) for version in (codes, other, codes + share * (other - codes)))
    error = (moved - (1 - share) * here - share * there).square().mean()
    size = (share * (there - here)).square().mean()
    assert float(pull.interpolation.error) == pytest.approx(float(error), rel=1e-3)
    assert float(pull.interpolation.size) == pytest.approx(float(size), rel=1e-3)
    assert 0 < pull.interpolation.relative < 5


@pytest.mark.parametrize("target", ["logits", "kl"])
def test_the_gradient_reaches_the_dictionary_and_nothing_else(tiny_lm: LanguageModel, target: str) -> None:
    sae, made = dictionary(tiny_lm), rest(tiny_lm)
    before = {name: p.detach().clone() for name, p in tiny_lm.model.named_parameters()}

    def descended() -> float:
        """The loss, after which the dictionary takes a small step down its gradient."""
        found = causal_pull(
            sae,
            torch.tensor(0.3),
            lambda replace: made(0, replace),
            Objective(),
            share=0.3,
            target="kl" if target == "kl" else "logits",
        )
        gradients = found.gradients
        assert gradients.keys() == {"W_enc", "W_dec", "b_enc", "b_dec"}
        assert all(float(g.abs().max()) > 0 for g in gradients.values())
        with torch.no_grad():
            for name, parameter in sae.named_parameters():
                parameter -= 1e-4 * gradients[name] / gradients[name].norm()
        return float(found.interpolation.error)

    first, second = descended(), descended()
    assert second < first
    for name, parameter in tiny_lm.model.named_parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
        assert torch.equal(parameter, before[name])
    assert all(parameter.grad is None for parameter in sae.parameters())


def test_turns_are_known_by_their_number_and_go_through_the_text(tiny_lm: LanguageModel) -> None:
    made, again = (rest(tiny_lm, causal_sequences=3) for _ in range(2))
    held = made.text.ids.shape[0]
    assert held > 12
    seen = [read(made, turn)[0] for turn in range(held // 3)]
    assert torch.equal(read(again, 2)[0], seen[2])
    rows = {tuple(row.tolist()) for batch in seen for row in batch}
    assert len(rows) == len({tuple(row.tolist()) for row in made.text.ids}) - held % 3


def test_the_text_is_bounded_and_read_as_the_dictionary_reads_it(
    tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def text(masking: Masking | None = None, **changes: object) -> Tensor:
        config = recipe(**changes)
        return rest_of(tiny_lm, SITE, TokenPolicy(), DOCUMENTS, config, context=CONTEXT, masking=masking).text.ids

    assert text(tokens=128 * 3).shape == (6, CONTEXT), "as many sequences as there are turns times two"
    assert text(tokens=128 * 6, causal_every=4).shape == (4, CONTEXT)
    masked = text(Masking(kind="eos", probability=0.5), tokens=128 * 3)
    changed = masked != text(tokens=128 * 3)
    assert set(masked[changed].tolist()) == {tiny_lm.separator_id}
    assert 0.3 < float(changed.float().mean()) < 0.6
    monkeypatch.setattr(causal, "MOST_TOKENS", 5 * CONTEXT)
    assert text().shape == (5, CONTEXT)
    with pytest.raises(TooFewSamples, match=r"gives \d+ sequences of up to 32 tokens, .* on 5000 at a time"):
        text(causal_sequences=5000)


def test_two_versions_of_a_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="causal = 1 with masking of variant 'consistency', which reads two versions"):
        require_plain_text(Masking(variant="consistency"), [recipe(causal=0.0), recipe()])
    require_plain_text(Masking(variant="consistency"), [recipe(causal=0.0)])
    require_plain_text(Masking(), [recipe()])
