"""A model of another family trains by being named; what was read is what plain transformers gives at that place."""

import json
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from tests.worlds import FLAGS, run_main, save_model, text_of, write_jsonl
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from perimetry.activations.model import BLOCKS, LanguageModel, load_language_model, tiny_language_model
from perimetry.activations.site import Place, Site, hook_name
from perimetry.activations.store import HarvestConfig, harvest
from perimetry.activations.tap import read_sites
from perimetry.activations.text import HasText
from perimetry.assets import Document
from perimetry.runtime import Runtime
from perimetry.sae.formats import load_sae

LAYER, CONTEXT = 1, 32
CPU = Runtime(torch.device("cpu"), torch.float32)
MODULES = {"gpt2": "transformer.h.1", "gpt_neox": "gpt_neox.layers.1"}
"""Where the second block is; `model.layers.1` in the others."""


class Passed(NamedTuple):
    """What plain transformers says of the second block."""

    block: nn.Module
    before: Tensor
    """The residual stream that the block reads."""
    after: Tensor
    """The residual stream that it leaves."""


Formula = Callable[[Any, Passed, Tensor], Tensor]


def added(norm: str) -> Formula:
    """The MLP reads the norm of the stream to which its output is added."""
    return lambda block, passed, out: getattr(block, norm)(passed.after - out)


def beside(norm: str) -> Formula:
    """The MLP reads a norm of what the attention reads, beside it."""
    return lambda block, passed, out: getattr(block, norm)(passed.before)


def sandwiched(block: Any, passed: Passed, out: Tensor) -> Tensor:
    """A norm before the MLP and one behind it."""
    return block.pre_feedforward_layernorm(passed.after - block.post_feedforward_layernorm(out))


def bare(block: Any, passed: Passed, out: Tensor) -> Tensor:
    """A norm behind the MLP only."""
    return passed.after - block.post_feedforward_layernorm(out)


READS: dict[str, Formula] = {
    "gemma": added("post_attention_layernorm"),
    "gemma2": sandwiched,
    "gemma3_text": sandwiched,
    "gpt2": added("ln_2"),
    "gpt_neox": beside("post_attention_layernorm"),
    "llama": added("post_attention_layernorm"),
    "mistral": added("post_attention_layernorm"),
    "olmo": added("post_attention_layernorm"),
    "olmo2": bare,
    "phi": beside("input_layernorm"),
    "phi3": added("post_attention_layernorm"),
    "qwen2": added("post_attention_layernorm"),
    "qwen3": added("post_attention_layernorm"),
    "smollm3": added("post_attention_layernorm"),
    "stablelm": added("post_attention_layernorm"),
    "starcoder2": added("post_attention_layernorm"),
}
"""Family -> what the MLP of a block reads, by what transformers' code of that family says."""


@pytest.fixture(scope="module", params=sorted(BLOCKS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as a user has it, named after its family."""
    return save_model(tiny_language_model(request.param, 1), tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One long document, so that rows are packed without a separator in them."""
    return write_jsonl(tmp_path_factory.mktemp("text") / "text.jsonl", [{"id": "one", "text": text_of("one", 700)}])


@cache
def plain(folder: Path) -> Any:
    """The model by transformers alone."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def passed(folder: Path, ids: Tensor) -> Passed:
    model = plain(folder)
    states = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    block = model.get_submodule(MODULES.get(folder.name, "model.layers.1"))
    return Passed(block, states[LAYER], states[LAYER + 1])


def packed_rows(store: Path) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Token ids, positions and activations of each row that the model read, as they lie on the disk."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for file in sorted(store.glob("shard-*.safetensors")):
        with safe_open(file, "pt") as handle:
            acts, position, token = (handle.get_tensor(name) for name in ("acts", "position", "token"))
        cuts = [0, *((position[1:] < position[:-1]).nonzero()[:, 0] + 1).tolist(), len(position)]
        found += [(token[a:b].long(), position[a:b].long(), acts[a:b].float()) for a, b in pairwise(cuts)]
    return found


def check_rows(folder: Path, store: Path, wanted: Callable[[Passed], Tensor]) -> int:
    """Compare whole rows of a store with transformers; how many there were."""
    bos: Any = AutoTokenizer.from_pretrained(folder).bos_token_id
    start = [] if bos is None else [bos]
    whole = [row for row in packed_rows(store) if row[1].tolist() == list(range(len(start), CONTEXT))]
    for token, _, acts in whole:
        ids = torch.cat([torch.tensor(start, dtype=torch.long), token])[None]
        expected = wanted(passed(folder, ids))[0, len(start) :]
        assert acts.shape == expected.shape
        torch.testing.assert_close(acts, expected, rtol=2**-7, atol=2**-8 * float(expected.abs().mean()))
    return len(whole)


def test_a_family_trains_by_naming_a_model_of_it(folder: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    numbers = {"--layer": LAYER, "--width": 64, "--k": 4, "--tokens": 768, "--batch": 64, "--context": CONTEXT}
    flat = [str(x) for pair in numbers.items() for x in pair]
    named = ["--model", str(folder), "--text", str(text), "--architecture", "batchtopk"]
    done = run_main("train", *named, *flat, *FLAGS, "-o", str(out), "--json")
    assert done.code == 0, done.err
    row = done.json()["saes"][0]
    loaded = load_sae(out)
    assert loaded.info.digest == row["digest"]
    assert (loaded.sae.d_sae, loaded.sae.architecture) == (64, "batchtopk")
    module = MODULES.get(folder.name, "model.layers.1")
    assert (loaded.info.hook_name, loaded.info.hf_hook_name) == ("blocks.1.hook_resid_post", module)
    assert (loaded.info.model, loaded.info.layer) == (str(folder), LAYER)
    assert check_rows(folder, out / "store", lambda p: p.after) >= 5
    acts = torch.cat([row[2] for row in packed_rows(out / "store")])
    error = (acts - loaded.sae(acts).reconstruction).square().sum() / (acts - acts.mean(0)).square().sum()
    assert 0 < float(error) < 1


@pytest.fixture(scope="module")
def lm(folder: Path) -> LanguageModel:
    return load_language_model(str(folder), CPU)


def test_the_places_of_the_mlp_are_what_the_family_says(folder: Path, lm: LanguageModel) -> None:
    ids = torch.randint(5, 250, (2, 12), generator=torch.Generator().manual_seed(0))
    sites: list[Site] = [Site(LAYER, "mlp_in"), Site(LAYER, "mlp_out"), Site(LAYER)]
    read, given, after = read_sites(lm, sites, ids, torch.ones_like(ids)).values()
    here = passed(folder, ids)
    block: Any = here.block
    torch.testing.assert_close(after, here.after, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(given, block.mlp(read), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(read, READS[folder.name](block, here, given), rtol=1e-3, atol=1e-3)
    assert float(given.std()) > 1e-3


@pytest.mark.parametrize("place", ["mlp_in", "mlp_out"])
def test_the_places_of_the_mlp_are_harvested(
    place: Place, folder: Path, lm: LanguageModel, text: Path, tmp_path: Path
) -> None:
    documents: list[HasText] = [Document("one", json.loads(text.read_text())["text"], {})]
    site = Site(LAYER, place)
    # The norm of what an MLP reads or writes says nothing of sinks; none shall be left out here.
    settings = HarvestConfig(tokens=400, context=CONTEXT)
    settings = settings.model_copy(update={"policy": settings.policy.model_copy(update={"max_norm": 1e9})})
    store = harvest(lm, site, documents, tmp_path / "store", settings)
    assert store.plan["hook"]["hugging_face"] == f"{MODULES.get(folder.name, 'model.layers.1')}.mlp"
    seen: dict[str, Tensor] = {}
    module = plain(folder).get_submodule(hook_name(site, folder.name).hugging_face)
    handle = module.register_forward_hook(lambda m, i, o: seen.update(mlp_in=i[0], mlp_out=o))
    try:
        assert check_rows(folder, tmp_path / "store", lambda _: seen[place]) >= 5
    finally:
        handle.remove()


def test_every_family_has_a_formula() -> None:
    assert set(READS) == set(BLOCKS)


def test_an_unknown_family_is_refused_with_the_known_ones(text: Path, tmp_path: Path) -> None:
    config = AutoConfig.for_model("opt", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=300)
    config.save_pretrained(tmp_path / "opt")
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "opt")
    asked = ["train", "--model", str(tmp_path / "opt"), "--text", str(text), "-o", str(tmp_path / "out"), "--json"]
    kind, message = run_main(*asked).error()
    assert kind == "UnknownName"
    assert message.startswith("unknown model family 'opt'")
    assert message.endswith(f"known: {', '.join(sorted(BLOCKS))}")
    assert not (tmp_path / "out" / "sae").exists()
