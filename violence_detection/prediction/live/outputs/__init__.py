"""The outputs that news of events goes to, one file for each."""
