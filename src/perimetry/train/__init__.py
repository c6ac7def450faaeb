"""SAE training: recipe, losses, loop, checkpoints."""
