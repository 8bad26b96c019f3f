"""Browsers on displays: which one, how it is started, and what a page in it does."""
