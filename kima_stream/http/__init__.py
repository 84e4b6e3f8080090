"""The front door: one route table, one way to answer, no state of its own."""
