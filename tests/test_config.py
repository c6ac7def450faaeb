"""Configurations: frozen, strict, from file, environment and flags."""

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from perimetry.config import Config, build, load_config, refusal
from perimetry.errors import ConfigError, MissingFile


class Inner(Config):
    width: int = Field(default=8, ge=1)
    rate: float = 0.5


class Outer(Config):
    name: str = "plain"
    k: int = 4
    fast: bool = False
    suites: tuple[str, ...] = ("typos",)
    inner: Inner = Inner()
    limit: int | None = None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.toml"
    path.write_text('[outer]\nname = "file"\nk = 5\n[outer.inner]\nwidth = 9\n[other]\nanything = 1\n')
    return path


def test_file_then_environment_then_flags(file: Path) -> None:
    def load(environment: dict[str, str], **flags: object) -> Outer:
        return load_config(Outer, section="outer", file=file, environment=environment, overrides=flags)

    assert load({}) == Outer(name="file", k=5, inner=Inner(width=9))
    environment = {"PERIMETRY_OUTER_K": "6", "PERIMETRY_OUTER_FAST": "true", "PERIMETRY_OTHER_K": "7", "OUTER_K": "8"}
    assert load(environment) == Outer(name="file", k=6, fast=True, inner=Inner(width=9))
    assert load(environment, k=10, name=None).k == 10
    assert load(environment, k=10, name=None).name == "file", "a flag that was not given changes nothing"
    assert load(environment, k=0, fast=False) == Outer(name="file", k=0, inner=Inner(width=9)), "0 and False are given"


def test_without_a_file_there_are_defaults() -> None:
    assert load_config(Outer, section="outer", environment={}) == Outer()


def test_lists_and_tables_of_the_environment_are_json() -> None:
    environment = {"PERIMETRY_OUTER_SUITES": '["case", "typos"]', "PERIMETRY_OUTER_INNER": ' {"width": 3}'}
    found = load_config(Outer, section="outer", environment=environment)
    assert found == Outer(suites=("case", "typos"), inner=Inner(width=3))
    with pytest.raises(ConfigError, match="the environment variable PERIMETRY_OUTER_SUITES is not JSON"):
        load_config(Outer, section="outer", environment={"PERIMETRY_OUTER_SUITES": "[case"})


def test_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIMETRY_OUTER_NAME", "from the shell")
    assert load_config(Outer, section="outer").name == "from the shell"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"nam": "x"},
            r"test: unknown key 'nam'; the nearest key is 'name'; known: fast, inner, k, limit, name, suites",
        ),
        ({"zzzzqq": 1}, r"unknown key 'zzzzqq'; known: fast"),
        ({"inner": {"widht": 1}}, r"unknown key 'inner.widht'; the nearest key is 'width'; known: rate, width"),
        ({"inner": {"width": 0}}, r"inner.width = 0: Input should be greater than or equal to 1"),
        ({"k": "many"}, r"k = 'many': Input should be a valid integer"),
        ({"inner": {"rate": float("nan")}}, r"inner.rate = nan: Input should be a finite number"),
        ({"k": 1.5}, r"k = 1.5: "),
    ],
)
def test_every_refusal_is_one_sentence(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(Outer, values, "test")
    assert "\n" not in str(caught.value)


def test_a_refusal_without_a_class_still_names_the_key() -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"nam": 1, "k": "x"})
    text = str(refusal(caught.value.title, caught.value))
    assert text.startswith("Outer: ")
    assert "unknown key 'nam'" in text
    assert "k = 'x': Input should be a valid integer" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[outer\n", "is not TOML"),
        ("[outr]\nk = 1\n", r"has no section \[outer\]; the nearest name in it is 'outr'"),
        ("k = 1\n", r"has no section \[outer\]; put the settings"),
        ("outer = 3\n", r"has no section \[outer\]"),
        ("[outer]\nkk = 1\n", "unknown key 'kk'"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, section="outer", file=path, environment={})


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe[outer]")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(Outer, section="outer", file=tmp_path / "x.toml", environment={})
    with pytest.raises(MissingFile, match=r"no configuration file .*y\.toml; check the path"):
        load_config(Outer, section="outer", file=tmp_path / "y.toml", environment={})


def test_configurations_are_values() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().k = 3  # pyright: ignore[reportAttributeAccessIssue]
    assert Outer().fingerprint() == Outer(k=4).fingerprint()
    assert Outer().fingerprint() != Outer(k=5).fingerprint()
    assert Outer.model_validate_json(Outer(k=9).model_dump_json()) == Outer(k=9)
