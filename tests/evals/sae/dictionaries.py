"""A model that has learned something, text for it, and dictionaries whose numbers are known."""

from pathlib import Path

import torch
from tests.worlds import text_of, write_jsonl
from torch import Tensor
from torch.nn.functional import cross_entropy

from perimetry.activations.model import LanguageModel, from_pretrained_parts
from perimetry.activations.policy import TokenPolicy
from perimetry.activations.prompts import collate
from perimetry.activations.text import pack
from perimetry.activations.tiny import tiny_parts
from perimetry.assets import Document
from perimetry.evals.sae.base import Place, Subject
from perimetry.runtime import generator
from perimetry.sae.affine import AffineSAE, Weights
from perimetry.sae.base import AbstractSAE
from perimetry.sae.standard import StandardSAE


def corpus(folder: Path, documents: int = 24, words: int = 60) -> str:
    """A file of documents of some hundred tokens each."""
    path = folder / "texts.jsonl"
    write_jsonl(path, [{"id": f"d{i}", "text": text_of(f"held{i}", words)} for i in range(documents)])
    return str(path)


def taught(steps: int = 60) -> LanguageModel:
    """The tiny model after some steps on plain sentences: it loses something when it is ablated."""
    model, tokenizer = tiny_parts("llama", 0)
    lm = from_pretrained_parts(model, tokenizer, "taught")
    documents = [Document(str(i), text_of(i, 60), {}) for i in range(60)]
    rows = [row for row in pack(documents, lm, TokenPolicy(), 48) if len(row.ids) == 48]
    model.requires_grad_(True).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        ids = collate(rows[step % 8 :: 8], lm.pad_id).ids
        logits = model(input_ids=ids).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return from_pretrained_parts(model, tokenizer, "taught")


def place_of(lm: LanguageModel, layer: int = 1, **policy: object) -> Place:
    return Place(lm, layer, TokenPolicy.model_validate(policy))


def subject_of(sae: AbstractSAE, lm: LanguageModel, name: str = "it", layer: int = 1, **policy: object) -> Subject:
    return Subject(name, sae, place_of(lm, layer, **policy))


def constant(value: Tensor, d_sae: int = 8) -> StandardSAE:
    """Gives the same back for every token; nothing fires."""
    zeros = torch.zeros(d_sae, value.numel())
    weights = Weights(zeros.clone(), zeros, torch.full((d_sae,), -1.0), value.float())
    return StandardSAE(weights).requires_grad_(False).eval()


def random_sae(d_model: int = 32, d_sae: int = 64, seed: int = 0) -> StandardSAE:
    """Tied random directions: some latents fire, nothing is exact."""
    rows = torch.randn(d_sae, d_model, generator=generator(seed))
    rows /= rows.norm(dim=1, keepdim=True)
    weights = Weights(rows.clone(), 0.2 * rows, torch.zeros(d_sae), torch.zeros(d_model))
    return StandardSAE(weights).requires_grad_(False).eval()


def in_order(sae: AffineSAE, order: Tensor) -> AffineSAE:
    """The same dictionary with its latents in another order, or some of them."""
    weights = Weights(*(x.detach().clone() for x in (sae.W_enc[order], sae.W_dec[order], sae.b_enc[order], sae.b_dec)))
    extras = {name: value[order] for name, value in sae.extras().items()}
    made = type(sae).rebuild(weights, extras=extras, settings=sae.settings(), subtract_b_dec=sae.subtract_b_dec)
    return made.requires_grad_(False).eval()
