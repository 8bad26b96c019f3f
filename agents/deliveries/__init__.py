"""Copies of artifacts at the operator's destinations: made until they are confirmed, whatever happens meanwhile."""
