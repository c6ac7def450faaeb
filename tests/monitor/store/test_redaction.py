"""What is told by its form is blotted out, measured on generated strings; ordinary prose is left alone."""

import base64
import json
import random
import string
from collections.abc import Callable

import pytest

from perimetry.monitor.store.redaction import KINDS, redact

PER_KIND = 38
FRAMES = [
    "Please send it to {} as soon as you can.",
    "{}",
    "my details: {}, thanks",
    "Ruf mich an oder schreib: {}!",
    'config = {{"value": "{}"}}',
    "Voici ({}) pour le dossier.",
    "次の {} を確認してください",
    "line one\n{}\nline three",
    "was it <{}> or not?",
]
PHONES = (
    *("+49 30 #######", "+1 (###) ###-####", "(###) ###-####", "###-###-####", "+44 20 #### ####", "0## #######"),
    *("+33 1 ## ## ## ##", "01 ## ## ## ##", "+86 1## #### ####", "0049 171 #######", "+91-#####-#####"),
    *("030/#######", "+1-###-###-####", "(0##) ### ## ##", "###.###.####", "+3519########", "07### ######"),
)
ALNUM = string.ascii_letters + string.digits
Draw = random.Random


def _word(draw: Draw, low: int = 3, high: int = 9) -> str:
    return "".join(draw.choices(string.ascii_lowercase, k=draw.randint(low, high)))


def _digits(draw: Draw, n: int) -> str:
    return str(draw.randint(1, 9)) + "".join(draw.choices(string.digits, k=n - 1))


def _token(draw: Draw, n: int, letters: str = ALNUM) -> str:
    return "".join(draw.choices(letters, k=n))


def _email(draw: Draw) -> str:
    name = draw.choice(["{a}", "{a}.{b}", "{a}_{b}", "{a}+{b}", "{A}.{b}{n}", "{a}-{b}", "o'{a}"])
    host = draw.choice(["{c}.com", "{c}.co.uk", "mail.{c}.de", "{c}-{d}.org", "{c}.io", "sub.{c}.{d}.example"])
    words = {"a": _word(draw), "A": _word(draw).title(), "b": _word(draw), "n": draw.randint(1, 99)}
    return (name + "@" + host).format(**words, c=_word(draw), d=_word(draw))


def _phone(draw: Draw) -> str:
    shape = draw.choice(PHONES)
    return "".join(str(draw.randint(2, 9)) if c == "#" else c for c in shape)


def _ip(draw: Draw) -> str:
    if draw.random() < 0.6:
        return ".".join(str(draw.randint(1, 254)) for _ in range(4))
    groups = [f"{draw.randint(1, 0xFFFF):x}" for _ in range(8)]
    short = f"2001:db8::{groups[0]}:{groups[1]}"
    return draw.choice([":".join(groups), short, f"fe80::{groups[2]}", f"::ffff:10.{draw.randint(0, 255)}.0.7"])


def _card(draw: Draw) -> str:
    start, length = draw.choice([("4", 16), ("51", 16), ("34", 15), ("6011", 16), ("36", 14), ("35", 16)])
    body = start + "".join(draw.choices(string.digits, k=length - len(start) - 1))
    doubled = [int(d) * (2 - i % 2) for i, d in enumerate(reversed(body))]
    body += str(-sum(d // 10 + d % 10 for d in doubled) % 10)
    gap = draw.choice(["", " ", "-"])
    return gap.join(body[i : i + 4] for i in range(0, length, 4))


def _iban(draw: Draw) -> str:
    country, length = draw.choice([("DE", 18), ("GB", 18), ("FR", 23), ("NL", 14), ("ES", 20), ("NO", 11), ("MT", 27)])
    letters = {"GB": 4, "NL": 4, "MT": 4}.get(country, 0)
    body = _token(draw, letters, string.ascii_uppercase) + _token(draw, length - letters, string.digits)
    number = int("".join(str(int(c, 36)) for c in body + country + "00"))
    whole = f"{country}{98 - number % 97:02d}{body}"
    return draw.choice([whole, " ".join(whole[i : i + 4] for i in range(0, len(whole), 4)), whole.lower()])


def _key(draw: Draw) -> str:
    makers: list[Callable[[], str]] = [
        lambda: "sk-" + _token(draw, 48),
        lambda: "sk-proj-" + _token(draw, 60, ALNUM + "_-"),
        lambda: "sk-ant-api03-" + _token(draw, 80, ALNUM + "_-"),
        lambda: "ghp_" + _token(draw, 36),
        lambda: "github_pat_" + _token(draw, 22) + "_" + _token(draw, 59),
        lambda: "AKIA" + _token(draw, 16, string.ascii_uppercase + string.digits),
        lambda: "AIza" + _token(draw, 35, ALNUM + "_-"),
        lambda: f"xoxb-{_digits(draw, 12)}-{_digits(draw, 12)}-{_token(draw, 24)}",
        lambda: "hf_" + _token(draw, 34),
        lambda: "sk_live_" + _token(draw, 24),
        lambda: "glpat-" + _token(draw, 20),
        lambda: f"api_key={_token(draw, 32)}",
        lambda: f"password: {_token(draw, 14, ALNUM + '!#%&*')}",
        lambda: f"Bearer {_token(draw, 40)}",
        lambda: f"SG.{_token(draw, 22)}.{_token(draw, 43)}",
    ]
    return draw.choice(makers)()


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _jwt(draw: Draw) -> str:
    head = {"alg": draw.choice(["HS256", "RS256", "ES256"]), "typ": "JWT"}
    body = {"sub": _digits(draw, 8), "name": _word(draw), "iat": draw.randint(10**9, 2 * 10**9)}
    return f"{_part(head)}.{_part(body)}.{_token(draw, 43, ALNUM + '_-')}"


def _run(draw: Draw) -> str:
    return _digits(draw, draw.randint(9, 30))


MAKERS: dict[str, Callable[[Draw], str]] = {
    "jwt": _jwt,
    "key": _key,
    "email": _email,
    "iban": _iban,
    "card": _card,
    "ip": _ip,
    "phone": _phone,
    "digits": _run,
}


def _leaks(secret: str, left: str) -> bool:
    """Whether any five characters of the secret in a row are still there; the word before a password may stay."""
    value = secret.split("=")[-1].split(": ")[-1].removeprefix("Bearer ")
    return any(value[i : i + 5] in left for i in range(max(1, len(value) - 4)))


def test_every_kind_has_its_strings() -> None:
    assert tuple(MAKERS) == KINDS
    assert PER_KIND * len(MAKERS) >= 300


@pytest.mark.parametrize("kind", KINDS)
def test_recall_of_each_kind(kind: str) -> None:
    draw = random.Random(f"redaction {kind}")
    missed = []
    for i in range(PER_KIND):
        secret = MAKERS[kind](draw)
        found = redact(FRAMES[i % len(FRAMES)].format(secret))
        if _leaks(secret, found.text) or not found.counts:
            missed.append(secret)
    assert len(missed) <= 0.05 * PER_KIND, missed


def test_the_measure_sees_a_leak() -> None:
    assert _leaks("ann@example.com", "mail ann@example.com")
    assert _leaks("4111 1111 1111 1111", "card [card] 1111 or so")
    assert not _leaks("ann@example.com", "mail [email]")


@pytest.mark.parametrize(
    "prose",
    [
        "On 2024-05-01 at 12:30:45 we met 17 people, and 1,250,000 euros were spent.",
        "Version 1.2.3 of the library, section 4.5.6, is 10 times faster (see page 1234).",
        "std::vector<int> x = {1, 2, 3}; // 0x7fffffff",
        "The population was 8 336 817 in 2020.",
        "Am 01.02.2024 um 9 Uhr, Raum 204, Haus 12b.",
        "pi = 3.14159265, e = 2.71828",
        "Ask the token ring; a secret is no secret. Passwords are hard.",
    ],
)
def test_prose_is_left_alone(prose: str) -> None:
    assert redact(prose).text == prose
    assert redact(prose).counts == {}


def test_what_stays_around_and_is_counted() -> None:
    found = redact("ann@example.com, bob@example.org and 4111 1111 1111 1111 12/27")
    assert found.text == "[email], [email] and [card] 12/27"
    assert found.counts == {"email": 2, "card": 1}
    assert redact("").text == ""
    assert redact("4111 1111 1111 1112").text == "[digits]"


@pytest.mark.parametrize(
    "piece", ["a", "1", "1 ", "a.b@", "eyJ", "12:", "AB12 ", "(0", "+1", "token=a ", "::", "\u0661"]
)
def test_it_comes_back_the_same_when_done_again_and_never_hangs(piece: str) -> None:
    text = (piece * 20_000)[:16_384]
    once = redact(text).text
    assert redact(once).text == redact(redact(once).text).text
