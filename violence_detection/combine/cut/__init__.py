"""Untrimmed videos cut into clips by their annotations."""
