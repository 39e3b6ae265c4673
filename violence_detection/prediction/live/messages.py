"""News of events for other programs: the same JSON for every output. Its keys are a contract."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from violence_detection.prediction.event_follower import EventNews
from violence_detection.system import storage


@dataclass(frozen=True)
class EventMessage:
    """News of an event of one camera. The snapshot exists before a message is sent, the clip before that of the end.

    is_live: whether times are seconds since 1970; otherwise they count from the beginning of the footage. clip_lost_s:
    seconds of footage that the clip lacks. jpeg: the snapshot's content, empty if there is none.
    """

    camera: str
    address: str
    news: EventNews
    threshold: float
    is_live: bool
    snapshot: Path | None = None
    clip: Path | None = None
    clip_lost_s: float = 0.0
    jpeg: bytes = b""

    def fields(self) -> dict[str, Any]:
        """`{type, id, camera, address, start_s, end_s, peak_s, p_violent, threshold, start, end, snapshot, clip,
        clip_lost_s}`; None where there is no value.
        """
        event = self.news.event
        return {
            "type": self.news.kind,
            "id": self.news.event_id,
            "camera": self.camera,
            "address": self.address,
            "start_s": event.start_s,
            "end_s": event.end_s,
            "peak_s": event.peak_s,
            "p_violent": event.p_violent,
            "threshold": self.threshold,
            "start": iso(event.start_s) if self.is_live else None,
            "end": iso(event.end_s) if self.is_live else None,
            "snapshot": str(self.snapshot) if self.snapshot else None,
            "clip": str(self.clip) if self.clip else None,
            "clip_lost_s": self.clip_lost_s if self.clip else None,
        }

    def text(self) -> str:
        """The fields as one line of JSON."""
        return storage.as_json(self.fields())


def iso(time_s: float) -> str:
    """Format seconds since 1970 as `2026-11-26T14:05:00.250Z`."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
