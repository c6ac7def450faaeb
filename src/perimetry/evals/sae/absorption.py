"""Absorption: how often the latents that stand for a word's first letter are silent because another latent wrote the letter.

After "A is for Absorption" (arXiv 2409.14507) as SAEBench computes it (arXiv 2503.09532). The published tables print one minus
absorption, higher better; here absorption itself is given, lower better. The headline is the mean over the letters that
qualified of each letter's share of words, as in the reference, so that a rare letter weighs as much as a frequent one; units are
letters.

What is done in another way than in the reference:

* words are lower-case vocabulary tokens with a leading space and two or more letters (there upper case, single letters and tokens
  without a space too), at most `words` of each letter, split letter by letter; words, split and examples are seeded;
* absorption is measured on words of their own, on which no main latent was chosen (there the same held-out words serve both), and
  at the activation at which the probe fired (there prompts are drawn anew);
* probes are fitted to convergence on activations, and on codes, in units of the activations' spread; the L1 probe that ranks the
  latents is the reference's up to that scale, but solved exactly, so that nothing depends on the order of the latents;
* latents whose L1 weights are equal, as those are that the penalty took to 0, are ranked by how much more they fire at the letter;
* letters that do not qualify are left out before anything is counted.
"""

from typing import Annotated, Any, ClassVar, Final, NamedTuple, TypeVar, final

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, StringConstraints, model_validator
from torch import Tensor

from perimetry.axes import Acts
from perimetry.evals.sae.absorbing import (
    LetterProbes,
    LetterResults,
    ProbeRules,
    SplitRules,
    absorption_by_letter,
    letter_probes,
)
from perimetry.evals.sae.base import AbstractEvaluation, Metric, Place, Subject
from perimetry.evals.sae.held_out import require_readable
from perimetry.evals.sae.letters import ALPHABET, Words, draw_words, plain_words, read_words, spelling_prompts
from perimetry.evals.sae.probe_features import encode_rows
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Cell, Units, means, ratios
from perimetry.ui import track

__all__ = ["Absorption"]

PART: Final = 256
"""Words that are read, and kept on the shelf, together: what a run that is stopped loses at most."""
METRICS: Final = {
    "full_absorption": Metric(
        unit="share",
        higher=False,
        text="Of a letter's words at which its probe fires, those at which all main latents are silent and the latent that projects "
        "most on the probe (cosine at least .025) carries at least .4 of the activation's projection; mean over letters.",
    ),
    "absorption_fraction": Metric(
        unit="share",
        higher=False,
        text="Of what main latents and up to three absorbers (cosine at least .1, together at least .4 of the projection) write of a "
        "letter, what the absorbers write; mean over words, then over letters.",
    ),
    "splitting": Metric(unit="latents", higher=None, text="Main latents of a letter, mean over letters."),
    "main_f1": Metric(
        unit="F1",
        higher=True,
        text="Of the probe on a letter's main latents, on held-out words; where it is low there is little that could be absorbed.",
    ),
    "probe_f1": Metric(
        unit="F1", higher=None, text="Of a letter's probe on raw activations, on held-out words: of the model alone."
    ),
    "letters": Metric(unit="letters", higher=None, text="How many letters qualified: of the model alone."),
}
"""By name."""
A = TypeVar("A", bound="Absorption")
PlainWord = Annotated[str, StringConstraints(pattern="^[a-z]{2,}$")]


class _Seen(NamedTuple):
    """The words of a place that count."""

    words: Words
    acts: Acts


@final
class Absorption(AbstractEvaluation):
    """The first-letter task: ground-truth probes, main latents, and what other latents write in their place."""

    name: ClassVar[str] = "absorption"
    definition: ClassVar[str] = "1"
    source: ClassVar[str] = "Chanin et al., arXiv 2409.14507; SAEBench, arXiv 2503.09532"
    caveat: ClassVar[str] = (
        "The reference is declared invalid for models under 1 B parameters and for dictionaries under 16 k latents; and a dictionary "
        "that is hardly trained absorbs little: read it beside main_f1."
    )
    metrics: ClassVar[dict[str, Metric]] = METRICS

    seed: int = 0
    """Of the words, their split, and the examples in the prompts."""
    words: PositiveInt = 200
    """The most words of each first letter."""
    given: tuple[PlainWord, ...] = ()
    """Words to draw from instead of the vocabulary's own; one of several tokens is read at its last."""
    examples: NonNegativeInt = 10
    """Solved examples before the word."""
    training: float = Field(default=0.6, gt=0, lt=1)
    """Share of a letter's words on which probes are fitted."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share on which F1 is taken; absorption is measured on what is left."""
    least_words: PositiveInt = 5
    """Words that a letter needs in each of the three parts to qualify."""
    least_f1: float = Field(default=0.6, ge=0, lt=1)
    """F1 that a letter's probe must exceed to qualify."""
    least_letters: PositiveInt = 15
    """Letters that must qualify; with fewer the evaluation refuses."""
    l2: PositiveFloat = 1e-3
    """Penalty of the probes, on inputs in units of the activations' spread."""
    l1: PositiveFloat = 0.01
    """Penalty of the probe that ranks latents."""
    rise: float = Field(default=0.03, ge=0, lt=1)
    """What one latent more must add to F1 to count as a main latent."""
    most_main: PositiveInt = 10
    """The most main latents of a letter."""
    batch: PositiveInt = 32
    """Prompts in a pass of the model; changes nothing but memory and rounding."""

    @model_validator(mode="after")
    def _leaves_words(self) -> "Absorption":
        if self.training + self.held_out >= 1:
            raise ValueError(
                f"training {self.training:g} and held_out {self.held_out:g} leave no words to measure absorption on; their sum must be "
                "below 1"
            )
        return self

    @classmethod
    def tiny(cls: type[A]) -> A:
        """Six letters of made-up words, whatever their probes are worth: a tiny tokenizer knows no words."""
        ends = [b + c for b in "aeio" for c in "lmnrs"]
        given = tuple(a + end for a in "bdfkpt" for end in ends)
        return cls(given=given, words=20, examples=2, least_words=3, least_f1=0.0, least_letters=2)

    def measure(self, subject: Subject, shelf: Shelf, *, progress: bool = False) -> list[Units]:
        """All metrics; units are the letters that qualified, which are the same for every dictionary at a place.

        Errors: `Incompatible` and `WidthMismatch` for a dictionary that does not give back the output of this block, `TooFewSamples`
        for too few words or letters and for a dictionary that is silent at every word, `PromptTooLong`, `NonFinite`.
        """
        require_readable(subject)
        key = self._key(subject.place)
        seen = self._read(subject.place, shelf, key, progress=progress)
        probes = self._probes(seen, shelf, key)
        codes = encode_rows(subject.sae, seen.acts)
        rules = SplitRules(self.l1, self.l2, self.rise, self.most_main)
        words = seen.words
        found = absorption_by_letter(seen.acts, words.letters, words.parts, probes, codes, subject.sae.W_dec, rules)
        return _units(found, probes)

    def _key(self, place: Place) -> dict[str, Any]:
        """What the activations at the words depend on."""
        chosen = ("seed", "words", "given", "examples", "training", "held_out")
        settings = {name: value for name, value in self.model_dump(mode="json").items() if name in chosen}
        return {"what": "words of absorption, 1", "place": place.key()} | settings

    def _read(self, place: Place, shelf: Shelf, key: dict[str, Any], *, progress: bool) -> _Seen:
        known = self.given or plain_words(place.lm)
        words = draw_words(known, self.words, (self.training, self.held_out), self.seed)
        prompts = spelling_prompts(words, self.examples, self.seed)
        acts: list[Tensor] = []
        kept: list[Tensor] = []
        spans = [slice(start, start + PART) for start in range(0, len(prompts), PART)]
        for span in track(spans, "words", len(prompts), progress, lambda part: len(prompts[part])):
            part = shelf.get(
                key | {"from": span.start},
                lambda span=span: read_words(
                    place, prompts[span], words.names[span], self.batch, whole=not self.given
                )._asdict(),
            )
            acts.append(part["acts"])
            kept.append(part["kept"])
        counts = torch.cat(kept)
        names = tuple(name for name, count in zip(words.names, counts.tolist(), strict=True) if count)
        return _Seen(Words(names, words.letters[counts], words.parts[counts]), torch.cat(acts)[counts])

    def _probes(self, seen: _Seen, shelf: Shelf, key: dict[str, Any]) -> LetterProbes:
        rules = ProbeRules(self.l2, self.least_words, self.least_f1, self.least_letters)
        made = shelf.get(
            key | {"what": "probes of absorption, 1", "rules": rules._asdict()},
            lambda: letter_probes(seen.acts, seen.words.letters, seen.words.parts, rules)._asdict(),
        )
        return LetterProbes(**made)


def _units(found: LetterResults, probes: LetterProbes) -> list[Units]:
    names = found.names
    letters = torch.tensor([float(len(names))])
    return [
        means(Cell("full_absorption"), names, found.full / found.words),
        means(Cell("absorption_fraction"), names, found.fraction / found.words),
        means(Cell("splitting"), names, found.main),
        means(Cell("main_f1"), names, found.main_f1),
        means(Cell("probe_f1", arm="raw"), names, probes.f1),
        ratios(Cell("letters", arm="raw"), [f"of {len(ALPHABET)}"], letters, torch.ones(1)),
    ]
