"""A journal of verdicts, one line each as they come, so that an interrupted run continues where it stopped.

Only verdicts are kept: a failure may have had a passing cause, so the next run tries that video again.
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
#: To be changed whenever judging gives other results, so that older lines no longer apply. A changed rule of the closer
#: look has a new name (augment.CLOSER), which is part of the key as well.
VERSION = "13"
_ENDING = ".journal.jsonl"
#: Settings that are not part of the key, since they change no window: the model and its weights count by their content,
#: and thresholds and the like are applied to the windows afterwards.
_CHANGE_NOTHING = frozenset({"model", "operating_point", "backbone_weights", "profile"}) | {
    f.name for f in fields(EventConfig)
}
#: The fields of a line besides its key. Fields that follow from a run's settings are not kept; each run sets them.
FIELDS = frozenset(f.name for f in fields(Verdict)) - {
    "events_by", "profile", EARLY_EXIT_KEY, "model", "real_path", "given_as",
}  # fmt: skip
#: When a run last gave this verdict, in seconds since 1970. A line with a key and this field alone says that a later
#: run took the verdict from the journal.
TIME_KEY = "kept_s"
#: Fields that a line may lack: `early_exit` is there, as False, only if the exit was not taken, and lines of earlier
#: versions have none of them.
OPTIONAL = frozenset({EARLY_EXIT_KEY, "model", "real_path", TIME_KEY})


#: A line with a key and a time alone, as `KeptVerdicts.keep` writes it.
_TAKEN_AGAIN = re.compile(rf'\{{"key": "(\w+)", "{TIME_KEY}": [^,}}]+\}}\n'.encode())


def path_for(output: Path) -> Path:
    """Path of the journal that belongs to `output`."""
    return output.with_name(f"{output.name}{_ENDING}")


def output_of(journal: Path) -> Path | None:
    """Path of the output that a journal belongs to; None if the file is not named as a journal."""
    name = journal.name.removesuffix(_ENDING)
    return journal.with_name(name) if name and name != journal.name else None


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Read the entries of a journal by key, the most recently used last; empty if there is no such file."""
    return storage.read_journal(path, FIELDS, OPTIONAL, again=frozenset({TIME_KEY}))


class KeptVerdicts:
    """The verdicts of a journal that are valid for these settings; takes new ones. `model`: the model's identity.

    `record`, `again`: append a line of a key and fields to the journal; `again` is for lines that may be lost.
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
        """Key of the verdict on a file with its present size and modification time; empty if it cannot be accessed."""
        try:
            stat = video.stat()
        except OSError:
            return ""
        named = [os.path.realpath(video), stat.st_size, stat.st_mtime_ns, self._judged_by]
        return storage.stable_hash(named, digits=32)

    def find(self, key: str, video: Path) -> Verdict | None:
        """Return the verdict kept under this key, if any, for the video at this path."""
        try:
            entry = self._known[key]
            windows = tuple(JudgedWindow(**window) for window in entry["windows"])
            if not windows:
                raise ValueError("a verdict without windows")
            entry = {name: value for name, value in entry.items() if name != TIME_KEY}
            return Verdict(**{**entry, "windows": windows, "path": str(video), **self._said_anew})
        except (KeyError, TypeError, ValueError):  # absent, or of another format: it will be written again
            self._known.pop(key, None)
            return None

    def keep(self, key: str, verdict: Verdict) -> None:
        """Write a verdict to the journal; of one that is there already, only the time at which this run used it."""
        now = {TIME_KEY: time.time()}
        if self._known.get(key, {}).get("real_path"):
            self._again(key, now)
            return
        entry = {name: value for name, value in asdict(verdict).items() if name in FIELDS}
        real_path = verdict.real_path or os.path.realpath(verdict.path)
        entry |= {"model": self.model, "real_path": real_path, **now}
        if not verdict.early_exit:
            entry[EARLY_EXIT_KEY] = False
        # without any camera profile: each run applies its own
        entry["windows"] = [w.as_judged().record() for w in verdict.windows]
        self._record(key, entry)
        self._known[key] = entry


@contextmanager
def kept(path: Path, config: PredictConfig) -> Iterator[KeptVerdicts]:
    """Open a journal, creating it if need be, for this run alone.

    Raises UserError as KeptVerdicts does and if another run has the journal, OSError if it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.locked(path.with_name(f".{path.name}.lock"), wait=False))
        except locks.LockTaken as e:
            raise UserError(
                f"another run is writing {path}. Wait until it ends, or give another --output"
            ) from e
        with contextlib.suppress(OSError):  # the journal works as well with them
            _leave_out_old_times(path)
        record = stack.enter_context(storage.appending_journal(path, sync=True))
        # not synced: losing such a line loses no verdict
        again = stack.enter_context(storage.appending_journal(path))
        yield KeptVerdicts(path, config, record, again)


def _leave_out_old_times(path: Path) -> None:
    """Remove lines of a key and a time alone that a later such line repeats, if they are more than half of all lines.

    Each run adds such a line per video that it need not judge. All other lines stay as they are, also those of other
    versions.
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
