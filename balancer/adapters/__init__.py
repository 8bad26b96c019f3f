"""The ports' means: SQLite, gRPC to agents, local processes. Adapters are strangers to one another."""
