"""The process that opens npz, YAML and pickle files: alone, limited, without network. Run by `isolated.py`, by its path.

It knows nothing of perimetry. It reads a request (JSON) from its first argument and leaves `tensors.safetensors` and `plain.json` in
the folder that the request names; whoever started it checks both like any stranger's file.
"""

import contextlib
import ctypes
import json
import os
import resource
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["main"]

FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "os.rmdir",
)
"""Audit events that end the process: network, other programs, removal of files."""
MAX_YAML, DEPTH, MAX_MEMBERS, MAX_RATIO = 4 * 2**20, 32, 16, 20


class Refused(Exception):
    """The file cannot be taken; the text is for the user, the kind is the error that it becomes there."""

    def __init__(self, why: str, kind: str = "CorruptArtifact") -> None:
        super().__init__(why)
        self.kind = kind


def limit(seconds: int, memory: int, file_size: int) -> None:
    """Bounds on time, memory and files of this process; the network is taken away where the system lets it."""
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (wanted, wanted))
    new_user, new_net = 0x10000000, 0x40000000
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None, use_errno=True).unshare(new_user | new_net)


def watch(folder: str) -> None:
    """From here on: no network, no other program, no writing outside `folder`."""
    root = os.path.realpath(folder) + os.sep

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN):
            raise Refused(f"the file tried {event}, which opening weights never needs")
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            name = os.path.realpath(os.fsdecode(arguments[0]))
            if writes and not name.startswith(root) and name != os.devnull:
                raise Refused(f"the file tried to write to {name}")

    sys.addaudithook(hook)


def depth(value: Any, left: int = DEPTH) -> None:
    """Refuse deep nests."""
    if left < 0:
        raise Refused(f"nested more than {DEPTH} levels")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        depth(inner, left - 1)


def read_yaml(path: str) -> Any:
    """A YAML file by the safe loader, without aliases or duplicate keys."""
    import yaml

    if Path(path).stat().st_size > MAX_YAML:
        raise Refused(f"more than {MAX_YAML} bytes")

    class Strict(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise Refused("it holds an alias")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [self.construct_object(key, deep=True) for key, _ in node.value]
            if len({str(n) for n in names}) != len(names):
                raise Refused("a mapping holds the same key twice")
            return super().construct_mapping(node, deep)

    with open(path, encoding="utf-8") as handle:
        value = yaml.load(handle, Loader=Strict)
    depth(value)
    return value


def check_members(path: str, size: int) -> None:
    """Refuse a zip that unpacks to too much."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    whole = sum(m.file_size for m in members)
    if whole > size or whole > MAX_RATIO * max(1, sum(m.compress_size for m in members)):
        raise Refused(
            f"it unpacks to {whole} bytes, more than {size} or than {MAX_RATIO} times what is packed", "TooLarge"
        )


def read_npz(path: str, members: list[str], size: int) -> dict[str, Any]:
    """The arrays of an npz, of which only those in `members` (any case) may be there."""
    import numpy as np

    check_members(path, size)
    known = {m.lower() for m in members}
    with np.load(path, allow_pickle=False) as archive:
        strange = [name for name in archive.files if name.lower() not in known]
        if strange or len(archive.files) > MAX_MEMBERS:
            raise Refused(f"it holds {strange[:5] or len(archive.files)}, wanted are {sorted(members)}")
        try:
            return {name: np.ascontiguousarray(archive[name]) for name in archive.files}
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise Refused(f"it holds Python objects: {error}", "UnsafeFormat") from error


def flatten(value: Any, prefix: str, tensors: dict[str, Any]) -> Any:
    """Take the tensors out of nested dictionaries, named by their path; what remains is plain."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.is_sparse or value.is_quantized or value.layout != torch.strided:
            raise Refused(f"{prefix!r} is no dense tensor")
        tensors[prefix] = value.detach().cpu().contiguous().clone()
        return None
    if isinstance(value, Mapping):
        if any(not isinstance(key, str | int) for key in value):
            raise Refused(f"{prefix!r} has keys that are no text")
        inner = {str(k): flatten(v, f"{prefix}.{k}" if prefix else str(k), tensors) for k, v in value.items()}
        return {k: v for k, v in inner.items() if v is not None}
    if isinstance(value, list | tuple):
        return [flatten(v, f"{prefix}.{i}" if prefix else str(i), tensors) for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def read_pickle(path: str, size: int) -> tuple[dict[str, Any], Any]:
    """Tensors and plain values of a pickle that torch's restricted reader takes."""
    import torch

    release = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if release < (2, 10):
        raise Refused(
            f"torch {torch.__version__} reads pickles unsafely (CVE-2025-32434, CVE-2026-24747); 2.10 is wanted"
        )
    if zipfile.is_zipfile(path):
        check_members(path, size)
    tensors: dict[str, Any] = {}
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise Refused(
            "it is no pickle, or holds more than tensors and plain values, which would have to run code",
            "UnsafeFormat",
        ) from error
    plain = flatten(value, "", tensors)
    depth(plain)
    return tensors, plain


def work(request: Mapping[str, Any]) -> None:
    """Do what the request says."""
    path, out, kind = request["path"], request["out"], request["kind"]
    plain: Any = {}
    if kind == "yaml":
        import yaml  # noqa: F401  # loaded before the watch: its files are not the user's

        watch(out)
        plain = read_yaml(path)
    elif kind == "npz":
        from safetensors.numpy import save_file

        watch(out)
        save_file(read_npz(path, request["members"], request["size"]), os.path.join(out, "tensors.safetensors"))
    else:
        if zipfile.is_zipfile(path):
            check_members(path, request["size"])  # before torch is loaded, which takes seconds
        import torch  # noqa: F401
        from safetensors.torch import save_file

        watch(out)
        tensors, plain = read_pickle(path, request["size"])
        if tensors:
            save_file(tensors, os.path.join(out, "tensors.safetensors"))
    with open(os.path.join(out, "plain.json"), "w", encoding="utf-8") as handle:
        json.dump(plain, handle, allow_nan=False)


def main() -> NoReturn:
    """Read the request, work within the limits, say on standard output why not."""
    request = json.loads(sys.argv[1])
    limit(request["seconds"], request["memory"], request["size"])
    try:
        work(request)
    except Refused as error:
        sys.stdout.write(json.dumps({"refused": str(error), "kind": error.kind}))
        sys.exit(3)
    except BaseException as error:
        sys.stdout.write(
            json.dumps({"refused": f"{type(error).__name__}: {str(error)[:300]}", "kind": "CorruptArtifact"})
        )
        sys.exit(3)
    sys.exit(0)


if __name__ == "__main__":
    main()
