"""Knowledge editing: ROME, r-ROME, p-ROME, MEMIT and AlphaEdit on a model that is never changed, and a check of what an edit does."""
