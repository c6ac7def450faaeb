"""Named, hash-pinned models and texts in the user cache."""
