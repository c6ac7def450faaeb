"""What a watch refuses: at once or from within `generate`, with a typed error, and never a score of something else."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.shift.watch_worlds import TEXTS, inputs_of, other_main, small_meter, write
from tests.worlds import World
from torch import nn
from transformers import AutoModelForCausalLM, CompileConfig, DynamicCache, GenerationConfig

from perimetry.activations.model import LanguageModel, from_pretrained_parts, tiny_language_model
from perimetry.errors import (
    AssetError,
    ConfigError,
    DtypeMismatch,
    ModelMismatch,
    NoScorableToken,
    PerimetryError,
    PolicyMismatch,
    PromptTooLong,
    UsageError,
)
from perimetry.shift.meter import Meter
from perimetry.shift.watch import watch


@pytest.fixture(scope="module")
def small(tiny_lm: LanguageModel) -> Meter:
    return small_meter(tiny_lm)


def refused(meter: Meter, kind: type[PerimetryError], match: str, **settings: Any) -> None:
    with watch(meter.lm, meter) as w:
        with pytest.raises(kind, match=match):
            write(meter, stopping_criteria=[w], **settings)
        assert w.rows == ()
        # One refusal does not spoil the next call.
        write(meter, stopping_criteria=[w])
        assert len(w.rows) == len(TEXTS)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"num_beams": 2}, "for beam search"),
        ({"num_beams": 2, "do_sample": True}, "for beam sample"),
        ({"prompt_lookup_num_tokens": 3}, "for assisted generation"),
        ({"assistant_early_exit": 1}, "for assisted generation"),
        ({"assistant_model": tiny_language_model(seed=1).model}, "for assisted generation"),
        ({"generation_config": GenerationConfig(num_beams=3)}, "for beam search"),
        ({"guidance_scale": 2.0}, "guidance_scale"),
        ({"custom_generate": "somebody/loop"}, "a decoding loop of your own"),
        ({"position_ids": torch.zeros(3, 13, dtype=torch.long)}, "positions of your own"),
        ({"inputs_embeds": torch.zeros(3, 4, 32)}, "vectors in the place of tokens"),
        ({"cache_implementation": "paged"}, "a paged cache"),
    ],
)
def test_what_is_no_plain_continuation(small: Meter, settings: dict[str, Any], match: str) -> None:
    refused(small, ConfigError, match, **settings)


def test_beams_of_the_model_itself(small: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    own: Any = small.lm.model.generation_config
    monkeypatch.setattr(own, "num_beams", 2)
    with watch(small.lm, small) as w, pytest.raises(ConfigError, match="for beam search"):
        write(small, stopping_criteria=[w])


def test_a_cache_that_was_filled_elsewhere(small: Meter) -> None:
    model: Any = small.lm.model
    cache = DynamicCache(config=model.config)
    model(**inputs_of(small), past_key_values=cache)
    refused(small, ConfigError, r"the cache holds \d+ tokens already", past_key_values=cache)


def test_compiled_forward_passes(small: Meter) -> None:
    everywhere: Any = CompileConfig(backend="eager")
    everywhere._compile_all_devices = True
    # A static cache and a device that compiles is all that it takes.
    refused(small, ConfigError, "compiled or captured", cache_implementation="static", compile_config=everywhere)
    with watch(small.lm, small) as w:
        write(small, stopping_criteria=[w], cache_implementation="static", disable_compile=True)


def test_models_that_were_compiled_before() -> None:
    for compile_it in (_module, _method, _whole):
        meter = small_meter(tiny_language_model())
        compile_it(meter.lm.model)
        with pytest.raises(ConfigError, match="compiled or captured"), watch(meter.lm, meter):
            pass


def _module(model: nn.Module) -> None:
    model.compile(backend="eager")


def _method(model: nn.Module) -> None:
    model.forward = torch.compile(model.forward, backend="eager")


def _whole(model: Any) -> None:
    model.model = torch.compile(model.model, backend="eager")


@contextlib.contextmanager
def deaf(module: Any) -> Iterator[None]:
    """As when a captured graph is replayed: the module computes and its hooks do not run."""
    forward = module.forward

    def replay(*args: Any, **named: Any) -> Any:
        return forward(*args, **named)

    before = type(module).__call__
    kind = type("Deaf", (type(module),), {"__call__": lambda self, *a, **n: replay(*a, **n)})
    module.__class__ = kind
    try:
        yield
    finally:
        module.__class__ = kind.__mro__[1]
        assert type(module).__call__ is before


def test_hooks_that_did_not_run_are_missed(small: Meter) -> None:
    base: Any = small.lm.model.base_model
    for module, match in (
        (small.lm.blocks[1], r"hook on model\.layers\.1 ran 0 times in one forward pass"),
        (base, r"gave \d+ more token\(s\) and the hook .* did not run"),
    ):
        with deaf(module), watch(small.lm, small) as w, pytest.raises(UsageError, match=match):
            write(small, stopping_criteria=[w])


def test_passes_over_other_tokens_are_seen(small: Meter) -> None:
    model: Any = small.lm.model

    def again(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        model(input_ids[:, :2])
        return scores

    def other(module: Any, inputs: Any, named: dict[str, Any]) -> Any:
        return inputs, named | {"input_ids": named["input_ids"].roll(1, 0)}

    width = inputs_of(small)["input_ids"].shape[1]
    wanted = rf"the model read {width} \+ 2 tokens where {width} were wanted"
    refused(small, UsageError, wanted, logits_processor=[again])
    handle = model.base_model.register_forward_pre_hook(other, with_kwargs=True)
    try:
        with watch(small.lm, small, every=1) as w, pytest.raises(UsageError, match="the model read other tokens"):
            write(small, stopping_criteria=[w])
    finally:
        handle.remove()


def test_the_watch_must_be_passed_and_used_inside(small: Meter) -> None:
    with watch(small.lm, small) as w, pytest.raises(ConfigError, match="generate was called without the watch"):
        write(small)
    with pytest.raises(UsageError, match="a generation that it does not see"):
        write(small, stopping_criteria=[w])


def test_prompts_that_the_policy_does_not_make(tiny_lm: LanguageModel) -> None:
    meter, model = small_meter(tiny_lm), tiny_lm.model
    inputs = inputs_of(meter, TEXTS[:1])
    plain = {name: x[:, 1:] for name, x in inputs.items()}
    bare, chat = small_meter(tiny_lm, prepend_bos=False), small_meter(tiny_lm, template="chat")
    generate: Any = model.generate
    for judging, given in ((meter, plain), (bare, inputs), (chat, inputs), (chat, plain)):
        with watch(tiny_lm, judging) as w, pytest.raises(PolicyMismatch, match="prompt '0' is not made as"):
            generate_one(judging, given, w)
    for judging in (meter, bare, chat):
        with watch(tiny_lm, judging) as w:
            generate_one(judging, inputs_of(judging, TEXTS[:1]), w)
        assert w.rows[0].prompt.score == pytest.approx(judging.score(TEXTS[:1], explain=False)[0].score, rel=1e-4)
    assert generate == model.generate


def generate_one(meter: Meter, inputs: dict[str, torch.Tensor], w: Any) -> None:
    model: Any = meter.lm.model
    model.generate(**inputs, max_new_tokens=3, do_sample=False, eos_token_id=None, stopping_criteria=[w])


def test_prompts_without_a_token_to_score_and_too_long(small: Meter) -> None:
    bos, pad = small.lm.bos_id, small.lm.pad_id
    for ids, kind in (([bos, bos], NoScorableToken), ([bos] + [40] * 200, PromptTooLong)):
        one = torch.tensor([ids])
        with watch(small.lm, small) as w, pytest.raises(kind):
            generate_one(small, {"input_ids": one, "attention_mask": torch.ones_like(one)}, w)
    one = torch.tensor([[bos, 40, 41, pad]])
    with watch(small.lm, small) as w, pytest.raises(ConfigError, match="padding after a token"):
        generate_one(small, {"input_ids": one, "attention_mask": torch.tensor([[1, 1, 1, 0]])}, w)
    with watch(small.lm, small) as w, pytest.raises(ConfigError, match="padding after a token"):
        generate_one(small, {"input_ids": one}, w)
    with watch(small.lm, small) as w, pytest.raises(ConfigError, match="no rectangle of token ids"):
        w.meter.lm.model.generate(stopping_criteria=[w])  # pyright: ignore[reportCallIssue]


def test_padding_without_a_mask_is_what_generate_takes_it_for(small: Meter) -> None:
    inputs = inputs_of(small)
    with watch(small.lm, small) as w:
        generate_one(small, inputs, w)
        masked = [row.scores for row in w.rows]
        generate_one(small, {"input_ids": inputs["input_ids"]}, w)
    assert [row.scores for row in w.rows] == masked


def test_meters_that_cannot_follow_a_response(meter: Meter, small: Meter) -> None:
    refused_meter = other_main(meter, "code_knn")
    with watch(refused_meter.lm, refused_meter) as w, pytest.raises(ConfigError, match="scores whole prompts"):
        write(refused_meter, stopping_criteria=[w])
    with pytest.raises(ModelMismatch, match="reads a model of its own"), watch(tiny_language_model(), small):
        pass
    wrong: list[dict[str, Any]] = [{"every": 0}, {"alpha": 1.0}]
    for settings in wrong:
        with pytest.raises(ConfigError), watch(small.lm, small, **settings):
            pass


def test_models_that_are_not_the_meters(world: World, tmp_path: Path, tiny_lm: LanguageModel) -> None:
    load: Any = AutoModelForCausalLM.from_pretrained
    trains = load(world.model).train()
    with pytest.raises(ConfigError, match="training mode"), watch(trains, world.meter):
        pass
    changed = load(world.model)
    changed.model.layers[2].mlp.up_proj.weight.data[-1, 3] += 1
    with pytest.raises(ModelMismatch, match=r"up_proj.*is not that of"), watch(changed, world.meter):
        pass
    low = load(world.model, dtype=torch.bfloat16)
    with pytest.raises(DtypeMismatch, match="computes in bfloat16"), watch(low, world.meter):
        pass
    nowhere = tiny_language_model().model
    with pytest.raises(AssetError, match="where no files are"), watch(nowhere, world.meter):
        pass
    other = tmp_path / "other"
    load(world.model).save_pretrained(other)
    tiny_lm.tokenizer.save_pretrained(other)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelMismatch, match="has revision"), watch(load(other), world.meter):
        pass
    again = from_pretrained_parts(load(world.model), tiny_lm.tokenizer, "other", "another revision")
    with pytest.raises(ModelMismatch, match="has revision"), watch(again, world.meter):
        pass
