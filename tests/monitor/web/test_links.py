"""Only addresses that are made here lead elsewhere."""

import pytest
from tests.monitor.web.payloads import PAYLOADS

from perimetry.monitor.web.links import NEURONPEDIA, concept_url


def test_a_concept_with_a_label_in_a_known_dictionary_has_a_page() -> None:
    assert (
        concept_url("gemma-2-2b/12-gemmascope-res-16k", 5, "a") == f"{NEURONPEDIA}/gemma-2-2b/12-gemmascope-res-16k/5"
    )
    assert NEURONPEDIA == "https://www.neuronpedia.org"


@pytest.mark.parametrize("name", [None, 7, "", "a", "a/b/c", "../b", "a/..b/", "A/b", "a/b?c", "a/b#c", "a/b\n", "ä/b"])
def test_any_other_name_has_none(name: object) -> None:
    assert concept_url(name, 5, "a") is None


def test_no_text_that_wants_to_become_code_has_one() -> None:
    assert [text for text in PAYLOADS if concept_url(text, 5, "a")] == []
