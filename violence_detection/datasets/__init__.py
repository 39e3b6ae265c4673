"""Published data sets and one's own clips: catalogue, labels, temporal annotations, source groups."""
