"""New videos judged: verdicts and events."""
