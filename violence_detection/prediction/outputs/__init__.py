"""The formats in which verdicts are written, one module each; formats.py finds them."""
