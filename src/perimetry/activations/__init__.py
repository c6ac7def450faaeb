"""From text to activations: models, token policy, taps, packing, stores, streams."""
