"""Where a concept is described elsewhere: one site only, and only addresses that are made here."""

import re
from typing import Final

__all__ = ["NEURONPEDIA", "concept_url"]

NEURONPEDIA: Final = "https://www.neuronpedia.org"
_ID: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}/[a-z0-9][a-z0-9._-]{0,63}")


def concept_url(dictionary: object, latent: int, label: str | None) -> str | None:
    """The page of a concept that has a label, in a dictionary that the site knows by this name (MODEL/SOURCE); else None.

    >>> concept_url("gpt2-small/6-res-jb", 7, "colours")
    'https://www.neuronpedia.org/gpt2-small/6-res-jb/7'
    >>> concept_url("gpt2-small/6-res-jb", 7, None), concept_url("../evil?x=", 7, "colours")
    (None, None)
    """
    if label is None or not isinstance(dictionary, str) or _ID.fullmatch(dictionary) is None:
        return None
    return f"{NEURONPEDIA}/{dictionary}/{latent}"
