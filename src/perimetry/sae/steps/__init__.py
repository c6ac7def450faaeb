"""The exact sparse training step."""
