"""`perimetry token`: what it prints is what the service accepts."""

from pathlib import Path

from tests.worlds import run_main

from perimetry.monitor.http.tokens import read_tokens


def test_a_token_is_good_for_what_it_was_made_for(tmp_path: Path) -> None:
    done = run_main("token", "gateway", "--scopes", "score,read")
    assert done.code == 0
    file = tmp_path / "tokens.txt"
    file.write_text(done.out)
    file.chmod(0o600)
    token = done.err.strip().removeprefix("token: ")
    assert token not in done.out
    key = read_tokens(file).find(token)
    assert key is not None
    assert (key.name, key.scopes) == ("gateway", {"score", "read"})
    assert read_tokens(file).find(token[:-1]) is None


def test_json_holds_both(tmp_path: Path) -> None:
    (found,) = run_main("token", "prometheus", "--scopes", "metrics", "--json").lines()
    file = tmp_path / "tokens.txt"
    file.write_text(found["line"] + "\n")
    file.chmod(0o600)
    key = read_tokens(file).find(found["token"])
    assert key is not None
    assert key.scopes == {"metrics"}


def test_what_is_no_scope_and_what_is_no_name() -> None:
    done = run_main("token", "a", "--scopes", "scores")
    assert done.code == 2
    assert "the nearest name is 'score'" in done.err
    assert run_main("token", "a b").code == 2
    assert run_main("token", "a", "--scopes", ",").code == 2
