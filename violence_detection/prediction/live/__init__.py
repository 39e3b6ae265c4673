"""Cameras: judged without an end, and what is told of them."""
