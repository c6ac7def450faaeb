"""The mean of k k' over the keys of ordinary text, exact, from streamed activations: memory is bounded by a batch and the sums."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.text import HasText, PackCursor, PackedRow, documents_digest, pack
from perimetry.artifact import MANIFEST, Artifact, read_artifact, write_artifact
from perimetry.config import Config
from perimetry.editing.passes import hooked_pass
from perimetry.editing.places import projection
from perimetry.errors import CorruptArtifact, NonFinite, TooFewSamples
from perimetry.measures.finite import all_finite
from perimetry.runtime import dtype_name
from perimetry.storage import hash_json
from perimetry.ui import track

__all__ = ["KeyMoments", "MomentsConfig", "key_moments"]

KIND: Final = "moments"
FLAT: Final = 1e-13
"""Share of the largest eigenvalue up to which the smallest one is rounding of float32 keys, and no direction of its own."""


class MomentsConfig(Config):
    """How ordinary text is read."""

    tokens: PositiveInt = 20_000
    """At least so many tokens that count; more than a key is wide, or the mean has no inverse."""
    context: PositiveInt = 256
    """Tokens of a packed row."""
    batch_rows: PositiveInt = 8
    """Rows of a forward pass."""
    keep_every: PositiveInt = 50_000
    """Tokens after which sums are written to the folder, where one is given."""
    bos: bool = False
    """Whether a row begins with the beginning-of-sequence token."""


class KeyMoments(NamedTuple):
    """Mean of k k' at each block, not centred."""

    matrices: dict[int, Tensor]
    """Block -> [key, key], float64."""
    tokens: int
    """How many tokens it is the mean of."""


class _State(NamedTuple):
    sums: dict[int, Tensor]
    tokens: int
    start: PackCursor | None
    """Where the next row begins; None where the text is at its end."""
    added: int = 0
    """Tokens of the last batch."""


def key_moments(
    lm: LanguageModel,
    layers: Sequence[int],
    documents: Sequence[HasText],
    config: MomentsConfig | None = None,
    *,
    folder: Path | None = None,
    progress: bool = False,
    shown: Callable[[int], None] = lambda _: None,
) -> KeyMoments:
    """Read text until enough tokens count; the first position of a row, which takes the attention sink, does not.

    Sums are float64. With `folder` they are kept there as they grow, and the same call goes on from them, to the same bits.
    `shown` is told the tokens of each batch. Errors: `TooFewSamples` where the text is too short for an inverse, `NonFinite`.
    """
    config = config or MomentsConfig()
    places = [projection(lm, layer) for layer in dict.fromkeys(layers)]
    identity = _identity(lm, [p.layer for p in places], documents, config)
    state = _kept(folder, identity) or _State(
        {p.layer: torch.zeros(2 * (p.weight.shape[1],), dtype=torch.float64) for p in places}, 0, PackCursor(0, 0)
    )
    shown(state.tokens)
    written = state.tokens
    states = _states(lm, state, documents, config)
    for state in track(states, "keys of ordinary text", config.tokens - written, progress, lambda s: s.added):
        shown(state.added)
        if folder is not None and state.tokens - written >= config.keep_every:
            _keep(folder, identity, state)
            written = state.tokens
    if folder is not None and written < state.tokens:
        _keep(folder, identity, state)
    return KeyMoments({i: _mean(i, total, state.tokens) for i, total in state.sums.items()}, state.tokens)


def _states(lm: LanguageModel, state: _State, documents: Sequence[HasText], config: MomentsConfig) -> Iterator[_State]:
    """The sums after each further batch, until enough tokens count or the text is at its end."""
    rows: list[PackedRow] = []
    if state.tokens >= config.tokens or state.start is None:
        return
    for row in pack(documents, lm, TokenPolicy(prepend_bos=config.bos), config.context, start=state.start):
        if len(rows) == config.batch_rows:
            state, rows = _added(lm, state, rows, row.start), []
            yield state
            if state.tokens >= config.tokens:
                return
        rows.append(row)
    if rows:
        yield _added(lm, state, rows, None)


def _identity(lm: LanguageModel, layers: list[int], documents: Sequence[HasText], config: MomentsConfig) -> str:
    settings = config.model_copy(update={"keep_every": 1}).fingerprint()
    return hash_json([lm.revision, dtype_name(lm.dtype), layers, settings, documents_digest(documents)])


def _counts(row: PackedRow) -> list[bool]:
    return [False, *row.countable[1:]]


@torch.no_grad()
def _added(lm: LanguageModel, state: _State, rows: Sequence[PackedRow], following: PackCursor | None) -> _State:
    """The sums with one more batch."""
    longest = max(len(r.ids) for r in rows)
    counts = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        counts[i, : len(row.ids)] = torch.tensor(_counts(row))
    sums = dict(state.sums)

    def add(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            keys = inputs[0][counts.to(inputs[0].device)]
            if not all_finite(keys):
                raise NonFinite(f"block {layer} gives NaN or infinite keys on this text; try float32, or other text")
            exact = keys.double()
            sums[layer] = sums[layer] + (exact.T @ exact).cpu()

        return hook

    places = [projection(lm, layer) for layer in sums]
    hooked_pass(lm, rows, [(p.module, add(p.layer)) for p in places], stop=lm.blocks[max(sums)])
    return _State(sums, state.tokens + int(counts.sum()), following, int(counts.sum()))


def _mean(layer: int, total: Float[Tensor, "key key"], tokens: int) -> Float[Tensor, "key key"]:
    mean = total / max(tokens, 1)
    spread = torch.linalg.eigvalsh(mean)
    if tokens < len(mean) or float(spread[0]) <= FLAT * float(spread[-1]):
        raise TooFewSamples(
            f"keys of block {layer} are {len(mean)} wide and {tokens} tokens of text do not fill that space; give more text or a larger "
            "number of tokens"
        )
    return mean


def _keep(folder: Path, identity: str, state: _State) -> None:
    about = {"identity": identity, "tokens": state.tokens, "start": None if state.start is None else list(state.start)}
    write_artifact(folder, KIND, {"sums": {str(i): s for i, s in state.sums.items()}}, {"moments": about})


def _kept(folder: Path | None, identity: str) -> _State | None:
    """The sums of an earlier call with the same arguments; None where there are none, or damaged ones."""
    if folder is None or not (folder / MANIFEST).is_file():
        return None
    try:
        found: Artifact = read_artifact(folder, KIND)
        about = found.documents["moments"]
        if about["identity"] != identity:
            return None
        start = None if about["start"] is None else PackCursor(*about["start"])
        return _State({int(i): s for i, s in found.tensors["sums"].items()}, int(about["tokens"]), start)
    except (CorruptArtifact, KeyError, TypeError, ValueError):
        return None
