"""What must come out of the lab `formal-languages`, said before it was run. Numbers in the sentences are those of the study or of its rebuild."""

from perimetry.labs.base import Asked, Column, Expectation
from perimetry.labs.formal_languages.attachment import DOSES, SCORES

__all__ = ["ASKED", "EXPECTED"]

_EVERY = ("dyck", "expr", "english")
_SPARSE = "deep validity"
_BASE = tuple(
    Expectation(arm, "validity", "what the model writes is valid (.984 to 1.0)", 0.95, None, "model") for arm in _EVERY
)
_TOPK = (
    Expectation("dyck", _SPARSE, "one latent a token does not close deep brackets (.19)", None, 0.35, "topk 1"),
    Expectation("dyck", _SPARSE, "eight do (.945)", 0.85, None, "topk 8"),
)
_L1 = tuple(
    one
    for arm in _EVERY
    for one in (
        Expectation(
            arm,
            "validity less that of the model",
            "L1 averaged over tokens keeps the behaviour (.984 to .996)",
            -0.03,
            0.03,
            "l1 0.3",
        ),
        Expectation(arm, "unexplained", "and the states", None, 0.01, "l1 0.3"),
        Expectation(arm, "active latents", "L1 summed over the batch silences all", None, 0.5, "l1 as released"),
        Expectation(arm, "unexplained", "and explains nothing", 0.95, None, "l1 as released"),
    )
) + tuple(
    Expectation(arm, "validity", "so that L1 seems to fail: an artefact of scale (0)", None, 0.05, "l1 as released")
    for arm in ("dyck", "english")
)
_NORM = tuple(
    one
    for arm in _EVERY
    for one in (
        Expectation(
            arm,
            "nats lost",
            "states of norm 1, put back as they are, damage the model (.50 to 1.44)",
            0.3,
            None,
            "normalised, unscaled",
        ),
        Expectation(
            arm,
            "validity less that of the model",
            "times the norm they do not (at least .98)",
            -0.03,
            None,
            "normalised, rescaled",
        ),
    )
)
_SLOW = (
    Expectation("dyck", _SPARSE, "hardly trained, few latents fail (.19)", None, 0.35, "slow topk 4 of 1x"),
    Expectation("dyck", _SPARSE, "and many seem to help (.74): the published trend", 0.5, None, "slow topk 16 of 1x"),
)
_CAUSAL = (
    Expectation(
        "dyck", "times straighter", "a causal loss of weight 100 straightens (6.7, 7.5)", 4, None, "causal 100"
    ),
    Expectation("dyck", "validity lost to it", "at the cost of behaviour (.79, .89)", 0.5, None, "causal 100"),
    Expectation("dyck", "times straighter", "of weight 1 it does little (1.3)", 1, 2, "causal 1"),
    Expectation("dyck_long", "times straighter", "trained for long, weight 1 straightens", 5, None, "causal 1"),
    Expectation("dyck_long", "validity lost to it", "at equal behaviour", None, 0.03, "causal 1"),
)
_METER = (
    Expectation("dyck", "AUROC of 4 exchanged", "surprise sees four exchanged tokens (.93)", 0.85, None, "bernoulli"),
    Expectation("dyck", "score follows the dose", "and follows their number (.63)", 0.5, None, "bernoulli"),
    Expectation("dyck", "AUROC of nested", "and what is legal and deeper than any (.87)", 0.75, None, "bernoulli"),
    Expectation("dyck", "AUROC of 1 exchanged", "likelihood sees each exchanged token (1.0)", 0.95, None, "nll"),
    Expectation("dyck", "AUROC of nested", "and finds what is deep likelier than usual (.04)", None, 0.5, "nll"),
)
_CONTROLS = (
    *(
        Expectation(arm, "validity", f"states that are all {what} write nothing valid", None, 0.05, case, control=True)
        for arm in ("dyck", "english")
        for case, what in (("mean", "the same"), ("zero", "0"))
    ),
    Expectation(
        "dyck", _SPARSE, "drawn directions do not close deep brackets", None, 0.35, "drawn dictionary", control=True
    ),
    *(
        Expectation(
            "dyck",
            "AUROC of known again",
            f"{score} does not tell strings from strings of the same kind",
            0.4,
            0.6,
            score,
            control=True,
        )
        for score in ("bernoulli", "energy", "mahalanobis", "nll")
    ),
)
EXPECTED = (*_BASE, *_TOPK, *_L1, *_NORM, *_SLOW, *_CAUSAL, *_METER, *_CONTROLS)

_KINDS = {
    **{f"{dose} exchanged": f"{dose} exchanged" for dose in DOSES},
    "nested": "legal, nested deeper than any",
    "shallower": "flatter brackets",
    "crossed": "brackets that cross",
    "known again": "control: the same kind again",
}
ASKED = (
    Asked(
        "Does a score see exchanged tokens, and legal strings that are new?",
        "AUROC against strings of the training grammar, 10 to 24 tokens long, mean over their tokens; .5: no use, below: reversed.",
        tuple(Column(name, "dyck", f"AUROC of {kind}") for kind, name in _KINDS.items()),
        SCORES,
    ),
    Asked(
        "Does it follow the dose, and does it tell what the grammar does not give?",
        "Rank correlation with the number of exchanged tokens, 0 to 8 (1 is wanted), and AUROC of strings that are not valid against all that are.",
        (
            Column("follows the dose", "dyck", "score follows the dose"),
            Column("not valid", "dyck", "AUROC of what is not valid"),
        ),
        SCORES,
    ),
    Asked(
        "What does it see that likelihood does not?",
        "AUROC less that of likelihood on the same strings, paired; above 0: better than likelihood.",
        tuple(Column(name, "dyck", f"gain over likelihood, {kind}") for kind, name in _KINDS.items()),
        SCORES,
    ),
)
