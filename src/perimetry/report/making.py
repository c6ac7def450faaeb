"""The sections at the end of every page: how the negatives match, and how the results were made."""

from perimetry.report.markup import Html, Node, join, tag
from perimetry.report.measures import more
from perimetry.report.schema import MadeResults
from perimetry.report.tables import matching_table, settings_table

__all__ = ["making_section", "matching_section"]


def matching_section(results: MadeResults) -> Html:
    """Each suite's negatives beside its positives."""
    return join(matching_table(suite, matching) for suite, matching in results.matching.items())


def making_section(results: MadeResults) -> Html:
    """The command, the machine and every setting."""
    hardware = results.hardware if isinstance(results.hardware, dict) else {"machine": results.hardware}
    facts = settings_table("Where and when", {"version": results.version, "date": results.date, **hardware})
    parts: list[Node] = [tag("p", "Make it again:"), tag("pre", tag("code", results.command)), facts]
    if results.configuration:
        parts.append(more("Every setting", settings_table("Configuration", results.configuration)))
    return join(parts)
