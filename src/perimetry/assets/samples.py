"""Stories that a small story model writes itself: text that is surely in its distribution."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from perimetry.assets.jsonl import jsonl_writer
from perimetry.assets.spec import Inputs
from perimetry.runtime import generator

__all__ = ["Sample", "prepare_samples", "sample_ids", "sample_stories"]

STORIES = 256
BATCH = 64
SEED = 20060303


class Sample(NamedTuple):
    """One text that the model wrote."""

    text: str
    """The text, without special tokens."""
    finished: bool
    """True when the model ended it itself, False when its context was full."""


@torch.inference_mode()
def sample_ids(
    model: torch.nn.Module, rows: int, start: int, stops: set[int], length: int, draw: torch.Generator
) -> Int[Tensor, "batch seq"]:
    """Token ids drawn one by one from the model's own distribution (temperature 1), with its key-value cache."""
    ids = torch.full((rows, 1), start)
    done = torch.zeros(rows, dtype=torch.bool)
    step, cache = ids, None
    stop_ids = torch.tensor(sorted(stops))
    while ids.shape[1] < length and not bool(done.all()):
        answer = model(input_ids=step, past_key_values=cache, use_cache=True)
        cache = answer.past_key_values
        # one uniform number a row against the cumulated chances: much cheaper than a noise for every token of a large
        # vocabulary; cumulated in double so that rare tokens keep their share
        summed = torch.softmax(answer.logits[:, -1], dim=-1).double().cumsum(-1)
        wanted = torch.rand(rows, 1, generator=draw, dtype=torch.float64) * summed[:, -1:]
        step = torch.searchsorted(summed, wanted, right=True).clamp_max(summed.shape[1] - 1)
        ids = torch.cat([ids, step], dim=1)
        done |= torch.isin(step[:, 0], stop_ids)
    return ids


def sample_stories(folder: Path, count: int, *, seed: int, batch: int = BATCH, progress: bool = False) -> list[Sample]:
    """`count` texts that the model in `folder` writes from nothing but its start token.

    A text ends at the end token, at the next start token (between the stories of the training text there is one), or
    with the context. The same seed gives the same texts on the same machine and versions; another processor may round
    otherwise and so, now and then, draw another token.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from rich.console import Console
    from rich.progress import track
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).float().eval()
    # not by from_pretrained, which draws a bar of its own; a tied output matrix is the only one that may be absent
    absent, strange = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    model.tie_weights()
    assert set(absent) <= {"lm_head.weight"}, absent
    assert not strange, strange
    start, stops = tokenizer.bos_token_id, {tokenizer.bos_token_id, tokenizer.eos_token_id}
    draw = generator(seed)
    samples: list[Sample] = []
    parts = range(0, count, batch)
    for at in track(parts, "writing stories", console=Console(stderr=True), disable=not progress):
        ids = sample_ids(model, min(batch, count - at), start, stops, model.config.max_position_embeddings, draw)
        for row in ids[:, 1:].tolist():
            end = next((i for i, token in enumerate(row) if token in stops), None)
            text = tokenizer.decode(row[:end], skip_special_tokens=True).strip()
            samples.append(Sample(text, end is not None))
    return samples


def prepare_samples(inputs: Inputs, out: Path) -> None:
    """Write the samples of the model that this asset needs."""
    (folder,) = inputs.needs.values()
    samples = sample_stories(folder, STORIES, seed=SEED, progress=inputs.progress)
    with jsonl_writer(out / "stories.jsonl.gz") as write:
        for number, sample in enumerate(samples):
            if sample.text:
                write({"id": f"story-{number:04d}", "text": sample.text, "finished": str(sample.finished).lower()})
