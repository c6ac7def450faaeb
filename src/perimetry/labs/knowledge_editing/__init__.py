"""The lab `knowledge-editing`: does one edit shatter representations, and can that be seen without a benchmark?"""
