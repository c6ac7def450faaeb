"""What a folder was begun with: a run that goes on must be the run that was begun."""

from pathlib import Path

from perimetry.config import Config
from perimetry.errors import ConfigError
from perimetry.storage import read_json, write_json

__all__ = ["require_same"]


def require_same(config: Config, file: Path, what: str) -> None:
    """Write the configuration to `file`, or refuse to continue where another one stands there: what is compared was fixed then.

    `what`: such as "a study". Errors: `ConfigError` that names the settings that differ.
    """
    now = config.model_dump(mode="json")
    if not file.is_file():
        write_json(file, now)
        return
    before = read_json(file)
    if before != now:
        different = sorted(k for k in now.keys() | before.keys() if before.get(k) != now.get(k))
        raise ConfigError(
            f"{file.parent} holds {what} with other settings ({', '.join(different)}); give another --out, or remove that folder"
        )
