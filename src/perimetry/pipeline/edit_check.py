"""`perimetry edit-check`: what one edit does to a model, without a benchmark."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.text import PackedRow, documents_digest, pack, shuffled, take_split
from perimetry.assets import ASSETS, read_texts
from perimetry.assets.documents import Document
from perimetry.editing.check import Probes, check_edit
from perimetry.editing.edit import save_edit
from perimetry.editing.editors import edited_layers, make_edit
from perimetry.editing.health import Finding
from perimetry.editing.known import known_edits, sibling_facts
from perimetry.editing.moments import KeyMoments, key_moments
from perimetry.editing.probes import ring_layers, usable_ring
from perimetry.editing.requests import EditRequest
from perimetry.errors import TooFewSamples
from perimetry.measures.stats import Interval
from perimetry.pipeline.begun import require_same
from perimetry.pipeline.bench_suites import TEST_SPLIT
from perimetry.pipeline.edit_check_config import EditCheckConfig
from perimetry.pipeline.edit_check_rows import Rings, results_of
from perimetry.report import keep_results
from perimetry.shift.meter import Meter
from perimetry.storage import hash_json, lock, read_json, remove_stale, write_json
from perimetry.ui import track

__all__ = ["openings", "ordinary_text", "run_edit_check"]

BEGUN = "edit-check.json"
PREFIX_WORDS = 6
PASSAGE_WORDS = 60
ROW = 256
"""Tokens of a row of ordinary text."""
CHARACTERS = 12
"""Of text that are read for each token that is wanted, so that a large text is not read whole."""


class Job(NamedTuple):
    """What all edits of a check share."""

    lm: LanguageModel
    """The model; it is never changed for good."""
    config: EditCheckConfig
    """What was asked for."""
    moments: KeyMoments
    """Of the edited blocks."""
    starts: list[str]
    """What is put before a prompt, the empty one first."""
    out: Path
    """Where parts are kept."""
    identity: str
    """Of model, meter and text: what was looked at with others is not taken over."""


class OrdinaryText(NamedTuple):
    """Text that nothing was edited for, by disjoint documents."""

    fit: list[Document]
    """For the moments and for prefixes."""
    rows: list[PackedRow]
    """Packed, to look at the likelihood of."""
    passages: tuple[str, ...]
    """For the meter; none where there is none."""


def ordinary_text(lm: LanguageModel, config: EditCheckConfig, *, meter: bool, progress: bool = False) -> OrdinaryText:
    """Text for moments and text to look at. Errors: `TooFewSamples`, those of `read_texts`."""
    documents = shuffled(read_texts(config.text, progress=progress), config.seed)
    asset = config.text in ASSETS
    fit = take_split(documents, 0.0, 0.9 if asset else 0.7)
    held = take_split(documents, *(TEST_SPLIT if asset else (0.7, 1.0)))
    room, kept = CHARACTERS * config.moments.tokens, list[Document]()
    for document in fit:
        if room <= 0:
            break
        kept.append(document)
        room -= len(document.text)
    rows: list[PackedRow] = []
    policy = TokenPolicy(prepend_bos=config.editor.bos)
    for row in pack(held, lm, policy, min(ROW, lm.context)):
        rows.append(row)
        if sum(len(r.ids) - 1 for r in rows) >= config.nll_tokens:
            break
    if sum(sum(r.countable[1:]) for r in rows) < 2:
        raise TooFewSamples(f"{config.text} leaves no token to look at; give more documents")
    found = openings(held, PASSAGE_WORDS, config.passages) if meter else []
    return OrdinaryText(kept, [r for r in rows if any(r.countable[1:])], tuple(found))


def openings(documents: Sequence[Document], words: int, count: int) -> list[str]:
    """The first words of so many documents, fewer where a document has fewer. Errors: `TooFewSamples`.

    >>> openings([Document("a", "It was late. ", {}), Document("b", "They met.", {})], 2, 2)
    ['It was', 'They met.']
    """
    if len(documents) < count:
        raise TooFewSamples(
            f"{count} documents are wanted to begin with and there are {len(documents)}; give more of them"
        )
    return [" ".join(d.text.split()[:words]) for d in documents[:count]]


def run_edit_check(
    lm: LanguageModel,
    config: EditCheckConfig,
    out: Path,
    *,
    meter: Meter | None = None,
    command: str = "perimetry edit-check",
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Edit a model fact by fact, look at it before and after and under drawn updates, and return what `out/results.json` holds.

    The model is never changed for good; each update is kept in `out/edits`, each look in `out/parts`: killed, the same call goes on
    with the next edit. `meter`: of this very model. Errors: `ConfigError` when `out` holds another check, `TooFewSamples`, those of
    the editors.
    """
    requests = [config.request] if config.request is not None else known_edits(config.edits)
    with lock(out):
        remove_stale(out)
        require_same(config, out / BEGUN, "a check of edits")
        texts = ordinary_text(lm, config, meter=meter is not None, progress=progress)
        layers = edited_layers(lm, config.editor)
        say(
            f"moments of the keys of block {', '.join(map(str, layers))} on {config.moments.tokens} tokens of ordinary text"
        )
        moments = key_moments(lm, layers, texts.fit, config.moments, folder=out / "moments", progress=progress)
        rings = _rings(lm, config, min(layers))
        for name, (_, found) in rings.items():
            if found.refusal:
                say(f"the ring {name} is refused: {found.refusal}")
        starts = ["", *openings(texts.fit, PREFIX_WORDS, config.prefixes - 1)]
        read = [documents_digest(texts.fit), [row.ids for row in texts.rows], list(texts.passages)]
        identity = hash_json([lm.revision, str(lm.dtype), None if meter is None else meter.digest, read])
        job = Job(lm, config, moments, starts, out, identity)
        looked: list[tuple[EditRequest, list[Finding]]] = []
        for number, request in enumerate(track(requests, "edits", len(requests), progress, lambda _: 1)):
            say(f"{number + 1}/{len(requests)}  {request.said}")
            looked.append((request, _checked(job, number, request, _probes(config, request, rings, texts, meter))))
        return keep_results(results_of(lm, config, moments, looked, rings) | {"command": command}, out)


def _rings(lm: LanguageModel, config: EditCheckConfig, lowest: int) -> Rings:
    layers = ring_layers(lm, lowest)
    return {ring.name: (ring, usable_ring(lm, ring, layers, bos=config.editor.bos)) for ring in config.rings}


def _probes(
    config: EditCheckConfig, request: EditRequest, rings: Rings, texts: OrdinaryText, meter: Meter | None
) -> Probes:
    facts = [f for f in config.facts if f.subject != request.subject] or sibling_facts(request.subject)
    usable = {name: (ring, found.layers) for name, (ring, found) in rings.items() if found.layers}
    return Probes(usable, texts.rows, facts, meter, texts.passages, config.editor.bos)


def _plain(finding: Finding) -> dict[str, Any]:
    return finding._asdict() | {"interval": None if finding.interval is None else finding.interval._asdict()}


def _finding(plain: dict[str, Any]) -> Finding:
    box = plain["interval"]
    return Finding(**plain | {"drawn": tuple(plain["drawn"]), "interval": None if box is None else Interval(**box)})


def _checked(job: Job, number: int, request: EditRequest, probes: Probes) -> list[Finding]:
    """What the edit changed, from the folder where it was looked at already."""
    file = job.out / "parts" / f"{number:03d}.json"
    if file.is_file():
        kept = read_json(file)
        if kept["identity"] == job.identity:
            return [_finding(plain) for plain in kept["findings"]]
    edit = make_edit(job.lm, [request], job.moments, job.starts, job.config.editor)
    save_edit(job.out / "edits" / f"{number:03d}", job.lm, edit)
    found = check_edit(job.lm, edit, request, probes, draws=job.config.draws, seed=job.config.seed)
    write_json(file, {"identity": job.identity, "findings": [_plain(f) for f in found]})
    return found
