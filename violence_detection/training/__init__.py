"""Step 3: a head trained on cached features."""
