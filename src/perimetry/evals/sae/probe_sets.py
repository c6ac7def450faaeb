"""The labelled sets that probes are judged on, and the last-token activations of their prompts.

What follows sae-probes 0.4.2 (Kantamneni et al., "Are Sparse Autoencoders Useful? A Case Study in Sparse Probing", 2025):

* the 113 binary sets, of each the first rows in the published order, and the classes in alphabetical order (the later is 1);
* min(rows - 100, 1024) training rows, balanced (one positive more where the number is odd), drawn by a seed;
* the activation at the last token of the prompt, whatever its norm; a prompt that is too long loses its beginning;
* repeated rows: most sets were balanced by repeating rows of the rarer class, so a set of 1,062 rows may hold 373 prompts.

What differs, and why:

* Rows. At most `rows` of each set are read (sae-probes: 5,000, of which all that do not train are the test), at most `context`
  tokens of a prompt (sae-probes: 1,024): both settings of `ProbeData`, whose defaults make harvesting a matter of minutes on
  two cores. `ProbeData(rows=5000, context=1024, leaks=True)` is the published size.
* Leaks. A test row whose very prompt stands in the training rows is left out, as it would test memory; `leaks=True` keeps
  it, as sae-probes does. Every other row that does not train is test, not a balanced draw of them: the area under the ROC
  curve does not depend on the balance.
* Randomness. The draw is by torch's generator and not by numpy's, so the rows of a seed are others.
* BOS and template are those of the token policy that the dictionary was trained with; with a chat template the last token is the last
  one of the prompt itself. Text that looks like a special token is read as plain characters.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from perimetry.activations.model import LanguageModel
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import alike, collate, length_batches, policy_ids
from perimetry.activations.tap import Tap
from perimetry.assets import Document, read_texts
from perimetry.config import Config
from perimetry.errors import ConfigError, NonFinite, UnknownName, UsageError
from perimetry.evals.sae.base import Place
from perimetry.evals.sae.probe_splits import ProbeSet, Split, reserve, split
from perimetry.evals.sae.probe_toys import TOYS, toy
from perimetry.evals.sae.shelf import Shelf
from perimetry.storage import hash_json
from perimetry.ui import track

__all__ = [
    "SETS",
    "ProbeData",
    "ProbeSet",
    "Split",
    "labelled",
    "last_tokens",
    "read_set",
    "read_sets",
    "reserve",
    "split",
]

ASSET: Final = "probe-texts"
RUNS: Final = 4

_NAMES: Final = """
5_hist_fig_ismale 6_hist_fig_isamerican 7_hist_fig_ispolitician 21_headline_istrump 22_headline_isobama
23_headline_ischina 24_headline_isiran 26_headline_isfrontpage 36_sciq_tf 41_truthqa_tf 42_temp_sense 44_phys_tf
47_reasoning_tf 48_cm_correct 49_cm_isshort 50_deon_isvalid 51_just_is 52_virtue_is 54_cs_tf
56_wikidatasex_or_gender 57_wikidatais_alive 58_wikidatapolitical_party 59_wikidata_occupation_isjournalist
60_wikidata_occupation_isathlete 61_wikidata_occupation_isactor 62_wikidata_occupation_ispolitician
63_wikidata_occupation_issinger 64_wikidata_occupation_isresearcher 65_high-school 66_living-room
67_social-security 68_credit-card 69_blood-pressure 70_prime-factors 71_social-media 72_gene-expression
73_control-group 74_magnetic-field 75_cell-lines 76_trial-court 77_second-derivative 78_north-america
79_human-rights 80_side-effects 81_public-health 82_federal-government 83_third-party 84_clinical-trials
85_mental-health 87_glue_cola 89_glue_mrpc 90_glue_qnli 91_glue_qqp 92_glue_sst2 94_ai_gen 95_toxic_is
96_spam_is 100_news_fake 105_click_bait 106_hate_hate 107_hate_offensive 110_aimade_humangpt3 113_movie_sent
114_nyc_borough_Manhattan 115_nyc_borough_Brooklyn 116_nyc_borough_Bronx 117_us_state_FL 118_us_state_CA
119_us_state_TX 120_us_timezone_Chicago 121_us_timezone_New_York 122_us_timezone_Los_Angeles
123_world_country_United_Kingdom 124_world_country_United_States 125_world_country_Italy 126_art_type_book
127_art_type_song 128_art_type_movie 129_arith_mc_A 130_temp_cat_Frequency 131_temp_cat_Typical_Time
132_temp_cat_Event_Ordering 133_context_type_Causality 134_context_type_Belief_states
135_context_type_Event_duration 136_glue_mnli_entailment 137_glue_mnli_neutral 138_glue_mnli_contradiction
139_news_class_Politics 140_news_class_Technology 141_news_class_Entertainment 142_cancer_cat_Thyroid_Cancer
143_cancer_cat_Lung_Cancer 144_cancer_cat_Colon_Cancer 145_disease_class_digestive_system_diseases
146_disease_class_cardiovascular_diseases 147_disease_class_nervous_system_diseases 148_twt_emotion_worry
149_twt_emotion_happiness 150_twt_emotion_sadness 151_it_tick_HR_Support 152_it_tick_Hardware
153_it_tick_Administrative_rights 154_athlete_sport_football 155_athlete_sport_basketball
156_athlete_sport_baseball 157_amazon_5star 158_code_C 159_code_Python 160_code_HTML 161_agnews_0 162_agnews_1
163_agnews_2
"""
SETS: Final = tuple(_NAMES.split())
"""The binary sets of sae-probes, in its order, by their names in the asset `probe-texts`."""

Activations = Float[Tensor, "row d_model"]


class ProbeData(Config):
    """Which labelled sets, and how much of them."""

    sets: Literal["all"] | tuple[str, ...] = "all"
    """`all` 113, names in `SETS` (or `TOYS`), or paths of `.jsonl` files of your own: `id`, `text`, one of two values of `label`."""
    rows: int = Field(default=1200, ge=40)
    """Most rows of a set, training and test together; 1,200 leave 1,024 to train on."""
    context: int = Field(default=128, ge=2)
    """Most tokens of a prompt, BOS included; of a longer prompt the end is read."""
    leaks: bool = False
    """Whether test rows stay whose very prompt is among the training rows, as in sae-probes."""
    batch_tokens: int = Field(default=4096, ge=1)
    """Tokens of the model's batches, padding included; no number depends on it beyond rounding."""


def _documents(name: str) -> list[Document]:
    if name in TOYS:
        return toy(name)
    if name not in SETS and not name.endswith((".jsonl", ".jsonl.gz")):
        raise UnknownName("labelled set", name, (*SETS, *TOYS))
    return list(read_texts(f"{ASSET}/{name}" if name in SETS else name))


def _stem(name: str) -> str:
    return Path(name).name.removesuffix(".gz").removesuffix(".jsonl")


def labelled(name: str, documents: Sequence[Document], classes: tuple[str, str] | None = None) -> ProbeSet:
    """Documents as a labelled set; with `classes` these must be the labels. Errors: `UsageError`."""
    came = sorted({d.meta.get("label", "") for d in documents})
    wanted = list(classes) if classes else came
    if len(wanted) != 2 or not set(came) <= set(wanted) or "" in wanted:
        kinds = f"the labels {wanted}" if classes else "two kinds of labels"
        raise UsageError(f"the set {name!r} has the labels {came[:5]}; wanted {kinds}; mend the set or leave it out")
    labels = torch.tensor([d.meta["label"] == wanted[1] for d in documents], dtype=torch.bool)
    return ProbeSet(name, tuple(d.text for d in documents), labels, (wanted[0], wanted[1]))


def read_set(name: str, rows: int) -> ProbeSet:
    """The first `rows` rows of a set. Errors: `UnknownName`, `UsageError` for labels that are not two, those of `read_texts`."""
    return labelled(_stem(name), _documents(name)[:rows])


def read_sets(data: ProbeData) -> list[ProbeSet]:
    """The chosen sets. Errors: those of `read_set`, `ConfigError` for none or for two of one name."""
    names = SETS if data.sets == "all" else data.sets
    if not names or len({_stem(name) for name in names}) != len(names):
        raise ConfigError(f"sets = {list(names)}: wanted at least one, each of another name; name each set once")
    return [read_set(name, data.rows) for name in names]


class _Prompt(NamedTuple):
    """A prompt as the model reads it."""

    ids: list[int]
    last: int
    """Place of the last token of the text."""

    @property
    def countable(self) -> list[bool]:
        return [True] * len(self.ids)


def _prompts(lm: LanguageModel, texts: Sequence[str], policy: TokenPolicy, context: int) -> list[_Prompt]:
    before, after = policy_ids(lm, policy)
    room = min(context, lm.context) - len(before) - len(after)
    if room < 1:
        raise ConfigError(f"context = {context} leaves no token beside those that the token policy adds; raise it")
    coded = lm.plain_tokenizer.encode_batch(list(texts), add_special_tokens=False)
    inner = [part.ids[-room:] for part in coded]
    empty = next((text for text, ids in zip(texts, inner, strict=True) if not ids), None)
    if empty is not None:
        raise UsageError(f"the prompt {empty[:40]!r} has no token for {lm.name!r}; wanted one at least; leave it out")
    return [_Prompt([*before, *ids, *after], len(before) + len(ids) - 1) for ids in inner]


def _harvest(
    texts: Sequence[str], known: Mapping[str, Tensor], place: Place, data: ProbeData
) -> dict[str, Activations]:
    """The last-token activation of each text, in the model's dtype; those that are `known` are not computed again."""
    lm, tap = place.lm, Tap(place.lm, place.layer)
    new = [text for text in dict.fromkeys(texts) if text not in known]
    prompts = _prompts(lm, new, place.policy, data.context) if new else []
    lengths = [len(prompt.ids) for prompt in prompts]
    found: dict[str, Tensor] = {}
    for rows in length_batches(lengths, data.batch_tokens):
        for part in alike(lengths, rows, data.batch_tokens // RUNS):
            batch = collate([prompts[i] for i in part], lm.pad_id)
            residual = tap.read(batch.ids, batch.attention)
            at = torch.tensor([prompts[i].last for i in part], device=residual.device)
            last = residual[torch.arange(len(part), device=residual.device), at].cpu()
            if not bool(last.isfinite().all()):
                worst = new[part[int((~last.isfinite()).any(1).nonzero()[0])]]
                raise NonFinite(
                    f"the activation of {worst[:40]!r} is NaN or infinite; finite numbers are wanted; use float32"
                )
            found.update(zip((new[i] for i in part), last, strict=True))
    return {"last": torch.stack([known[text] if text in known else found[text] for text in texts])}


def last_tokens(
    groups: Mapping[str, Sequence[str]], place: Place, shelf: Shelf, data: ProbeData, *, progress: bool = False
) -> dict[str, Activations]:
    """The last-token activations of the prompts of each group, in the model's dtype: made group by group, kept on the shelf.

    A prompt that an earlier group of the same call has is not computed again. Errors: `ConfigError`, `NonFinite`.
    """
    about: dict[str, Any] = place.key() | {"what": "last tokens", "context": data.context}
    about["policy"] = {"prepend_bos": place.policy.prepend_bos, "template": place.policy.template}
    known: dict[str, Tensor] = {}
    out: dict[str, Tensor] = {}
    total = sum(len(texts) for texts in groups.values())
    for name, texts in track(groups.items(), "prompts", total, progress, lambda item: len(item[1])):
        key = about | {"texts": hash_json(list(texts))}
        out[name] = shelf.get(key, partial(_harvest, texts, known, place, data))["last"]
        known.update(zip(texts, out[name], strict=True))
    return out
