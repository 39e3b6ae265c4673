"""A video file into the pictures that a network sees."""
