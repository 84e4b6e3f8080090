"""What the operator decides: the configuration, and the keys that open the door."""
