"""Robust fine-tuning: texts chosen by the meter, a loss that the meter shapes, and an adapter that says what it was made with."""
