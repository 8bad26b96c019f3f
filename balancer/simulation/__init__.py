"""The simulator: sessions of a trace, replayed through the placement code that the daemon runs, at no device's cost.

Values, traffic, replay and reports are pure: a trace and a seed give the same figures everywhere and always. Files,
pictures and the command line are at the edges: `devices_file`, `trace_file`, `pictures` and `command`.
"""
