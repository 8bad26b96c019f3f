"""Breaks a running house in every way that a machine does, and holds what it says and leaves against what must be true.

A history of everything seen is recorded while something (a list of planned acts, drawn from a seed) kills, stops and
cuts parts of the house off; `invariants` then judges it, and knows nothing of how it came about. docs/chaos.md.
"""
