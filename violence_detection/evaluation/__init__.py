"""Step 6: what a model is worth, with intervals that know how few sources they rest on."""
