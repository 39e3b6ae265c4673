"""Names for the files of each video, in folders that may already hold files of other videos, runs and people."""

from __future__ import annotations

import bisect
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from violence_detection.errors import UserError
from violence_detection.prediction import formats
from violence_detection.system import disks
from violence_detection.system.own_files import WrittenFiles

log = logging.getLogger(__name__)

#: Regular expressions for what follows the video's name in the names of its files: annotated video, clips of events,
#: media shown by the page, explanations. Those of the formats are in formats.OutputFormat.endings.
ANNOTATED_ENDINGS = r"\.annotated\.mp4"
CLIP_ENDINGS = r"\.event\d{3,}\.(jpg|mp4)"
MEDIA_ENDINGS = r"\.(jpg|mp4|made\.json)|\.event\d{3,}\.jpg"
EXPLANATION_ENDINGS = r"\.(event\d{3,}|highest)\.explained\.(jpg|json)"
#: The folder beside the page with the pictures and clips that it shows.
MEDIA_FOLDER = "media"
#: Names that read as a clip of an event, or as a later part of an edit list, of the video called `of`.
_AS_ANOTHERS = re.compile(r"(?P<of>.+)\.(?P<kind>event\d{3,}|part\d+)")
_FREE, _OWN, _OTHERS, _NOBODYS = "free", "own", "others'", "nobody's"
_SHOWN = 3


@dataclass(frozen=True)
class FilePlace:
    """A folder into which a run writes files of each video. `flag`: the flag that names the folder.

    `endings`: a regular expression for what follows the video's name. `refuses`: whether the run is refused if it meets
    a file that it did not write or that was changed since; otherwise the video's files get another name.
    """

    flag: str
    folder: Path
    endings: str
    refuses: bool = False


def names_in(place: FilePlace, videos: Sequence[str], taken: str = "") -> dict[str, str]:
    """Return the name that each video's files have in `place`, by video; never `taken`.

    A video that already has files there keeps their name, by whatever path it was given then. Otherwise the name is
    that of formats.names_of, with a mark added if the files of that name belong to another video or to somebody else;
    that is logged. Raises UserError, which names the files, if the place refuses, and if its disk cannot store a name.
    """
    there = _Listing(place)
    names: dict[str, str] = {}
    in_the_way: list[Path] = []
    usual_names = formats.names_of(videos, taken)
    every = {name.casefold() for name in usual_names.values()}
    for video, usual in usual_names.items():
        plain, source = formats.plain_name(video), os.path.realpath(video)
        new = [
            usual,
            formats.marked(plain, source),
            formats.marked(plain, source, formats.LONG_MARK_DIGITS),
        ]
        by_mark = [formats.marked(plain, video), *there.marked(plain, source)]
        old = [*by_mark, *([plain] if plain.casefold() != taken.casefold() else [])]
        anothers = _AS_ANOTHERS.fullmatch(usual.casefold())
        is_part = anothers is not None and anothers["kind"].startswith("part")
        meets_none = is_part and ("part" not in place.endings or there.state(usual, source) == _OWN)
        if anothers and anothers["of"] in every and not meets_none:  # that video is judged in this run, too
            usual, new, old = new[1], new[1:], by_mark
        state = {name: there.state(name, source) for name in dict.fromkeys([*new, *old])}
        name = next((n for n in state if state[n] == _OWN), "")
        if not name:
            # the first that is not another video's; where nothing is refused, files of unknown origin are avoided, too
            passed = (_OTHERS,) if place.refuses else (_OTHERS, _NOBODYS)
            name = next((n for n in new if state[n] not in passed), new[-1])
            if state[name] != _FREE:
                in_the_way += there.files(name)
        names[video] = name
        if state[usual] not in (_FREE, _OWN) and name != usual:
            log.info(
                "%s: %s %s has files named %s that do not belong to this video; its own are named %s",
                video, place.flag, place.folder, usual, name,
            )  # fmt: skip
    if in_the_way:
        more = f" and {len(in_the_way) - _SHOWN} more" if len(in_the_way) > _SHOWN else ""
        raise UserError(
            f"{place.flag} would replace {', '.join(map(str, in_the_way[:_SHOWN]))}{more}. These files were not "
            "written for the video of that name, were written by an earlier version, or were changed since. Move them "
            "away, or name another folder"
        )
    disks.check_takes_names(place.folder, names.values(), place.flag)
    return names


class _Listing:
    """The files of a place, listed once."""

    def __init__(self, place: FilePlace):
        self._endings, self._written = place.endings, WrittenFiles(place.folder)
        paths = sorted(place.folder.iterdir()) if place.folder.is_dir() else []
        self._paths = sorted((path.name.casefold(), path) for path in paths)

    def files(self, name: str) -> list[Path]:
        """The files of a video with this name. Case is ignored, as some disks ignore it."""
        begins = f"{name.casefold()}."
        ours = re.compile(f"{re.escape(name.casefold())}(?:{self._endings})")
        found = []
        i = bisect.bisect_left(self._paths, begins, key=lambda item: item[0])
        while i < len(self._paths) and self._paths[i][0].startswith(begins):
            if ours.fullmatch(self._paths[i][0]):
                found.append(self._paths[i][1])
            i += 1
        return found

    def marked(self, plain: str, source: str) -> list[str]:
        """The marked names under which files were written for `source`, from whichever path the mark was made."""
        ours = re.compile(rf"({re.escape(plain)}~(?:[0-9a-f]{{8}}){{1,2}})(?:{self._endings})")
        found = (ours.fullmatch(name) for name in self._written.names_of(source))
        return sorted({match[1] for match in found if match})

    def state(self, name: str, source: str) -> str:
        """Whether a name is free for `source`, or its files are its own, another's, or of unknown origin."""
        found = {path: self._written.source_of(path) for path in self.files(name)}
        if any(of is None and not self._written.may_replace(path, source) for path, of in found.items()):
            return _NOBODYS
        sources = set(found.values()) - {None}
        if not sources:
            return _FREE
        return _OWN if sources == {source} else _OTHERS
