"""The words for dimensions, and the shaped aliases that signatures use.

One vocabulary for the whole library: `prompt` texts, `token` positions that count (flat, across prompts), `batch`
and `seq` of a padded batch, `d_model` of the residual stream, `d_sae` latents of a dictionary, `k` slots of a sparse
code. The aliases are checked in the tests (jaxtyping with beartype) and cost nothing in production.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "Acts",
    "Attention",
    "Decoder",
    "Encoder",
    "LatentBias",
    "Latents",
    "ModelBias",
    "PerEntry",
    "PerPrompt",
    "PerToken",
    "Read",
    "Residual",
    "Rows",
    "TokenIds",
    "TokenMask",
    "Written",
]

Acts = Float[Tensor, "token d_model"]
"""Residual-stream vectors of flat tokens."""
Read = Float[Tensor, "token d_in"]
"""Vectors that an encoder reads, where they may be of another width than what is written."""
Rows = Float[Tensor, "token row"]
"""Rows of a source of activations: one vector, or several side by side."""
Written = Float[Tensor, "token d_out"]
"""Vectors that a decoder writes, where they may be of another width than what is read."""
Latents = Float[Tensor, "token d_sae"]
"""Dense latents; only tests, dense reference paths and the encoder product hold one."""
Encoder = Float[Tensor, "d_sae d_model"]
"""Encoder weights, latent-major: row i reads latent i."""
Decoder = Float[Tensor, "d_sae d_model"]
"""Decoder weights, latent-major: row i is the direction that latent i writes."""
LatentBias = Float[Tensor, " d_sae"]
ModelBias = Float[Tensor, " d_model"]
PerEntry = Float[Tensor, " entry"]
PerToken = Float[Tensor, " token"]
PerPrompt = Float[Tensor, " prompt"]
Residual = Float[Tensor, "batch seq d_model"]
"""The output of one block for a padded batch."""
TokenIds = Int[Tensor, "batch seq"]
Attention = Int[Tensor, "batch seq"]
"""1 where a token is real, 0 where it is padding."""
TokenMask = Bool[Tensor, "batch seq"]
"""True where a position counts."""
