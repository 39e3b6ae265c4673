"""What files, processes and machines offer; knows nothing of video."""
