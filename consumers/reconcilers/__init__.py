"""Finders of what nobody told us: one file per thing that is looked at."""
