"""The lab `matrix-completion`: a plateau and a sudden drop, in sums of neighbours and in matrices of low rank."""
