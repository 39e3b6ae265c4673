"""What is published, and one's own clips: catalogue, labels, annotations, sources."""
