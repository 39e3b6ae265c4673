"""Turn video files and streams into the pictures that a network sees."""
