"""The lab `sae-geometry`: which concepts a dictionary can see, given how its encoder projects."""
