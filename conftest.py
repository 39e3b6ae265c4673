"""Keep pytest away from the two products whose names begin with test_."""

collect_ignore = ["test_ensemble.py", "test_violence_model.py"]
