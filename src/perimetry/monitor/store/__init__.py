"""Events of the service: written by one thread beside the scoring, kept for as long as is configured, read in pages."""
