"""The product shown at work, every step checked: `make demo`."""
