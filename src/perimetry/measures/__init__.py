"""Pure functions of tensors: no model, no file, no device."""
