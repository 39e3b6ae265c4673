"""Clips of one's own to measure a model on: found, cut, looked at once, without copies, with their sources."""

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
#: Of files that the log speaks of, how many it names.
_NAMED = 3

#: Below the folder with the features: what is cut out of own videos to be judged, and what looking at clips has found.
FOLDER = "own_clips"
#: Held while clips of a list are cut.
_LOCK_NAME = ".cut.lock"


def named(config: EvaluationConfig) -> tuple[str, ...]:
    """The values of --own, and --data where it is no side of combined_all. Raises UserError for both kinds at once."""
    data = config.data
    if data is not None and _may_be_own(data):
        name = own_clips.set_name(data.absolute().stem if data.is_file() else data.absolute().name)
        return (f"own_{name}={data}" if name in catalogue.load() else f"{name}={data}", *config.own)
    if config.own and data is not None:
        raise UserError(
            f"--own names your own clips, and --data {data} others. Measure them one after the other"
        )
    return config.own


def _may_be_own(data: Path) -> bool:
    """Whether it is a table or holds videos, and is nothing that step 2 has made."""
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
    """One's own sets that the settings name: those of --own or --data, and those of --elsewhere.

    No file is in two of them. Raises UserError where nothing of one can be used, and for what step 2 has made.
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
    """Raise UserError for a folder of step 2: its sources would be lost, and a look at val would not be noted."""
    place = settings.expanded(value.partition("=")[2])
    if combined_folders.is_combined(place):
        raise UserError(
            f"{flag} {value}: {place} is of a folder that combine_all_datasets.py made, whose manifest.csv knows the "
            "sources of its clips. Measure its val by itself, with --data <root>/combined_all/val"
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
    """The clips of these sets, all of one side. Stretches of videos are cut into clips of `window_s` at most.

    `root`: where features and cut clips are kept, by default `home(config)`.

    Rows that their CSV file calls train are left out. Raises UserError where nothing can be used.
    """
    root = root or home(config)
    found = inventory.discover([], own=sets)
    for warning in found.warnings:
        log.warning("%s", warning)
    place = root / FOLDER / _cut_below(sets, window_s)
    with contextlib.ExitStack() as held:
        if any(d.needs_cutting for d in found.datasets):  # what another run is writing there is not left over
            waits_for = f"{place}: another evaluation cuts clips of this list; it is waited for"
            held.enter_context(locks.locked(place / _LOCK_NAME, waits_for=waits_for))
        cut = cutting.cut(found, CutConfig(window_s=window_s), place, config.workers)
        cutting.remove(cut.left_over)
    cut.say_unused(place)
    before = root / FOLDER / WINDOWS_FOLDER
    if cut.clips and (before / WINDOWS_JOURNAL).is_file():
        log.warning(
            "%s holds clips that an earlier version cut. They are not used any more; remove them", before
        )
    clips = {source_path(c.path, root): c for c in (*found.clips, *cut.clips) if c.official_split != "train"}
    if left_out := sum(c.official_split == "train" for c in (*found.clips, *cut.clips)):
        log.info("%d clips are called train and are not measured on", left_out)
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
    """The folder for what is cut out of these sets' videos: another for another list, whatever name it is given, and
    for another model's windows.

    Videos of two lists may have one name, and what one evaluation cuts must not replace what another is judging.
    """
    origins = [(s.name, os.path.realpath(s.origin)) for s in sets]
    return f"{sets[0].name}-{storage.stable_hash([window_s, origins], digits=8)}"


def _say_what_is_cut_short(short: Sequence[Mapping[str, str]]) -> None:
    """Log which clips, or videos that were cut, decode only in part: they are measured by what there is of them."""
    if short:
        named = "; ".join(f"{one['path']}: {one['reason']}" for one in short[:_NAMED])
        more = " ..." if short[_NAMED:] else ""
        log.warning("measured by a part of them: %d files, %s%s", len(short), named, more)


def home(config: EvaluationConfig) -> Path:
    """Where features and cut clips are kept: the data root, else the folder that the report's folder stands in."""
    if config.data_root.is_dir():
        return config.data_root
    return config.output.parent if config.output else Path("reports")


def _rows(
    clips: Mapping[str, ClipFile],
    scans: Mapping[str, scan.Scan],
    one_source: Sequence[tuple[str, str]],
    failures: list[dict[str, str]],
) -> pd.DataFrame:
    """Manifest rows of the readable clips, each content once; what that leaves out is named."""
    import pandas as pd

    readable = [dedupe.scanned(name, clips[name], s) for name, s in scans.items() if not s.reason]
    unique = dedupe.deduplicate(readable, altered=False, one_source=one_source)
    failures += [{"path": name, "reason": s.reason} for name, s in scans.items() if s.reason]
    failures += unique.failures()
    if unique.dropped:
        log.info("%d clips are copies of others and count once", len(unique.dropped))
    rows = [manifest.row(clip, "val", clip.source_path) for clip in unique.kept]
    return pd.DataFrame(rows, columns=[*manifest.COLUMNS, "by_time"]).sort_values(
        "clip_id", ignore_index=True
    )


def _unreadable(clips: Mapping[str, ClipFile], scans: Mapping[str, scan.Scan]) -> pd.DataFrame:
    """Rows of the clips that cannot be decoded; their ids come from their names."""
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
    return f"First: {failures[0]['path']}: {failures[0]['reason']}" if failures else "All are called train"
