"""The formats in which verdicts are written, a file each; formats.py finds them."""
