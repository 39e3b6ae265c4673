"""Read the published temporal annotations: when in an untrimmed video the annotated event happens.

- `ucf_crime_txt` (UCF-Crime, Temporal_Anomaly_Annotation_for_Testing_Videos.txt, called
  Temporal_Anomaly_Annotation.txt in the authors' archive): one line per test video,
  `Name.mp4  Class  start1 end1 start2 end2`, in frame numbers, -1 -1 where there is no such event. Training videos are
  not annotated.
- `cctv_fights_json` (CCTV-Fights, ground-truth.json): {"database": {name: {"annotations": [{"segment": [start, end],
  "label": "Fight"}]}}}, in seconds, written as numbers or as text.
- `xd_violence_txt` (XD-Violence, annotations.txt): one line per violent test video, `name start end start end ...`, in
  frame numbers; some names end in .mp4.
- `ubi_fights_csv` (UBI-Fights, folder annotation): `<video>.csv`, one line per frame, 1 during a fight, otherwise 0.

An annotation that cannot be read is reported with its line, entry or file. Nothing is guessed: its video is marked as
broken, and no clips are cut from it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from violence_detection.datasets.catalogue import Dataset
from violence_detection.system import folders, storage
from violence_detection.video.video_files import VIDEO_SUFFIXES

_UBI_PEACE, _UBI_FIGHT = ("0", "0.0"), ("1", "1.0")
#: How many folders above the data set's root are also looked into for its annotations.
_FOLDERS_ABOVE_ROOT = 3


@dataclass(frozen=True)
class Segments:
    """The stretches [start, end) in which the annotated event happens, in seconds or in numbers of decoded frames."""

    spans: tuple[tuple[float, float], ...]
    in_seconds: bool = False


@dataclass
class Annotations:
    """The annotations that were read from `path`, which is None if no file or folder of annotations was found.

    `videos`: segments by video name without suffix. `broken`: names of videos whose annotation cannot be used.
    `failures`: {path, reason}; the path includes the line, the entry or the file within the folder.
    """

    path: Path | None = None
    videos: dict[str, Segments] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    failures: list[dict[str, str]] = field(default_factory=list)

    def add(self, name: str, where: str, parse: Callable[[], Segments]) -> None:
        """Add the segments of the video `name` that `parse` returns.

        A ValueError from `parse`, a segment that is not 0 <= start < end < infinity, and a second annotation that
        differs from the first become failures at `where`, and the video counts as broken.
        """
        try:
            segments = parse()
            if any(not 0 <= start < end < math.inf for start, end in segments.spans):
                raise ValueError(f"stretches {segments.spans} do not all begin before they end")
            if name in self.videos and self.videos[name] != segments:
                raise ValueError(f"{name} is annotated twice, and differently")
            self.videos[name] = segments
        except ValueError as e:
            self.fail(where, str(e))
            self.broken.add(name)

    def fail(self, where: str, reason: str) -> None:
        """Record a failure. `where` is appended to the path."""
        self.failures.append(
            {"path": f"{self.path}{where}", "reason": f"annotation not understood: {reason}"}
        )


def read_annotations(dataset: Dataset, root: Path, search_roots: Iterable[Path] = ()) -> Annotations:
    """Read the annotations of the tree of `dataset` at `root`, from anywhere below it or else from a folder above it.

    Folders above `search_roots` are not looked into: other data sets may be there, with files of the same name. If
    nothing is found or readable, the result says so. Raises KeyError for a format that READERS does not have.
    """
    assert dataset.annotations is not None, dataset.key
    reader = READERS[dataset.annotations.format]
    names = (dataset.annotations.file, *dataset.annotations.also)
    path = next((p for name in names if (p := _locate(name, root, set(search_roots)))), None)
    found = Annotations(path)
    if path is not None:
        try:
            reader(path, found)
        except OSError as e:
            found.fail("", f"cannot be read: {e.strerror}")
    return found


def _locate(name: str, root: Path, search_roots: set[Path]) -> Path | None:
    """The file or folder `name` that is nearest to the root: one below it before one directly in a folder above it."""
    if below := folders.nearest(name, root):
        return below
    folder = root
    for _ in range(_FOLDERS_ABOVE_ROOT):
        if folder in search_roots:
            return None
        folder = folder.parent
        if (folder / name).exists():
            return folder / name
    return None


def video_name(name: str) -> str:
    """The video's name without a video suffix. Other dots stay: XD-Violence's titles are full of them."""
    path = Path(name)
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name


def _lines(path: Path) -> Iterable[tuple[str, list[str]]]:
    """(":<line number>", words) of each line that is not blank."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(storage.lines(text), 1):
        if words := line.split():
            yield f":{number}", words


def _pairs(words: Sequence[str]) -> tuple[tuple[float, float], ...]:
    """Pairs (start, end) of frame numbers, without (-1, -1), which means that there is no event.

    Raises ValueError for an odd count and for words that are not whole numbers.
    """
    numbers = [int(word) for word in words]
    if len(numbers) % 2:
        raise ValueError(f"{len(numbers)} frame numbers do not make pairs")
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return tuple((float(a), float(b)) for a, b in pairs if (a, b) != (-1, -1))


def _ucf_crime(path: Path, into: Annotations) -> None:
    for where, words in _lines(path):
        into.add(video_name(words[0]), where, partial(_ucf_line, words))


def _ucf_line(words: Sequence[str]) -> Segments:
    if len(words) != 6:
        raise ValueError(f"{len(words)} words in place of a name, a class and four frame numbers")
    if not words[0].startswith(words[1]):
        raise ValueError(f"class {words[1]} of a video that is named {words[0]}")
    return Segments(_pairs(words[2:]))


def _xd_violence(path: Path, into: Annotations) -> None:
    for where, words in _lines(path):
        into.add(video_name(words[0]), where, partial(_xd_line, words))


def _xd_line(words: Sequence[str]) -> Segments:
    return Segments(_pairs(words[1:]))


def _cctv_fights(path: Path, into: Annotations) -> None:
    try:
        database = json.loads(path.read_text(encoding="utf-8-sig"))["database"]
        entries = sorted(database.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        into.fail("", f'no JSON with a "database" of videos ({e!r})')
        return
    for name, entry in entries:
        into.add(video_name(name), f": {name}", partial(_cctv_entry, entry))


def _cctv_entry(entry: Any) -> Segments:
    try:
        found = [
            (str(a["label"]), float(a["segment"][0]), float(a["segment"][1])) for a in entry["annotations"]
        ]
    except (KeyError, TypeError, IndexError) as e:
        raise ValueError(f"no list of annotations with label and segment ({e!r})") from e
    if others := {label for label, _, _ in found if label.casefold() != "fight"}:
        raise ValueError(f"segments of {sorted(others)} in place of Fight")
    return Segments(tuple((start, end) for _, start, end in found), in_seconds=True)


def _ubi_fights(folder: Path, into: Annotations) -> None:
    for path in sorted(folder.glob("[!.]*.csv")):
        into.add(path.stem, f"/{path.name}", partial(_ubi_file, path))


def _ubi_file(path: Path) -> Segments:
    flags = path.read_text(encoding="utf-8-sig", errors="replace").split()
    if not set(flags) <= {*_UBI_PEACE, *_UBI_FIGHT}:
        raise ValueError("values other than 0 and 1")
    spans, position = [], 0
    for flag, run in itertools.groupby(flags):
        length = len(list(run))
        if flag in _UBI_FIGHT:
            spans.append((float(position), float(position + length)))
        position += length
    return Segments(tuple(spans))


READERS: Mapping[str, Callable[[Path, Annotations], None]] = {
    "ucf_crime_txt": _ucf_crime,
    "cctv_fights_json": _cctv_fights,
    "xd_violence_txt": _xd_violence,
    "ubi_fights_csv": _ubi_fights,
}
