"""Step 2: one train/val set, no clip twice, no source on both sides, and its manifest."""
