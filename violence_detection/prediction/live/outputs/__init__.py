"""Where news of events goes: one file a way."""
