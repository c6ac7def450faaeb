"""What must come out of the lab `swing-by`, said before it was run. Numbers in the sentences are those of the study or of its rebuild."""

from perimetry.labs.base import Asked, Column, Expectation
from perimetry.labs.points import BASELINES, CONCEPTS

__all__ = ["ASKED", "EXPECTED"]

PENALTIES = ("0.02", "0.05", "0.1")

_THEORY = tuple(
    one
    for name, share in (("1_2", 0.75), ("2_4", 0.75), ("three", 0.5))
    for one in (
        Expectation(
            f"two_layers_{name}",
            "training loss falls",
            "two mirrored layers: the training loss never rises",
            least=1,
        ),
        Expectation(
            f"two_layers_{name}",
            "swing",
            "two mirrored layers: the test loss swings by in most seeds",
            least=1,
            needed=share,
        ),
        Expectation(f"two_layers_{name}", "last loss", "and ends near 0", most=1e-3),
        Expectation(
            f"one_layer_{name}", "swing", "one layer: the test loss never rises, from any start", most=0, control=True
        ),
        Expectation(
            f"one_layer_{name}",
            "distance from the exact solution",
            "one layer follows the exact solution of its steps",
            most=1e-9,
            control=True,
        ),
    )
)
_NETWORKS = (
    Expectation(
        "deep_linear", "swing", "four linear layers from small weights: the test loss swings by", least=1, needed=0.9
    ),
    Expectation("deep_linear", "last loss", "and ends low", most=1e-2),
    Expectation("deep_linear", "training loss falls", "while the training loss falls at every look", least=1),
    Expectation("deep_relu", "swing", "four layers with ReLU: the test loss swings by", least=1, needed=0.8),
    Expectation("net_one_layer", "swing", "a network of one layer: no swing", most=0, control=True),
    Expectation("net_two_default", "swing", "two linear layers from the usual weights: no swing", most=0, control=True),
    Expectation(
        "order_narrow",
        "second concept first",
        "the stronger concept is learned first: the second, a = .38 and 1.38",
        least=1,
    ),
    Expectation(
        "order_wide",
        "second concept first",
        "and the first, once its variance makes it the stronger: a = 2.33 and 1.38",
        most=0,
    ),
)
_COUNT = tuple(
    one
    for penalty in PENALTIES
    for one in (
        Expectation(
            "count",
            "count grows with concepts",
            "the mean count of active latents on hidden units grows with every concept more",
            least=1,
            case=f"hidden, {penalty}",
        ),
        Expectation(
            "count",
            "count above norm",
            "the count tells one concept from two better than the norm of the input does",
            least=0,
            case=f"hidden, {penalty}",
        ),
    )
)
_CONTROL = (
    Expectation(
        "count",
        "count above norm",
        "the count of a dictionary that learned nothing does not beat the norm",
        most=0,
        case="drawn dictionary",
        control=True,
    ),
)
_METER = tuple(
    Expectation(
        "count",
        "order of the number of concepts",
        f"{name} puts inputs in the order of their number of concepts (rank correlation)",
        least=0.9,
        case=name,
    )
    for name in ("l0", "energy")
)
EXPECTED = (*_THEORY, *_NETWORKS, *_COUNT, *_CONTROL, *_METER)

_SCORES = (*CONCEPTS, *BASELINES, "input norm", "nll")
ASKED = (
    Asked(
        "Does a score put inputs in the order of their number of concepts, from one to eight?",
        "Rank correlation; 1: always, 0: no use. Read at the hidden units of the network.",
        (Column("number of concepts", "count", "order of the number of concepts"),),
        _SCORES,
    ),
    Asked(
        "Does it tell what is no composition from one that is?",
        "AUROC; random and orthogonal directions have the norm of two concepts and stand against these, opposite and doubled concepts against "
        "one; .5: no use, below .5: it takes what it was trained on for the stranger.",
        (
            *(
                Column(kind, "count", f"AUROC of {kind} against two concepts")
                for kind in ("random directions", "orthogonal directions")
            ),
            *(
                Column(kind, "count", f"AUROC of {kind} against one")
                for kind in ("opposite concepts", "doubled concepts")
            ),
        ),
        _SCORES,
    ),
    Asked(
        "Does it take what is rare, and was trained on, for strange?",
        "AUROC of fresh points of a cluster that held a hundredth of all training points, against the others; .5 is wanted.",
        (Column("rare cluster", "count_rare", "AUROC of the rare cluster against the others"),),
        _SCORES,
    ),
)
