"""Sample clips that are rendered, for the demo and the tests; every number on them is marked as such."""
