"""The shell: one file per consumer group: what it reads, what it does with it."""
