"""What a certificate says of right conversions, and that it catches each wrong one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from perimetry.errors import TooFewSamples, WidthMismatch
from perimetry.runtime import generator
from perimetry.sae import jumprelu
from perimetry.sae.formats import wrapped
from perimetry.sae.formats.build import to_sae
from perimetry.sae.formats.certificate import Certified, certify
from perimetry.sae.formats.fold import fold_scale
from perimetry.sae.formats.golden import KINDS_OF_ROWS, golden_inputs
from perimetry.sae.formats.hashing import tensor_hash
from perimetry.sae.formats.record import JumpReLUGate, Record, ReLUGate, TopKGate
from perimetry.sae.formats.reference import Reference, saelens_reference
from perimetry.sae.formats.saelens_read import read_saelens

from .planted import CUT, D_MODEL, L0, Planted, config_of, planted, write_folder

SCALED = {"normalize_activations": "expected_average_only_in", "norm_scaling_factor": 0.25}


@pytest.fixture
def right(tmp_path: Path) -> Planted:
    return planted(tmp_path / "right")


def judged(folder: Path, acts: torch.Tensor | None, wrong: Callable[[Record], Record] = lambda r: r) -> Certified:
    """The certificate of a folder whose reader makes the mistake `wrong`."""
    record = wrong(read_saelens(folder, {}))
    return certify(to_sae(record), record, saelens_reference(folder, {}), activations=acts)


def test_a_right_conversion_on_real_activations_is_exact(right: Planted) -> None:
    made = judged(right.folder, right.acts)
    assert made.certificate["reasons"] == []
    assert made.verdict == "exact"
    measured = made.certificate["measured"]
    assert measured["tokens"] == 800
    assert measured["l0"] == pytest.approx(L0, rel=0.15)
    assert measured["explained_variance"] > 0.9
    assert made.certificate["float32"]["codes"]["relative"] < 1e-5
    assert made.certificate["float64"]["support"]["off_probes"] == 0


def test_the_certificate_says_what_it_should(right: Planted) -> None:
    certificate = judged(right.folder, right.acts).certificate
    assert certificate["format"] == "1.0"
    assert certificate["reference"].startswith("NumPy float64 after the formulas of SAELens")
    assert set(certificate["source"]["files"]) == {"cfg.json", "sae_weights.safetensors"}
    assert certificate["how"]["hook"] == certificate["how"]["policy"] == certificate["how"]["normalisation"] == "file"
    assert certificate["declared"]["l0"] == L0
    assert certificate["hook"]["name"] == "blocks.1.hook_resid_post"
    assert certificate["tensors"] == tensor_hash(to_sae(read_saelens(right.folder, {})))
    assert sum(certificate["rows"].values()) >= 64
    assert certificate["rows"] | {"tie": 0} == {
        "real": 32, "drawn": 0, "gaussian": 16, "probe": 8, "edge": 8, "tie": 0,
    }  # fmt: skip


def test_without_real_activations_it_is_structural(right: Planted) -> None:
    made = judged(right.folder, None)
    assert made.verdict == "structural"
    assert made.certificate["reasons"] == ["no real activations at the declared hook were given"]
    assert made.certificate["rows"]["drawn"] == 32


def test_golden_rows_are_kept_with_the_source_s_answers(right: Planted) -> None:
    golden = judged(right.folder, right.acts).golden
    reference = saelens_reference(right.folder, {})
    x = golden["inputs"]
    assert x.dtype == torch.float32
    codes = torch.zeros(x.shape[0], 96, dtype=torch.float64).scatter_add_(1, golden["indices"], golden["values"])
    assert torch.equal(codes, torch.from_numpy(reference.codes(x.double().numpy())))
    assert bool((x == 0).all(1).any())
    assert golden["kinds"].max() < len(KINDS_OF_ROWS)


def unscaled(record: Record) -> Record:
    return fold_scale(record, 1 / 0.25)


def transposed(record: Record) -> Record:
    return record._replace(W_dec=record.W_dec.T.contiguous())


def without_theta(record: Record) -> Record:
    return record._replace(gate=ReLUGate())


def scaled_theta(record: Record) -> Record:
    assert isinstance(record.gate, JumpReLUGate)
    return record._replace(gate=JumpReLUGate(record.gate.threshold * 1.05))


WRONG: list[tuple[str, dict[str, object], Callable[[Record], Record]]] = [
    ("transposed square W_dec", {"d_sae": D_MODEL}, transposed),
    ("b_dec not subtracted", {}, lambda r: r._replace(subtract_b_dec=False)),
    ("theta dropped", {}, without_theta),
    ("theta 5 % too high", {}, scaled_theta),
    ("scale unfolded", {"scale": 0.25, **SCALED}, unscaled),
    ("scale folded twice", {"scale": 0.25, **SCALED}, lambda r: fold_scale(r, 0.25)),
    ("root of the width missing", {}, lambda r: fold_scale(r, D_MODEL**-0.5)),
    ("b_enc dropped", {}, lambda r: r._replace(b_enc=torch.zeros(r.d_sae))),
    ("another gate", {}, lambda r: r._replace(gate=TopKGate(3))),
]


@pytest.mark.parametrize(("name", "more", "wrong"), WRONG, ids=[name for name, _, _ in WRONG])
def test_wrong_readers_are_caught(
    name: str, more: dict[str, object], wrong: Callable[[Record], Record], tmp_path: Path
) -> None:
    made = planted(tmp_path / "p", **more)  # pyright: ignore[reportArgumentType]
    assert judged(made.folder, made.acts).verdict == "exact", f"the control of {name} itself"
    for acts in (made.acts, None):
        certified = judged(made.folder, acts, wrong)
        assert certified.verdict == "failed", name
        assert certified.certificate["reasons"]


def dyadic(folder: Path) -> Path:
    """Powers of two everywhere, so that inputs exist at which p is exactly its threshold."""
    eye = torch.eye(16)
    tensors = {
        "W_enc": 2 * eye,
        "W_dec": eye,
        "b_enc": torch.full((16,), 0.25),
        "b_dec": torch.full((16,), 0.5),
        "threshold": torch.full((16,), 1.25),
    }
    return write_folder(folder, tensors, config_of("jumprelu", 16, 16))


def at_least(sae: jumprelu.JumpReLUSAE) -> torch.Tensor:
    """The cut with which above means what at least would have meant."""
    threshold = sae.threshold.detach()
    return torch.nextafter(threshold, torch.zeros_like(threshold))


def test_at_least_for_above_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = dyadic(tmp_path / "d")
    assert judged(folder, None).verdict == "structural"
    assert judged(folder, None).certificate["rows"]["tie"] == 8
    monkeypatch.setattr(jumprelu.JumpReLUSAE, "cut", at_least)
    caught = judged(folder, None)
    assert caught.verdict == "failed"
    assert "8 latents that lie exactly on their threshold differ: > is not >=" in caught.certificate["reasons"]


def test_the_wrong_divisor_of_the_deviation_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planted(tmp_path / "p", normalize_activations="layer_norm")
    assert judged(made.folder, None).verdict == "structural"

    def with_n(acts: torch.Tensor, norm: str) -> tuple[torch.Tensor, wrapped.TokenStatistics]:
        shift, scale = acts.mean(1, keepdim=True), acts.std(1, keepdim=True, correction=0)
        return (acts - shift) / (scale + 1e-5), (shift, scale)

    monkeypatch.setattr(wrapped, "normalise", with_n)
    assert judged(made.folder, None).verdict == "failed"


def test_activations_of_another_layer_are_caught(right: Planted) -> None:
    turn = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=generator(8)))[0]
    other = judged(right.folder, right.acts @ turn)
    assert other.verdict in ("failed", "structural")
    assert any("explained variance" in reason or "mean L0" in reason for reason in other.certificate["reasons"])


def test_input_of_a_norm_without_its_weight_is_caught(right: Planted) -> None:
    weight = 0.2 + 3 * torch.rand(D_MODEL, generator=generator(9))
    other = judged(right.folder, right.acts / weight)
    assert other.verdict in ("failed", "structural")


def test_counts_unlike_the_declared_ones(right: Planted, tmp_path: Path) -> None:
    for l0, verdict in ((1.2 * L0, "toleranced"), (10 * L0, "failed"), (1.1 * L0, "exact")):
        config = config_of("jumprelu", D_MODEL, 96)
        config["metadata"]["l0"] = l0
        made = planted(tmp_path / str(l0), metadata=config["metadata"])
        certified = judged(made.folder, made.acts)
        assert certified.verdict == verdict
        assert (verdict == "exact") == (certified.certificate["reasons"] == [])


def test_no_declared_count_is_said(right: Planted, tmp_path: Path) -> None:
    metadata = {"sae_lens_version": "6.54.12", "model_name": "tiny"}
    made = planted(tmp_path / "p", metadata=metadata)
    certified = judged(made.folder, made.acts)
    assert certified.verdict == "exact"
    assert certified.certificate["reasons"] == ["the source declares no L0"]
    assert "the source does not say whether texts began with BOS" in certified.certificate["warnings"]


def test_a_bfloat16_source_is_toleranced(right: Planted, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = {name: t.bfloat16() for name, t in load_file(right.folder / "sae_weights.safetensors").items()}
    folder = write_folder(tmp_path / "b", tensors, config_of("jumprelu", D_MODEL, 96, dtype="bfloat16"))
    certified = judged(folder, right.acts)
    assert certified.verdict == "toleranced"
    assert certified.certificate["reasons"] == ["the source is bfloat16"]


def test_codes_of_the_source_s_own_library_may_be_the_reference(right: Planted) -> None:
    formulas = saelens_reference(right.folder, {})
    record = read_saelens(right.folder, {})
    own = Reference("sae-lens 6.54.12, its own encode and forward", formulas.codes, formulas.output)
    assert certify(to_sae(record), record, own).certificate["reference"] == own.statement
    wrong = Reference("a library", lambda x: 2 * formulas.codes(x), formulas.output)
    assert certify(to_sae(record), record, wrong).verdict == "failed"


def test_too_few_or_too_wide_activations(right: Planted) -> None:
    with pytest.raises(TooFewSamples, match="31 activations; at least 32 are wanted; give a larger store"):
        judged(right.folder, right.acts[:31])
    with pytest.raises(WidthMismatch, match="the store of activations gives 47"):
        judged(right.folder, right.acts[:, :47])


def test_the_same_seed_gives_the_same_rows(right: Planted) -> None:
    record = read_saelens(right.folder, {})
    one, two, other = (golden_inputs(record, right.acts, seed) for seed in (0, 0, 1))
    assert torch.equal(one.inputs, two.inputs)
    assert not torch.equal(one.inputs, other.inputs)


def test_probes_lie_at_the_edge(right: Planted) -> None:
    record = read_saelens(right.folder, {})
    golden = golden_inputs(record, right.acts)
    x = golden.inputs[golden.rows("probe")].double()
    pre = (x - record.b_dec.double()) @ record.W_enc.double().T + record.b_enc.double()  # pyright: ignore[reportOptionalMemberAccess]
    nearest = (pre - CUT).abs().min(1).values
    assert bool((nearest < 1e-3).all())
    assert {bool(s) for s in ((pre - CUT).gather(1, (pre - CUT).abs().argmin(1, keepdim=True)) > 0)[:, 0]} == {
        True,
        False,
    }


def test_the_hash_sees_every_number_and_setting(right: Planted) -> None:
    sae = to_sae(read_saelens(right.folder, {}))
    before = tensor_hash(sae)
    with torch.no_grad():
        sae.W_dec[0, 0] += 1e-6
    assert tensor_hash(sae) != before
