"""The parameters that are tuned, beside the untuned model: low-rank matrices, or copies of the blocks' own weights."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from perimetry.activations.adapters import require_peft
from perimetry.activations.model import LanguageModel
from perimetry.errors import CorruptArtifact, UnknownName, UsageError
from perimetry.robust.recipe import TuneConfig

__all__ = ["PROJECTIONS", "Tunable"]

_LLAMA: Final = (("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj"))
_PHI3: Final = (("qkv_proj", "o_proj"), ("gate_up_proj", "down_proj"))
PROJECTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gpt2": (("attn.c_attn", "attn.c_proj"), ("mlp.c_fc", "mlp.c_proj")),
    "gpt_neox": (("query_key_value", "attention.dense"), ("dense_h_to_4h", "dense_4h_to_h")),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "llama", "mistral", "olmo", "olmo2"), _LLAMA),
    **dict.fromkeys(("qwen2", "qwen3", "smollm3", "stablelm"), _LLAMA),
    "phi": (("q_proj", "k_proj", "v_proj", "dense"), ("fc1", "fc2")),
    "phi3": _PHI3,
    "starcoder2": (("q_proj", "k_proj", "v_proj", "o_proj"), ("c_fc", "c_proj")),
}
"""Family -> names of the projections of attention and of the rest of a block."""


@final
class Tunable:
    """A language model of which some parameters learn. One at a time on a model; `remove` gives the model back as it was."""

    def __init__(self, lm: LanguageModel, config: TuneConfig, layer: int) -> None:
        """`layer`: the tap. Errors: `UsageError` (peft missing, the model carries an adapter), `UnknownName`."""
        if lm.base_revision is not None or any("lora_" in name for name, _ in lm.model.named_parameters()):
            raise UsageError(f"the model {lm.name!r} carries an adapter already; load the model again")
        self.lm = lm
        """The model, in whose modules the tuning lives."""
        self.config = config
        """How it is tuned."""
        self.blocks = min(config.blocks or layer + 1, lm.n_layers)
        """How many blocks are tuned."""
        self._wrapped: Any = None
        self._original: dict[str, Tensor] = {}
        if config.method == "lora":
            self._wrapped = self._inject()
        else:
            for block in lm.blocks[: self.blocks]:
                block.requires_grad_(requires_grad=True)
            self._original = {name: p.detach().clone() for name, p in self.parameters().items()}
        lm.model.eval()

    def _inject(self) -> Any:
        peft = require_peft()
        if self.lm.family not in PROJECTIONS:
            raise UnknownName("model family with known projections", self.lm.family, PROJECTIONS)
        attention, rest = PROJECTIONS[self.lm.family]
        names = attention if self.config.modules == "attention" else (*attention, *rest)
        # Every module is named whole: a pattern could reach blocks above the tap.
        whole = dict(self.lm.model.named_modules())
        inside = {id(m) for block in self.lm.blocks[: self.blocks] for m in block.modules()}
        chosen = [path for path, m in whole.items() if id(m) in inside and path.endswith(tuple(f".{n}" for n in names))]
        settings = peft.LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=0.0,
            target_modules=chosen,
            fan_in_fan_out=self.lm.family == "gpt2",
            bias="none",
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what peft and transformers call one another
            torch.manual_seed(self.config.seed)
            wrapped = peft.get_peft_model(self.lm.model, settings)
        # Set afterwards: peft puts in what the model says of itself, which may be nothing.
        wrapped.peft_config["default"].base_model_name_or_path = self.lm.origin
        return wrapped

    @property
    def wrapped(self) -> Any:
        """peft's own view of the model. Errors: `UsageError` where the weights themselves are tuned."""
        if self._wrapped is None:
            raise UsageError("method = 'full' tunes the weights themselves and has no adapter; save the model instead")
        return self._wrapped

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return {name: p for name, p in self.lm.model.named_parameters() if p.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """Copies of what learns."""
        return {name: p.detach().clone() for name, p in self.parameters().items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Put a `state()` back. Errors: `CorruptArtifact` for one of other parameters."""
        own = self.parameters()
        if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
            raise CorruptArtifact("the state is of other parameters than those that are tuned; start the run anew")
        for name, parameter in own.items():
            parameter.copy_(state[name])

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """The untuned model again, with low-rank matrices of another seed."""
        if self._wrapped is None:
            self.load(self._original)
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            kind = require_peft().tuners.lora.LoraLayer
            for module in self.lm.model.modules():
                if isinstance(module, kind):
                    layer: Any = module
                    layer.reset_lora_parameters("default", init_lora_weights=True)

    @contextlib.contextmanager
    def base(self) -> Iterator[None]:
        """Inside, the model computes as it did before tuning; without gradients."""
        with torch.no_grad():
            if self._wrapped is not None:
                with self._wrapped.disable_adapter():
                    yield
                return
            tuned = self.state()
            self.load(self._original)
            try:
                yield
            finally:
                self.load(tuned)

    def tuned(self, revision: str) -> LanguageModel:
        """The model as it is now, under a revision of its own, which readings carry."""
        return dataclasses.replace(self.lm, revision=revision, base_revision=self.lm.revision, lock=self.lm.lock)

    def remove(self) -> None:
        """Take the tuning off, so that the model is what it was."""
        if self._wrapped is not None:
            self._wrapped.unload()
        else:
            self.load(self._original)
        self.lm.model.requires_grad_(requires_grad=False)
        self._wrapped, self._original = None, {}
