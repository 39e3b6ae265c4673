"""What is known of a camera at any moment: its state and its counters."""

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
    """State and counters of one camera. Written by that camera's threads and the judging thread, read by any.

    name: short, for topics and file names; address: without passwords; dropped: windows that were not judged; sparse:
    windows left out for too few frames; delay_s: from the last frame of the last judged window to its judgement,
    max_delay_s the longest so far; failure: why the camera ended for good, "" if it did not; is_known: whether
    `set_state` has been called.
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

    def set_state(self, state: str, reason: str = "", only_from: str | None = None) -> None:
        """Change the state and log the change. `only_from`: only if this is the present state. Thread-safe."""
        with self._lock:
            if only_from is not None and self.state != only_from:
                return
            if self.is_known and (state, reason) == (self.state, self.reason):
                return
            self.state, self.reason, self.is_known = state, reason, True
        level = logging.WARNING if state in (STALLED, LOST) else logging.INFO
        log.log(level, "%s: %s%s", self.name, state, f" ({reason})" if reason else "")

    def judged(self, p_violent: float, delay_s: float) -> None:
        """Count a judged window and note its figures."""
        self.windows += 1
        self.p_violent, self.delay_s = p_violent, delay_s
        self.max_delay_s = max(self.max_delay_s, delay_s)

    def drop(self) -> None:
        """Count a window that is not judged. Thread-safe: both the reading and the judging thread call it."""
        with self._lock:
            self.dropped += 1

    def summary(self) -> dict[str, Any]:
        """The camera's entry in the JSON line that the script prints."""
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
