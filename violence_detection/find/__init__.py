"""Step 1b: which data sets are on the disk, in whatever folder."""
