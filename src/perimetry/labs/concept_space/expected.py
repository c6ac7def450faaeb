"""What must come out of the lab `concept-space`, said before it was run. Numbers in the sentences are those of the study or of its rebuild."""

from perimetry.labs.base import Asked, Column, Expectation
from perimetry.labs.points import BASELINES, CONCEPTS

__all__ = ["ASKED", "EXPECTED"]

_TIMES = {0.5: 690, 0.6: 480, 0.7: 360, 0.8: 280, 0.9: 220, 1.0: 180}
_THEORY = (
    *(
        Expectation(
            "theory_linear",
            "step of the weak concept",
            f"a concept of strength {weak:g} is learned after {step} steps",
            step - 20,
            step + 20,
            f"strength {weak:g}",
        )
        for weak, step in _TIMES.items()
    ),
    Expectation("theory_linear", "scatter of that", "that time falls with the square of its strength", None, 0.08),
    *(
        one
        for arm in ("theory_linear", "theory_mlp")
        for one in (
            Expectation(arm, "order of time and strength", "the stronger, the sooner", None, -0.999),
            *(
                Expectation(
                    arm,
                    "steps between the two",
                    f"the strong concept comes before one of {w:g}",
                    1,
                    None,
                    f"strength {w:g}",
                )
                for w in (0.5, 0.6, 0.7, 0.8, 0.9)
            ),
            Expectation(
                arm,
                "looks at a bend",
                "the path bends: one concept is there and the other missing",
                5,
                None,
                "strength 0.5",
            ),
            *(
                Expectation(arm, "looks at a bend", f"not where the other has {w:g}", None, 0, f"strength {w:g}")
                for w in (0.8, 0.9)
            ),
        )
    ),
    Expectation("theory_linear", "least gain of a wider spread", "a concept that scatters more is learned sooner", 1),
)
_BENT = {"0.2": ("small red", "big blue", 2), "0.5": ("big blue", "small red", 9), "0.8": ("big blue", "small red", 9)}
_IMAGES = (
    *(
        Expectation("images", "accuracy of the classifier", "the classifier can be trusted", 0.99, None, f"signal {s}")
        for s in ("0.2", "0.3", "0.5", "0.8")
    ),
    Expectation("images", "colour is learned sooner with every signal", "the further apart two colours, the sooner", 1),
    *(
        one
        for signal, (bent, other, least) in _BENT.items()
        for one in (
            Expectation(
                "images",
                f"looks bent to {bent}",
                f"signal {signal}: on the way there is {bent}",
                least,
                None,
                f"signal {signal}",
            ),
            Expectation("images", f"looks bent to {other}", f"and never {other}", None, 0, f"signal {signal}"),
        )
    ),
    *(
        one
        for signal in ("0.2", "0.3", "0.5", "0.8")
        for one in (
            Expectation("images", "chance of blue", "in the end it is blue", 0.95, None, f"end, signal {signal}"),
            Expectation("images", "chance of small", "and small", 0.6, None, f"end, signal {signal}"),
        )
    ),
    Expectation(
        "images",
        "gain of a drawn direction, mean",
        "a push in a drawn direction does not help",
        None,
        0.0,
        "signal 0.2",
    ),
)
_METER = (
    *(
        one
        for signal in ("0.3", "0.8")
        for one in (
            Expectation(
                "images", "unexplained", "the dictionary explains the embedding", None, 0.1, f"signal {signal}"
            ),
            Expectation(
                "images",
                "AUROC of 11",
                "surprise sees the combination that was never trained on (.97 to .99)",
                0.9,
                None,
                f"bernoulli, signal {signal}",
            ),
            Expectation(
                "images",
                "AUROC of pushed 11",
                "and more so where it is pushed",
                0.9,
                None,
                f"bernoulli, signal {signal}",
            ),
        )
    ),
    Expectation(
        "images",
        "least AUROC of 11 where it is made",
        "although the image of it is right",
        0.8,
        None,
        "signal 0.3",
    ),
)
_PUBLISHED = (
    Expectation(
        "images_long",
        "looks at which a pushed prompt shows what a plain one does not",
        "there is a step at which a pushed prompt shows what a plain one does not",
        1,
        None,
        "signal 0.2",
        needed=0.8,
    ),
)
_CONTROLS = (
    Expectation(
        "theory_linear",
        "steps between the two",
        "concepts of one strength are learned together",
        -20,
        20,
        "strength 1",
        control=True,
    ),
    *(
        Expectation(arm, "looks at a bend", "and their path does not bend", None, 0, "strength 1", control=True)
        for arm in ("theory_linear", "theory_mlp")
    ),
    Expectation(
        "images",
        "largest gain of a pushed prompt",
        "early in training nothing is hidden that a pushed prompt could show",
        None,
        0.05,
        "early, signal 0.2",
        control=True,
    ),
    Expectation(
        "images_shuffled",
        "chance that both are right",
        "where conditions say nothing, the combination is not made",
        None,
        0.25,
        "end",
        control=True,
    ),
    *(
        Expectation(
            "images",
            "AUROC of known again",
            f"{score} does not tell trained classes from themselves",
            0.4,
            0.6,
            f"{score}, signal 0.3",
            control=True,
        )
        for score in ("bernoulli", "energy", "mahalanobis", "knn")
    ),
)
EXPECTED = (*_THEORY, *_IMAGES, *_METER, *_PUBLISHED, *_CONTROLS)

_KINDS = {
    "11": "small blue, never trained on",
    "green": "green",
    "pushed 10": "big blue, pushed",
    "pushed 11": "small blue, pushed",
    "known again": "control: trained classes again",
}
ASKED = tuple(
    Asked(
        f"Is a condition unsupported? (difference of the colours {signal})",
        "AUROC against conditions of trained classes, by the embedding of the condition; .5: no use. Of small blue the image is right all the same "
        "(chances of blue and small at the end, above): unsupported is not wrong.",
        tuple(
            Column(name, "images", f"AUROC of {kind}", f"{{score}}, signal {signal}") for kind, name in _KINDS.items()
        ),
        (*CONCEPTS, *BASELINES, "raw mahalanobis", "denoising loss"),
    )
    for signal in ("0.3", "0.8")
)
