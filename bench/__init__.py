"""Figures for what the README claims: `make bench`, or `python -m bench ingest` for one of them.

Every figure is a ratio against a peer, measured in the same run on the same machine, in
interleaved rounds; medians are printed. Absolute numbers say more about the machine.
"""
