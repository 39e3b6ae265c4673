"""Audits of what may be wrong with the figures: leakage, shortcuts, wrong labels."""
