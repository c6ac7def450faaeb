import pytest

from perimetry.activations.policy import TokenPolicy
from perimetry.errors import PolicyMismatch


def test_the_threshold_is_the_ratio_times_the_median():
    policy = TokenPolicy(sink_ratio=4.0)
    assert policy.fitted(2.5).max_norm == 10.0
    assert policy.max_norm is None


def test_another_policy_is_refused_field_by_field():
    mine = TokenPolicy(max_norm=3.0)
    mine.require_same(TokenPolicy(max_norm=3.0), "the meter")
    with pytest.raises(
        PolicyMismatch, match="of the meter is another one: prepend_bos is False, wanted True; max_norm"
    ):
        mine.require_same(TokenPolicy(prepend_bos=False, max_norm=4.0), "the meter")
