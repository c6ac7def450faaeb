"""Terms and constraints that can be added to the training of any dictionary with an affine encoder; one file a term."""

__all__: list[str] = []
