"""The agent's side of the contract: thin servicers, and the translation between messages and values beside them."""
