"""Step 1: download the archives of the data sets, resumably, then check and unpack them."""
