"""The outside systems: one module per system and direction, each after its contract."""
