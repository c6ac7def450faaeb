"""Personal data blotted out of text, as far as its form gives it away. Best effort: names, addresses and much else stay.

Every pattern begins where a run of its own characters begins and has a bound on its length, so that the work grows with
the length of the text and no faster.
"""

import ipaddress
import re
from collections import Counter
from typing import Final, NamedTuple

__all__ = ["KINDS", "Redacted", "redact"]

KINDS: Final = ("jwt", "key", "email", "iban", "card", "ip", "phone", "digits")
"""What is looked for, in this order; each is replaced by its name in brackets."""


class Redacted(NamedTuple):
    """A text without what was found in it."""

    text: str
    """The text, with `[email]` and the like where something was."""
    counts: dict[str, int]
    """How often each kind was found; kinds that were not are left out."""


_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{4,4096}\.[\w-]{4,8192}(?:\.[\w-]{0,4096})?")
_KEY = re.compile(
    r"""-----BEGIN[A-Z ]{0,30}PRIVATE[ ]KEY-----[\w+/=\s:,.]{0,16384}(?:-----END[A-Z ]{0,30}PRIVATE[ ]KEY-----)?
    | (?<![A-Za-z0-9])(?:
        (?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,256}          # OpenAI, Anthropic, Stripe and those that copy them
      | gh[pousr]_[A-Za-z0-9]{20,255} | github_pat_[A-Za-z0-9_]{20,255} | glpat-[\w-]{16,64}
      | (?:AKIA|ASIA|AGPA|AROA|AIDA)[A-Z0-9]{12,32} | AIza[\w-]{30,50} | ya29\.[\w-]{20,512}
      | xox[abeoprs]-[A-Za-z0-9-]{10,256} | (?:hf|npm|dop|gsk|xai)_[A-Za-z0-9_]{20,256} | pypi-[\w-]{20,512}
      | SG\.[\w-]{10,64}\.[\w-]{10,128} | AC[0-9a-f]{32} | key-[0-9a-f]{32}
    )
    | (?i:(?<![a-z])(?:api[ _-]?key|access[ _-]?key|secret|token|passw(?:or)?d|pwd)["']?[ ]{0,3}[:=][ ]{0,3}["']?)[^\s"',;]{8,512}
    | (?i:(?<![a-z])bearer[ ]{1,3})[\w.~+/=-]{16,4096}""",
    re.VERBOSE,
)
_EMAIL = re.compile(r"(?<![\w.%+'-])[\w.%+'-]{1,128}@(?:\[[0-9a-fA-F.:]{2,45}\]|[\w-]{1,63}(?:\.[\w-]{1,63}){1,8})")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<!\d)\d(?:[ .-]?\d){12,30}(?!\d)")
_IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)|[0-9A-Fa-f:]{2,39}(?:\d{0,3}(?:\.\d{1,3}){3})?(?![\w:]))"
)
_PHONE = re.compile(
    r"""(?<![\w+])(?:
        (?:\+|00)[ ]?[1-9](?:[ ./()-]{0,2}\d){6,14}     # international
      | \(?0\d{1,5}\)?(?:[ ./-]{0,3}\d){4,12}            # with a national prefix
      | (?:1[ .-])?(?:\(\d{3}\)[ ]?|\d{3}[ .-])\d{3}[ .-]\d{4}   # North American
      | \d{2}(?:[ .]\d{2}){4}                            # French, without its nought
    )(?!\w)""",
    re.VERBOSE,
)
_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-](?:\d{2}|\d{4})|\d{4}[./-]\d{1,2}[./-]\d{1,2}")
_DIGITS = re.compile(r"(?<!\d)(?:\d{9,}|\d{2,}(?:[ .-]\d{2,}){2,}(?=\D|\Z))")
_LONG_RUN = 9


def _card_end(found: str) -> int:
    """Where the longest beginning ends that is a card number by its checksum (Luhn), of 13 to 19 digits; 0 if none is.

    >>> _card_end("4111 1111 1111 1111 12"), _card_end("4111111111111112")
    (19, 0)
    """
    ends = [i + 1 for i, c in enumerate(found) if c.isdigit()]
    for count in range(min(19, len(ends)), 12, -1):
        if found[ends[count - 1] :][:1].isdigit():
            continue  # a card does not end inside a run of digits
        digits = [int(found[end - 1]) for end in reversed(ends[:count])]
        doubled = (digit * (1 + i % 2) for i, digit in enumerate(digits))
        if sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0:
            return ends[count - 1]
    return 0


def _iban_end(found: str) -> int:
    """Where the longest beginning ends that is an account number by its checksum (ISO 13616); 0 if none is.

    >>> _iban_end("GB82 WEST 1234 5698 7654 32 PLEASE")
    27
    """
    ends = [i + 1 for i, c in enumerate(found) if c.isalnum()]
    values = [int(found[end - 1], 36) for end in ends[:34]]
    head = int("".join(map(str, values[:4])))
    best = body = 0
    for count, value in enumerate(values[4:], start=5):
        body = (body * (100 if value > 9 else 10) + value) % 97
        if count >= 15 and (body * 10**6 + head) % 97 == 1:
            best = ends[count - 1]
    return best


def _is_ip(found: str) -> bool:
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return False
    return any(c.isalnum() for c in found)


def _is_phone(found: str) -> bool:
    return not _DATE.fullmatch(found.strip())


def _is_long(found: str) -> bool:
    return sum(c.isdigit() for c in found) >= _LONG_RUN and not _DATE.fullmatch(found)


def _replace(kind: str, match: "re.Match[str]") -> str:
    """What stands in the place of a match; the match itself where the check says that it only looks so."""
    found = match.group()
    end = len(found)
    if kind == "card":
        end = _card_end(found)
    elif kind == "iban":
        end = _iban_end(found)
    elif kind == "ip":
        end = end if _is_ip(found) else 0
    elif kind == "phone":
        end = end if _is_phone(found) else 0
    elif kind == "digits":
        end = end if _is_long(found) else 0
    return f"[{kind}]{found[end:]}" if end else found


_PATTERNS: Final = (_JWT, _KEY, _EMAIL, _IBAN, _CARD, _IP, _PHONE, _DIGITS)


def redact(text: str) -> Redacted:
    """Replace addresses of mail, phone numbers, addresses of machines, cards, accounts, keys, tokens and long runs of digits.

    Cards and accounts count only where their checksum is right; wrong ones are mostly long runs of digits anyway.

    >>> redact("Mail ann@example.com or call +49 30 901820.").text
    'Mail [email] or call [phone].'
    """
    counts: Counter[str] = Counter()
    for kind, pattern in zip(KINDS, _PATTERNS, strict=True):

        def once(match: "re.Match[str]", kind: str = kind) -> str:
            new = _replace(kind, match)
            counts[kind] += new is not match.group() and new != match.group()
            return new

        text = pattern.sub(once, text)
    return Redacted(text, {kind: n for kind, n in counts.items() if n})
