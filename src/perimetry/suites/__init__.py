"""Named benchmarks: which texts, which dial, which negatives."""
