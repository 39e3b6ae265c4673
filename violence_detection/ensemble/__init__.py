"""Steps 4 and 5: ensembles of several members, cross-validation, and fine-tuning on hard clips."""
