"""Prompts token by token: the hotter a token, the further it lies from clean text."""

from collections.abc import Iterable, Sequence

from perimetry.report.markup import Html, Node, join, number, tag
from perimetry.report.schema import ConceptEntry, Example, ReadingEntry

__all__ = ["Scale", "example_section", "token_map"]

CONTEXTS = 3

Scale = tuple[float, float]
"""Token scores that are shown cold and hot; what lies beyond is shown the same."""


def scale_of(examples: Iterable[Example]) -> Scale:
    """Cold at the median of the clean tokens (of all, where there is no twin), hot at the 98 % point of all tokens."""
    shown = list(examples)
    clean = [t.score for e in shown if e.clean for t in e.clean.tokens]
    both = sorted(clean + [t.score for e in shown for t in e.shifted.tokens]) or [0.0]
    calm = sorted(clean) or both
    low, high = calm[len(calm) // 2], both[int(0.98 * (len(both) - 1))]
    return (low, high) if high > low else (low, low + 1.0)


def token_map(reading: ReadingEntry, scale: Scale) -> Html:
    """The tokens of a reading in order, each shaded by its score and with the score as its tooltip."""
    low, high = scale
    parts: list[Node] = []
    for token in reading.tokens:
        heat = min(max((token.score - low) / (high - low), 0.0), 1.0)
        text = token.text.lstrip(" ") or token.text
        parts.append(" " * (len(token.text) - len(text)))
        shown = text.replace("\n", "⏎\n")
        parts.append(tag("span", shown, style=f"--h:{heat:.2f}", title=f"score {token.score:.3g}"))
    return tag("p", *parts, class_="tokens")


def example_section(example: Example, scale: Scale, *, unfold: bool = False) -> Html:
    """A passage and its twin side by side, and the concepts that betray the twin, in sight where `unfold`."""
    sides = [_side("clean", example.clean, scale)] if example.clean else []
    sides.append(_side("shifted" if example.clean else "prompt", example.shifted, scale))
    concepts = _concepts(example.shifted.concepts, unfold) if example.shifted.concepts else None
    return tag("section", tag("h3", example.title), tag("div", *sides, class_="twins"), concepts, class_="example")


def _side(name: str, reading: ReadingEntry, scale: Scale) -> Html:
    alarm = tag("span", "alarm" if reading.flagged else "no alarm", class_="badge bad" if reading.flagged else "badge")
    facts = f"{reading.detector} {reading.score:.3g} · p = {reading.p_value:.3g} · {reading.tokens_scored} tokens"
    head = tag("p", tag("strong", name), " ", alarm, " ", tag("span", facts, class_="muted"), class_="facts")
    return tag("div", head, token_map(reading, scale))


def _concepts(concepts: Sequence[ConceptEntry], unfold: bool) -> Html:
    head = tag(
        "tr",
        *(tag("th", name, scope="col") for name in ("concept", "fired at", "activation", "clean rate", "surprise")),
        tag("th", "clean text on which it fires", scope="col", class_="wide"),
    )
    rows = [
        tag(
            "tr",
            tag("th", f"#{concept.latent}", scope="row"),
            tag("td", tag("code", concept.token)),
            tag("td", f"{concept.activation:.3g}", class_="num"),
            tag("td", f"{100 * concept.clean_rate:.3g} %", class_="num"),
            tag("td", number(concept.surprise, 2), class_="num"),
            tag("td", _contexts(concept), class_="wide"),
        )
        for concept in concepts
    ]
    table = tag(
        "table", tag("caption", "Concepts that speak loudest for the shift"), tag("thead", head), tag("tbody", *rows)
    )
    label = tag("summary", f"{len(concepts)} concepts betray it")
    return tag("details", label, tag("div", table, class_="scroll"), open="" if unfold else None)


def _contexts(concept: ConceptEntry) -> Html:
    if not concept.contexts:
        return tag("span", "never fired on clean text", class_="muted")
    return tag("ul", *(tag("li", _marked(text)) for text in concept.contexts[:CONTEXTS]), class_="contexts")


def _marked(text: str) -> Html:
    """The context with the token between the guillemets emphasised."""
    before, opened, rest = text.partition("«")
    token, closed, after = rest.partition("»")
    return join([before, tag("mark", token), after]) if opened and closed else join([text])
