"""What a person said of judged videos, as the review page saves it: `marks.json`.

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
#: With fewer, whether what is learnt helps on others cannot be told from luck.
LEAST_MARKS, LEAST_VIDEOS = 10, 3


@dataclass(frozen=True)
class Mark:
    """A stretch of a video: an event that is a fight (right) or none (wrong), or a fight without an event (missed)."""

    start_s: float
    end_s: float
    mark: str

    @property
    def is_fight(self) -> bool:
        """Whether a fight is there."""
        return self.mark != WRONG

    def overlaps(self, start_s: float, end_s: float) -> bool:
        """Whether it has any time with that stretch."""
        return self.start_s < end_s and start_s < self.end_s


@dataclass(frozen=True)
class MarkedVideo:
    """Which file was marked: where it lay, links followed, and how long it was."""

    real_path: str
    duration_s: float


@dataclass(frozen=True)
class Marks:
    """By the video's path: its marks in order of time, none for one that was only looked at. `reviewed`: videos
    that were looked at from end to end, so that what is not marked in them is quiet. `model`: whose events were marked;
    empty: not known. `videos`: which file each path was; not those of files of earlier versions.
    """

    by_video: Mapping[str, Sequence[Mark]]
    reviewed: frozenset[str]
    model: str = ""
    videos: Mapping[str, MarkedVideo] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many marks there are."""
        return sum(map(len, self.by_video.values()))

    def of_paths(self, path_of: Mapping[str, str]) -> Marks:
        """With the paths that videos have here. `path_of`: by other names of theirs."""
        by_video: dict[str, Sequence[Mark]] = {}
        for name, marked in self.by_video.items():
            path = path_of.get(name, name)
            by_video[path] = [*by_video.get(path, ()), *marked]
        reviewed = frozenset(path_of.get(name, name) for name in self.reviewed)
        return replace(self, by_video=by_video, reviewed=reviewed)

    def without(self, names: Set[str]) -> Marks:
        """Without what was marked of these videos."""
        by_video = {name: marked for name, marked in self.by_video.items() if name not in names}
        return replace(self, by_video=by_video, reviewed=self.reviewed - names)


def read(path: Path) -> Marks:
    """Read marks. Raises UserError where there is no such file, and DamagedFile for one that holds none."""
    if not path.is_file():
        raise UserError(f"no file at {path}. The page that --timeline makes saves one (Save marks)")
    stored = storage.read_json(path)
    if not isinstance(stored, dict) or (stored.get("format"), stored.get("version")) != (FORMAT, VERSION):
        raise DamagedFile(f"{path} holds no marks, as the page that --timeline makes saves them")
    try:
        reviewed, model = _paths(stored["reviewed"]), stored.get("model") or ""
        if not isinstance(model, str):
            raise TypeError(f"model is {model!r}, not text")
        by_video: dict[str, list[Mark]] = {name: [] for name in reviewed}
        for entry in stored["marks"]:
            by_video.setdefault(str(entry["path"]), []).append(_mark(entry))
        videos = {str(v["path"]): _video(v) for v in stored.get("videos", [])}
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise DamagedFile(f"{path} holds damaged marks ({type(e).__name__}: {e}). Save them again") from e
    for name, found in by_video.items():
        by_video[name] = _sound(path, name, found, videos.get(name))
    return Marks(
        {name: sorted(found, key=lambda m: (m.start_s, m.end_s)) for name, found in sorted(by_video.items())},
        frozenset(reviewed),
        model,
        videos,
    )


def _sound(path: Path, name: str, found: Sequence[Mark], video: MarkedVideo | None) -> list[Mark]:
    """The marks of a video, each once. Raises DamagedFile where they contradict each other, or lie behind its end."""
    of_stretch: dict[tuple[float, float], Mark] = {}
    for mark in found:
        other = of_stretch.setdefault((mark.start_s, mark.end_s), mark)
        said = f"{path} marks {mark.start_s:.1f}-{mark.end_s:.1f} s of {name}"
        if other.mark != mark.mark:
            raise DamagedFile(f"{said} as {other.mark} and as {mark.mark}. Save one of them alone")
        if video and mark.start_s >= video.duration_s:
            raise DamagedFile(f"{said}, which has {video.duration_s:.1f} s. Mark it again on the page")
    return list(of_stretch.values())


def _paths(found: Any) -> list[str]:
    """The videos that were looked at. Raises TypeError for anything but a list of texts."""
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise TypeError(f"reviewed is {found!r:.100}, not a list of paths")
    return found


def _mark(entry: Mapping[str, Any]) -> Mark:
    mark = Mark(float(entry["start_s"]), float(entry["end_s"]), str(entry["mark"]))
    if mark.mark not in (RIGHT, WRONG, MISSED) or not 0 <= mark.start_s < mark.end_s < math.inf:
        raise ValueError(f"{mark} is no mark")
    return mark


def _video(entry: Mapping[str, Any]) -> MarkedVideo:
    return MarkedVideo(str(entry["real_path"]), float(entry["duration_s"]))
