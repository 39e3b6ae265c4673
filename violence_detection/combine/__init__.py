"""Step 2: combine everything found into one train/val set with a manifest, without repeated clips or split sources."""
