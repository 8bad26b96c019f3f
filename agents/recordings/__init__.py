"""Recordings: displays, pages and ffmpeg directed together, from the launch of an attempt to its finished files."""
