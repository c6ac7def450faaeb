import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perimetry.activations.model import LanguageModel, tiny_language_model
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import collate, encode
from perimetry.activations.tap import Tap
from perimetry.assets import ASSETS, Document, read_texts
from perimetry.assets.prepared import is_pulled
from perimetry.errors import ConfigError, NonFinite, TooFewSamples, UnknownName, UsageError
from perimetry.evals.sae.base import Place
from perimetry.evals.sae.probe_sets import (
    SETS,
    ProbeData,
    ProbeSet,
    labelled,
    last_tokens,
    read_set,
    read_sets,
    reserve,
    split,
)
from perimetry.evals.sae.shelf import Shelf
from perimetry.measures.logistic import validation_rows

pulled = pytest.mark.skipif(
    not is_pulled(ASSETS["probe-texts"]),
    reason="the asset probe-texts is not in the cache; set PERIMETRY_CACHE to one that has it",
)


def made(labels: Sequence[bool], texts: Sequence[str] | None = None) -> ProbeSet:
    """A set whose prompts are distinct unless told otherwise."""
    texts = texts or [f"prompt {i}" for i in range(len(labels))]
    return ProbeSet("made", tuple(texts), torch.tensor(labels, dtype=torch.bool), ("no", "yes"))


def place_of(lm: LanguageModel, **policy: object) -> Place:
    return Place(lm, 1, TokenPolicy.model_validate(policy))


# Reading


def test_there_are_113_sets_and_no_name_twice() -> None:
    assert len(SETS) == len(set(SETS)) == 113


def test_the_toys_are_read_by_name_and_cut_to_the_first_rows() -> None:
    found = read_set("toy_animals", 1000)
    assert len(found.texts) == 160
    assert int(found.labels.sum()) == 80
    assert found.classes == ("0", "1")
    assert read_set("toy_animals", 50).texts == found.texts[:50]
    assert [s.name for s in read_sets(ProbeData(sets=("toy_moods", "toy_animals")))] == ["toy_moods", "toy_animals"]


def test_a_file_of_the_users_own_is_a_set(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": f"text {i}", "label": "spam" if i % 3 else "ham"} for i in range(9)]
    path = tmp_path / "mine.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    found = read_set(str(path), 100)
    assert found.name == "mine"
    assert found.classes == ("ham", "spam")
    assert found.labels.tolist() == [bool(i % 3) for i in range(9)]


def test_refuses_sets_that_are_none() -> None:
    with pytest.raises(UnknownName, match="unknown labelled set '87_glue_kola'; the nearest name is '87_glue_cola'"):
        read_set("87_glue_kola", 10)
    with pytest.raises(
        ConfigError, match=r"sets = \[\]: wanted at least one, each of another name; name each set once"
    ):
        read_sets(ProbeData(sets=()))
    with pytest.raises(ConfigError, match="each of another name"):
        read_sets(ProbeData(sets=("toy_moods", "toy_moods")))
    three = [Document(str(i), "text", {"label": str(i)}) for i in range(3)]
    with pytest.raises(
        UsageError, match=r"the set 'x' has the labels \['0', '1', '2'\]; wanted two kinds of labels; mend the set"
    ):
        labelled("x", three)
    with pytest.raises(UsageError, match=r"has the labels \['0', '1'\]; wanted the labels \['no', 'yes'\]"):
        labelled("x", three[:2], ("no", "yes"))
    with pytest.raises(UsageError, match=r"has the labels \[''\]"):
        labelled("x", [Document("1", "text", {})])


# Splits


@settings(max_examples=40, deadline=None)
@given(n=st.integers(40, 400), positives=st.floats(0.2, 0.8), seed=st.integers(0, 99), repeats=st.integers(1, 4))
@example(n=143, positives=0.28125, seed=0, repeats=4)
def test_splits_are_balanced_disjoint_and_share_no_prompt(n: int, positives: float, seed: int, repeats: int) -> None:
    found = made([i < positives * n for i in range(n)], [f"prompt {i // repeats}" for i in range(n)])
    try:
        one = split(found, seed)
    except TooFewSamples:
        assert repeats > 1
        return
    train, test = one.train.tolist(), one.test.tolist()
    count = int(found.labels.sum())
    rarer = min(count, n - count)
    size = min(max(n - 100, n // 2), 1024, 2 * (rarer - max(1, rarer // 20)))
    whole = split(found, seed, leaks=True)
    seen = {found.texts[i] for i in whole.train.tolist()}
    left = {bool(found.labels[i]) for i in whole.test.tolist() if found.texts[i] not in seen}
    plain = len(left) == 2
    assert len(train) == len(set(train)) <= size
    assert len(train) == size or not plain, "prompts are set aside only where a class would not be judged"
    assert int(found.labels[one.train].sum()) == len(train) - len(train) // 2
    assert not set(train) & set(test)
    assert not {found.texts[i] for i in train} & {found.texts[i] for i in test}
    assert sorted(whole.train.tolist()) == sorted(train) or not plain
    last = validation_rows(len(train))
    fitted, validating = train[: len(train) - last], train[len(train) - last :]
    assert abs(2 * int(found.labels[validating].sum()) - last) <= 1
    shared = {found.texts[i] for i in fitted} & {found.texts[i] for i in validating}
    assert len(shared) <= 2, "at most one prompt of a class is cut in two, to have as many rows as are wanted"
    assert sorted([*whole.train.tolist(), *whole.test.tolist()]) == list(range(n))
    assert split(found, seed).train.tolist() == train


def test_repeated_prompts_validate_or_train_but_not_both() -> None:
    texts = [f"prompt {i % 400}" for i in range(1200)]
    found = made([int(text.split()[1]) % 2 == 0 for text in texts], texts)
    rows = split(found, 3).train.tolist()
    last = validation_rows(len(rows))
    assert last == 100
    assert not {texts[i] for i in rows[:-last]} & {texts[i] for i in rows[-last:]}
    leaking = split(found, 3, leaks=True).train.tolist()
    assert {texts[i] for i in leaking[:-last]} & {texts[i] for i in leaking[-last:]}, "as sae-probes has them"


def test_large_sets_train_on_1024_rows_and_seeds_draw_others() -> None:
    found = made([i % 2 == 0 for i in range(1500)])
    one, two = split(found, 0), split(found, 1)
    assert len(one.train) == 1024
    assert len(one.test) == 476
    assert set(one.train.tolist()) != set(two.train.tolist())
    # The last rows validate, so both classes must be spread over them.
    assert 30 < int(found.labels[one.train[-100:]].sum()) < 70


def test_reserved_rows_never_train_whatever_the_seed() -> None:
    found = made([i % 2 == 0 for i in range(300)], [f"prompt {i // 4}" for i in range(300)])
    held = reserve(found, 40)
    assert len(held) == len(set(held.tolist())) == 40
    assert int(found.labels[held].sum()) == 20
    kept = {found.texts[i] for i in held.tolist()}
    for seed in range(3):
        one = split(found, seed, reserved=held)
        assert torch.equal(one.test, held)
        assert not kept & {found.texts[i] for i in one.train.tolist()}
        loose = split(found, seed, reserved=held, leaks=True)
        assert not set(held.tolist()) & set(loose.train.tolist())
        assert len(loose.train) > len(one.train)


def test_refuses_sets_of_one_class_or_without_test_rows() -> None:
    with pytest.raises(
        TooFewSamples, match="the set 'made' offers 0 rows of 'yes' among 0; wanted both classes to train on"
    ):
        split(made([False] * 60), 0)
    with pytest.raises(TooFewSamples, match="wanted both classes to test on; raise `rows` or leave the set out"):
        split(made([True, False] * 30, ["the same"] * 60), 0)
    with pytest.raises(TooFewSamples, match="offers 5 rows of 'yes' among 60; wanted 40 of each class"):
        reserve(made([i < 5 for i in range(60)]), 40)


# Activations


@pytest.mark.parametrize("policy", [{}, {"prepend_bos": False}, {"template": "chat"}])
def test_the_last_token_of_the_prompt_is_read(tiny_lm: LanguageModel, policy: dict[str, object]) -> None:
    texts = ["a cat", "the old man and the sea", "on"]
    place = place_of(tiny_lm, **policy)
    found = last_tokens({"x": texts}, place, Shelf(), ProbeData())["x"]
    for text, row in zip(texts, found, strict=True):
        prompt = encode(tiny_lm, text, place.policy)
        last = max(i for i, span in enumerate(prompt.spans) if span is not None)
        batch = collate([prompt], tiny_lm.pad_id)
        assert torch.allclose(row, Tap(tiny_lm, 1).read(batch.ids, batch.attention)[0, last], atol=1e-5)


def test_of_a_long_prompt_the_end_is_read_and_bos_stays(tiny_lm: LanguageModel) -> None:
    place, text = place_of(tiny_lm), "the old man and the sea " * 20
    ids = tiny_lm.plain_tokenizer.encode(text, add_special_tokens=False).ids
    assert tiny_lm.bos_id is not None
    row = torch.tensor([[tiny_lm.bos_id, *ids[-15:]]])
    wanted = Tap(tiny_lm, 1).read(row, torch.ones_like(row))[0, -1]
    found = last_tokens({"x": [text]}, place, Shelf(), ProbeData(context=16))["x"]
    assert torch.allclose(found[0], wanted, atol=1e-5)
    other = last_tokens({"x": ["something else before " + text]}, place, Shelf(), ProbeData(context=16))["x"]
    assert torch.allclose(found, other, atol=1e-5)


def test_batches_change_nothing_and_the_shelf_gives_the_same_again(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    texts = read_set("toy_moods", 60).texts
    place = place_of(tiny_lm)
    one = last_tokens({"x": texts}, place, Shelf(tmp_path), ProbeData(batch_tokens=40))["x"]
    two = last_tokens({"x": texts}, place, Shelf(), ProbeData(batch_tokens=4096))["x"]
    assert torch.allclose(one, two, atol=1e-5)
    broken = Place(tiny_lm, 0, place.policy)
    # Another policy's norm threshold has no part in it; another layer, or another context, has.
    fitted = place._replace(policy=place.policy.fitted(3.0))
    assert torch.equal(last_tokens({"y": texts}, fitted, Shelf(tmp_path), ProbeData())["y"], one)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert not torch.allclose(last_tokens({"x": texts}, broken, Shelf(tmp_path), ProbeData())["x"], one)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_prompt_that_two_groups_share_is_read_once(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    read = Tap.read

    def counted(self: Tap, ids: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        rows.append(ids.shape[0])
        return read(self, ids, attention)

    monkeypatch.setattr(Tap, "read", counted)
    found = last_tokens({"x": ["one", "two", "one"], "y": ["two", "three"]}, place_of(tiny_lm), Shelf(), ProbeData())
    assert sum(rows) == 3
    assert torch.equal(found["x"][1], found["y"][0])
    assert torch.equal(found["x"][0], found["x"][2])


def test_refuses_prompts_that_cannot_be_read(tiny_lm: LanguageModel) -> None:
    with pytest.raises(
        ConfigError, match="context = 2 leaves no token beside those that the token policy adds; raise it"
    ):
        last_tokens({"x": ["one"]}, place_of(tiny_lm, template="chat"), Shelf(), ProbeData(context=2))
    broken = tiny_language_model("llama", 3)
    broken.model.get_input_embeddings().weight.data.fill_(torch.nan)
    with pytest.raises(
        NonFinite, match="the activation of 'one' is NaN or infinite; finite numbers are wanted; use float32"
    ):
        last_tokens({"x": ["one"]}, place_of(broken), Shelf(), ProbeData())


# The real sets


@pulled
@pytest.mark.parametrize("name", ["5_hist_fig_ismale", "117_us_state_FL", "131_temp_cat_Typical_Time"])
def test_real_sets_are_read_and_split(name: str) -> None:
    found = read_set(name, 1200)
    one = split(found, 0)
    most = min(len(found.texts) - 100, 1024)
    # The last of the three repeats its prompts so much that some must be set aside.
    assert 0.8 * most < len(one.train) <= most
    assert len(one.train) == most or len(set(found.texts)) < len(found.texts) / 2
    assert len(one.test) > 20
    assert 0 < int(found.labels[one.test].sum()) < len(one.test)


@pulled
def test_the_shifted_qnli_prompts_lack_their_question() -> None:
    rows = list(read_texts("probe-texts/ood/90_glue_qnli_OOD"))
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row.text, set()).add(row.meta["label"])
    assert len(rows) == 300
    assert len(labels) == 167
    assert sum(len(found) == 2 for found in labels.values()) == 22
    # The set itself asks first: `question | passage`.
    plain = read_set("90_glue_qnli", 200)
    assert sum("? | " in text for text in plain.texts) > 150
    assert not any("? | " in text for text in labels)
    assert Counter(row.meta["label"] for row in rows).total() == 300
