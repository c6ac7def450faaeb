"""What is normal: everything that the detectors need to know of clean text, gathered in one pass and merged in any order.

A profile is a set of sums, three samples and a sparse table. Sums are integers or float64; the samples keep the rows
whose content hashes lowest, so that no order of arrival, and no split over workers, changes them.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from perimetry.axes import Decoder, ModelBias
from perimetry.errors import CorruptArtifact, Incompatible, NonFinite, TooFewSamples, WidthMismatch
from perimetry.sae.base import Codes
from perimetry.shift.base import Evidence
from perimetry.shift.features import (
    PAIRED_CONCEPTS,
    pair_keys,
    pooled_codes,
    step_rows,
    strongest_pooled,
    token_buckets,
)
from perimetry.shift.foresight import Foresight
from perimetry.shift.sketch import BottomK, PairCounts, keyed_hash, row_hash
from perimetry.shift.tallies import count_edges, count_steps, count_tokens, empty_sums

__all__ = ["Dictionary", "Profile"]

_CHUNK: Final = 4096
_STEPS: Final = 2048


class Dictionary(NamedTuple):
    """The decoder of the SAE, for the controls that tamper with it."""

    W_dec: Decoder
    """Decoder rows, in the units of the activations."""
    b_dec: ModelBias
    """Decoder bias."""


@final
class Profile:
    """What is normal, from clean `Evidence`.

    `update` as often as there are batches; `merge` profiles of several workers; then `fit` detectors on it. Errors:
    `WidthMismatch`, `Incompatible` (merging profiles made with other settings), `NonFinite`.
    """

    def __init__(
        self,
        sums: dict[str, Tensor],
        sample: BottomK,
        prompts: BottomK,
        together: PairCounts,
        steps: BottomK,
        foresight: Foresight,
        buckets: Int[Tensor, " vocab"],
        given_unigrams: Int[Tensor, " vocab"],
        seed: int,
        dictionary: Dictionary | None,
    ) -> None:
        """Use `empty` or `from_state`."""
        self.sums = sums
        self.sample = sample
        """Tokens: `acts` bf16, `indices` int32 (sorted; `d_sae` is padding), `values` bf16, `tokens`."""
        self.prompt_sample = prompts
        """Prompts: mean codes, `indices` int32 (`d_sae` is padding) and `values` bf16."""
        self.together = together
        """Prompts in which two concepts were both among the strongest."""
        self.steps = steps
        """Tokens with two predecessors: `before` bf16, their activations at t - 1 and t - 2, and `indices` int32."""
        self.foresight = foresight
        """What the last hidden state foretells, from the prompts whose pass ran to the end."""
        self.buckets = buckets
        """Token bucket of each vocabulary id."""
        self.given_unigrams = given_unigrams
        self.seed = seed
        self.dictionary = dictionary

    @classmethod
    def empty(
        cls,
        d_model: int,
        d_sae: int,
        vocab: int,
        seed: int,
        *,
        unigrams: Int[Tensor, " vocab"] | None = None,
        dictionary: Dictionary | None = None,
        sample: int = 16384,
        prompts: int = 4096,
    ) -> "Profile":
        """Nothing seen yet.

        `unigrams` are token counts of a larger text (a pass of the tokenizer alone): with them frequent tokens get
        buckets of their own, and frequencies are better known. Without them the profile counts for itself.
        `dictionary` is needed by `shuffled_decoder` only and is no part of the state.
        """
        given = torch.zeros(vocab, dtype=torch.int64) if unigrams is None else unigrams.to(torch.int64)
        no_keys = torch.zeros(0, dtype=torch.int64)
        codes = {"indices": torch.zeros(0, 1, dtype=torch.int32), "values": torch.zeros(0, 1, dtype=torch.bfloat16)}
        rows = {"acts": torch.zeros(0, d_model, dtype=torch.bfloat16), "tokens": no_keys, **codes}
        steps = {"before": torch.zeros(0, 2 * d_model, dtype=torch.bfloat16), "indices": codes["indices"]}
        pads = {"indices": d_sae, "values": 0}
        return cls(
            empty_sums(d_model, d_sae, vocab),
            BottomK(sample, no_keys, rows, pads),
            BottomK(prompts, no_keys, dict(codes), pads),
            PairCounts(d_sae),
            BottomK(_STEPS, no_keys, steps, {"indices": d_sae}),
            Foresight.empty(d_model, d_sae, seed),
            token_buckets(given),
            given,
            seed,
            dictionary,
        )

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return self.sums["acts"].shape[0]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.sums["fired"].shape[0]

    @property
    def tokens(self) -> int:
        """Clean tokens seen."""
        return int(self.sums["tokens"])

    @property
    def prompts(self) -> int:
        """Clean prompts seen."""
        return int(self.sums["prompts"])

    def unigrams(self) -> Int[Tensor, " vocab"]:
        """Token counts: the given ones, or else those of the tokens seen."""
        return self.given_unigrams if int(self.given_unigrams.sum()) else self.sums["unigrams"]

    def require(self, tokens: int, what: str) -> None:
        """Raise `TooFewSamples` when fewer clean tokens were seen than `what` needs."""
        if self.tokens < tokens:
            raise TooFewSamples(
                f"{what} needs {tokens:,} clean tokens and the profile has seen {self.tokens:,}; give more clean text"
            )

    def firing_rates(self) -> Float[Tensor, " d_sae"]:
        """Smoothed share of clean tokens on which each latent fires: (fired + 1) / (tokens + 2), float64.

        Strictly between 0 and 1, so that a latent never seen has a finite surprise.
        """
        return (self.sums["fired"].double() + 1) / (self.tokens + 2)

    def mean(self) -> Float[Tensor, " d_model"]:
        """Mean activation, float64."""
        return self.sums["acts"] / max(self.tokens, 1)

    def covariance(self) -> Float[Tensor, "d_model d_model"]:
        """Covariance of the activations (divided by the count), float64."""
        mean = self.mean()
        return self.sums["outer"] / max(self.tokens, 1) - mean[:, None] * mean

    def update(self, evidence: Evidence) -> None:
        """See clean prompts."""
        self._check(evidence)
        hashes = torch.cat(
            [self._see_tokens(evidence, rows) for rows in torch.arange(evidence.tokens.shape[0]).split(_CHUNK)]
        )
        count_edges(self.sums, evidence)
        for rows in step_rows(evidence).split(_CHUNK):
            count_steps(self.sums, evidence, rows)
            self._sample_steps(evidence, rows, hashes)
        self.foresight.update(evidence)
        self.sums["prompts"] += evidence.n_prompts
        pooled = pooled_codes(evidence)
        top, held = strongest_pooled(pooled, PAIRED_CONCEPTS)
        self.sums["strongest"] += torch.bincount(top[held], minlength=self.d_sae)
        first, second, _ = pair_keys(top, held)
        self.together.add(first, second)
        self._sample_prompts(pooled)
        if evidence.logits is not None:
            nll = evidence.logits.nll.double()
            self.sums["nll"] += torch.stack([nll.new_tensor(nll.numel()), nll.sum(), nll.square().sum()])

    def _check(self, evidence: Evidence) -> None:
        if evidence.acts.shape[1] != self.d_model or evidence.codes.width != self.d_sae:
            raise WidthMismatch(
                f"the profile reads activations of width {self.d_model} with {self.d_sae} latents, but the evidence has "
                f"{evidence.acts.shape[1]} and {evidence.codes.width}; use the layer and the SAE it was made for"
            )
        vocab = self.buckets.shape[0]
        if int(evidence.tokens.max()) >= vocab:
            raise WidthMismatch(
                f"the profile counts {vocab} token ids, but the evidence has id {int(evidence.tokens.max())}; give "
                "Profile.empty the size of the whole vocabulary, added tokens included"
            )
        if not bool(torch.isfinite(evidence.acts).all()):
            raise NonFinite("the activations hold NaN or infinity; finite numbers are wanted; compute them in float32")

    def _see_tokens(self, evidence: Evidence, rows: Tensor) -> Tensor:
        codes, tokens = evidence.codes.select(rows), evidence.tokens[rows]
        count_tokens(self.sums, evidence, rows, self.buckets)
        acts = evidence.acts[rows].bfloat16()
        keys = row_hash(torch.cat([acts.view(torch.int16).long(), tokens[:, None]], 1), self.seed)
        low = self.sample.wants(keys)
        self._sample_tokens(keys[low], acts[low], codes.select(low), tokens[low])
        return keys

    def _sample_tokens(self, keys: Tensor, acts: Tensor, codes: Codes, tokens: Tensor) -> None:
        indices, order = codes.indices.masked_fill(codes.values == 0, self.d_sae).sort(1)
        values = codes.values.gather(1, order).bfloat16()
        used = max(int((indices < self.d_sae).sum(1).max()) if indices.numel() else 1, 1)
        columns = {"indices": indices[:, :used].int(), "values": values[:, :used]}
        self.sample.offer(keys, {"acts": acts, "tokens": tokens, **columns})

    def _sample_steps(self, evidence: Evidence, rows: Tensor, hashes: Tensor) -> None:
        keys = keyed_hash(hashes[rows] + 3 * hashes[rows - 1] + 5 * hashes[rows - 2])
        low = self.steps.wants(keys)
        keys, rows = keys[low], rows[low]
        codes = evidence.codes.select(rows)
        indices = codes.indices.masked_fill(codes.values == 0, self.d_sae).sort(1).values.int()
        before = torch.cat([evidence.acts[rows - 1], evidence.acts[rows - 2]], 1).bfloat16()
        self.steps.offer(keys, {"before": before, "indices": indices})

    def _sample_prompts(self, pooled: Codes) -> None:
        indices, order = pooled.indices.masked_fill(pooled.values == 0, self.d_sae).sort(1)
        values = pooled.values.gather(1, order).bfloat16()
        words = torch.cat([indices, values.view(torch.int16).long()], 1)
        keys = row_hash(words, self.seed)
        self.prompt_sample.offer(keys, {"indices": indices.int(), "values": values})

    def merge(self, other: "Profile") -> "Profile":
        """The profile of both texts together; order and grouping of merges do not matter."""
        mine = (self.d_model, self.d_sae, self.seed, self.sample.capacity, self.prompt_sample.capacity)
        theirs = (other.d_model, other.d_sae, other.seed, other.sample.capacity, other.prompt_sample.capacity)
        if mine != theirs or not torch.equal(self.given_unigrams, other.given_unigrams):
            raise Incompatible(
                f"these profiles were made with other settings: (d_model, d_sae, seed, sample, prompts) is {theirs}, "
                f"wanted {mine}, with the same unigrams; make both with the same call of Profile.empty"
            )
        return Profile(
            {name: total + other.sums[name] for name, total in self.sums.items()},
            self.sample.merge(other.sample),
            self.prompt_sample.merge(other.prompt_sample),
            self.together.merge(other.together),
            self.steps.merge(other.steps),
            self.foresight.merge(other.foresight),
            self.buckets,
            self.given_unigrams,
            self.seed,
            self.dictionary,
        )

    def state(self) -> dict[str, Tensor]:
        """Everything as tensors (the dictionary is not included)."""
        out = {f"sums.{name}": total for name, total in self.sums.items()}
        for kind, sample in (("sample", self.sample), ("prompts", self.prompt_sample), ("steps", self.steps)):
            out[f"{kind}.keys"] = sample.keys
            out |= {f"{kind}.{name}": column for name, column in sample.columns.items()}
        out |= {f"foresight.{name}": part for name, part in self.foresight.state().items()}
        out["together.keys"], out["together.counts"] = self.together.table()
        capacities = (self.sample.capacity, self.prompt_sample.capacity)
        out["settings"] = torch.tensor([self.seed, *capacities], dtype=torch.int64)
        out["given_unigrams"] = self.given_unigrams
        return out

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], dictionary: Dictionary | None = None) -> "Profile":
        """The profile that `state` was taken from. Errors: `CorruptArtifact`."""
        try:
            seed, sample, prompts = state["settings"].tolist()
            d_model, d_sae = state["sums.acts"].shape[0], state["sums.fired"].shape[0]
            given = state["given_unigrams"]
            out = cls.empty(d_model, d_sae, given.shape[0], seed, sample=sample, prompts=prompts, dictionary=dictionary)
            out.given_unigrams, out.buckets = given, token_buckets(given)
            out.sums = {name: state[f"sums.{name}"].clone() for name in out.sums}

            def stored(kind: str, rows: BottomK) -> BottomK:
                columns = {name: state[f"{kind}.{name}"] for name in rows.columns}
                return BottomK(rows.capacity, state[f"{kind}.keys"], columns, rows.pads)

            out.sample, out.prompt_sample = stored("sample", out.sample), stored("prompts", out.prompt_sample)
            out.steps = stored("steps", out.steps)
            ahead = {k.partition(".")[2]: v for k, v in state.items() if k.startswith("foresight.")}
            out.foresight = Foresight.from_state(ahead, seed)
            out.together = PairCounts(d_sae, state["together.keys"], state["together.counts"])
        except (KeyError, ValueError) as error:
            raise CorruptArtifact(f"this is no state of a profile: {error}; make the profile again") from error
        return out
