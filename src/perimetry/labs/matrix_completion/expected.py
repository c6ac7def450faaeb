"""What must come out of the lab `matrix-completion`, said before it was run. Numbers in the sentences are those of the study or of its rebuild."""

from perimetry.labs.base import Asked, Column, Expectation
from perimetry.labs.points import BASELINES, CONCEPTS

__all__ = ["ASKED", "EXPECTED"]

_COPY = {"7x7, rank 2": (0.222, 0.0667), "5x5, rank 1": (0.111, 0.0333)}
_NUCLEAR = {
    "7x7, masked 0.1": (0.005, 0.0006),
    "7x7, masked 0.2": (0.020, 0.004),
    "7x7, masked 0.3": (0.037, 0.0115),
    "7x7, masked 0.4": (0.074, 0.028),
    "7x7, masked 0.5": (0.110, 0.055),
    "7x7, masked 0.6": (0.148, 0.088),
}
_OPEN = {"5x5": (0.016, 0.0016), "5x5, half": (0.163, 0.0175), "6x6": (0.006, 0.0005), "4x4": (0.036, 0.0047)}


def _within(arm: str, metric: str, said: str, value: float, share: float, case: str) -> Expectation:
    return Expectation(arm, metric, said, round(value * (1 - share), 6), round(value * (1 + share), 6), case)


_ALONE = (
    *(
        _within(
            "baselines",
            "error of copying",
            f"copying errs by {value:g} on {name}, {where}",
            value,
            0.03,
            f"{name}, {where}",
        )
        for name, both in _COPY.items()
        for where, value in zip(("masked", "all"), both, strict=True)
    ),
    *(
        _within(
            "baselines",
            "error of the least nuclear norm",
            f"the least nuclear norm errs by {value:g} on {name}, {where}",
            value,
            0.15,
            f"{name}, {where}",
        )
        for name, both in _NUCLEAR.items()
        for where, value in zip(("masked", "all"), both, strict=True)
    ),
    *(
        _within(
            "baselines",
            "error of the least nuclear norm",
            f"and by {value:g} on 5x5 of {decimals} decimals",
            value,
            0.15,
            f"5x5, {decimals} decimals, masked",
        )
        for decimals, value in ((2, 0.0136), (1, 0.024))
    ),
    *(
        _within("baselines", metric, f"{said} {value:g} ({name})", value, 0.25, name)
        for name, both in _OPEN.items()
        for metric, said, value in zip(
            ("share that nothing determines", "floor"),
            ("of masked entries nothing determines", "who knows all others errs by"),
            both,
            strict=True,
        )
    ),
)
_SUMS = (
    Expectation("sums", "loss of the answers", "the answers are on a plateau", 2.5, None, "step 150"),
    Expectation("sums", "step of the loss", "which they leave at once (200 to 210)", None, 230, "below 1"),
    Expectation("sums", "step of the loss", "and wholly (235 to 240)", None, 270, "below .1"),
    Expectation("sums", "step of the accuracy", "what is written is right then (195 to 205)", None, 230, "above .9"),
    Expectation("sums", "loss above what can be foretold", "nothing is left to learn", None, 0.02, "end"),
    Expectation(
        "sums",
        "growth of that attention",
        "attention has found the numbers before (.335 against .08)",
        3,
        None,
        "step 160",
    ),
    Expectation(
        "sums", "fall of the loss meanwhile", "while the loss says nothing (2.83 to 2.64)", None, 0.08, "step 160"
    ),
    Expectation("sums", "cosine of two states", "states fall together on the plateau (.977)", 0.95, None, "most"),
    Expectation("sums", "repetition", "and so does what is written (.79 to .88)", 0.7, None, "most, early"),
    Expectation("sums", "cosine of two states", "neither is left in the end", None, 0.1, "end"),
    Expectation("sums", "repetition", "nor is the other", None, 0.1, "end"),
)
_MATRICES = (
    Expectation("completion", "error of shown entries", "what is shown is copied", None, 1e-3),
    Expectation("completion", "error of masked entries", "what is masked is not known (.108 to .112)", 0.1055, 0.1167),
    *(
        Expectation("completion", "copy error", f"{c:g} in the place of the masked is copied", None, 0.05, f"{c:g}")
        for c in (0.44, -0.24)
    ),
    Expectation("completion", "f(-X) + f(X)", "signs mean nothing to it (.005 to .05)", None, 0.08),
)
_DROP = (
    Expectation("completion_tokens", "dropped", "with a token a value, the plateau ends", least=1.0),
    Expectation("completion_tokens", "share of the training that the drop takes", "at once", None, 0.1),
    Expectation("completion_tokens", "error of masked entries", "below the least nuclear norm (.0136)", None, 0.0136),
    *(
        Expectation(
            "completion_tokens",
            "copy error",
            f"and {c:g} in the place of the masked is not copied",
            0.2,
            None,
            f"{c:g}",
        )
        for c in (0.44, -0.24)
    ),
    Expectation("completion_published", "dropped", "matrices of 7 by 7 and rank 2 drop (14,000 to 16,000)", least=1.0),
    Expectation(
        "completion_published", "error of masked entries", "to less than the least nuclear norm (.037)", None, 0.037
    ),
)
_CONTROLS = (
    Expectation(
        "sums_random",
        "least loss of the answers",
        "numbers that nothing determines are never foretold (ln 17 = 2.83)",
        2.78,
        None,
        control=True,
    ),
    Expectation(
        "sums_uniform",
        "least loss of the answers",
        "with even attention there is no drop (2.76)",
        2.6,
        None,
        control=True,
    ),
    Expectation(
        "completion",
        "error of masked entries, of saying 0",
        "matrices of no rank are not completed",
        0.95,
        None,
        "no rank",
        control=True,
    ),
)
_TRAINED_ON_NOTHING = (
    Expectation(
        "completion_no_rank",
        "least error of masked entries, of saying 0",
        "a model of matrices of no rank never leaves its plateau",
        0.95,
        None,
        control=True,
    ),
)
EXPECTED = (*_ALONE, *_SUMS, *_MATRICES, *_DROP, *_CONTROLS, *_TRAINED_ON_NOTHING)

_SCORES = (*CONCEPTS, *BASELINES)
_OF_SUMS = (*_SCORES, "nll", "entropy", "collapse")
_KINDS = {
    "rank 2": "rank 2",
    "rank 5": "rank 5",
    "masked 0.7": "more masked",
    "laplace": "Laplace factors",
    "full": "no rank",
    "signs turned": "signs turned (quiet)",
    "rows exchanged": "rows exchanged (quiet)",
    "known again": "control: the same again",
}
_ODD = {
    "sums of three": "sums of three",
    "one number": "one number",
    "rising numbers": "rising numbers",
    "mark in the middle": "mark in the middle",
    "known again": "control: the same again",
}
ASKED = (
    Asked(
        "Which masked entries can nobody know?",
        "AUROC of entries that nothing determines against those that something does, by the state at the entry; .5: no use. `few beside`: fewer "
        "shown entries in the same row and column.",
        (
            Column("on the plateau", "completion", "AUROC of what nothing determines"),
            Column("trained with tokens", "completion_tokens", "AUROC of what nothing determines"),
        ),
        (*_SCORES, "few beside"),
    ),
    Asked(
        "What does a score see of other matrices?",
        "AUROC of the mean over masked entries against matrices as trained on; .5: no use, and wanted where it must stay quiet.",
        tuple(Column(name, "completion", f"AUROC of {kind}", "{score}, masked") for kind, name in _KINDS.items()),
        _SCORES,
    ),
    Asked(
        "Where answers are wrong: how many, and which?",
        "Rank correlation with the share of wrong answers (1 is wanted); AUROC of the wrong place against right ones at a tenth.",
        (
            Column("follows the share", "sums", "score follows the share of wrong answers"),
            Column("tells the place", "sums", "AUROC of the wrong place"),
        ),
        _OF_SUMS,
    ),
    Asked(
        "What does it see of sums that are odd in other ways?",
        "AUROC of the mean over answers against clean sequences; one number and rising numbers are right and rare.",
        tuple(Column(name, "sums", f"AUROC of {kind}") for kind, name in _ODD.items()),
        _OF_SUMS,
    ),
)
