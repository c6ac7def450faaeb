"""What must come out of the lab `markov-mixture`, said before it was run. Numbers in the sentences are those of the study or of its rebuild."""

from perimetry.labs.base import Asked, Column, Expectation
from perimetry.labs.points import BASELINES, CONCEPTS

__all__ = ["ASKED", "EXPECTED"]

_RETRIEVED = {"n4": 0.58, "n32": 0.43, "n512": 0.28}
_RATIO = {
    "n4": {5: 0.78, 10: 0.91, 25: 0.99, 50: 1.0, 100: 1.0},
    "n32": {5: 0.61, 10: 0.75, 25: 0.94, 50: 0.995, 100: 1.0},
    "n512": {5: 0.55, 10: 0.58, 25: 0.81, 50: 0.97, 100: 0.999},
}
_ALONE = {
    "n4": {5: 0.77, 10: 0.88, 25: 0.97, 50: 0.99, 100: 0.996},
    "n32": {5: 0.58, 10: 0.69, 25: 0.85, 50: 0.94, 100: 0.97},
    "n512": {5: 0.52, 10: 0.53, 25: 0.63, 50: 0.79, 100: 0.89},
}

_REFERENCE = tuple(
    one
    for arm, value in _RETRIEVED.items()
    for one in (
        Expectation(
            arm,
            "KL of an algorithm",
            "inferring the steps is near the truth everywhere (.088)",
            0.073,
            0.103,
            "Bi-Inf, unseen",
        ),
        Expectation(
            arm, "KL of an algorithm", "inferring the states is not (.35 to .45)", 0.27, 0.53, "Uni-Inf, unseen"
        ),
        Expectation(
            arm,
            "KL of an algorithm",
            f"retrieving a chain is far from the truth on unseen chains ({value:g})",
            value - 0.08,
            value + 0.08,
            "Bi-Ret, unseen",
        ),
        Expectation(arm, "KL of an algorithm", "and near it on the mixture", most=0.01, case="Bi-Ret, mixture"),
        *(
            Expectation(
                arm,
                "KL of an algorithm",
                f"inferring the steps from {length} states only gives {line:g}",
                line - 0.015,
                line + 0.015,
                f"Bi-Inf, unseen, context {length}",
            )
            for length, line in ((10, 0.36), (50, 0.15))
        ),
    )
)
_DETECTORS = tuple(
    Expectation(
        arm,
        "optimal AUROC",
        f"the {name} tells unseen chains after {length} states as published ({value:g})",
        round(value - 0.03, 3),
        round(min(value + 0.03, 1.0), 3),
        f"{name}, fresh, context {length}",
    )
    for name, table in (("likelihood ratio", _RATIO), ("likelihood", _ALONE))
    for arm, row in table.items()
    for length, value in row.items()
)
_NEAR = tuple(
    one
    for arm in _RETRIEVED
    for one in (
        Expectation(
            arm,
            "optimal AUROC",
            "chains a little off are seen by the likelihood ratio (.93 to .94)",
            least=0.9,
            case="likelihood ratio, near, beta 10, context 100",
        ),
        Expectation(
            arm,
            "optimal AUROC",
            "chains that are very near hardly (.6)",
            0.55,
            0.65,
            "likelihood ratio, near, beta 100, context 100",
        ),
        Expectation(
            arm,
            "optimal AUROC",
            "and not by the likelihood alone (.47 to .51)",
            0.44,
            0.54,
            "likelihood, near, beta 10, context 100",
        ),
    )
)
_MODELS = (
    Expectation(
        "n512",
        "KL on unseen chains above Bi-Inf",
        "with 512 chains the model ends near inferring the steps (.110 and .088)",
        -0.03,
        0.03,
    ),
    Expectation("n512", "KL apart", "and is as good on unseen chains as on the mixture", most=0.01),
    Expectation("n4", "KL on the mixture", "with 4 chains it ends near the truth on the mixture (.008)", most=0.05),
    Expectation("n4", "KL on unseen chains", "and far from it elsewhere (.59)", least=0.4),
    Expectation(
        "n32",
        "rise after the least KL on unseen chains",
        "with 32 chains what was learned for unseen chains is lost again (.30)",
        least=0.15,
    ),
    Expectation("n32", "fall on the mixture meanwhile", "while the error on the mixture falls", least=0.0),
    *(
        Expectation(
            arm,
            "error of foretelling",
            "after the transition, the mix fitted on the mixture foretells the error on unseen chains (.04)",
            most=0.05,
            case="after the transition",
        )
        for arm in ("n32", "n512")
    ),
)
_CONTROLS = tuple(
    one
    for arm in _RETRIEVED
    for one in (
        Expectation(
            arm, "untrained minus Uni-Inf", "an untrained model is no better than Uni-Inf", least=0.0, control=True
        ),
        Expectation(
            arm,
            "optimal AUROC",
            "sequences of the mixture under another name cannot be told from it, even by the best detector",
            0.47,
            0.53,
            "likelihood ratio, relabelled, context 50",
            control=True,
        ),
    )
)
_LATE = (
    *(
        Expectation(
            arm,
            "weight of a silly algorithm",
            "an algorithm that nobody would run gets no weight",
            most=0.05,
            case=case,
        )
        for arm in _RETRIEVED
        for case in ("even", "again")
    ),
    Expectation(
        "n512",
        "KL on shuffled contexts, further from Uni-Inf than from Bi-Inf",
        "contexts without their order leave a model of 512 chains nearer to Uni-Inf than to Bi-Inf",
        most=0.0,
    ),
    Expectation(
        "n512",
        "error of foretelling without Bi-Inf",
        "a mix that may not infer steps cannot foretell it",
        least=0.15,
    ),
    *(
        Expectation(
            arm,
            "AUROC",
            f"{score} does not tell the mixture from itself",
            0.47,
            0.53,
            f"{score}, relabelled, context 100",
        )
        for arm in _RETRIEVED
        for score in ("energy", "surprise", "mahalanobis", "knn", "nll")
    ),
)
_AT_SCALE = (
    *(
        Expectation(
            f"published_rotary_n{n}",
            "KL on unseen chains",
            f"at the published scale, {n} chains end at {value:g} on unseen ones (read from a figure)",
            round(value - tolerance, 3),
            round(value + tolerance, 3),
        )
        for n, value, tolerance in (
            (4, 0.55, 0.08),
            (16, 0.55, 0.08),
            (32, 0.49, 0.08),
            (512, 0.1, 0.03),
            (2048, 0.1, 0.03),
        )
    ),
    *(
        Expectation(
            f"published_rotary_n{n}",
            "KL of an algorithm",
            f"retrieving a chain after 400 states gives {value:g} there",
            round(value - 0.08, 3),
            round(value + 0.08, 3),
            "Bi-Ret, unseen, context 400",
        )
        for n, value in ((4, 0.83), (64, 0.67), (1024, 0.61))
    ),
    *(
        Expectation(
            "published_rotary_n4",
            "KL of an algorithm",
            f"and inferring the steps from {length} states {value:g}",
            round(value - 0.015, 3),
            round(value + 0.015, 3),
            f"Bi-Inf, unseen, context {length}",
        )
        for length, value in ((100, 0.26), (400, 0.1))
    ),
)
EXPECTED = (*_REFERENCE, *_DETECTORS, *_NEAR, *_MODELS, *_CONTROLS, *_LATE, *_AT_SCALE)

_SCORES = (*CONCEPTS, *BASELINES, "nll", "entropy")
_PUBLISHED = tuple(f"published_rotary_n{n}" for n in (4, 64, 1024))
_SEEN = {"n4": 10, "n32": 25, "n512": 50}
"""Context at which the best detector is neither blind nor perfect."""
ASKED = (
    Asked(
        "Which part of what can be told of unseen chains at all does a score tell?",
        "(AUROC - .5) over that of the exact likelihood ratio, at contexts where that lies in .6 to .98; 1: all, 0: nothing. At the end of training.",
        tuple(
            Column(f"{arm.rpartition('n')[2]} chains", arm, "share of the optimum", "{score}, last look")
            for arm in (*_RETRIEVED, *_PUBLISHED)
        ),
        _SCORES,
    ),
    Asked(
        "And which part one block earlier?",
        "The same of the output of the first block.",
        tuple(
            Column(f"{arm.rpartition('n')[2]} chains", arm, "share of the optimum", "{score}, block 0")
            for arm in (*_RETRIEVED, *_PUBLISHED)
        ),
        _SCORES,
    ),
    *(
        Asked(
            f"What else does it see, in a model of {arm[1:]} chains?",
            f"AUROC against the mixture after {length} states (chains a little off: after 100); .5: no use.",
            (
                Column("unseen chains", arm, "AUROC", f"{{score}}, fresh, context {length}"),
                Column("chains a little off", arm, "AUROC", "{score}, near, beta 10, context 100"),
                Column("order lost", arm, "AUROC", f"{{score}}, shuffled, context {length}"),
                Column("even draws", arm, "AUROC", f"{{score}}, iid, context {length}"),
                Column("rarest chain", arm, "AUROC", f"{{score}}, rarest chain, context {length}"),
                Column("control: the mixture again", arm, "AUROC", f"{{score}}, relabelled, context {length}"),
            ),
            _SCORES,
        )
        for arm, length in _SEEN.items()
    ),
)
