"""Marks that a person made on judged videos, in the file that the review page saves: `marks.json`.

{"format": "violence-detection marks", "version": 1, "model": "<identity>",
 "marks": [{"path": ..., "start_s": ..., "end_s": ..., "mark": "right" | "wrong" | "missed"}],
 "reviewed": [paths of videos that were looked at from end to end],
 "videos": [{"path": ..., "real_path": ..., "content": ..., "duration_s": ...}]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from violence_detection.errors import DamagedFile, UserError
from violence_detection.system import storage

FORMAT, VERSION = "violence-detection marks", 1
RIGHT, WRONG, MISSED = "right", "wrong", "missed"
#: With fewer marks, a gain on other videos could not be told from luck.
LEAST_MARKS = 10
#: The same for the number of marked videos.
LEAST_VIDEOS = 3


@dataclass(frozen=True)
class Mark:
    """A marked stretch of a video: a right event, which is a fight; a wrong one, which is not; or a missed fight."""

    start_s: float
    end_s: float
    mark: str

    @property
    def is_fight(self) -> bool:
        """Whether the stretch is a fight: it is marked right or missed."""
        return self.mark != WRONG

    def overlaps(self, start_s: float, end_s: float) -> bool:
        """Whether it overlaps the stretch from `start_s` to `end_s`."""
        return self.start_s < end_s and start_s < self.end_s


@dataclass(frozen=True)
class MarkedVideo:
    """The file that was marked: its path with links resolved, and its duration."""

    real_path: str
    duration_s: float


@dataclass(frozen=True)
class Marks:
    """The marks of several videos.

    `by_video`: path -> its marks in order of time; empty for a video that was only looked at. `reviewed`: paths of
    videos that were looked at from end to end, so that whatever is not marked in them is quiet. `model`: identity of
    the model whose events were marked; empty: not known. `videos`: path -> the file that it was; files of earlier
    versions do not record it.
    """

    by_video: Mapping[str, Sequence[Mark]]
    reviewed: frozenset[str]
    model: str = ""
    videos: Mapping[str, MarkedVideo] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of marks."""
        return sum(map(len, self.by_video.values()))

    def of_paths(self, path_of: Mapping[str, str]) -> Marks:
        """The marks with other paths of their videos. `path_of`: path in the marks -> new path; others stay."""
        by_video: dict[str, Sequence[Mark]] = {}
        for name, marked in self.by_video.items():
            path = path_of.get(name, name)
            by_video[path] = [*by_video.get(path, ()), *marked]
        reviewed = frozenset(path_of.get(name, name) for name in self.reviewed)
        return replace(self, by_video=by_video, reviewed=reviewed)

    def without(self, names: Set[str]) -> Marks:
        """The marks without those of the videos with these paths."""
        by_video = {name: marked for name, marked in self.by_video.items() if name not in names}
        return replace(self, by_video=by_video, reviewed=self.reviewed - names)


def read(path: Path) -> Marks:
    """Read marks. Raises UserError if there is no such file, DamagedFile if it is damaged or not a file of marks."""
    if not path.is_file():
        raise UserError(f"no file at {path}. Press Save marks on the page that --timeline makes to get one")
    stored = storage.read_json(path)
    if not isinstance(stored, dict) or (stored.get("format"), stored.get("version")) != (FORMAT, VERSION):
        raise DamagedFile(f"{path} is not a file of marks as saved by the page that --timeline makes")
    try:
        reviewed, model = _paths(stored["reviewed"]), stored.get("model") or ""
        if not isinstance(model, str):
            raise TypeError(f"model is {model!r}, not a string")
        by_video: dict[str, list[Mark]] = {name: [] for name in reviewed}
        for entry in stored["marks"]:
            by_video.setdefault(str(entry["path"]), []).append(_mark(entry))
        videos = {str(v["path"]): _video(v) for v in stored.get("videos", [])}
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise DamagedFile(f"{path} has damaged marks ({type(e).__name__}: {e}). Save the marks again") from e
    for name, found in by_video.items():
        by_video[name] = _sound(path, name, found, videos.get(name))
    return Marks(
        {name: sorted(found, key=lambda m: (m.start_s, m.end_s)) for name, found in sorted(by_video.items())},
        frozenset(reviewed),
        model,
        videos,
    )


def _sound(path: Path, name: str, found: Sequence[Mark], video: MarkedVideo | None) -> list[Mark]:
    """The marks of a video without duplicates. Raises DamagedFile if two contradict or one begins after the video."""
    of_stretch: dict[tuple[float, float], Mark] = {}
    for mark in found:
        other = of_stretch.setdefault((mark.start_s, mark.end_s), mark)
        said = f"{path} marks {mark.start_s:.1f}-{mark.end_s:.1f} s of {name}"
        if other.mark != mark.mark:
            raise DamagedFile(
                f"{said} as {other.mark} and as {mark.mark}. Save the marks again with only one of the two"
            )
        if video and mark.start_s >= video.duration_s:
            raise DamagedFile(
                f"{said}, which is only {video.duration_s:.1f} s long. Mark it again on the page"
            )
    return list(of_stretch.values())


def _paths(found: Any) -> list[str]:
    """The paths in `reviewed`. Raises TypeError for anything but a list of strings."""
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise TypeError(f"reviewed is {found!r:.100}, not a list of paths")
    return found


def _mark(entry: Mapping[str, Any]) -> Mark:
    mark = Mark(float(entry["start_s"]), float(entry["end_s"]), str(entry["mark"]))
    if mark.mark not in (RIGHT, WRONG, MISSED) or not 0 <= mark.start_s < mark.end_s < math.inf:
        raise ValueError(f"{mark} is not a valid mark")
    return mark


def _video(entry: Mapping[str, Any]) -> MarkedVideo:
    return MarkedVideo(str(entry["real_path"]), float(entry["duration_s"]))
