"""Keep pytest from collecting the two top-level scripts whose names begin with test_."""

collect_ignore = ["test_ensemble.py", "test_violence_model.py"]
