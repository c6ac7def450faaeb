"""What must come out of the lab `steering`, said before it was run. Numbers in the sentences are those of the study or of its rebuild."""

from perimetry.labs.base import Asked, Column, Expectation
from perimetry.labs.points import BASELINES, CONCEPTS

__all__ = ["ASKED", "EXPECTED"]

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
        control=True,
    ),
    Expectation(
        "toy_unpushed", "contrast", "and the direction does no more than they", -0.2, 0.2, "v, 2", control=True
    ),
)
_PUBLISHED = (
    Expectation(
        "toy",
        "published rule: success",
        "the published rule errs: it calls damage a success in one of three seeds",
        least=1.0,
        case="damage",
        needed=1 / 3,
    ),
    Expectation(
        "toy",
        "positive_published",
        "and with its normaliser the opposite of the planted direction promotes what it suppresses, in one of three",
        least=0.0,
        case="v, -2",
        needed=1 / 3,
    ),
)
EXPECTED = (*_ZERO, *_TOY, *_METER, *_PUBLISHED, *_CONTROLS)

_SCORES = (*CONCEPTS, *BASELINES, "nll")
_PUSHES = {
    "planted, 1": "v, 1",
    "planted, 2": "v, 2",
    "drawn at random, 1": "random 0, half as long",
    "drawn at random, 2": "random 0",
    "contrastive, 2": "CAA",
    "damage, 12": "damage",
}
ASKED = (
    Asked(
        "How far has an intervention left what the site usually holds?",
        "AUROC of pushed answers against the same ones without a push; .5: no use. The number is the length of the push; likelihood is that of the answer.",
        tuple(Column(name, "toy", "AUROC", f"{{score}}, {push}") for name, push in _PUSHES.items()),
        _SCORES,
    ),
    Asked(
        "Does it follow the dose, and does it say whether a push steers?",
        "Rank correlation of mean score and dose (1 is wanted), and the AUROC of the planted direction less that of a random one of the same "
        "length, without its sign (0: it sees distance, not direction).",
        (
            Column("follows the dose", "toy", "mean score follows the dose"),
            Column("planted against random", "toy", "steering told from a random push"),
        ),
        _SCORES,
    ),
)
