"""Every error that perimetry raises on purpose.

The tree, drawn:

    PerimetryError                   base; the command line turns it into exit code 2
    ├── UsageError                   what the caller gave cannot be used
    │   ├── ConfigError              a key, a value or a file of the configuration
    │   ├── UnknownName              a name that is in no table; carries the nearest one
    │   ├── MissingFile              a path that should exist and does not
    │   ├── MalformedLine            a line of a JSONL file; carries the line number
    │   ├── EmptyText                a text without a character to score
    │   ├── NoScorableToken          a text whose every token the policy excludes
    │   ├── PromptTooLong            more tokens than the context; never cut silently
    │   └── TooFewSamples            not enough data to fit or to calibrate on
    ├── AssetError                   a model or a text that cannot be had
    │   ├── DownloadFailed           the network, an index or a mirror refused
    │   └── HashMismatch             the bytes are not the pinned ones
    ├── ArtifactError                a folder on disk that cannot be used
    │   ├── CorruptArtifact          files that are not what they should be; nothing of them is used
    │   │   ├── UnsafeFormat         a format that can run code when it is opened, or a folder that wants to
    │   │   ├── BadHeader            JSON, or the header of safetensors, that breaks the rules or the limits
    │   │   ├── BadLayout            offsets, lengths or names of files that do not fit the bytes
    │   │   ├── BadShape             a tensor of another shape or dtype, or of a strange name
    │   │   ├── BadValue             a number out of its range
    │   │   ├── BadPath              a link or a name that leads elsewhere, a pipe, a device, a file that was swapped
    │   │   └── TooLarge             more bytes than are read
    │   └── Incompatible             whole, but made for something else
    │       ├── WidthMismatch        d_model or d_sae differs
    │       ├── ModelMismatch        another model or another revision of it
    │       ├── DtypeMismatch        another compute dtype
    │       └── PolicyMismatch       another token policy
    ├── NonFinite                    NaN or infinity where a number was wanted
    ├── Diverged                     a tuning that went astray; the last good state is kept
    └── StorageError                 the disk
        ├── StorageFull              no space left
        └── Locked                   another process writes here

A message says what came, what was wanted and what to do, in that order.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "ArtifactError",
    "AssetError",
    "BadHeader",
    "BadLayout",
    "BadPath",
    "BadShape",
    "BadValue",
    "ConfigError",
    "CorruptArtifact",
    "Diverged",
    "DownloadFailed",
    "DtypeMismatch",
    "EmptyText",
    "HashMismatch",
    "Incompatible",
    "Locked",
    "MalformedLine",
    "MissingFile",
    "ModelMismatch",
    "NoScorableToken",
    "NonFinite",
    "PerimetryError",
    "PolicyMismatch",
    "PromptTooLong",
    "StorageError",
    "StorageFull",
    "TooFewSamples",
    "TooLarge",
    "UnknownName",
    "UnsafeFormat",
    "UsageError",
    "WidthMismatch",
    "nearest",
]


class PerimetryError(Exception):
    """Base of every error raised on purpose; `str(error)` is one sentence fit for a terminal."""


class UsageError(PerimetryError):
    """What the caller gave cannot be used."""


class ConfigError(UsageError):
    """A key, a value or a file of the configuration is wrong."""


class UnknownName(UsageError):
    """A name that is in no table.

    >>> str(UnknownName("detector", "surprize", ["l0", "surprise"]))
    "unknown detector 'surprize'; the nearest name is 'surprise'; known: l0, surprise"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        hint = nearest(name, names)
        middle = f"; the nearest name is {hint!r}" if hint else ""
        super().__init__(f"unknown {kind} {name!r}{middle}; known: {', '.join(names)}")


class MissingFile(UsageError):
    """A path that should exist and does not."""


class MalformedLine(UsageError):
    """A line of a JSONL file that cannot be used; names file and line number."""

    def __init__(self, path: str, line: int, why: str) -> None:
        super().__init__(
            f'{path}, line {line}: {why}; wanted one JSON object a line, {{"id": ..., "text": ...}}; '
            "mend or remove the line"
        )
        self.line = line


class EmptyText(UsageError):
    """A text without a character to score."""


class NoScorableToken(UsageError):
    """A text whose every token the token policy excludes."""


class PromptTooLong(UsageError):
    """A text with more tokens than the context of the model or the meter."""


class TooFewSamples(UsageError):
    """Not enough data to fit or to calibrate on."""


class AssetError(PerimetryError):
    """A model or a text that cannot be had."""


class DownloadFailed(AssetError):
    """The network, a package index or a mirror refused."""


class HashMismatch(AssetError):
    """The bytes are not the pinned ones."""


class ArtifactError(PerimetryError):
    """A folder on disk that cannot be used."""


class CorruptArtifact(ArtifactError):
    """Files that are not what they should be: hashes, shapes, JSON, values. Nothing of them is used."""


class UnsafeFormat(CorruptArtifact):
    """A format that can run code when it is opened, such as a pickle, or a folder that wants code of its own run."""


class BadHeader(CorruptArtifact):
    """JSON, or the JSON at the head of a safetensors file, that breaks the rules or the limits."""


class BadLayout(CorruptArtifact):
    """Tensors that overlap, leave holes, or name more or fewer bytes than the file has."""


class BadShape(CorruptArtifact):
    """A tensor of another shape or dtype than is wanted, of absurd dimensions, or of a strange name."""


class BadValue(CorruptArtifact):
    """A number that is finite and out of its range."""


class BadPath(CorruptArtifact):
    """A link or a name that leads elsewhere, a pipe, a device, or a file that changed while it was read."""


class TooLarge(CorruptArtifact):
    """More bytes than are ever read, on the disk or when unpacked."""


class Incompatible(ArtifactError):
    """The artifact is whole, but made for something else."""


class WidthMismatch(Incompatible):
    """The width of the activations or of the dictionary differs."""


class ModelMismatch(Incompatible):
    """Another model, or another revision of it."""


class DtypeMismatch(Incompatible):
    """Another compute dtype than the one the artifact was fitted with."""


class PolicyMismatch(Incompatible):
    """Another token policy than the one the artifact was fitted with."""


class NonFinite(PerimetryError):
    """NaN or infinity where a number was wanted."""


class Diverged(PerimetryError):
    """A tuning went astray; the state of the last good checkpoint is kept."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class StorageError(PerimetryError):
    """The disk refused."""


class StorageFull(StorageError):
    """No space left on the device."""


class Locked(StorageError):
    """Another process writes to the same place."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest in spelling to `name`, or None when nothing is near.

    >>> nearest("widht", ["width", "k"])
    'width'
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return close[0] if close else None
