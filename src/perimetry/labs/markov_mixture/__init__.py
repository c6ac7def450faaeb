"""The lab `markov-mixture`: which in-context algorithm runs, and what an exact optimal detector could tell."""
