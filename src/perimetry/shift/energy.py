"""The energy score: reconstruction error joined with the activity of rare concepts; and its control."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.axes import Decoder, ModelBias, PerToken
from perimetry.errors import UsageError
from perimetry.runtime import generator
from perimetry.shift.base import Evidence
from perimetry.shift.concepts import surprise_weights
from perimetry.shift.features import ERROR_BINS
from perimetry.shift.profile import Profile
from perimetry.shift.sketch import histogram_quantile
from perimetry.shift.stateful import TensorDetector

__all__ = ["Energy", "ShuffledDecoder", "median_error"]


def median_error(profile: Profile) -> Float[Tensor, ""]:
    """Median of |x - x_hat|^2 over clean tokens, to the 2.2 % width of a histogram bin; positive."""
    nothing = torch.zeros(1, dtype=torch.int64)
    return histogram_quantile(profile.sums["errors"], nothing, 0.5, ERROR_BINS)[0].clamp_min(1e-12)


@final
@dataclass(frozen=True, eq=False)
class Energy(TensorDetector):
    """|x - x_hat|^2 / s + sum_f z_f log((1 - p_f) / p_f), s the clean median error. Higher = further.

    The most probable reading of the published score (arXiv 2606.26396). Its first part alone ranks like `recon_error`.
    """

    name: ClassVar[str] = "energy"
    weights: Float[Tensor, " d_sae"]
    scale: Float[Tensor, ""]

    @classmethod
    def fit(cls, profile: Profile) -> "Energy":
        """Learn the firing rates and the median error."""
        profile.require(1, "the energy")
        return cls(surprise_weights(profile), median_error(profile))

    def score(self, evidence: Evidence) -> PerToken:
        """Both parts."""
        error = (evidence.acts - evidence.reconstruction).float().square().sum(1)
        concepts = (evidence.codes.values.float() * self.weights[evidence.codes.indices]).sum(1)
        return error / self.scale + concepts


@final
@dataclass(frozen=True, eq=False)
class ShuffledDecoder(TensorDetector):
    """Control: |x - x'|^2 / s, where x' decodes the codes with the decoder's rows permuted.

    What is left of the reconstruction error when concepts no longer write their own directions.
    """

    name: ClassVar[str] = "shuffled_decoder"
    baseline: ClassVar[bool] = True
    rows: Decoder
    bias: ModelBias
    scale: Float[Tensor, ""]

    @classmethod
    def fit(cls, profile: Profile) -> "ShuffledDecoder":
        """Permute the rows by the profile's seed. Errors: `UsageError` where the profile carries no dictionary."""
        if profile.dictionary is None:
            raise UsageError(
                "shuffled_decoder needs the decoder and the profile carries none; make it with "
                "Profile.empty(..., dictionary=Dictionary(W_dec, b_dec)), or leave this detector out"
            )
        profile.require(1, "the shuffled decoder")
        decoder, bias = profile.dictionary
        order = torch.randperm(decoder.shape[0], generator=generator(profile.seed))
        # Half the size of a meter's largest part; three digits are enough for directions that are wrong anyway.
        return cls(decoder.detach().cpu()[order].bfloat16(), bias.detach().float().cpu(), median_error(profile))

    def score(self, evidence: Evidence) -> PerToken:
        """Error of the shuffled reconstruction."""
        codes = evidence.codes
        wrong = torch.nn.functional.embedding_bag(
            codes.indices, self.rows.float(), per_sample_weights=codes.values.float(), mode="sum"
        )
        return (evidence.acts.float() - wrong - self.bias).square().sum(1) / self.scale
