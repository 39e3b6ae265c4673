"""Prepares the user's own clips for an evaluation: finds, cuts and scans them, drops copies, determines sources."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.combine import dedupe, manifest, same_videos, scan
from violence_detection.combine.config import CutConfig
from violence_detection.combine.cut import cutting
from violence_detection.datasets import catalogue, own_clips
from violence_detection.datasets.config import OwnClipsConfig
from violence_detection.datasets.generated.marker import is_generated
from violence_detection.datasets.own_clips import OwnSet
from violence_detection.errors import UserError
from violence_detection.evaluation.clip_set import ClipSet
from violence_detection.evaluation.config import EvaluationConfig
from violence_detection.find import combined_folders, inventory, offers
from violence_detection.find.inventory import ClipFile, source_path
from violence_detection.system import locks, settings, storage
from violence_detection.system.settings import as_flags
from violence_detection.video.video_files import WINDOWS_FOLDER, WINDOWS_JOURNAL, VideoSearch

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
#: Number of files that a log line names.
_NAMED = 3

#: Folder in the data root with the clips that were cut out of own videos, and the journal of scanned clips.
FOLDER = "own_clips"
#: Lock file that is held while clips of a list are cut.
_LOCK_NAME = ".cut.lock"


def named(config: EvaluationConfig) -> tuple[str, ...]:
    """Return the values of --own, and --data first if it names own clips, in the form NAME=PATH.

    Raises UserError if --own is given together with a --data that names other clips.
    """
    data = config.data
    if data is not None and _may_be_own(data):
        name = own_clips.set_name(data.absolute().stem if data.is_file() else data.absolute().name)
        return (f"own_{name}={data}" if name in catalogue.load() else f"{name}={data}", *config.own)
    if config.own and data is not None:
        raise UserError(
            f"--own names your own clips, and --data {data} other clips. Measure them one after the other"
        )
    return config.own


def _may_be_own(data: Path) -> bool:
    """Whether `data` is a file, or a folder with a video in it, and was not made by step 2."""
    if combined_folders.is_combined(data) or not data.exists():
        return False
    if data.is_file():
        return True
    search = VideoSearch()
    found = next(search.below(data), None)
    for failure in search.unlisted:
        log.warning("%s: %s", failure["path"], failure["reason"])
    return found is not None


def sets(config: EvaluationConfig) -> tuple[list[OwnSet], list[OwnSet]]:
    """Read the user's own sets that the settings name: those of --own or --data, and those of --elsewhere.

    No file is in two sets. Raises UserError if nothing in a set can be used, or if step 2 has made its folder.
    """
    own = named(config)
    for flag, values in (("--own", own), ("--elsewhere", config.elsewhere)):
        for value in values:
            _refuse_combined(flag, value)
    for value in config.elsewhere:
        if (name := value.partition("=")[0].strip().lower()) in manifest.SPLITS:
            raise UserError(f"--elsewhere {value}: {name} is a side of combined_all. Choose another name")
    found = own_clips.read_all(
        OwnClipsConfig((*own, *config.elsewhere), config.labels),
        catalogue.load(),
        lambda value: "--elsewhere" if value in config.elsewhere else "--own",
        by_side=False,
    )
    for i, own_set in enumerate(found):
        values, line = (
            (own, _own_line(config)) if i < len(own) else (config.elsewhere, _elsewhere_line(config))
        )
        if not own_set.clips:
            raise UserError(offers.nothing_usable(own_set, values, config.labels, line))
        for text in offers.own_texts(own_set, values, config.labels, line):
            log.warning("%s", text)
    return found[: len(own)], found[len(own) :]


def _refuse_combined(flag: str, value: str) -> None:
    """Raise UserError for what step 2 has made: its sources would be lost, and a look at val would not be noted."""
    place = settings.expanded(value.partition("=")[2])
    if combined_folders.is_combined(place):
        raise UserError(
            f"{flag} {value}: {place} belongs to a folder that combine_all_datasets.py made, and only the manifest.csv "
            "there knows the sources of its clips. Measure its val separately, with --data <root>/combined_all/val"
        )


def _own_line(config: EvaluationConfig) -> offers.Command:
    return offers.command("test_ensemble.py", replace(config, data=None))


def _elsewhere_line(config: EvaluationConfig) -> offers.Command:
    def line(values: Sequence[str], labels: Sequence[str]) -> str:
        changed = replace(config, elsewhere=tuple(values), labels=tuple(labels))
        return shlex.join(["python", "test_ensemble.py", *as_flags(changed, ["data_root"])])

    return line


def read(
    config: EvaluationConfig, sets: Sequence[OwnSet], window_s: float, root: Path | None = None
) -> ClipSet:
    """Read the clips of these sets as one ClipSet. Stretches of videos are cut into clips of `window_s` s at most.

    `root`: where features and cut clips are kept, by default `home(config)`. Clips that a CSV file marks as train are
    left out. Raises UserError if no clip can be judged.
    """
    root = root or home(config)
    found = inventory.discover([], own=sets)
    for warning in found.warnings:
        log.warning("%s", warning)
    place = root / FOLDER / _cut_below(sets, window_s)
    with contextlib.ExitStack() as held:
        # Locked, because clips that another run is cutting there would count as left over and be removed.
        if any(d.needs_cutting for d in found.datasets):
            waits_for = f"{place}: waiting for another evaluation, which is cutting clips of this list"
            held.enter_context(locks.locked(place / _LOCK_NAME, waits_for=waits_for))
        cut = cutting.cut(found, CutConfig(window_s=window_s), place, config.workers)
        cutting.remove(cut.left_over)
    cut.say_unused(place)
    before = root / FOLDER / WINDOWS_FOLDER
    if cut.clips and (before / WINDOWS_JOURNAL).is_file():
        log.warning(
            "%s has clips that an earlier version cut. They are no longer used; you can remove them", before
        )
    clips = {source_path(c.path, root): c for c in (*found.clips, *cut.clips) if c.official_split != "train"}
    if left_out := sum(c.official_split == "train" for c in (*found.clips, *cut.clips)):
        log.info("%d clips are marked as train and are not measured on", left_out)
    scans = scan.scan_all(
        {n: c.path for n, c in clips.items()}, root / FOLDER / scan.JOURNAL_NAME, config.workers
    )
    short = [{"path": n, "reason": s.shortfall} for n, s in scans.items() if s.shortfall]
    _say_what_is_cut_short([*short, *cut.cut_short])
    failures = [*found.unlisted, *found.failures, *cut.failures, *cut.left_out]
    rows = _rows(clips, scans, same_videos.shared_sources(found), failures)
    if rows.empty:
        raise UserError(
            f"no clip of {', '.join(str(s.origin) for s in sets)} can be judged. {_first(failures)}"
        )
    return ClipSet(
        rows=rows,
        base=root,
        data_root=root,
        train=None,
        split=f"own clips: {', '.join(str(s.origin) for s in sets)}",
        kind="own clips",
        name=",".join(s.name for s in sets),
        generated=any(is_generated(s.root) for s in sets),
        unreadable=_unreadable(clips, scans),
        failures=failures,
    )


def _cut_below(sets: Sequence[OwnSet], window_s: float) -> str:
    """Name of the folder for clips that are cut out of these sets' videos.

    It differs for every list of videos, whatever its name, and for every `window_s`: videos of two lists may have the
    same name, and the clips that one evaluation cuts must not replace those that another is judging.
    """
    origins = [(s.name, os.path.realpath(s.origin)) for s in sets]
    return f"{sets[0].name}-{storage.stable_hash([window_s, origins], digits=8)}"


def _say_what_is_cut_short(short: Sequence[Mapping[str, str]]) -> None:
    """Log which clips, or videos that were cut, decode only in part: they are measured on that part."""
    if short:
        named = "; ".join(f"{one['path']}: {one['reason']}" for one in short[:_NAMED])
        more = " ..." if short[_NAMED:] else ""
        log.warning("measured on the part that can be decoded: %d files, %s%s", len(short), named, more)


def home(config: EvaluationConfig) -> Path:
    """Where features and cut clips are kept: the data root; if there is none, the parent of the report's folder."""
    if config.data_root.is_dir():
        return config.data_root
    return config.output.parent if config.output else Path("reports")


def _rows(
    clips: Mapping[str, ClipFile],
    scans: Mapping[str, scan.Scan],
    one_source: Sequence[tuple[str, str]],
    failures: list[dict[str, str]],
) -> pd.DataFrame:
    """Manifest rows of the readable clips, without exact copies. Clips left out are appended to `failures`."""
    import pandas as pd

    readable = [dedupe.scanned(name, clips[name], s) for name, s in scans.items() if not s.reason]
    unique = dedupe.deduplicate(readable, altered=False, one_source=one_source)
    failures += [{"path": name, "reason": s.reason} for name, s in scans.items() if s.reason]
    failures += unique.failures()
    if unique.dropped:
        log.info("%d clips are copies of others and are not counted again", len(unique.dropped))
    rows = [manifest.row(clip, "val", clip.source_path) for clip in unique.kept]
    return pd.DataFrame(rows, columns=[*manifest.COLUMNS, "by_time"]).sort_values(
        "clip_id", ignore_index=True
    )


def _unreadable(clips: Mapping[str, ClipFile], scans: Mapping[str, scan.Scan]) -> pd.DataFrame:
    """Manifest rows of the clips that cannot be decoded, with ids made from their names."""
    import pandas as pd

    broken = [
        replace(clips[n], clip_id=storage.stable_hash(n, digits=16)) for n, s in scans.items() if s.reason
    ]
    names = [n for n, s in scans.items() if s.reason]
    rows = [
        manifest.row(dedupe.scanned(n, clip, scans[n]), "val", n)
        for n, clip in zip(names, broken, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(manifest.COLUMNS))


def _first(failures: Sequence[Mapping[str, str]]) -> str:
    return f"First: {failures[0]['path']}: {failures[0]['reason']}" if failures else "All are marked as train"
