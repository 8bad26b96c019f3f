"""Attempts of sessions on this device: their folders, processes, events, logs and artifacts.

Everything works off the folder of an attempt. A launch writes it and starts the shim; from then on the runner only
watches what the folder says, so that an agent that starts anew simply watches the folders it finds.
"""
