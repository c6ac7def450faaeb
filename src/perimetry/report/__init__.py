"""Tables and figures to one self-contained HTML file."""
