"""Pictures as numbers: how large a rendition becomes, and which sizes coders take.

Both daemons decide by these: the balancer to place a session, the agent to build its command. So they stand where both
can read them, and cannot come to differ. Pure.
"""
