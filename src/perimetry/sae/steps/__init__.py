"""The exact training step: what fires, the products of it, gradients by hand, and the dense reference."""
