"""Every reader against what the reference library computed from the same files."""

from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tests.sae.formats.families.evaluate import GOLDEN, evaluate, number, vectors, worst
from tests.sae.formats.families.opened import opened_here

from perimetry.errors import Incompatible, UnsafeFormat
from perimetry.sae import ARCHITECTURES
from perimetry.sae.formats.build import to_sae
from perimetry.sae.formats.families import READERS
from perimetry.sae.formats.record import Record

PYTHIA, LLAMA, GEMMA = "EleutherAI/pythia-160m", "meta-llama/Llama-3.1-8B", "google/gemma-2"


class Case(NamedTuple):
    """One folder of golden vectors and what a record of it must say."""

    folder: str
    path: str
    hook: str | None
    model: str | None
    overrides: Mapping[str, Any] = MappingProxyType({})
    hook_out: str | None = None
    hf: str | None = None

    @property
    def family(self) -> str:
        return self.folder.split("/")[0]


def _dictionary_learning(name: str) -> Case:
    model = "EleutherAI/pythia-70m-deduped"
    return Case(f"dictionary_learning/{name}", "trainer_0", "blocks.3.hook_resid_post", model)


RES, MLP = "hook_resid_post", "hook_mlp_out"
ONE_B, SCOPE = "google/gemma-3-1b-pt", "gemma-scope-2-1b-pt"
CASES = [
    Case("sparsify/topk", "layers.3", f"blocks.3.{RES}", PYTHIA),
    Case("sparsify/expansion", "layers.3.mlp", f"blocks.3.{MLP}", PYTHIA, {"model_type": "gpt_neox"}),
    Case("sparsify/transcoder", "h.5.mlp", "blocks.5.mlp.hook_in", PYTHIA, {"model_type": "gpt2"}, f"blocks.5.{MLP}"),
    Case(
        "sparsify/skip_transcoder",
        "layers.7.mlp",
        "blocks.7.mlp.hook_in",
        PYTHIA,
        {"model_type": "gpt_neox"},
        f"blocks.7.{MLP}",
        "gpt_neox.layers.7.mlp.input",
    ),
    *(
        _dictionary_learning(name)
        for name in (
            "AutoEncoder",
            "AutoEncoderNew",
            "AutoEncoderTopK",
            "BatchTopKSAE",
            "GatedAutoEncoder",
            "JumpReluAutoEncoder",
            "MatryoshkaBatchTopKSAE",
        )
    ),
    Case(
        "gemma_scope/res",
        "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82",
        f"blocks.12.{RES}",
        f"{GEMMA}-2b",
    ),
    Case("gemma_scope/mlp", "gemma-scope-9b-pt-mlp/layer_5/width_16k/average_l0_20", f"blocks.5.{MLP}", f"{GEMMA}-9b"),
    Case(
        "gemma_scope/att",
        "gemma-scope-2b-pt-att/layer_7/width_16k/average_l0_80",
        "blocks.7.attn.hook_z",
        f"{GEMMA}-2b",
        hf="model.layers.7.self_attn.o_proj.input",
    ),
    Case(
        "gemma_scope/embedding",
        "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6",
        "hook_embed",
        f"{GEMMA}-2b",
    ),
    Case(
        "gemma_scope/transcoder",
        "gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_54",
        "blocks.3.ln2.hook_normalized",
        f"{GEMMA}-2b",
        hook_out=f"blocks.3.{MLP}",
    ),
    Case(
        "gemma_scope_2/resid_post",
        f"{SCOPE}/resid_post/layer_12_width_16k_l0_small",
        f"blocks.12.{RES}",
        ONE_B,
        hf="model.layers.12",
    ),
    Case(
        "gemma_scope_2/attn_out",
        f"{SCOPE}/attn_out_all/layer_4_width_16k_l0_medium_seed_1",
        "blocks.4.attn.hook_z",
        ONE_B,
        hf="model.layers.4.self_attn.o_proj.input",
    ),
    Case(
        "gemma_scope_2/mlp_out",
        f"{SCOPE}/mlp_out/layer_9_width_16k_l0_big",
        f"blocks.9.{MLP}",
        ONE_B,
        hf="model.layers.9.post_feedforward_layernorm",
    ),
    Case(
        "gemma_scope_2/transcoder",
        f"{SCOPE}/transcoder_all/layer_8_width_16k_l0_small",
        None,
        ONE_B,
        hook_out=f"blocks.8.{MLP}",
        hf="model.layers.8.pre_feedforward_layernorm",
    ),
    Case(
        "gemma_scope_2/transcoder_affine",
        f"{SCOPE}/transcoder/layer_8_width_16k_l0_small_affine",
        None,
        ONE_B,
        hook_out=f"blocks.8.{MLP}",
        hf="model.layers.8.pre_feedforward_layernorm",
    ),
    Case("llama_scope/residual", "Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x", f"blocks.15.{RES}", LLAMA),
    Case(
        "llama_scope/r1_distill",
        "Llama-Scope-R1-Distill/400M-Slimpajama-400M-OpenR1-Math-220k/L15R",
        f"blocks.15.{RES}",
        LLAMA,
        {"norm_in": 4 / 0.7},
    ),
    Case(
        "goodfire/llama",
        "Llama-3.1-8B-Instruct-SAE-l19/Llama-3.1-8B-Instruct-SAE-l19.pth",
        f"blocks.19.{RES}",
        "meta-llama/Llama-3.1-8B-Instruct",
    ),
    Case(
        "deepseek/llama",
        "DeepSeek-R1-Distill-Llama-8B-SAE-l19/DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt",
        f"blocks.19.{RES}",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
    ),
    Case(
        "qwen_scope/base",
        "SAE-Res-Qwen3-1.7B-Base-W32K-L0_4/layer7.sae.pt",
        f"blocks.7.{RES}",
        "Qwen/Qwen3-1.7B-Base",
    ),
    Case(
        "mwhanna/transcoder",
        "qwen3-0.6b-transcoders-lowl0/layer_6.safetensors",
        "blocks.6.mlp.hook_in",
        "Qwen/Qwen3-0.6B",
        hook_out=f"blocks.6.{MLP}",
        hf="model.layers.6.mlp.input",
    ),
    Case("llamascopium/jumprelu", "L15R", f"blocks.15.{RES}", None),
    Case("llamascopium/topk", "L15R", f"blocks.15.{RES}", None),
    Case("llamascopium/relu_by_token", "L15R", f"blocks.15.{RES}", None),
    Case("llamascopium/transcoder", "L15R", f"blocks.15.{RES}", None, hook_out=f"blocks.15.{MLP}"),
    Case("llamascopium/inference", "L15R", f"blocks.15.{RES}", None, {"threshold_factor": 1.0}),
]


ISOLATED = {"dictionary_learning/AutoEncoder", "gemma_scope/res", "goodfire/llama", "mwhanna/transcoder"}
"""Cases that go through the process of their own; the others are opened here by the same code."""


@cache
def read(folder: str) -> Record:
    """Once per case: opening a pickle starts a process."""
    case = next(case for case in CASES if case.folder == folder)
    with nullcontext() if folder in ISOLATED else opened_here():
        return READERS[case.family].read(GOLDEN / case.folder / case.path, case.overrides, unsafe_pickle=True)


@pytest.fixture(params=CASES, ids=[case.folder for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def record(case: Case) -> Record:
    return read(case.folder)


def test_codes_and_reconstruction_are_those_of_the_reference(case: Case, record: Record) -> None:
    wanted = vectors(case.folder)
    found = evaluate(record, wanted.x)
    codes = wanted.codes
    if (
        case.folder == "llamascopium/topk"
    ):  # chosen by p times decoder norm, which our codes are and the library divides back
        assert any("divides them back" in note for note in record.notes)
        stored = load_file(GOLDEN / case.folder / case.path / "sae_weights.safetensors")
        codes = codes * np.linalg.norm(number(stored["W_D"]), axis=1)
    assert worst(found.codes, codes) <= 1e-5
    assert worst(found.reconstruction, wanted.reconstruction) <= 1e-5
    assert (codes != 0).sum(1).mean() > 1, "a reference of zeros would agree with anything"


def test_the_sae_that_is_built_agrees_too(case: Case, record: Record) -> None:
    if record.transcoder and "transcoder" not in ARCHITECTURES:
        pytest.skip("the architecture is not in the table yet")
    wanted = vectors(case.folder)
    found = evaluate(record, wanted.x)
    codes, out = to_sae(record)(torch.from_numpy(wanted.x).float())
    assert worst(number(codes.dense()), found.codes) <= 1e-5
    assert worst(number(out), found.reconstruction) <= 1e-5


def test_the_record_says_where_it_comes_from(case: Case, record: Record) -> None:
    assert record.hook.name == case.hook
    assert record.hook.name_out == case.hook_out
    assert record.model == case.model
    if case.hf:
        assert record.hook.hf_name == case.hf
    if case.hook and case.hook != "hook_embed":
        assert record.hook.layer == int(case.hook.split(".")[1])
        assert record.how["hook"] in ("file", "path")
    assert record.hook.reshape == ("hook_z" if (case.hook or "").endswith("hook_z") else "none")
    assert record.source.family == case.family
    assert record.source.files
    assert record.source.dtype == "float32"
    assert all(len(digest) == 64 for digest in record.source.files.values())
    assert {name: record.how[name] for name in case.overrides} == dict.fromkeys(case.overrides, "user")
    assert record.overrides == case.overrides
    assert "normalisation" in record.how


def test_one_reader_knows_the_files(case: Case) -> None:
    path = GOLDEN / case.folder / case.path
    assert [name for name, reader in READERS.items() if reader.recognises(path)] == [case.family]


PICKLES = ("deepseek", "dictionary_learning", "goodfire", "qwen_scope")
FIRST = {case.family: case for case in reversed(CASES)}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("family", sorted(FIRST))
def test_an_override_that_nothing_reads_is_refused(family: str) -> None:
    case = FIRST[family]
    with pytest.raises(Exception, match=r"--set widht.*reads no such field"):
        READERS[case.family].read(GOLDEN / case.folder / case.path, {**case.overrides, "widht": 3}, unsafe_pickle=True)


@pytest.mark.parametrize("family", PICKLES)
def test_a_pickle_needs_the_flag(family: str) -> None:
    case = FIRST[family]
    with pytest.raises(UnsafeFormat, match=r"is a pickle.*--unsafe-pickle"):
        READERS[family].read(GOLDEN / case.folder / case.path, case.overrides)


def test_the_group_maximum_is_refused() -> None:
    with pytest.raises(Incompatible, match="activation 'groupmax' keeps one latent of each group"):
        READERS["sparsify"].read(GOLDEN / "sparsify" / "groupmax" / "layers.3", {})


def test_every_family_has_golden_vectors_or_a_formula() -> None:
    assert set(READERS) == {case.family for case in CASES} | {"openai", "temporal"}
