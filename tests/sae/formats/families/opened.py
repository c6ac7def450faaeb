"""Foreign files opened by the same code as in the isolated process, but here: a process costs seconds, and most tests are not of it."""

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import safetensors.numpy
import safetensors.torch

from perimetry.artifact import read_safetensors
from perimetry.errors import CorruptArtifact, MissingFile
from perimetry.sae.formats import isolated, isolated_worker
from perimetry.sae.formats.isolated import Foreign

SIZE = 2**30


def _here(path: Path, kind: str, members: Collection[str] = ()) -> Foreign:
    if not path.is_file():
        raise MissingFile(f"no file {path}; check the path")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tensors.safetensors")
        try:
            if kind == "yaml":
                return Foreign({}, isolated_worker.read_yaml(str(path)))
            if kind == "npz":
                safetensors.numpy.save_file(isolated_worker.read_npz(str(path), list(members), SIZE), file)
                return Foreign(read_safetensors(file), {})
            tensors, plain = isolated_worker.read_pickle(str(path), SIZE)
        except isolated_worker.Refused as error:
            raise CorruptArtifact(f"{path} cannot be opened as {kind}: {error}") from error
        safetensors.torch.save_file(tensors, file)
        return Foreign({name: tensor.clone() for name, tensor in read_safetensors(file).items()}, plain)


@contextmanager
def opened_here() -> Iterator[None]:
    with patch.object(isolated, "_run", _here):
        yield
