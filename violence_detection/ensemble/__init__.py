"""Steps 4 and 5: several members, cross-validation, hard clips."""
