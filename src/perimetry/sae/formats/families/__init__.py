"""Readers of foreign formats: one family, one file; `READERS` is the table.

A family is added by one file with `recognises` and `read`, and one line here.
"""

from perimetry.sae.formats.families import (
    deepseek,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    goodfire,
    llama_scope,
    llamascopium,
    mwhanna,
    openai,
    qwen_scope,
    sparsify,
    temporal,
)
from perimetry.sae.formats.record import Reader

__all__ = ["READERS"]

READERS: dict[str, Reader] = {
    "deepseek": Reader(deepseek.recognises, deepseek.read, "DeepSeek-R1 dictionaries of qresearch: one pickle, ReLU."),
    "dictionary_learning": Reader(
        dictionary_learning.recognises,
        dictionary_learning.read,
        "dictionary_learning: ae.pt and config.json of a trainer, seven classes.",
    ),
    "gemma_scope": Reader(gemma_scope.recognises, gemma_scope.read, "Gemma Scope 1: params.npz, JumpReLU."),
    "gemma_scope_2": Reader(
        gemma_scope_2.recognises,
        gemma_scope_2.read,
        "Gemma Scope 2: params.safetensors, JumpReLU, transcoders with a skip.",
    ),
    "goodfire": Reader(goodfire.recognises, goodfire.read, "Goodfire's Llama dictionaries: one pickle, ReLU."),
    "llama_scope": Reader(
        llama_scope.recognises, llama_scope.read, "Llama Scope: hyperparams.json and final.safetensors, JumpReLU."
    ),
    "llamascopium": Reader(
        llamascopium.recognises,
        llamascopium.read,
        "Llamascopium: config.json and sae_weights.safetensors, W_E and W_D.",
    ),
    "mwhanna": Reader(
        mwhanna.recognises, mwhanna.read, "Transcoders for circuit tracing: layer_L.safetensors or W_enc_L.safetensors."
    ),
    "openai": Reader(openai.recognises, openai.read, "OpenAI's GPT-2 autoencoders: LOCATION/autoencoders/LAYER.pt."),
    "qwen_scope": Reader(qwen_scope.recognises, qwen_scope.read, "Qwen-Scope: layerL.sae.pt, TopK."),
    "sparsify": Reader(
        sparsify.recognises, sparsify.read, "sparsify of EleutherAI: cfg.json and sae.safetensors, TopK, transcoders."
    ),
    "temporal": Reader(
        temporal.recognises, temporal.read, "Temporal feature analysis: conf.yaml and latest_ckpt.safetensors, tied."
    ),
}
"""Family -> how its files are recognised and read."""
