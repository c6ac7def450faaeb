"""How far an input lies outside: one detector, one file."""
