"""Step 1: archives fetched resumably, checked and unpacked."""
