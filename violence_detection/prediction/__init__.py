"""Judging new videos: verdicts and events."""
