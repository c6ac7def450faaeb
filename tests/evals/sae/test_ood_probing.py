import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tests.evals.sae.test_probing import dictionary, subject

from perimetry.activations.model import LanguageModel
from perimetry.assets import ASSETS, Document
from perimetry.assets.prepared import is_pulled
from perimetry.errors import TooFewSamples, UsageError
from perimetry.evals.sae import ood_probing
from perimetry.evals.sae.ood_probing import DROPPED, OWN, PUBLISHED, OodProbing, read_shifted
from perimetry.evals.sae.probe_sets import SETS, ProbeData, read_set
from perimetry.evals.sae.probe_toys import toy
from perimetry.evals.sae.shelf import Shelf
from perimetry.evals.sae.units import Units, difference

pulled = pytest.mark.skipif(
    not is_pulled(ASSETS["probe-texts"]),
    reason="the asset probe-texts is not in the cache; set PERIMETRY_CACHE to one that has it",
)
Found = dict[tuple[str, str, int, str], Units]


def by_cell(found: Sequence[Units]) -> Found:
    return {(u.cell.metric, u.cell.case, u.cell.k, u.cell.arm): u for u in found}


def write_set(path: Path, rows: Sequence[Document]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": d.id, "text": d.text, "label": d.meta["label"]}) + "\n" for d in rows))


@pytest.fixture(scope="module")
def measured(tiny_lm: LanguageModel) -> Found:
    return by_cell(OodProbing.tiny().measure(subject(tiny_lm), Shelf()))


def test_every_set_has_every_own_shift(measured: Found) -> None:
    whole = measured["auroc_ood", "", 4, "sae"]
    assert whole.names == ("toy_animals", "toy_moods"), "all shifts of a set share its probes: they are one unit"
    assert whole.under.tolist() == [len(OWN)] * 2
    alone = [measured["auroc_ood", shift, 4, "sae"] for shift in OWN]
    assert torch.allclose(whole.over, torch.stack([units.over for units in alone]).sum(0))
    assert {case for _, case, _, _ in measured} == {"", "case", "typos", "word_order"}
    assert measured["auroc_ood", "case", 1, "sae"].names == ("toy_animals", "toy_moods")
    for (metric, _, _, _), found in measured.items():
        low, areas = -1 if metric == "gap" else 0, found.over / found.under
        assert low <= float(areas.min()) <= float(areas.max()) <= 1


def test_the_gap_is_the_paired_difference_to_the_raw_probe(measured: Found) -> None:
    for k in (1, 4):
        gap = measured["gap", "", k, "sae"]
        paired = difference(measured["auroc_ood", "", k, "sae"], measured["auroc_ood", "", 0, "raw"])
        assert gap.estimate() == pytest.approx(paired.estimate)
        assert paired.n == 2


def test_the_area_in_distribution_is_the_same_for_all_shifts_of_a_set(measured: Found) -> None:
    found = measured["auroc_id", "", 0, "raw"]
    for shift in OWN:
        assert torch.allclose(measured["auroc_id", shift, 0, "raw"].over * len(OWN), found.over)
    assert found.estimate() > 0.6


def test_a_shift_that_changes_nothing_costs_nothing(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(OWN["case"]), "apply", lambda self, text, dose, rng: text)
    settings = OodProbing(data=ProbeData(sets=("toy_moods",)), seeds=1, ks=(4,), held=40)
    found = by_cell(settings.measure(subject(tiny_lm), Shelf()))
    for k, arm in ((4, "sae"), (0, "raw")):
        same = found["auroc_id", "case", k, arm].estimate()
        assert found["auroc_ood", "case", k, arm].estimate() == pytest.approx(same, abs=1e-6)


def test_own_shifts_change_words_at_the_dose_and_keep_the_labels() -> None:
    settings = OodProbing(data=ProbeData(sets=("toy_animals",)), dose=0.5, held=40)
    [world] = settings._worlds()
    assert [s.shift for s in world.shifted] == ["case", "typos", "word_order"]
    for shift, rows in world.shifted:
        plain = [world.plain.texts[i] for i in world.held.tolist()]
        assert torch.equal(rows.labels, world.plain.labels[world.held])
        assert all(a != b for a, b in zip(plain, rows.texts, strict=True)), shift
        if shift == "word_order":
            assert all(sorted(a.split()) == sorted(b.split()) for a, b in zip(plain, rows.texts, strict=True))
        if shift == "case":
            assert all(a.lower() == b.lower() for a, b in zip(plain, rows.texts, strict=True))
    [other] = settings.model_copy(update={"shift_seed": 1})._worlds()
    assert other.shifted[1].rows.texts != world.shifted[1].rows.texts
    assert torch.equal(other.held, world.held)


def test_a_file_beside_a_set_is_its_published_shift(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    write_set(tmp_path / "mine.jsonl", toy("toy_moods"))
    swapped = [d._replace(meta={"label": "1" if d.meta["label"] == "0" else "0"}) for d in toy("toy_moods")[:60]]
    write_set(tmp_path / "ood" / "mine_OOD.jsonl", swapped)
    settings = OodProbing(data=ProbeData(sets=(str(tmp_path / "mine.jsonl"),)), seeds=1, ks=(4,), held=40)
    found = by_cell(settings.measure(subject(tiny_lm), Shelf()))
    assert found["auroc_ood", "published", 0, "raw"].names == ("mine",)
    # Labels that are turned round turn the area round: what is judged are these rows, with these labels.
    assert found["auroc_ood", "published", 0, "raw"].estimate() < 0.4
    assert found["auroc_id", "published", 0, "raw"].estimate() > 0.6


def test_a_twin_is_a_file_that_is_read(tmp_path: Path) -> None:
    name = str(tmp_path / "mine.jsonl")
    settings = OodProbing(data=ProbeData(sets=(name, "toy_moods")))
    assert settings.files() == []
    write_set(tmp_path / "ood" / "mine_OOD.jsonl", toy("toy_moods"))
    assert settings.files() == [tmp_path / "ood" / "mine_OOD.jsonl"]
    assert OodProbing().files() == []


def test_refuses_shifted_rows_with_other_labels_and_sets_that_are_too_small(
    tiny_lm: LanguageModel, tmp_path: Path
) -> None:
    write_set(tmp_path / "mine.jsonl", toy("toy_moods"))
    write_set(tmp_path / "ood" / "mine_OOD.jsonl", [Document("1", "text", {"label": "entailment"})])
    name = str(tmp_path / "mine.jsonl")
    with pytest.raises(UsageError, match=r"has the labels \['entailment'\]; wanted the labels \['0', '1'\]"):
        read_shifted(name, read_set(name, 100))
    settings = OodProbing(data=ProbeData(sets=("toy_moods",)), held=100)
    with pytest.raises(TooFewSamples, match="wanted 100 of each class, to set half of them aside"):
        settings.measure(subject(tiny_lm, dictionary(width=256)), Shelf())
    for wrong in ({"dose": 0.0}, {"held": 2}, {"ks": ()}):
        with pytest.raises(ValidationError):
            OodProbing.model_validate(wrong)


def test_qnli_is_dropped_and_the_results_say_why() -> None:
    assert set(PUBLISHED) | set(DROPPED) <= set(SETS)
    assert not set(PUBLISHED) & set(DROPPED)
    assert len(PUBLISHED) == 7
    assert "90_glue_qnli is dropped: its shifted prompts lack the question" in OodProbing.caveat
    assert "167 of 300 are distinct, and 22 stand under both labels" in OodProbing.caveat


@pulled
@pytest.mark.parametrize("name", PUBLISHED)
def test_real_shifts_have_the_labels_of_their_sets(name: str) -> None:
    plain = read_set(name, 100)
    found = read_shifted(name, plain)
    assert found is not None
    assert found.classes == plain.classes
    assert 0.4 < float(found.labels.float().mean()) < 0.6
    assert 290 < len(found.texts) <= 300


@pulled
def test_own_shifts_of_the_dropped_set_are_measured() -> None:
    settings = OodProbing(data=ProbeData(sets=("90_glue_qnli", "87_glue_cola"), rows=400))
    qnli, cola = settings._worlds()
    assert [s.shift for s in qnli.shifted] == ["case", "typos", "word_order"]
    assert [s.shift for s in cola.shifted] == ["case", "typos", "word_order", "published"]
    assert ood_probing.read_shifted("90_glue_qnli", qnli.plain) is None
