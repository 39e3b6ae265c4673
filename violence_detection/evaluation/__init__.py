"""Step 6: measure trained models, with confidence intervals that account for how few sources the clips come from."""
