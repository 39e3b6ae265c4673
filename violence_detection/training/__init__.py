"""Step 3: train a head on cached features."""
