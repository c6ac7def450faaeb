"""Where knowledge is edited: the matrix with which the MLP of a block writes into the residual stream."""

from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from perimetry.activations.model import BLOCKS, LanguageModel
from perimetry.errors import ConfigError, UnknownName

__all__ = ["PROJECTIONS", "Projection", "edit_layer", "projection"]

PROJECTIONS: Final = {
    "gpt2": "mlp.c_proj",
    "gpt_neox": "mlp.dense_4h_to_h",
    "phi": "mlp.fc2",
    "starcoder2": "mlp.c_proj",
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), "mlp.down_proj"),
    **dict.fromkeys(("llama", "mistral", "olmo", "olmo2", "phi3"), "mlp.down_proj"),
    **dict.fromkeys(("qwen2", "qwen3", "smollm3", "stablelm"), "mlp.down_proj"),
}
"""Family -> path of the output projection of the MLP inside a block. Explicit: no pattern is guessed."""

DEPTH: Final = 0.2
"""Where facts are edited unless a block is named: that share of the blocks from below."""


class Projection(NamedTuple):
    """A matrix from keys to values, in a model."""

    layer: int
    """Block."""
    name: str
    """Module path in the model."""
    module: nn.Module
    """The module; it holds `weight`."""
    turned: bool
    """Whether its weight is stored as [key, value], as GPT-2 does."""

    @property
    def weight(self) -> Float[Tensor, "value key"]:
        """The matrix in float64, on the CPU: what it gives is `weight @ key`, plus a bias where there is one."""
        stored = self.module.weight
        assert isinstance(stored, Tensor)
        exact = stored.detach().double().cpu()
        return exact.T if self.turned else exact

    def stored(self, weight: Float[Tensor, "value key"]) -> Tensor:
        """A matrix as the module keeps it: its layout, dtype and device."""
        own = self.module.weight
        assert isinstance(own, Tensor)
        return (weight.T if self.turned else weight).to(own.device, own.dtype).contiguous()

    @property
    def bias(self) -> Float[Tensor, " value"]:
        """What is added to every value, in float64; zeros where nothing is."""
        own = getattr(self.module, "bias", None)
        return torch.zeros(len(self.weight), dtype=torch.float64) if own is None else own.detach().double().cpu()


def edit_layer(lm: LanguageModel) -> int:
    """The block that is edited unless one is named: block 6 of 30.

    >>> from perimetry.activations.model import tiny_language_model
    >>> edit_layer(tiny_language_model())
    1
    """
    return min(lm.n_layers - 1, round(DEPTH * lm.n_layers))


def projection(lm: LanguageModel, layer: int) -> Projection:
    """The output projection of the MLP of a block.

    Errors: `ConfigError` for a block that is not there or whose MLP is of another kind (several experts, packed weights),
    `UnknownName` for a family that is in no table.
    """
    if lm.family not in PROJECTIONS:
        raise UnknownName("model family of editors", lm.family, PROJECTIONS)
    if not 0 <= layer < lm.n_layers:
        raise ConfigError(f"block {layer} is not in {lm.name!r}; choose one from 0 to {lm.n_layers - 1}")
    path = f"{BLOCKS[lm.family]}.{layer}.{PROJECTIONS[lm.family]}"
    module = dict(lm.model.named_modules()).get(path)
    if type(module) not in (nn.Linear, Conv1D):
        raise ConfigError(
            f"{path} of {lm.name!r} is {'absent' if module is None else f'a {type(module).__name__}'}; a plain matrix is wanted: "
            "experts, packed weights and adapters cannot be edited; give the model itself"
        )
    assert module is not None
    found = Projection(layer, path, module, isinstance(module, Conv1D))
    if found.weight.shape[0] != lm.d_model:
        raise ConfigError(
            f"{path} gives width {found.weight.shape[0]}, the model has {lm.d_model}; it cannot be edited"
        )
    return found
