"""What must come out of the lab `steering`, said before it was run. Numbers in the sentences are those of the study or of its rebuild."""

from perimetry.labs.base import Expectation

__all__ = ["EXPECTED"]

_ZERO = tuple(
    Expectation("toy", name, "no push changes nothing", 0.0, 0.0, "v, 0", control=True)
    for name in ("positive", "negative")
)
_TOY = (
    Expectation(
        "toy", "positive", "the planted direction makes positive answers likelier (.064 to .074)", 0.04, None, "v, 2"
    ),
    Expectation("toy", "negative", "and negative ones much less likely (-.66 to -1.12)", None, -0.4, "v, 2"),
    Expectation("toy", "positive", "its opposite does the opposite (-.63 to -.79)", None, -0.4, "v, -2"),
    Expectation("toy", "negative", "to both (.063 to .084)", 0.04, None, "v, -2"),
    Expectation("toy", "contrast follows the dose", "the contrast rises with the dose", least=0.999),
    Expectation(
        "toy",
        "cosine with the planted direction",
        "contrastive activations find some of it (.44 to .49)",
        0.3,
        None,
        "CAA",
    ),
    Expectation("toy", "positive", "and steer", 0.04, None, "CAA"),
    Expectation("toy", "negative", "on both sides (-.44 to -.54)", None, -0.3, "CAA"),
    Expectation("toy", "mean contrast", "random pushes do not, on the mean", None, 0.03, "random"),
    Expectation("toy", "largest contrast", "nor any of twenty (.108)", None, 0.2, "random"),
    Expectation("toy", "positive", "damage makes positive answers less likely (-.12)", None, -0.08, "damage"),
    Expectation("toy", "negative", "and negative ones as well (-.07 to -.41)", None, -0.03, "damage"),
)
_METER = (
    Expectation("toy", "mean score follows the dose", "the Bernoulli score follows the dose", 0.9, None, "bernoulli"),
    Expectation("toy", "AUROC", "and tells the planted direction at 2", 0.9, None, "bernoulli, v, 2"),
    Expectation(
        "toy",
        "steering told from a random push",
        "but not steering from a random push: it sees distance",
        None,
        0.15,
        "bernoulli",
    ),
)
_CONTROLS = (
    Expectation("toy", "verdict: steers", "damage is never called steering", None, 0.0, "damage", control=True),
    Expectation(
        "toy",
        "contrast not told from 0",
        "shuffled labels leave no contrast",
        1.0,
        None,
        "shuffled labels",
        control=True,
    ),
    Expectation(
        "toy_unpushed",
        "largest contrast",
        "where the direction was never used, random pushes do nothing",
        None,
        0.2,
        "random",
    ),
    Expectation("toy_unpushed", "contrast", "and the direction does no more than they", -0.2, 0.2, "v, 2"),
)
EXPECTED = (*_ZERO, *_TOY, *_METER, *_CONTROLS)
