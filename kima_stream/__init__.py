"""The log and its edges."""
