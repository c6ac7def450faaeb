"""What the architectures with an affine encoder and a linear decoder share.

Pre-activations are `W_enc (x - beta b_dec) + b_enc` with beta 1 or 0; an architecture says which of them fire. Encoding
goes by chunks of rows, so that no (token, latent) matrix of the whole input is ever held.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from perimetry.axes import Acts, Decoder, Encoder, LatentBias, Latents, ModelBias, PerToken, Read, Rows, Written
from perimetry.errors import ConfigError, CorruptArtifact, WidthMismatch
from perimetry.runtime import generator
from perimetry.sae.base import AbstractSAE, Codes, SAEState, Start
from perimetry.sae.slots import by_slot, order_codes
from perimetry.sae.steps.active import Active
from perimetry.sae.steps.base import Forward, Losses, Objective, Penalty, Plain, Terms
from perimetry.sae.steps.dense import dense_aux
from perimetry.sae.steps.products import decode_slots
from perimetry.sae.steps.select import AboveCut, Collector, PreActivations, collect
from perimetry.sae.terms.smooth import dense_smooth

__all__ = ["AffineSAE", "Weights", "initial_weights", "tiny_weights"]

A = TypeVar("A", bound="AffineSAE")


class Weights(NamedTuple):
    """The four tensors that every affine dictionary has, latent-major."""

    W_enc: Encoder
    """Row i reads latent i."""
    W_dec: Decoder
    """Row i is the direction that latent i writes."""
    b_enc: LatentBias
    """Added to the pre-activations."""
    b_dec: ModelBias
    """Added to the reconstruction, and taken off the input where the architecture does so."""


def initial_weights(d_model: int, d_sae: int, seed: int, b_dec: ModelBias | None = None) -> Weights:
    """Decoder rows uniform on the unit sphere, encoder equal to the decoder, encoder bias 0."""
    rows = torch.randn(d_sae, d_model, generator=generator(seed))
    rows = rows / rows.norm(dim=1, keepdim=True)
    centre = torch.zeros(d_model) if b_dec is None else b_dec.float()
    return Weights(rows.clone(), rows, torch.zeros(d_sae), centre.clone())


def tiny_weights() -> Weights:
    """Seeded weights for `tiny()`: d_model 8, d_sae 32, all four tensors different from zero."""
    weights = initial_weights(8, 32, seed=0)
    source = generator(1)
    return weights._replace(
        W_enc=weights.W_enc + 0.1 * torch.randn(32, 8, generator=source),
        b_enc=0.05 * torch.randn(32, generator=source),
        b_dec=0.1 * torch.randn(8, generator=source),
    )


class AffineSAE(AbstractSAE):
    """A dictionary with an affine encoder and a linear decoder; subclasses say which latents fire."""

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    b_dec: nn.Parameter
    subtract_b_dec: bool
    """True where `b_dec` is taken off the input first (beta = 1)."""

    def hold(self, weights: Weights, subtract_b_dec: bool) -> None:
        """Take the tensors as parameters. Errors: `WidthMismatch` when their shapes do not fit together."""
        d_sae, d_model = weights.W_dec.shape
        for name, tensor, wanted in (
            ("W_enc", weights.W_enc, (d_sae, d_model)),
            ("b_enc", weights.b_enc, (d_sae,)),
            ("b_dec", weights.b_dec, (d_model,)),
        ):
            if tuple(tensor.shape) != wanted:
                raise WidthMismatch(
                    f"{name} has shape {tuple(tensor.shape)}, W_dec {(d_sae, d_model)} wants {wanted}; "
                    "give tensors of one dictionary"
                )
        self.W_enc = nn.Parameter(weights.W_enc)
        self.W_dec = nn.Parameter(weights.W_dec)
        self.b_enc = nn.Parameter(weights.b_enc)
        self.b_dec = nn.Parameter(weights.b_dec)
        self.subtract_b_dec = subtract_b_dec

    def check_k(self, k: int) -> int:
        """`k` when it is between 1 and the width. Errors: `ConfigError`."""
        if not 1 <= k <= self.d_sae:
            raise ConfigError(f"k = {k} for a dictionary of {self.d_sae} latents; give a k between 1 and {self.d_sae}")
        return k

    def pre_activations(self, acts: Acts) -> PreActivations:
        """The encoder product for `acts`, not yet computed."""
        self.check_width(acts)
        acts = acts.detach().to(self.W_enc.dtype)
        centred = acts - self.b_dec.detach() if self.subtract_b_dec else acts
        return PreActivations(centred, self.W_enc.detach(), self.b_enc.detach())

    @abstractmethod
    def fire(self, pre: Latents) -> tuple[Tensor, Tensor]:
        """Values and latents (token, slot) that fire by the inference rule, values descending, zeros where empty."""

    def cut(self) -> Tensor | None:
        """What p must exceed to fire, and to be its own code, where that is the whole inference rule; else None.

        One number, or one a latent. `encode` then finds what fires by a product of few bits and computes only that exactly.
        """
        return None

    @torch.no_grad()
    @override
    def encode(self, acts: Acts) -> Codes:
        cut = self.cut()
        if cut is not None and acts.shape[0]:
            values, columns = by_slot(collect(self.pre_activations(acts), [AboveCut(cut)])[0])
            return Codes(columns, values, self.d_sae)
        parts = [self.fire(chunk) for _, chunk in self.pre_activations(acts).chunks()]
        slots = max([1, *(int((values != 0).sum(1).max()) for values, _ in parts)])

        def fit(x: Tensor) -> Tensor:
            return nn.functional.pad(x[:, :slots], (0, max(0, slots - x.shape[1])))

        if not parts:
            empty = torch.zeros(0, 1, device=self.W_enc.device)
            return Codes(empty.long(), empty.to(self.W_enc.dtype), self.d_sae)
        return order_codes(torch.cat([fit(v) for v, _ in parts]), torch.cat([fit(c) for _, c in parts]), self.d_sae)

    @torch.no_grad()
    def count_above(self, acts: Acts, cut: Tensor) -> PerToken:
        """Active count of each token if the cut were `cut` (one number, or one a latent)."""
        parts = [(chunk > cut.clamp(min=0)).sum(1) for _, chunk in self.pre_activations(acts).chunks()]
        return torch.cat(parts).to(self.W_enc.dtype)

    @override
    def decode(self, codes: Codes) -> Acts:
        if codes.width != self.d_sae:
            raise WidthMismatch(
                f"codes of width {codes.width} for an SAE of {self.d_sae} latents; decode with the SAE that encoded"
            )
        values = codes.values.to(self.W_dec.dtype)
        return decode_slots(codes.indices, values, self.W_dec.detach()) + self.b_dec.detach()

    @classmethod
    @abstractmethod
    def rebuild(
        cls: type[A],
        weights: Weights,
        *,
        extras: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        subtract_b_dec: bool | None = None,
    ) -> A:
        """An instance from what `extras` and `settings` gave, or a fresh one where those are missing.

        A `subtract_b_dec` of None takes the architecture's own default.
        """

    def extras(self) -> dict[str, Tensor]:
        """Tensors beyond the four, by the name they have on disk."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Plain values beyond the tensors that rebuild the same SAE."""
        return {}

    @override
    def state(self) -> SAEState:
        tensors = {"W_enc": self.W_enc, "W_dec": self.W_dec, "b_enc": self.b_enc, "b_dec": self.b_dec} | self.extras()
        plain = {name: tensor.detach() for name, tensor in tensors.items()}
        return SAEState(plain, {**self.settings(), "subtract_b_dec": self.subtract_b_dec})

    @classmethod
    @override
    def restore(cls: type[A], state: SAEState) -> A:
        missing = [name for name in Weights._fields if name not in state.tensors]
        if missing or "subtract_b_dec" not in state.settings:
            raise CorruptArtifact(f"an SAE without {missing or 'subtract_b_dec'} cannot be rebuilt; make it again")
        return cls.rebuild(
            Weights(**{name: state.tensors[name] for name in Weights._fields}),
            extras={name: t for name, t in state.tensors.items() if name not in Weights._fields},
            settings={name: v for name, v in state.settings.items() if name != "subtract_b_dec"},
            subtract_b_dec=bool(state.settings["subtract_b_dec"]),
        )

    @classmethod
    @override
    def fresh(cls: type[A], start: Start) -> A:
        weights = initial_weights(start.centre.shape[0], start.d_sae, start.seed, start.centre)
        settings = {"k": start.k, **start.options.model_dump()}
        return cls.rebuild(weights, extras={}, settings=settings, subtract_b_dec=start.subtract_b_dec)

    @torch.no_grad()
    @override
    def fold_scale(self, scale: float) -> None:
        self.W_enc.mul_(scale)
        self.W_dec.div_(scale)
        self.b_dec.div_(scale)

    @abstractmethod
    def collectors(self, pre: PreActivations, objective: Objective) -> list[Collector]:
        """What fires by the training rule; a second collector keeps what the sparsity term reads besides."""

    def penalty(self, forward: Forward, objective: Objective) -> Penalty:  # noqa: ARG002
        """The sparsity term and its gradients, by hand; none by default."""
        return Penalty(0.0, None, {})

    def terms(self, found: list[Active], pre: PreActivations, target: Acts, objective: Objective) -> Terms | None:  # noqa: ARG002
        """All of a step but the auxiliary loss, where an architecture does more than squared error plus `penalty`.

        `found` are the entries of its collectors; None leaves it to the common step.
        """
        return None

    def plain(self, found: list[Active], target: Acts, b_dec: ModelBias, objective: Objective) -> Plain | None:  # noqa: ARG002
        """The forward pass over listed entries, where it is more than squared error of one reconstruction plus `penalty`.

        `target` has been freed of `b_dec` already where that is given as 0.
        """
        return None

    def remainder(self, acts: Read, target: Written) -> Written:  # noqa: ARG002
        """What codes and `b_dec` shall give of the target: all of it, save where something else gives a part."""
        return target

    def further_gradients(self, acts: Read, upstream: Written) -> dict[str, Tensor]:  # noqa: ARG002
        """Gradients of parameters that are neither weights of the dictionary nor in the penalty, by name."""
        return {}

    def own_terms(self) -> bool:
        """Whether `terms` does the work of the common step even where the collectors list entries."""
        return type(self).terms is not AffineSAE.terms

    @abstractmethod
    def dense_codes(self, pre: Latents, objective: Objective) -> Latents:
        """The training rule on dense pre-activations, differentiable: the reference for the sparse step."""

    def dense_penalty(self, pre: Latents, codes: Latents, objective: Objective) -> Tensor:  # noqa: ARG002
        """The sparsity term by autograd: the reference for `penalty`."""
        return codes.new_zeros(())

    @override
    def dense_losses(self, rows: Rows, objective: Objective, dead: Tensor) -> Losses:
        acts, target = self.inputs(rows), self.targets(rows)
        centred = acts - self.b_dec if self.subtract_b_dec else acts
        pre = centred @ self.W_enc.T + self.b_enc
        codes = self.dense_codes(pre, objective)
        residual = target - self.dense_reconstruction(acts, codes)
        fires = codes.detach() != 0
        positive = codes.detach()[fires]
        return Losses(
            reconstruction=self.dense_reconstruction_loss(target, codes, residual, objective),
            sparsity=self.dense_penalty(pre, codes, objective),
            aux=dense_aux(pre, residual, self.W_dec, dead, objective.aux),
            error=float(residual.detach().square().sum()),
            l0=float(fires.sum(1).double().mean()),
            fired=fires.any(0),
            smallest=float(positive.min()) if positive.numel() else None,
            further=self.dense_further(target, pre, codes, objective),
        )

    def dense_further(self, target: Acts, pre: Latents, codes: Latents, objective: Objective) -> Tensor:  # noqa: ARG002
        """Terms beside reconstruction, sparsity and the auxiliary one, differentiable."""
        return dense_smooth(codes, objective.smooth)

    def dense_reconstruction(self, acts: Read, codes: Latents) -> Written:  # noqa: ARG002
        """The output of dense codes, differentiable."""
        return codes @ self.W_dec + self.b_dec

    def dense_reconstruction_loss(
        self,
        target: Acts,  # noqa: ARG002
        codes: Latents,  # noqa: ARG002
        residual: Acts,
        objective: Objective,  # noqa: ARG002
    ) -> Tensor:
        """The reconstruction term, where it is more than the mean squared error of the whole reconstruction."""
        return residual.square().sum(1).mean()
