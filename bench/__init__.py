"""Benchmarks: both sides in one run, the ratio printed. They judge nothing and gate nothing."""
