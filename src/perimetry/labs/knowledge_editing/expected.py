"""What must come out of the lab `knowledge-editing`, said before it was run. Numbers in the sentences are those of the study or of its rebuild."""

from perimetry.labs.base import Asked, Column, Expectation
from perimetry.labs.knowledge_editing.attachment import LABELS
from perimetry.labs.points import BASELINES, CONCEPTS

__all__ = ["ASKED", "EXPECTED"]

ARM = "editing"


def _of(
    metric: str, said: str, least: float | None, most: float | None, case: str, *, control: bool = False
) -> Expectation:
    return Expectation(ARM, metric, said, least, most, case, control=control)


_ALGEBRA = (
    Expectation("algebra", "error of the edited value", "ROME gives the wanted value", None, 1e-10, "ROME"),
    Expectation("algebra", "error of the edited value", "r-ROME too", None, 1e-10, "r-ROME"),
    Expectation(
        "algebra", "other exact updates disturb more", "and disturbs ordinary keys least of all that do", least=1.0
    ),
    Expectation("algebra", "other updates are worse for MEMIT", "MEMIT is the least of its objective", least=1.0),
    Expectation(
        "algebra",
        "AlphaEdit's change of what is in use",
        "AlphaEdit changes nothing that ordinary keys use",
        None,
        1e-8,
        control=True,
    ),
    Expectation(
        "algebra",
        "mixed update over that of r-ROME",
        "mixed keys cost little while they are near each other (1.2 at 83 %)",
        1.0,
        1.5,
        "overlap 0.83",
    ),
    Expectation(
        "algebra",
        "mixed update over that of r-ROME",
        "and blow the update up as they part (27 at 2.5 %)",
        15.0,
        None,
        "overlap 0.025",
    ),
)
_MODEL = (
    _of("least accuracy of the orders", "the model knows every order (.96 to .98)", 0.93, None, "direct"),
    _of("least accuracy of the orders", "and composes relations (.38 to .64)", 0.35, None, "compositional"),
)
_SOUND = (
    _of("success", "ROME writes the new answer", 0.95, None, "ROME"),
    _of(
        "largest R of all orders and distances",
        "and shatters nothing, however far the new answer lies (R .005 to .023)",
        None,
        0.05,
        "ROME",
    ),
    _of("most direct accuracy lost of all orders", "nor are other facts lost", None, 0.03, "ROME"),
    _of("R over that of ROME", "r-ROME does the same", 0.9, 1.1, "r-ROME"),
    _of("X of I", "a drawn update of that norm moves the edited order about as far (X .8)", 0.6, 1.0, "ROME"),
    _of("X of II", "and other orders further (X .25)", 0.1, 0.4, "ROME"),
    _of("r2 of R and the direct accuracy lost", "of drawn updates R says what is lost (.995)", 0.95, None, "drawn"),
    _of("r2 of R and the direct accuracy lost", "of edits less so (.82)", 0.6, 0.95, "ROME"),
)
_COVARIANCE = (
    _of("R over that of ROME", "without a covariance R is larger (.028 to .051)", 1.2, None, "ROME, C = I"),
    _of("accuracy lost", "and more is lost (.04 to .08)", 0.03, 0.1, "ROME, C = I, direct"),
    _of(
        "size of the update",
        "with one of too few keys the update blows up (1.4 to 2.1)",
        1.0,
        3.0,
        "ROME, C of few keys",
    ),
    _of("R over that of ROME", "R with it (.54 to .94)", 10.0, None, "ROME, C of few keys"),
    _of("scale-free R", "but that is size, not structure (.11 to .14)", None, 0.2, "ROME, C of few keys"),
    _of("accuracy lost", "and much is lost (.13 to .20)", 0.1, 0.25, "ROME, C of few keys, direct"),
    *(
        one
        for name, r in (("ROME, first block", ".95 to 1.46"), ("r-ROME, first block", ".73 to 1.09"))
        for one in (
            _of("R over that of ROME", f"at the entity in the first block everything moves (R {r})", 10.0, None, name),
            _of("accuracy lost", "all is lost (.82 to .85)", 0.7, None, f"{name}, direct"),
            _of("success", "and the edit itself often fails (.2 to .75)", None, 0.85, name),
        )
    ),
)
_CHECK = (
    _of(
        "rank correlation with the accuracy lost",
        "R follows the accuracy lost over edits of every kind",
        0.5,
        None,
        "R, direct, every edit",
    ),
    _of("AUROC of harm", "and tells harmful edits from harmless ones", 0.9, None, "R, every edit"),
    _of("flag: none", "sound edits are not flagged", 0.95, None, "ROME"),
    _of("flag: norm blow-up", "a blow-up is flagged as one", 0.5, None, "ROME, C of few keys"),
    _of("flag: loss of structure", "exchanged names are flagged as a loss of structure", 1.0, None, "names exchanged"),
)
_CONTROLS = (
    _of("R", "an edit of scale 0 moves nothing", 0.0, 0.0, "no update", control=True),
    _of("largest change of all", "and changes no reading", 0.0, 0.0, "no update", control=True),
    _of("R", "exchanged names give a large R", 0.1, None, "names exchanged", control=True),
    _of("flag: norm blow-up", "twice as loud is a blow-up and no more", 1.0, None, "twice as loud", control=True),
    _of("most accuracy lost", "by which nothing is lost", None, 0.001, "twice as loud", control=True),
    _of(
        "rank correlation of R a norm and d",
        "to drawn updates the distance of answers means nothing but norm",
        -0.5,
        0.5,
        "drawn",
        control=True,
    ),
    *(
        _of(
            "AUROC of seen again",
            f"{score} does not tell seen facts from themselves",
            0.4,
            0.6,
            f"{score}, block 2",
            control=True,
        )
        for score in ("bernoulli", "energy", "mahalanobis", "knn")
    ),
)
_REAL = (
    Expectation(
        "real", "change of p_target", "the edit takes (.96 to 1)", 0.9, None, "months, edit, the edited prompt"
    ),
    Expectation(
        "real",
        "R over that of drawn updates",
        "in the small real model an edited month moves the ring of months (13 times)",
        5.0,
        None,
        "months, months",
    ),
    Expectation(
        "real",
        "change of nll",
        "while ordinary text hardly changes (.002)",
        None,
        0.01,
        "months, edit, ordinary text",
    ),
    *(
        Expectation(
            "real",
            "R over that of drawn updates",
            f"an edited capital leaves the ring of {ring} alone",
            None,
            2.0,
            f"capitals, {ring}",
        )
        for ring in ("months", "weekdays")
    ),
    Expectation("real", "change of siblings", "but hurts other capitals (-.13)", None, -0.05, "capitals, edit, facts"),
    Expectation("real_scaled", "R follows the scale", "the more of an update, the larger R (.02 to .38)", 0.999),
    Expectation(
        "real_scaled",
        "change of nll of a drawn update, less that of the edit",
        "four times a drawn update hurts text more than four times the edit (.026, .018), though it moves no ring",
        0.0,
    ),
)
EXPECTED = (*_ALGEBRA, *_MODEL, *_SOUND, *_COVARIANCE, *_CHECK, *_REAL, *_CONTROLS)

_SCORES = (*CONCEPTS, *BASELINES, "nll")
_DIALS = {
    "1 step": "ROME, d 1",
    "4 steps": "ROME, d 4",
    "4 times": "ROME, 4 times",
}
_READINGS = ("R", "R at the entity", "scale-free R", "change of size", "order", "loss of text", "size of the update")
_MEANS = tuple(f"mean {name}" for name in (*CONCEPTS, *BASELINES))
ASKED = (
    Asked(
        "Does the mean score of unchanged text say what an edit has done?",
        "Share of the variance over edits that it explains (1 is wanted), of R of the edited order and of the accuracy lost on siblings; "
        "and what it adds to norm, Mahalanobis, kNN and likelihood together (0: nothing).",
        (
            Column("R", ARM, "r2 with R"),
            Column("siblings lost", ARM, "r2 with siblings lost"),
            Column("R, added", ARM, "r2 with R, beyond the baselines"),
            Column("siblings, added", ARM, "r2 with siblings lost, beyond the baselines"),
        ),
        _SCORES,
    ),
    Asked(
        "Which reading of the health check follows the accuracy lost?",
        "Rank correlation over edits of every kind and size, of facts of all orders and of siblings (1 is wanted); AUROC of harmful edits "
        "(more than .1 lost) against harmless ones (less than .03).",
        (
            Column("all facts", ARM, "rank correlation with the accuracy lost", "{score}, direct, every edit"),
            Column("siblings", ARM, "rank correlation with the accuracy lost", "{score}, siblings, every edit"),
            Column("harm", ARM, "AUROC of harm", "{score}, every edit"),
        ),
        (*_READINGS, *_MEANS),
    ),
    Asked(
        "Does it see the edited fact, and how far from it?",
        "AUROC of the same prompts through edited weights against unedited ones, by the dial; .5: no use. The likelihood is that of the "
        "answer before the edit.",
        tuple(
            Column(f"{label}, {name}", ARM, "AUROC of an edit", f"{{score}}, {label}, {dial}")
            for name, dial in _DIALS.items()
            for label in LABELS
        ),
        _SCORES,
    ),
    Asked(
        "Which new inputs does it see without any edit?",
        "AUROC against prompts as in training, at the last relation, after the second block; .5: no use. Unseen pairs of relations are "
        "those that the model answers rightly: new, and not wrong.",
        tuple(
            Column(name, ARM, f"AUROC of {name}", "{score}, block 2")
            for name in ("seen again", "unseen pair of relations", "three relations", "unseen entity")
        ),
        _SCORES,
    ),
)
