"""Verdicts kept as they come, a line each, so that a run that ended before its time goes on where it was.

Only verdicts are kept: what failed may have been the fault of the hour, and is tried again by the next run.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from violence_detection.constants import EARLY_EXIT_KEY, __version__
from violence_detection.errors import UserError
from violence_detection.models import calibration, model_files, shipped
from violence_detection.prediction import camera_profile
from violence_detection.prediction.config import EventConfig, PredictConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.system import locks, storage
from violence_detection.video import augment

Record = Callable[[str, Mapping[str, Any]], None]
#: To be given another value whenever judging gives other results, so that old lines are not believed. Another rule of
#: the closer look has another name (video/augment.py), which counts, too.
VERSION = "13"
_ENDING = ".journal.jsonl"
#: Settings that change no window: the model is known by its content, its weights with it, and thresholds and the like
#: say what is made of the windows.
_CHANGE_NOTHING = frozenset({"model", "operating_point", "backbone_weights", "profile"}) | {
    f.name for f in fields(EventConfig)
}
#: What a line has besides its key; the settings say anew what is made of the windows.
FIELDS = frozenset(f.name for f in fields(Verdict)) - {
    "events_by", "profile", EARLY_EXIT_KEY, "model", "real_path", "given_as",
}  # fmt: skip
#: When a run last had this verdict, seconds since 1970. A line of it alone says that a later run took the verdict.
TIME_KEY = "kept_s"
#: What it has where the model's early exit was not taken, the model, the video's real path and the time; those of
#: earlier versions do not say it.
OPTIONAL = frozenset({EARLY_EXIT_KEY, "model", "real_path", TIME_KEY})


#: Such a line of it alone, as `KeptVerdicts.keep` writes it.
_TAKEN_AGAIN = re.compile(rf'\{{"key": "(\w+)", "{TIME_KEY}": [^,}}]+\}}\n'.encode())


def path_for(output: Path) -> Path:
    """The journal of the runs that write `output`."""
    return output.with_name(f"{output.name}{_ENDING}")


def output_of(journal: Path) -> Path | None:
    """What the runs of a journal write; None for a file that is none."""
    name = journal.name.removesuffix(_ENDING)
    return journal.with_name(name) if name and name != journal.name else None


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The entries by their keys, those that runs had last at the end."""
    return storage.read_journal(path, FIELDS, OPTIONAL, again=frozenset({TIME_KEY}))


class KeptVerdicts:
    """The verdicts of a journal that hold for these settings, and a place for new ones. `model`: its identity.

    Raises UserError if there is no such model or camera profile, or the model has no such operating point.
    """

    def __init__(self, path: Path, config: PredictConfig, record: Record, again: Record):
        self._record, self._again, model = record, again, shipped.find(config.model)
        self.model = model_files.identity(model)
        of_model, without_exit = calibration.read(model), camera_profile.leaves_out_exit(config)
        by = of_model.without_exit if without_exit else of_model
        threshold = (
            camera_profile.read(config.profile).threshold
            if config.profile
            else of_model.threshold(config.operating_point, config.threshold)
        )
        self._said_anew = {
            "events_by": config.at(threshold),
            "calibrated": by is not None and by.calibrated,
            EARLY_EXIT_KEY: not without_exit,
            "model": self.model,
        }
        settings = {k: v for k, v in asdict(config).items() if k not in _CHANGE_NOTHING}
        self._judged_by = storage.stable_hash(
            [
                VERSION,
                augment.CLOSER,
                __version__,
                self.model,
                settings,
                *([EARLY_EXIT_KEY] if without_exit else []),
            ],
            digits=32,
        )
        self._known = read(path)

    def key(self, video: Path) -> str:
        """What the verdict on a file as it is now is found by; empty for a file that is not there."""
        try:
            stat = video.stat()
        except OSError:
            return ""
        named = [os.path.realpath(video), stat.st_size, stat.st_mtime_ns, self._judged_by]
        return storage.stable_hash(named, digits=32)

    def find(self, key: str, video: Path) -> Verdict | None:
        """The verdict kept under this key, if any."""
        try:
            entry = self._known[key]
            windows = tuple(JudgedWindow(**window) for window in entry["windows"])
            if not windows:
                raise ValueError("a verdict without windows")
            entry = {name: value for name, value in entry.items() if name != TIME_KEY}
            return Verdict(**{**entry, "windows": windows, "path": str(video), **self._said_anew})
        except (KeyError, TypeError, ValueError):  # not there, or not ours: to be written anew
            self._known.pop(key, None)
            return None

    def keep(self, key: str, verdict: Verdict) -> None:
        """Have the verdict on the disk, once; of one that is there, that this run took it."""
        now = {TIME_KEY: time.time()}
        if self._known.get(key, {}).get("real_path"):
            self._again(key, now)
            return
        entry = {name: value for name, value in asdict(verdict).items() if name in FIELDS}
        real_path = verdict.real_path or os.path.realpath(verdict.path)
        entry |= {"model": self.model, "real_path": real_path, **now}
        if not verdict.early_exit:
            entry[EARLY_EXIT_KEY] = False
        # as the model gave them: which camera profile is applied is said anew by each run
        entry["windows"] = [w.as_judged().record() for w in verdict.windows]
        self._record(key, entry)
        self._known[key] = entry


@contextmanager
def kept(path: Path, config: PredictConfig) -> Iterator[KeptVerdicts]:
    """The journal, made if need be, for one run at a time.

    Raises UserError if there is no such model or another run has it, OSError if it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.locked(path.with_name(f".{path.name}.lock"), wait=False))
        except locks.LockTaken as e:
            raise UserError(f"another run writes {path}. Wait for it, or give another --output") from e
        with contextlib.suppress(OSError):  # it is as good with them
            _leave_out_old_times(path)
        record = stack.enter_context(storage.appending_journal(path, sync=True))
        again = stack.enter_context(storage.appending_journal(path))  # that costs nobody a verdict
        yield KeptVerdicts(path, config, record, again)


def _leave_out_old_times(path: Path) -> None:
    """Leave lines out that a run took a verdict, where a later line says so again, if that is most of all lines.

    Each run that judges nothing adds a line a video. All others stay as they are, those of other versions too.
    """
    if not path.is_file():
        return
    n_lines, last, old = 0, dict[bytes, int](), set[int]()
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            n_lines += 1
            if found := _TAKEN_AGAIN.fullmatch(line):
                if found[1] in last:
                    old.add(last[found[1]])
                last[found[1]] = number
    if 2 * len(old) <= n_lines:
        return
    with path.open("rb") as lines, storage.atomic_path(path) as temporary, temporary.open("wb") as out:
        out.writelines(line for number, line in enumerate(lines) if number not in old)
