"""Live cameras: judging them until told to stop, and reporting their events."""
