"""What must come out of the lab `sae-geometry`, said before it was run. Numbers in the sentences are those of the study or of its rebuild."""

from perimetry.labs.base import Asked, Column, Expectation
from perimetry.labs.points import BASELINES, CONCEPTS

__all__ = ["ASKED", "EXPECTED"]

_A = (
    Expectation("a_spade", "lowest F1", "SpaDE sees all six clusters (.98 to 1.00)", least=0.95),
    Expectation("a_spade", "active latents", "with 13 to 15 active latents", 13, 15),
    *(
        one
        for arm, name in (("a_relu", "ReLU"), ("a_jumprelu", "JumpReLU"))
        for one in (
            Expectation(arm, "lowest F1 of an outer cluster", f"{name} sees the outer clusters", least=0.9),
            Expectation(arm, "highest F1 of an inner cluster", f"{name} does not see the inner ones (.54)", most=0.6),
        )
    ),
    Expectation(
        "a_topk_18", "highest F1 of an inner cluster", "TopK does not see the inner ones either (.55)", most=0.65
    ),
    Expectation("a_topk_2", "largest error", "TopK with two latents has hardly an error", most=1e-5),
    Expectation("a_topk_2", "highest F1", "and sees nothing: the error is no guide", most=0.2),
)
_B = (
    *(
        Expectation(
            f"b_topk_{k}",
            "error",
            f"TopK of {k} {'reconstructs' if k > dim else 'cannot reconstruct'} a cluster of {dim} dimensions",
            None if k > dim else 0.18,
            0.12 if k > dim else None,
            f"{dim} dimensions",
        )
        for k in (4, 10, 20)
        for dim in (2, 6, 14, 30)
    ),
    *(
        Expectation(
            "b_spade",
            "active latents over dimension",
            f"SpaDE gives a cluster of {dim} dimensions about as many latents",
            round(1 / factor, 3),
            factor,
            f"{dim} dimensions",
        )
        for dim, factor in ((2, 1.9), (6, 1.45), (14, 1.45), (30, 1.45))
    ),
    Expectation("b_spade", "largest error", "reconstructs each", most=0.13),
    Expectation("b_spade", "co-activation", "and shares none between clusters", most=0.01),
)
_C = (
    Expectation(
        "c_matching_pursuit", "lowest match", "matching pursuit finds all twenty nodes of the tree", least=0.85
    ),
    Expectation("c_matching_pursuit", "absorption", "and does not absorb parents into children", most=0.1),
    Expectation("c_standard", "absorption", "an L1 dictionary does (.49 to .50)", least=0.35),
)
_METER = (
    Expectation(
        "held_out_spade",
        "AUROC of the held-out inner cluster",
        "SpaDE's energy sees a cluster inside the hull that it has not seen",
        0.95,
        None,
        "energy",
    ),
    Expectation(
        "held_out_spade",
        "AUROC of the held-out inner cluster",
        "which Mahalanobis takes for more than normal",
        None,
        0.4,
        "mahalanobis",
    ),
    Expectation(
        "held_out_spade",
        "AUROC of the far cluster",
        "SpaDE's count falls far away: read it two-sided",
        None,
        0.05,
        "l0",
    ),
    Expectation("held_out_relu", "AUROC of the far cluster", "and that of ReLU rises", 0.95, None, "l0"),
    Expectation(
        "b_spade",
        "mean score follows the angle",
        "SpaDE's error follows the angle of a turned support",
        0.9,
        None,
        "recon_error",
    ),
    *(
        Expectation(
            "b_spade", f"AUROC at {angle} degrees", f"and tells it at {angle} degrees", 0.95, None, "recon_error"
        )
        for angle in ("22.5", "45", "90")
    ),
    Expectation("b_topk_20", "AUROC at 90 degrees", "the count of TopK cannot", 0.49, 0.51, "l0"),
)
_CONTROLS = (
    Expectation("a_spade_heavy", "highest F1", "too large a penalty breaks SpaDE", most=0.7),
    Expectation("a_spade_heavy", "active latents", "with hardly any active latents (4.6)", 3.6, 5.6),
    Expectation("a_softmax", "highest F1", "a softmax in place of the projection sees nothing", most=0.4, control=True),
    Expectation("a_softmax", "active latents", "since every latent is active (127 of 128)", least=120, control=True),
    Expectation(
        "b_spade_light",
        "co-activation",
        "too small a penalty lets clusters share latents (.48)",
        least=0.4,
    ),
    Expectation(
        "held_out_spade",
        "AUROC of the same clusters again",
        "the same clusters are not told from themselves",
        0.45,
        0.55,
        "energy",
        control=True,
    ),
)
EXPECTED = (*_A, *_B, *_C, *_METER, *_CONTROLS)

_SCORES = (*CONCEPTS, *BASELINES, "exact likelihood")
_NEW = {
    "held-out cluster": "the held-out inner cluster",
    "origin": "the cluster at the origin",
    "far cluster": "the far cluster",
    "control: the same clusters": "the same clusters again",
}
ASKED = (
    *(
        Asked(
            f"Is a region unsupported, even inside the hull of what is known? By a dictionary of kind {kind}.",
            "AUROC against five known clusters; .5: no use, 0: told apart, with the score falling. The likelihood is exact, of the world itself.",
            tuple(Column(name, arm, f"AUROC of {case}") for name, case in _NEW.items()),
            _SCORES,
        )
        for kind, arm in (("SpaDE", "held_out_spade"), ("ReLU", "held_out_relu"))
    ),
    *(
        Asked(
            f"Does a score see a support that turned away, centre and size the same? By a dictionary of kind {kind}.",
            "AUROC against the cluster before it turned; .5: no use.",
            tuple(Column(f"{angle} degrees", arm, f"AUROC at {angle} degrees") for angle in ("22.5", "45", "90")),
            _SCORES,
        )
        for kind, arm in (("SpaDE", "b_spade"), ("TopK", "b_topk_20"))
    ),
)
