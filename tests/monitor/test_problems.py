"""Refusals have a status, a type and, where somebody shall come again, a time."""

import pytest

from perimetry.monitor.problems import PROBLEMS, Problem


@pytest.mark.parametrize("kind", PROBLEMS)
def test_each_problem_is_a_document(kind: str) -> None:
    found = Problem(kind, "why").document("id-1")
    assert found["type"] == f"urn:perimetry:problem:{kind}"
    assert 400 <= found["status"] <= 599
    assert found["detail"] == "why"
    assert found["instance"] == "id-1"
    assert ("retry_after_s" in found) == (found["status"] in (429, 503))


def test_what_is_not_said_is_left_out_and_what_is_not_in_the_table_is_refused() -> None:
    assert set(Problem("internal").document("x")) == {"type", "title", "status", "instance"}
    assert Problem("loading", retry_after_s=7, checks={"model": "loading"}).document("x")["retry_after_s"] == 7
    with pytest.raises(KeyError):
        Problem("teapot")
