"""Trained models with their preprocessing: found by name, loaded, calibrated, adapted, shipped and described."""
