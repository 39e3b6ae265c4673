"""Step 1b: find out which data sets are on the disk, in folders of any name."""
