"""The counting arm says how many latents are active, and what that is worth."""

from perimetry.labs.swing_by.counts import CountConfig, run_count

SMALL = CountConfig(
    concepts=3,
    points=150,
    hidden=24,
    steps=150,
    penalties=(0.05,),
    latents=32,
    latents_x=12,
    sae_steps=40,
    sae_batch=128,
    test=60,
)


def test_every_score_and_dial_is_reported() -> None:
    found = run_count(SMALL, 0, rare=True)
    ordered = {m.case for m in found.measured if m.metric == "order of the number of concepts"}
    assert {"l0", "l0_excess", "energy", "norm", "mahalanobis", "knn", "input norm", "nll"} <= ordered
    kinds = {m.metric for m in found.measured if m.metric.startswith("AUROC of") and m.metric.endswith("two concepts")}
    assert {k.removeprefix("AUROC of ").removesuffix(" against two concepts") for k in kinds} == {
        *("random directions", "orthogonal directions", "opposite concepts", "doubled concepts")
    }
    assert any(m.metric == "AUROC of the rare cluster against the others" for m in found.measured)
    assert not any(m.metric == "slope of count" for m in found.measured), "the meter alone is asked"
    whole = run_count(SMALL, 0, rare=False)
    assert whole.value("slope of count", "x, 0.05") != 0
    assert whole.value("slope of count", "hidden, 0.05") != 0
    assert all(m.low is None or m.low <= m.value <= (m.high or 0) for m in found.measured)


def test_it_is_the_same_again_and_other_with_another_seed() -> None:
    one, same, other = (run_count(SMALL, seed, rare=False) for seed in (0, 0, 1))
    assert one == same
    assert one != other
