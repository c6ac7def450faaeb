"""The formulas that certificates lean on, against the reference libraries; and readers against the formulas by a certificate."""

from pathlib import Path

import pytest
import torch
from tests.sae.formats.families.evaluate import GOLDEN, vectors, worst
from tests.sae.formats.families.opened import opened_here
from tests.sae.formats.families.test_golden import CASES, Case, read
from tests.sae.formats.families.test_openai import put, rows, state

from perimetry.sae import ARCHITECTURES
from perimetry.sae.formats.build import to_sae
from perimetry.sae.formats.certificate import certify
from perimetry.sae.formats.convert import REFERENCES
from perimetry.sae.formats.families import READERS
from perimetry.sae.formats.reference import Reference


def formula(case: Case) -> Reference:
    with opened_here():
        return REFERENCES[case.family](GOLDEN / case.folder / case.path, case.overrides, unsafe_pickle=True)


@pytest.mark.parametrize("case", CASES, ids=[case.folder for case in CASES])
def test_the_formula_is_the_library(case: Case) -> None:
    wanted = vectors(case.folder)
    made = formula(case)
    codes = made.codes(wanted.x)
    if case.folder != "llamascopium/topk":  # in units of unit rows there, as the reader's are; the output says the rest
        assert worst(codes, wanted.codes) <= 1e-5
    assert ((codes != 0) == (wanted.codes != 0)).all()
    assert worst(made.output(wanted.x, codes), wanted.reconstruction) <= 1e-5
    assert "written apart from the reader" in made.statement


@pytest.mark.parametrize("case", CASES, ids=[case.folder for case in CASES])
def test_a_certificate_agrees(case: Case) -> None:
    record = read(case.folder)
    if record.transcoder and "transcoder" not in ARCHITECTURES:
        pytest.skip("the architecture is not in the table yet")
    made = certify(to_sae(record), record, formula(case))
    assert made.verdict in ("exact", "structural"), made.certificate["reasons"]


@pytest.mark.parametrize("topk", [True, False])
def test_openai_by_a_certificate(topk: bool, tmp_path: Path) -> None:
    file = put(
        tmp_path, "resid_post_mlp_v5_32k" if topk else "mlp_post_act", {"activation": "ReLU"} | state(4, topk=topk)
    )
    with opened_here():
        record = READERS["openai"].read(file, {}, unsafe_pickle=True)
        made = REFERENCES["openai"](file, {}, unsafe_pickle=True)
    certified = certify(to_sae(record), record, made, activations=torch.from_numpy(rows()).float())
    assert certified.verdict != "failed", certified.certificate["reasons"]
    spoiled = certify(to_sae(record._replace(subtract_b_dec=False)), record, made)
    assert spoiled.verdict == "failed"


def test_every_reader_has_a_formula() -> None:
    assert READERS.keys() - {"temporal"} <= REFERENCES.keys(), "the formula of the temporal family is tested with it"
