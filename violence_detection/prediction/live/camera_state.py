"""What is known of a camera at any moment: whether it is there, and what has been counted."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

CONNECTING, LIVE, STALLED, LOST, ENDED = "connecting", "live", "stalled", "lost", "ended"
STATES = (CONNECTING, LIVE, STALLED, LOST, ENDED)


@dataclass
class CameraState:
    """Written by the threads of one camera, read by all. name: short, for topics and files; address: without passwords.

    delay_s: from the last frame of the last judged window to its judgement; dropped: windows; sparse: those that
    had too few frames to be judged; failure: why it ended
    for good, if it did; is_known: whether a state was said.
    """

    name: str
    address: str
    state: str = CONNECTING
    reason: str = ""
    frames: int = 0
    windows: int = 0
    dropped: int = 0
    sparse: int = 0
    reconnections: int = 0
    events: int = 0
    delay_s: float = 0.0
    max_delay_s: float = 0.0
    p_violent: float = 0.0
    last_frame_s: float = -float("inf")
    failure: str = ""
    is_known: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def be(self, state: str, reason: str = "", only_from: str | None = None) -> None:
        """Change the state, and say so in the log. `only_from`: not if it is another by now. Threads may call it."""
        with self._lock:
            if only_from is not None and self.state != only_from:
                return
            if self.is_known and (state, reason) == (self.state, self.reason):
                return
            self.state, self.reason, self.is_known = state, reason, True
        level = logging.WARNING if state in (STALLED, LOST) else logging.INFO
        log.log(level, "%s: %s%s", self.name, state, f" ({reason})" if reason else "")

    def judged(self, p_violent: float, delay_s: float) -> None:
        """Count a window."""
        self.windows += 1
        self.p_violent, self.delay_s = p_violent, delay_s
        self.max_delay_s = max(self.max_delay_s, delay_s)

    def drop(self) -> None:
        """Count a window that is not judged. The thread that reads and the one that judges may both call it."""
        with self._lock:
            self.dropped += 1

    def summary(self) -> dict[str, Any]:
        """As the script prints it."""
        return {
            "name": self.name,
            "address": self.address,
            "state": self.state,
            **({"reason": self.failure} if self.failure else {}),
            "frames": self.frames,
            "windows": self.windows,
            "windows_dropped": self.dropped,
            "windows_sparse": self.sparse,
            "reconnections": self.reconnections,
            "events": self.events,
            "max_delay_s": round(self.max_delay_s, 2),
        }
