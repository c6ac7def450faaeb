"""Several taps from one forward pass give what each gives alone, and no block above the deepest runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.shift.test_evidence import TEXTS

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.errors import ConfigError, ModelMismatch, PolicyMismatch
from perimetry.shift import evidence, taps
from perimetry.shift.evidence import Capture, Extractor
from perimetry.shift.taps import SameTap, Taps, tap_names

OPEN = TokenPolicy().fitted(1e9)


@contextmanager
def counting(lm: LanguageModel) -> Iterator[list[str]]:
    """Which blocks run, and the head, in order."""
    ran: list[str] = []
    named: list[tuple[str, Any]] = [(str(i), block) for i, block in enumerate(lm.blocks)]
    named.append(("head", lm.model.get_output_embeddings()))
    handles = [m.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, m in named]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def watched(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[str]:
    """A list that grows by one at each call of a function of a module."""
    calls: list[str] = []
    inner = getattr(module, name)

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(name)
        return inner(*given, **named)

    monkeypatch.setattr(module, name, counted)
    return calls


def equal(one: Capture, two: Capture) -> None:
    assert one.rows == two.rows
    assert one.excluded == two.excluded
    for name in ("acts", "tokens", "positions", "prompt", "words"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert (one.logits is None) == (two.logits is None)
    assert (one.foresight is None) == (two.foresight is None)
    if one.logits is not None and two.logits is not None:
        assert all(torch.equal(a, b) for a, b in zip(one.logits, two.logits, strict=True))
    if one.foresight is not None and two.foresight is not None:
        assert torch.equal(one.foresight, two.foresight)


@pytest.mark.parametrize(("logits", "foresight"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("tight", [False, True], ids=["same sinks", "other sinks"])
def test_each_tap_gives_what_it_gives_alone(
    tiny_lm: LanguageModel, logits: bool, foresight: bool, tight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Extractor(tiny_lm, 0, OPEN)
    prompts = first.prepare([str(i) for i in range(len(TEXTS))], TEXTS)
    (whole,) = first.capture(prompts, logits=False)
    norm = float(whole.acts.norm(dim=1).median())
    extractors = [
        first if not tight else Extractor(tiny_lm, 0, OPEN.model_copy(update={"max_norm": norm * 1.05})),
        Extractor(tiny_lm, 1, OPEN),
    ]
    asked, runs = watched(monkeypatch, evidence, "_stats"), watched(monkeypatch, taps, "collate")
    together = list(Taps(extractors).capture(prompts, logits=logits, foresight=foresight, batch_tokens=40))
    if logits:
        assert len(asked) == len(runs) * (2 if tight else 1), "the vocabulary is not gone through twice"
    for i, extractor in enumerate(extractors):
        alone = list(extractor.capture(prompts, logits=logits, foresight=foresight, batch_tokens=40))
        assert len(alone) == len(together) > 1
        for one, all_taps in zip(alone, together, strict=True):
            equal(one, all_taps[i])
    same = all(torch.equal(a.tokens, b.tokens) for a, b in together)
    assert same is not tight, "the case with other sinks must have some"


def test_the_model_runs_once_and_stops_at_the_deepest_tap(tiny_lm: LanguageModel) -> None:
    assert tiny_lm.n_layers == 3
    upper, lower = Extractor(tiny_lm, 1, OPEN), Extractor(tiny_lm, 0, OPEN)
    prompts = lower.prepare(["a"], TEXTS[:1])
    for extractors in ([upper, lower], [lower, upper]):
        with counting(tiny_lm) as ran:
            list(Taps(extractors).capture(prompts, logits=False))
        assert ran == ["0", "1"]
    with counting(tiny_lm) as ran:
        list(Taps([lower, upper]).capture(prompts, logits=True))
    assert ran == ["0", "1", "2", "head"]


def test_refusals(tiny_lm: LanguageModel) -> None:
    one, two = Extractor(tiny_lm, 0, OPEN), Extractor(tiny_lm, 1, OPEN)
    with pytest.raises(ConfigError, match="1 tap was given; at least two are wanted"):
        Taps([one])
    with pytest.raises(ConfigError, match="block 1 is tapped twice"):
        Taps([two, one, two])
    with pytest.raises(ModelMismatch, match="which are not one loaded model"):
        Taps([one, Extractor(tiny_language_model("llama", seed=1), 1, OPEN)])
    bare = OPEN.model_copy(update={"prepend_bos": False})
    with pytest.raises(PolicyMismatch, match="the tap of block 1 is another one: prepend_bos is False, wanted True"):
        Taps([one, Extractor(tiny_lm, 1, bare)])


def test_names_and_shares(tiny_lm: LanguageModel) -> None:
    taps = Taps([Extractor(tiny_lm, 1, OPEN), Extractor(tiny_lm, 0, OPEN.fitted(5.0))])
    assert tap_names(taps.layers) == ["layer-01", "layer-00"]
    assert taps.lm is tiny_lm
    assert taps.policy == OPEN
    assert taps.shares == [False, False]
    assert SameTap(Extractor(tiny_lm, 1, OPEN), 3).shares == [False, True, True]
