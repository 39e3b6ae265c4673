"""Many videos: which files are meant, and a verdict for each or the reason why there is none."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction.detector import Detector
from violence_detection.prediction.events import Verdict
from violence_detection.system import console
from violence_detection.video import decode

log = logging.getLogger(__name__)


def find_videos(given: Sequence[Path]) -> list[Path]:
    """Files as given, and the video files below folders, sorted. Raises UserError for a wrong or empty path."""
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in decode.VIDEO_SUFFIXES and p.is_file()
            )
            if not inside:
                raise UserError(
                    f"no video files below {path} (looked for {', '.join(sorted(decode.VIDEO_SUFFIXES))})"
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"no file or folder at {path}")
    return list(dict.fromkeys(found))


def judge_all(detector: Detector, paths: Sequence[Path]) -> Iterator[Verdict | UnreadableVideo]:
    """A verdict for each video, or the reason why there is none, in order. Each is logged as it comes."""
    for path in console.progress(paths, total=len(paths), unit="video", desc="judging"):
        try:
            verdict = detector.judge(path)
        except UnreadableVideo as e:
            log.warning("cannot judge %s: %s", e.path, e.reason)
            yield e
            continue
        events = ", ".join(f"{e.start_s:.1f}-{e.end_s:.1f} s" for e in verdict.events)
        log.info("%-8s %.3f  %s  %s", verdict.label, verdict.p_violent, verdict.path, events)
        yield verdict


def summary(judged: Iterable[Verdict | UnreadableVideo]) -> dict[str, list[dict[str, Any]]]:
    """The fields of the JSON line: `{videos: [...], failures: [...]}`."""
    videos: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for item in judged:
        if isinstance(item, UnreadableVideo):
            failures.append({"path": item.path, "reason": item.reason})
        else:
            videos.append(item.summary())
    return {"videos": videos, "failures": failures}
