"""Whether figures rest on what they should: leakage, shortcuts, labels."""
