"""Run in a process of its own: opens every hostile folder under an audit hook and says what came of it, a JSON line each.

Then some of them once more in processes of their own, for the memory that they take, and folders that Hypothesis spoils.
Arguments: a folder to work in, the world's meter and its model, how many folders Hypothesis spoils.
"""

import json
import os
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from tests.reliability.corpus import CASES, Case, spoil
from tests.reliability.loaders import CPU, LOADERS, Desk, build
from tests.reliability.mutations import NAMES, examine
from tests.report.samples import results

from perimetry.activations.model import load_language_model, tiny_language_model
from perimetry.errors import PerimetryError

FORBIDDEN = ("pickle.find_class", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.")


class Watch:
    """Audit events that no loader may cause, while it is armed."""

    def __init__(self) -> None:
        self.armed = False
        self.seen: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Keep what is forbidden; running the body of an installed module is how Python imports it."""
        if not self.armed:
            return
        if event.startswith(FORBIDDEN):
            self.seen.append(event)
        elif event == "exec":
            code = arguments[0]
            installed = code.co_filename.startswith((sys.prefix, sys.base_prefix, "<frozen"))
            if code.co_name != "<module>" or not (installed or code.co_filename.startswith(SOURCE)):
                self.seen.append(f"exec {code.co_filename}")


SOURCE = str(Path(sys.modules["perimetry"].__file__ or "").parent)


def attempt(case: Case, desk: Desk, folder: Path, watch: Watch) -> dict[str, Any]:
    """What one case came to."""
    target = folder / "case"
    shutil.rmtree(target, ignore_errors=True)
    spoil(case, desk.root, target)
    said: dict[str, Any] = {"id": case.id}
    begun = time.process_time()
    watch.armed = True
    try:
        LOADERS[case.loader](target, desk)
        said["kinds"] = ["nothing"]
    except PerimetryError as error:
        said |= {"kinds": [cls.__name__ for cls in type(error).__mro__], "message": str(error)}
    except BaseException as error:
        said |= {"kinds": [type(error).__name__], "message": traceback.format_exc()[-1500:]}
    watch.armed = False
    said |= {"seconds": time.process_time() - begun, "events": watch.seen[:]}
    watch.seen.clear()
    return said


HEAVY = (
    "blank-header",
    "wide-header",
    "many-tensors",
    "sparse",
    "nan",
    "wide",
    "bottomless",
    "gzip-line",
    "gzip-lines",
)
HEAVY_FILES = ("sae_weights.safetensors", "cfg.json", "p.jsonl", "plan.json")


def memory(case: Case, desk: Desk, target: Path) -> dict[str, Any]:
    """Bytes that a forked process takes above what it has, to refuse a hostile folder, and the bytes of that folder."""
    shutil.rmtree(target, ignore_errors=True)
    spoil(case, desk.root, target)
    blocks = sum(f.stat().st_blocks * 512 for f in target.rglob("*") if f.is_file())
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        try:
            LOADERS[case.loader](target, desk)
        except PerimetryError:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            os.write(theirs, str(peak - before).encode())
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as handle:
        taken = handle.read()
    os.waitpid(child, 0)
    return {"memory": case.id, "taken": int(taken or b"-1"), "bytes": blocks}


def main() -> None:
    """Build, warm up, open."""
    torch.set_num_threads(1)
    root, meter, model = (Path(a) for a in sys.argv[1:4])
    valid, work = root / "valid", root / "work"
    valid.mkdir()
    work.mkdir()
    page = root / "results.json"
    page.write_text(json.dumps(results((0,), 12)))
    build(valid, meter, model, page)
    desk = Desk(valid, load_language_model(str(model), CPU), tiny_language_model("llama"))
    for name in LOADERS:
        if name != "goodfire":  # a pickle, refused as it is
            LOADERS[name](valid / name, desk)
    print(json.dumps({"ready": True}), flush=True)
    watch = Watch()
    for case in CASES:
        print(json.dumps(attempt(case, desk, work, watch)), flush=True)
    for case in CASES:
        if case.name in HEAVY and case.file.rpartition("/")[2] in HEAVY_FILES:
            print(json.dumps(memory(case, desk, work / "case")), flush=True)
    for name in NAMES:
        found = examine(desk, work / "case", name, -(-int(sys.argv[4]) // len(NAMES)))
        print(json.dumps({"loader": name, **found}), flush=True)


if __name__ == "__main__":
    main()
