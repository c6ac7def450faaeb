"""What a causal loss asks of a language model: the blocks after one place, run on text with other activations in that place."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perimetry.activations.feed import as_read
from perimetry.activations.masking import Masker, Masking
from perimetry.activations.model import LanguageModel
from perimetry.activations.permutation import shuffled_ids
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import PromptBatch, collate, position_ids, scorable
from perimetry.activations.site import Site
from perimetry.activations.text import HasText, pack, shuffled
from perimetry.axes import Acts, Residual, TokenMask
from perimetry.errors import ConfigError, TooFewSamples
from perimetry.train import TrainConfig
from perimetry.train.causal import VERSIONS, Heard

__all__ = ["RestOfModel", "require_plain_text", "rest_of"]

MOST_TOKENS: Final = 2**21
"""Tokens of text that are held; a training that wants more sees them again, in another order."""

Versions = Float[Tensor, "version token d_model"]
AllVersions = Float[Tensor, "version batch seq d_model"]


@final
class RestOfModel:
    """The blocks after one place, with sequences of text: a `perimetry.train.Rest`.

    One forward pass carries every version of a sequence; what lies before the place is computed without a graph, and no gradient
    reaches the model. Positions that the policy does not count (BOS, separators, sinks) keep the model's own activations, and
    what the model says there is not compared.
    """

    def __init__(
        self, lm: LanguageModel, site: Site, policy: TokenPolicy, text: PromptBatch, *, sequences: int, seed: int
    ) -> None:
        """`policy` is that of the place, its sink threshold fitted; `sequences` are read at each turn, shuffled by `seed`."""
        self.lm, self.site, self.policy, self.text = lm, site, policy, text
        self.sequences, self.seed = sequences, seed

    def __call__(self, turn: int, replace: Callable[[Acts], Versions]) -> Heard:
        """Run the sequences of `turn` with `replace` of the activations that count in their places."""
        held = self.text.ids.shape[0]
        rows = shuffled_ids(held, self.seed, turn * self.sequences, self.sequences)
        attention, countable = self.text.attention[rows], self.text.countable[rows]
        kept: list[TokenMask] = []

        def swap(given: Any) -> Any:
            old: Tensor = given[0] if isinstance(given, tuple) else given
            counts = scorable(old[: len(rows)].detach(), countable, self.policy).to(old.device)
            kept.append(counts)
            new = _replaced(old.detach().unflatten(0, (VERSIONS, -1)), counts, replace).flatten(0, 1)
            return (new, *given[1:]) if isinstance(given, tuple) else new

        hidden = self._run(self.text.ids[rows].repeat(VERSIONS, 1), attention.repeat(VERSIONS, 1), swap)
        head: Any = self.lm.model.get_output_embeddings()
        last = hidden.unflatten(0, (VERSIONS, -1))[:, kept[0].to(hidden.device)]
        return Heard(last, self._logits, head.weight.shape[0])

    def _run(self, ids: Tensor, attention: Tensor, swap: Callable[[Any], Any]) -> Residual:
        """The last hidden states of a pass in which `swap` of what stands at the place takes its place."""
        lm, block = self.lm, self.lm.blocks[self.site.layer]
        module: Any = block if self.site.place == "resid_post" else block.mlp

        def before(module: nn.Module, inputs: Any) -> Any:  # noqa: ARG001
            return swap(inputs)

        def after(module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG001
            return swap(output)

        attention = attention.to(lm.device)
        with lm.lock:
            mlp_in = self.site.place == "mlp_in"
            handle = module.register_forward_pre_hook(before) if mlp_in else module.register_forward_hook(after)
            try:
                output = lm.model.base_model(
                    input_ids=ids.to(lm.device),
                    attention_mask=attention,
                    position_ids=position_ids(attention),
                    use_cache=False,
                )
            finally:
                handle.remove()
        return output.last_hidden_state

    def _logits(self, hidden: Float[Tensor, "row d_last"]) -> Float[Tensor, "row vocab"]:
        """What the head says, in float32."""
        head: Any = self.lm.model.get_output_embeddings()
        logits = head(hidden).float()
        cap: float | None = getattr(self.lm.model.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap


def _replaced(old: AllVersions, counts: TokenMask, replace: Callable[[Acts], Versions]) -> AllVersions:
    """`replace` of the activations under `counts`, which are the same in all versions before it, each version in its rows."""
    new = old.clone()
    new[:, counts] = replace(old[0][counts].float()).to(new)
    return new


def require_plain_text(masking: Masking | None, recipes: Sequence[TrainConfig]) -> None:
    """Refuse a causal loss beside a variant of masking that reads two versions of a text. Errors: `ConfigError`."""
    causal = max(recipe.causal for recipe in recipes)
    if causal and masking is not None and masking.variant != "masked":
        raise ConfigError(
            f"causal = {causal:g} with masking of variant {masking.variant!r}, which reads two versions of each text and leaves open "
            "which of them the model shall go on with; set causal = 0, or variant = 'masked'"
        )


def rest_of(
    lm: LanguageModel,
    site: Site,
    policy: TokenPolicy,
    documents: Sequence[HasText],
    config: TrainConfig,
    *,
    context: int,
    masking: Masking | None = None,
) -> RestOfModel:
    """The rest of a model for the causal loss of `config`, on the text that the dictionary is trained on, masked if that is.

    `policy` is that of the place; `context` is in tokens. Errors: `TooFewSamples` where the text has fewer sequences than a turn reads.
    """
    ordered = shuffled(documents, config.data_seed)
    turns = -(-config.steps // config.causal_every)
    most = min(turns * config.causal_sequences, max(config.causal_sequences, MOST_TOKENS // context))
    masker = None if masking is None else Masker(masking, lm, ordered, policy)
    read = (as_read([row], masker)[0] for row in pack(ordered, lm, policy, context))
    # A sequence with one token that counts has no other to move towards.
    rows = list(islice((row for row in read if sum(row.countable) > 1), most))
    if len(rows) < config.causal_sequences:
        raise TooFewSamples(
            f"the text gives {len(rows)} sequences of up to {context} tokens, a causal loss was asked for on "
            f"{config.causal_sequences} at a time; give more text, or a smaller causal_sequences"
        )
    text = collate(rows, lm.pad_id)
    return RestOfModel(lm, site, policy, text, sequences=config.causal_sequences, seed=config.data_seed)
