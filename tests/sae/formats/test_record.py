"""Records: what folding leaves as it was, what is refused, what is built."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perimetry.errors import ConfigError, CorruptArtifact, Incompatible, NonFinite, PerimetryError
from perimetry.runtime import generator
from perimetry.sae.formats.build import to_sae
from perimetry.sae.formats.checks import check_record, warnings_of
from perimetry.sae.formats.fields import Fields
from perimetry.sae.formats.fold import fold_decoder_norms, fold_scale, fold_selection_norms, fold_whitening
from perimetry.sae.formats.record import (
    BatchTopKGate,
    Declared,
    Gate,
    GatedGate,
    JumpReLUGate,
    MatchingPursuitGate,
    Record,
    ReLUGate,
    Source,
    TopKGate,
)

D, N = 6, 20


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


GATES: dict[str, Gate] = {
    "relu": ReLUGate(),
    "jumprelu": JumpReLUGate(numbers(1, N).abs()),
    "batchtopk": BatchTopKGate(4, 0.3),
    "topk": TopKGate(5),
    "gated": GatedGate(numbers(2, N), numbers(3, N), 0.3 * numbers(4, N)),
    "matching_pursuit": MatchingPursuitGate(0.1, 4, True),
}


def record(kind: str = "relu", seed: int = 0, /, **changes: Any) -> Record:
    rows = torch.nn.functional.normalize(numbers(seed, N, D), dim=1) * (0.5 + numbers(seed + 1, N, 1).abs())
    made = Record(
        architecture=kind,
        W_enc=None if kind == "matching_pursuit" else numbers(seed + 2, N, D),
        b_enc=None if kind in ("matching_pursuit", "gated") else numbers(seed + 3, N),
        W_dec=torch.nn.functional.normalize(rows, dim=1) if kind == "matching_pursuit" else rows,
        b_dec=numbers(seed + 4, D),
        gate=GATES[kind],
        subtract_b_dec=True,
        source=Source(family="test"),
    )
    return made._replace(**changes)


def codes_by_hand(r: Record, x: torch.Tensor) -> torch.Tensor:
    """Codes in float64, written as the definitions of the gates are."""
    x = x.double() - (r.b_dec.double() if r.subtract_b_dec else 0)
    assert r.W_enc is not None
    q = x @ r.W_enc.double().T
    gate = r.gate
    if isinstance(gate, GatedGate):
        open_ = q + gate.b_gate.double() > 0
        return open_ * torch.relu(q * gate.r_mag.double().exp() + gate.b_mag.double())
    assert r.b_enc is not None
    p = q + r.b_enc.double()
    if isinstance(gate, JumpReLUGate):
        return torch.relu(p) * (p > gate.threshold.double())
    if isinstance(gate, BatchTopKGate):
        return torch.relu(p) * (p > gate.threshold)
    if isinstance(gate, TopKGate):
        keep = torch.zeros_like(p).scatter_(1, p.topk(gate.k, dim=1).indices, 1)
        return torch.relu(p) * keep
    return torch.relu(p)


def output_by_hand(r: Record, x: torch.Tensor) -> torch.Tensor:
    return codes_by_hand(r, x) @ r.W_dec.double() + r.b_dec.double()


ENCODED = sorted(GATES.keys() - {"matching_pursuit"})


@pytest.mark.parametrize("gate", ENCODED)
@pytest.mark.parametrize("subtract", [True, False])
@settings(max_examples=10, deadline=None)
@given(scale=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_a_folded_scale_is_the_scale(gate: str, subtract: bool, scale: float, seed: int) -> None:
    r = record(gate, seed, subtract_b_dec=subtract)
    x = numbers(seed + 9, 15, D) / scale
    folded = fold_scale(r, scale)
    torch.testing.assert_close(codes_by_hand(folded, x), codes_by_hand(r, x.double() * scale), rtol=1e-4, atol=1e-5)
    expected = output_by_hand(r, x.double() * scale) / scale
    torch.testing.assert_close(output_by_hand(folded, x), expected, rtol=1e-4, atol=1e-4 / scale)


@pytest.mark.parametrize("gate", ENCODED)
@pytest.mark.parametrize("subtract", [True, False])
def test_a_folded_whitening_is_the_whitening(gate: str, subtract: bool) -> None:
    r = record(gate, 3, subtract_b_dec=subtract)
    matrix = numbers(30, D, D) + 2 * torch.eye(D)
    mean, inverse = numbers(31, D), torch.linalg.inv(matrix.double()).float()
    x = numbers(32, 40, D)
    z = (x - mean).double() @ matrix.double()
    folded = fold_whitening(r, mean, matrix, inverse)
    torch.testing.assert_close(codes_by_hand(folded, x), codes_by_hand(r, z), rtol=1e-4, atol=1e-4)
    expected = output_by_hand(r, z) @ inverse.double() + mean.double()
    torch.testing.assert_close(output_by_hand(folded, x), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("gate", ["relu", "jumprelu", "batchtopk", "gated"])
def test_folded_norms_make_unit_rows_and_keep_the_output(gate: str) -> None:
    r = record(gate, 5)
    x = numbers(40, 30, D)
    folded = fold_decoder_norms(r)
    torch.testing.assert_close(folded.W_dec.norm(dim=1), torch.ones(N))
    norms = r.W_dec.double().norm(dim=1)
    torch.testing.assert_close(codes_by_hand(folded, x), codes_by_hand(r, x) * norms, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output_by_hand(folded, x), output_by_hand(r, x), rtol=1e-4, atol=1e-4)
    assert "decoder norms folded" in folded.notes[0]


@pytest.mark.parametrize("gate", ["topk", "matching_pursuit"])
def test_norms_are_never_folded_where_size_chooses(gate: str) -> None:
    with pytest.raises(
        Incompatible, match="chooses latents by their size, which another decoder norm would change; keep"
    ):
        fold_decoder_norms(record(gate))


def test_a_selection_by_norm_becomes_a_plain_one() -> None:
    r = record("topk", 6)
    x = numbers(41, 30, D)
    p = (x - r.b_dec).double() @ r.W_enc.double().T + r.b_enc.double()  # pyright: ignore[reportOptionalMemberAccess]
    norms = r.W_dec.double().norm(dim=1)
    chosen = torch.zeros_like(p).scatter_(1, (p * norms).topk(5, dim=1).indices, 1)
    expected = (torch.relu(p) * chosen) @ r.W_dec.double() + r.b_dec.double()
    torch.testing.assert_close(output_by_hand(fold_selection_norms(r), x), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(Incompatible, match="a selection by decoder norm with the gate ReLUGate"):
        fold_selection_norms(record("relu"))


def test_a_dead_row_survives_the_folding_of_norms() -> None:
    r = record("relu")
    rows = r.W_dec.clone()
    rows[3] = 0
    folded = fold_decoder_norms(r._replace(W_dec=rows))
    assert bool(torch.isfinite(folded.W_dec).all())
    assert bool((folded.W_dec[3] == 0).all())


@pytest.mark.parametrize("gate", sorted(GATES))
def test_what_is_built_computes_what_the_record_says(gate: str) -> None:
    r = record(gate, 7)
    sae = to_sae(r)
    x = numbers(50, 25, D)
    out = sae(x)
    assert not any(p.requires_grad for p in sae.parameters())
    if gate != "matching_pursuit":
        torch.testing.assert_close(out.codes.dense().double(), codes_by_hand(r, x), rtol=1e-4, atol=1e-5)
    dense = out.codes.dense().double() @ r.W_dec.double() + r.b_dec.double()
    torch.testing.assert_close(out.reconstruction.double(), dense, rtol=1e-4, atol=1e-4)


def test_a_scaled_pursuit_reconstructs_the_same() -> None:
    r = record("matching_pursuit", 8)
    x = numbers(51, 25, D)
    plain, folded = to_sae(r)(4 * x), to_sae(fold_scale(r, 4.0))(x)
    torch.testing.assert_close(folded.reconstruction, plain.reconstruction / 4, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(folded.codes.dense(), plain.codes.dense() / 4, rtol=1e-4, atol=1e-5)


REFUSED: list[tuple[dict[str, Any], type[PerimetryError], str]] = [
    ({"W_enc": torch.zeros(N, D)}, CorruptArtifact, "W_enc is all zero, that is no trained SAE"),
    ({"W_dec": torch.zeros(N, D)}, CorruptArtifact, "W_dec is all zero"),
    ({"W_enc": torch.ones(D, N)}, CorruptArtifact, r"W_enc has shape \(6, 20\), wanted \(20, 20\)"),
    ({"b_enc": torch.full((N,), torch.inf)}, NonFinite, "NaN or infinity in 'b_enc'"),
    ({"b_enc": torch.ones(N, dtype=torch.int32)}, CorruptArtifact, "b_enc is torch.int32"),
    ({"b_enc": None}, CorruptArtifact, "has no b_enc, which ReLUGate needs"),
    ({"W_enc": None}, CorruptArtifact, "has no W_enc, which ReLUGate needs"),
    ({"gate": TopKGate(0)}, ConfigError, "k = 0 for a dictionary of 20 latents; .* give it with --set k="),
    ({"gate": TopKGate(21)}, ConfigError, "k = 21 for a dictionary of 20 latents"),
    ({"gate": BatchTopKGate(3, -1.0)}, Incompatible, "the threshold is -1, which means that it was never fitted"),
    ({"gate": BatchTopKGate(3, torch.nan)}, NonFinite, "the threshold is nan"),
    ({"gate": JumpReLUGate(torch.ones(3))}, CorruptArtifact, r"threshold has shape \(3,\), wanted \(20,\)"),
    (
        {"gate": MatchingPursuitGate(0.1, 0, True)},
        ConfigError,
        "matching pursuit with residual_threshold 0.1 and max_iter",
    ),
    ({"W_skip": torch.ones(D, D)}, Incompatible, "with a skip but is no transcoder; say where its output belongs"),
    ({"W_dec": torch.ones(N, 5), "b_dec": torch.ones(5)}, Incompatible, "reads width 6, writes 5 but is no transcoder"),
    ({"transcoder": True}, Incompatible, "a transcoder that takes b_dec off its input"),
]


@pytest.mark.parametrize(("changes", "error", "message"), REFUSED)
def test_what_is_not_whole_is_refused(changes: dict[str, Any], error: type[PerimetryError], message: str) -> None:
    with pytest.raises(error, match=message):
        check_record(record(**changes))


def test_negative_thresholds_are_stored_as_zero_with_a_note() -> None:
    threshold = torch.linspace(-1, 1, N)
    checked = check_record(record("jumprelu", gate=JumpReLUGate(threshold)))
    assert isinstance(checked.gate, JumpReLUGate)
    assert torch.equal(checked.gate.threshold, threshold.clamp(min=0))
    assert checked.notes == ("10 negative thresholds are stored as 0, which is the same rule",)


FOLDS: list[tuple[dict[str, Any], float, float | None, str]] = [
    ({}, 0.0, None, "an input scale of 0.0; a positive finite number is wanted"),
    ({}, float("nan"), None, "an input scale of nan"),
    ({}, 2.0, -1.0, "an output scale of -1.0"),
    ({"transcoder": True, "subtract_b_dec": False}, 2.0, None, "a transcoder whose output scale is not given"),
    ({"input_norm": "layer_norm"}, 2.0, None, "a scale beside layer_norm; only one of them can be meant"),
]


@pytest.mark.parametrize(("changes", "scale", "scale_out", "message"), FOLDS)
def test_what_cannot_be_folded_is_refused(
    changes: dict[str, Any], scale: float, scale_out: float | None, message: str
) -> None:
    with pytest.raises(Incompatible, match=message):
        fold_scale(record(**changes), scale, scale_out)


def test_whitenings_that_cannot_be_folded() -> None:
    eye = torch.eye(D)
    with pytest.raises(Incompatible, match="not each other's inverse; fetch both from the same run"):
        fold_whitening(record(), torch.zeros(D), eye, 2 * eye)
    with pytest.raises(Incompatible, match="a whitening beside a transcoder, matching pursuit"):
        fold_whitening(record("matching_pursuit"), torch.zeros(D), eye, eye)


def test_a_transcoder_has_two_scales() -> None:
    r = record(transcoder=True, subtract_b_dec=False, W_skip=numbers(9, D, D))
    folded = fold_scale(r, 2.0, 5.0)
    assert folded.W_skip is not None
    assert r.W_skip is not None
    assert r.W_enc is not None
    assert folded.W_enc is not None
    torch.testing.assert_close(folded.W_enc, r.W_enc * 2)
    torch.testing.assert_close(folded.W_dec, r.W_dec / 5)
    torch.testing.assert_close(folded.W_skip, r.W_skip * 0.4)


def test_warnings_are_never_silent() -> None:
    loud = record(source=Source(family="x", dtype="bfloat16"), declared=Declared(dead=0.5))
    assert warnings_of(loud) == [
        "the source is bfloat16: its numbers are rounded",
        "20 of 20 decoder rows are not of norm 1; measures that assume it mislead",
        "the source does not say whether texts began with BOS",
        "50 % of the latents never fired",
    ]
    quiet = fold_decoder_norms(record(policy={"prepend_bos": True}))
    assert warnings_of(quiet) == []


def test_layer_norm_is_explicit_and_codes_alone_cannot_be_decoded() -> None:
    r = record("topk", 11, input_norm="layer_norm")
    sae = to_sae(r)
    x = 3 * numbers(60, 20, D) + 1
    mean, deviation = x.mean(1, keepdim=True), x.std(1, keepdim=True, correction=1)
    z = (x - mean) / (deviation + 1e-5)
    out = sae(x)
    torch.testing.assert_close(out.codes.dense().double(), codes_by_hand(r, z), rtol=1e-4, atol=1e-4)
    expected = output_by_hand(r, z) * deviation.double() + mean.double()
    torch.testing.assert_close(out.reconstruction.double(), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(Incompatible, match="cannot be decoded alone, their token's scale is not in them; call the SAE"):
        sae.decode(out.codes)
    with pytest.raises(Incompatible, match=r"a scale of 2\.0 for a normalised dictionary"):
        sae.fold_scale(2.0)


def test_a_dictionary_that_only_encodes_reconstructs_nothing() -> None:
    sae = to_sae(record("jumprelu", reconstructs=False))
    assert sae.encode(numbers(61, 3, D)).width == N
    with pytest.raises(Incompatible, match="this dictionary only encodes: its decoder writes to other layers too"):
        sae(numbers(61, 3, D))


def test_fields_come_from_the_user_then_the_file_and_never_from_a_default() -> None:
    fields = Fields({"k": 3, "old_name": "x", "spare": 1, "null": None}, {"k": 5}, "cfg.json")
    assert fields.need("k", int) == 5
    assert fields.need("name", str, "name", "old_name") == "x"
    assert fields.may("null", int) is None
    assert fields.how == {"k": "user", "name": "file"}
    assert fields.rest() == {"spare": 1}
    assert fields.finish() == {"k": 5}
    with pytest.raises(CorruptArtifact, match=r"cfg\.json: theta is not given; its absence would mean another SAE"):
        fields.need("theta", float)


def test_fields_of_a_wrong_kind_are_refused() -> None:
    with pytest.raises(
        CorruptArtifact, match="k is '3', a whole number is wanted; mend the file or give it with --set k="
    ):
        Fields({"k": "3"}, {}, "cfg.json").need("k", int)
    with pytest.raises(CorruptArtifact, match="k is True, a whole number is wanted"):
        Fields({"k": True}, {}, "cfg.json").need("k", int)
    with pytest.raises(ConfigError, match="--set k='x': a whole number is wanted; mend it"):
        Fields({}, {"k": "x"}, "cfg.json").need("k", int)
    assert Fields({"s": 2}, {}, "cfg.json").need("s", float) == 2


def test_an_override_that_nothing_reads_is_refused() -> None:
    fields = Fields({"k": 3}, {"kk": 5}, "cfg.json")
    fields.need("k", int)
    with pytest.raises(
        ConfigError, match=r"--set kk: cfg\.json reads no such field; the nearest name is 'k'; known: k"
    ):
        fields.finish()
