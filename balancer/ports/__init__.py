"""What the engine needs from the world, as small protocols. Each has adapters, a fake and one suite that all pass."""
