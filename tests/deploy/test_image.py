"""The Dockerfile: what it promises, read off its instructions. The image itself is not built here."""

import fnmatch
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.deploy.tools import DEPLOY, ROOT, dockerfile, image_environment
from tests.house.test_packaging import PROJECT, closure, pins

from perimetry.cli import app
from perimetry.config import load_config
from perimetry.monitor.serve_config import SECTION, ServeConfig

LOCKS = {flavour: DEPLOY / f"requirements-{flavour}.lock" for flavour in ("cpu", "cuda")}
OF_CUDA = ("nvidia-", "cuda-", "triton")
MAIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) \\$", re.MULTILINE)


def rest(word: str) -> list[str]:
    """What follows an instruction, in the last stage."""
    stages = dockerfile()
    last = max(i for i, one in enumerate(stages) if one.word == "FROM")
    return [one.rest for one in stages[last:] if one.word == word]


def json_list(text: str) -> list[str]:
    """A list of words in the form of JSON, as an instruction has it that wants no shell."""
    found = json.loads(text)
    assert isinstance(found, list)
    return found


def locked(flavour: str) -> dict[str, tuple[str, int]]:
    """Package -> its version, and how many hashes it has."""
    parts = MAIN.split(LOCKS[flavour].read_text(encoding="utf-8"))[1:]
    found = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return {canonicalize_name(name): (at, hashes.count("--hash=sha256:")) for name, at, hashes in found}


def test_nobody_is_root_and_there_is_no_shell() -> None:
    assert rest("USER") == ["65532:65532"]
    for word in ("ENTRYPOINT", "CMD"):
        (line,) = rest(word)
        assert line.startswith("["), f"{word} is in the form that wants a shell"
    assert rest("RUN") == []
    assert rest("STOPSIGNAL") == ["SIGTERM"]
    assert "distroless/python3" in dict(line.split("=", 1) for line in arguments()).get("RUNTIME", "")


def arguments() -> list[str]:
    """Arguments before the first stage."""
    stages = dockerfile()
    first = next(i for i, one in enumerate(stages) if one.word == "FROM")
    return [one.rest for one in stages[:first] if one.word == "ARG"]


def test_the_bases_have_tags_and_can_be_given_digests() -> None:
    named = dict(line.split("=", 1) for line in arguments())
    froms = [one.rest.split()[0] for one in dockerfile() if one.word == "FROM"]
    assert froms == ["${BUILDER}", "${RUNTIME}"]
    assert set(named) == {"BUILDER", "RUNTIME"}
    for image in named.values():
        tag = image.rpartition("/")[2].partition(":")[2]
        assert tag not in ("", "latest"), image


def test_its_python_is_that_of_the_locks_and_of_the_tests() -> None:
    assert sys.version_info[:2] == (3, 11)
    assert "python:3.11." in arguments()[0]
    assert "debian12" in arguments()[1]
    assert (DEPLOY / "perimetry").read_text().startswith("#!/usr/bin/python3.11\n")
    assert (DEPLOY / "perimetry").stat().st_mode & 0o111


def test_packages_are_installed_by_hash() -> None:
    installs = [one.rest for one in dockerfile() if one.word == "RUN" and "pip install" in one.rest]
    assert len(installs) == 1
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(installs[0].split())


def test_the_health_check_and_the_command_are_commands_of_ours() -> None:
    (health,) = rest("HEALTHCHECK")
    (entry,) = rest("ENTRYPOINT")
    (command,) = rest("CMD")
    assert json_list(entry) == ["perimetry"]
    assert json_list(health.partition("CMD ")[2]) == ["perimetry", "healthcheck"]
    assert re.search(r"--start-period=600s", health)
    for words in (["healthcheck"], json_list(command)):
        app.parse_args(words, exit_on_error=False, print_error=False)
    assert json_list(command)[:3] == ["serve", "/artifacts/meter", "--config"]
    assert any(one.rest.endswith(f"deploy/serve.toml {json_list(command)[3]}") for one in dockerfile())


def test_nothing_is_fetched_and_nothing_is_written_beside_tmp_and_data() -> None:
    found = image_environment()
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found["PYTHONSAFEPATH"] == "1"
    assert all(found[name].startswith("/tmp/") for name in ("HF_HOME", "XDG_CACHE_HOME", "PERIMETRY_CACHE"))
    config = load_config(ServeConfig, section=SECTION, file=DEPLOY / "serve.toml", environment={})
    assert config.engine.worker.model == "/artifacts/model"
    for path in (config.store.folder, config.engine.worker.state):
        assert path is not None
        assert path.is_relative_to("/data")
    assert config.http.tokens is not None
    assert json_list(rest("VOLUME")[0]) == ["/data"]
    assert any("--chown=65532:65532" in line and line.endswith(" /data") for line in rest("COPY"))


def test_what_is_copied_is_let_through() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    through = [rule[1:] for rule in rules if rule.startswith("!")]
    for one in dockerfile():
        if one.word != "COPY" or "--from=" in one.rest:
            continue
        source = next(part for part in shlex.split(one.rest) if not part.startswith("--"))
        for path in (source.replace("${FLAVOUR}", flavour) for flavour in LOCKS):
            assert (ROOT / path).exists(), path
            assert any(fnmatch.fnmatch(path, rule) for rule in through), path
    assert not [rule for rule in through if not list(ROOT.glob(rule))]


@pytest.mark.parametrize("flavour", sorted(LOCKS))
def test_a_lock_has_the_pinned_versions_and_a_hash_for_each(flavour: str) -> None:
    found = locked(flavour)
    assert [name for name, (_, hashes) in found.items() if hashes == 0] == []
    pinned = pins()
    odd = {n: at for n, (at, _) in found.items() if n in pinned and at.partition("+")[0] != pinned[n]}
    assert odd == {}
    more = {name for name in found if name not in pinned}
    assert not [name for name in more if flavour == "cpu" or not name.startswith(OF_CUDA)]
    assert found["torch"][0] == ("2.13.0+cpu" if flavour == "cpu" else "2.13.0")
    assert any(name.startswith("nvidia-") for name in found) == (flavour == "cuda")


def test_a_lock_holds_everything_that_is_asked_for() -> None:
    spec = importlib.util.spec_from_file_location("make_locks", DEPLOY / "make_locks.py")
    assert spec is not None
    assert spec.loader is not None
    making = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(making)
    extras = PROJECT["optional-dependencies"]
    wanted = [Requirement(line) for line in PROJECT["dependencies"]]
    wanted += [Requirement(line) for extra in making.EXTRAS for line in extras[extra]]
    needed = set(closure(wanted)) - {name for name in closure(wanted) if name.startswith(OF_CUDA)}
    for flavour in LOCKS:
        assert needed - set(locked(flavour)) == set(), f"run deploy/make_locks.py: {flavour}"


def test_hadolint_has_nothing_to_say() -> None:
    found = shutil.which("hadolint")
    if found is None:
        pytest.skip("no hadolint on the path")
    done = subprocess.run([found, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_secrets_are_not_committed() -> None:
    ignored = (DEPLOY / "compose" / ".gitignore").read_text(encoding="utf-8").split()
    assert {"tokens.txt", "pg_password", "pg_service.conf"} <= set(ignored)
