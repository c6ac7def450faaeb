"""perimetry: maps the limits of what a transformer understands."""

__version__ = "0.1.0"
