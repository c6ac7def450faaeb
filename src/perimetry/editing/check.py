"""One look at a model by all probes, and what an edit changed in it, beside drawn updates of the same norm."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.text import PackedRow
from perimetry.axes import PerPrompt
from perimetry.editing.edit import Edit, drawn_edit, edited, relative_norm
from perimetry.editing.health import Finding, change, ring_findings
from perimetry.editing.passes import answer_logs
from perimetry.editing.probes import Concepts, Fact, Ring, concepts_of, fact_chances, nll_of_rows, read_ring
from perimetry.editing.requests import EditRequest, keyed_row
from perimetry.measures.stats import Interval, mean_interval
from perimetry.shift.meter import Meter

__all__ = ["Look", "Probes", "check_edit", "findings", "look"]


class Probes(NamedTuple):
    """What a model is looked at by."""

    rings: dict[str, tuple[Ring, tuple[int, ...]]]
    """Name -> ring, and the layers at which it is one."""
    rows: list[PackedRow]
    """Ordinary text, packed."""
    facts: list[Fact]
    """Facts beside the edited one."""
    meter: Meter | None = None
    """Of the unedited model."""
    passages: tuple[str, ...] = ()
    """Ordinary text for the meter."""
    bos: bool = False
    """Whether prompts begin with the beginning-of-sequence token."""


class Look(NamedTuple):
    """What the probes gave."""

    rings: dict[str, Float[Tensor, "layer word word"]]
    """Name -> distances."""
    nll: PerPrompt
    """Of each row of ordinary text, nats a token."""
    facts: PerPrompt
    """Probability of each right answer."""
    target: float
    """Probability of the new answer."""
    concepts: Concepts | None
    """What the meter sees, where there is one."""


def look(lm: LanguageModel, probes: Probes, request: EditRequest) -> Look:
    """Look at a model as it is now, edited or not."""
    row = keyed_row(lm, request.prompt, request.subject, answer=request.target, bos=probes.bos)
    return Look(
        {name: read_ring(lm, ring, layers, bos=probes.bos) for name, (ring, layers) in probes.rings.items()},
        nll_of_rows(lm, probes.rows),
        fact_chances(lm, probes.facts, bos=probes.bos),
        float(answer_logs(lm, [row])[0].double().exp()),
        concepts_of(probes.meter, probes.passages) if probes.meter is not None else None,
    )


def findings(before: Look, after: Look, drawn: Sequence[Look]) -> list[Finding]:
    """What changed, each number beside the same number of the drawn updates."""
    found = [change("p_target", "the edited prompt", before.target, after.target, [d.target for d in drawn])]
    for name in before.rings:
        found += ring_findings(name, before.rings[name], after.rings[name], [d.rings[name] for d in drawn])
    found.append(_mean("nll", "ordinary text", before.nll, after.nll, [d.nll for d in drawn]))
    found.append(_mean("siblings", "facts", before.facts, after.facts, [d.facts for d in drawn]))
    if before.concepts is not None and after.concepts is not None:
        one, other = before.concepts, after.concepts
        others = [d.concepts for d in drawn if d.concepts is not None]
        found.append(_mean("concepts", "ordinary text", one.scores, other.scores, [o.scores for o in others]))
        moved = one.changed(other)
        found.append(Finding("active", "ordinary text", 0.0, moved, moved, tuple(one.changed(o) for o in others)))
    return found


def _mean(metric: str, probe: str, before: PerPrompt, after: PerPrompt, drawn: Sequence[PerPrompt]) -> Finding:
    found = change(metric, probe, float(before.mean()), float(after.mean()), [float(d.mean()) for d in drawn])
    box: Interval | None = mean_interval(after - before) if len(before) > 1 else None
    return found._replace(interval=box)


def check_edit(
    lm: LanguageModel, edit: Edit, request: EditRequest, probes: Probes, *, draws: int = 1, seed: int = 0
) -> list[Finding]:
    """Put an edit on a model for a while, look, and do the same with drawn updates. The model is as it was when this returns."""
    before = look(lm, probes, request)
    with torch.no_grad(), edited(lm, edit):
        after = look(lm, probes, request)
    drawn: list[Look] = []
    for i in range(draws):
        with torch.no_grad(), edited(lm, drawn_edit(edit, seed + i)):
            drawn.append(look(lm, probes, request))
    size = relative_norm(lm, edit)
    return [Finding("size", "the edited blocks", 0.0, size, size, draws * (size,)), *findings(before, after, drawn)]
