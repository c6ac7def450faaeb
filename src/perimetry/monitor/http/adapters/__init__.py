"""Foreign contracts, spoken over the same scoring: one file a contract."""
