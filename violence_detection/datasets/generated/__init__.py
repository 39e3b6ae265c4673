"""Rendered sample clips for the demo and the tests. Reports mark every number that is measured on them."""
