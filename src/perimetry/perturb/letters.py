"""The case of letters, one letter for one: what has no other case of its own length stays as it is."""

__all__ = ["flip", "like", "lower", "upper"]


def flip(letter: str) -> str:
    """The letter in its other case, or itself where it has none, or one of more than one character."""
    other = letter.swapcase()
    return other if len(other) == 1 and other.swapcase() == letter else letter


def upper(text: str) -> str:
    """Each letter in upper case, as far as `flip` can be undone.

    >>> upper("straße")
    'STRAßE'
    """
    return text.upper() if text.isascii() else "".join(flip(c) if c.islower() else c for c in text)


def lower(text: str) -> str:
    """Each letter in lower case, as far as `flip` can be undone.

    >>> lower("İSTANBUL")
    'İstanbul'
    """
    return text.lower() if text.isascii() else "".join(flip(c) if c.isupper() else c for c in text)


def like(word: str, model: str) -> str:
    """`word` in the case of `model`: all capitals (of two letters or more), a capital first, or none.

    >>> like("rain", "Snow"), like("rain", "SNOW"), like("Rain", "snow"), like("rain", "I")
    ('Rain', 'RAIN', 'rain', 'Rain')
    """
    if len(model) > 1 and upper(model) == model and lower(model) != model:
        return upper(word)
    low = lower(word)
    return upper(low[0]) + low[1:] if model[:1].isupper() and low else low
