"""Activations that several evaluations, and several dictionaries, read: made once, kept on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, final

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from perimetry.errors import CorruptArtifact
from perimetry.storage import hash_json, remove_stale, write_bytes
from perimetry.strict import OWN, check_header

__all__ = ["Shelf"]

T = TypeVar("T")


@final
class Shelf:
    """Tensors by what they are of. With a folder they survive the process; without one they live as long as the shelf."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        """Where they lie."""
        self._held: dict[str, dict[str, Tensor]] = {}
        self._made: dict[str, Any] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            remove_stale(folder)

    def once(self, key: Mapping[str, Any], make: Callable[[], T]) -> T:
        """What `make` gives, made once in the life of this shelf: for what takes time and is no tensor."""
        name = hash_json(dict(key))
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def get(self, key: Mapping[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of `key` (plain JSON values that say all that they depend on), made where they are not there yet."""
        name = hash_json(dict(key))
        path = None if self.folder is None else self.folder / f"{name}.safetensors"
        if path is None:
            if name not in self._held:
                self._held[name] = make()
            return self._held[name]
        if not path.is_file():
            write_bytes(path, save({k: v.detach().cpu().contiguous() for k, v in make().items()}))
        check_header(path, OWN)
        try:
            return load(path.read_bytes())
        except SafetensorError as error:
            raise CorruptArtifact(f"{path} is not safetensors: {error}; remove it, it is made again") from error
