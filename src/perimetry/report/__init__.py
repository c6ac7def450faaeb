"""Results to one self-contained HTML file."""

from perimetry.report.html import build_report
from perimetry.report.schema import Results, parse_results

__all__ = ["Results", "build_report", "parse_results"]
