"""How well a GPU is, from what its driver says: tables and rules. Pure: asking the driver is `agents/devices`' work.

What stops sessions from being placed is kept until a golden probe has passed, whatever the driver says meanwhile; what
merely should be looked at follows the driver.
"""
