"""A trained model with its preprocessing; models by name."""
