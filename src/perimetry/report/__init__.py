"""Results to one self-contained HTML file."""

from perimetry.report.html import build_report, keep_results, read_results
from perimetry.report.schema import Results, parse_results

__all__ = ["Results", "build_report", "keep_results", "parse_results", "read_results"]
