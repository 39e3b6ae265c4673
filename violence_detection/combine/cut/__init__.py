"""Cut untrimmed videos into clips by their annotations."""
