"""Keep the ledger of looks at val: when, by which command and with which model it was judged, and what was seen.

Whoever looks at a held-out part again and again ends up tuning on it (Dwork et al., "The reusable holdout", Science
2015). The ledger, `combined_all/val_ledger.jsonl`, is beside the manifest. It has one JSON line per look, or several
with the same run id, and is only appended to; combining again keeps it. A line contains the hash of the manifest and
that of the val clips' ids, so that looks at the same val count even if train has changed since.
"""

from __future__ import annotations

import errno
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from violence_detection.combine import manifest
from violence_detection.datasets.generated.marker import is_generated
from violence_detection.errors import UserError
from violence_detection.system import locks, redaction, storage
from violence_detection.system.figures import is_share, plural

FILE_NAME = "val_ledger.jsonl"
_LOCK_NAME = ".val_ledger.lock"
#: Errors of writing to a folder or volume that this user may only read.
_READ_ONLY_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS)
#: Key of the run id that all entries of one evaluation share. Entries without it, those of training and of earlier
#: versions, are looks of their own.
_RUN_KEY = "run"
#: Most characters of a script's name that are shown.
_MOST_NAME_CHARACTERS = 60
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """One look at val.

    `purpose`: evaluation, training, hard clips, folds, left-out data sets, progression or probe of features. `model`:
    its folder or file; `model_sha256`: its identity. `val_clips`: number of val clips that were judged. `figures`: what
    was seen, fit for JSON, with `n`, the number of clips that the figures rest on; for folds, more than those of val.
    `run`: the id that all lines of one evaluation share, which count as one look however many of its sets contain val
    clips; else empty.
    """

    command: str
    purpose: str
    model: str
    model_sha256: str
    val_clips: int
    figures: Mapping[str, Any]
    run: str = ""


@dataclass(frozen=True)
class Looks:
    """The contents of a ledger, as seen from one val.

    `val_clips`: number of clips in that val. `same`: the looks at exactly these clips, oldest first, each by its first
    entry. `other`: number of looks at another val of the folder. `unreadable`: number of damaged lines, each of which
    may have been a look at any val. `unnoted`: why the present look could not be recorded; empty if it was, or if there
    was none to record.
    """

    val_clips: int
    same: Sequence[Mapping[str, Any]] = ()
    other: int = 0
    unreadable: int = 0
    unnoted: str = ""

    @property
    def models(self) -> int:
        """The number of different models in the looks at the same val."""
        return len({str(entry.get("model_sha256")) for entry in self.same})

    def text(self) -> str:
        """Describe the looks before this one in words."""
        count = len(self.same)
        times = {0: "not looked at before", 1: "looked at once before"}.get(
            count, f"looked at {count} times before"
        )
        said = [times]
        if count:
            scripts = Counter(_script(str(entry.get("command", ""))) for entry in self.same)
            by = ", ".join(name if n == 1 else f"{name} ({n} times)" for name, n in scripts.most_common())
            said = [f"{times}, with {plural(self.models, 'model')}, by {by}"]
        if self.other:
            said.append(
                f"{self.other} more on another val of this folder, which may have included some of these clips"
            )
        if self.unreadable:
            said.append(f"{plural(self.unreadable, 'damaged line')} in the ledger")
        if self.unnoted:
            said.append(f"this look could not be recorded: {self.unnoted}")
        return "; ".join(said)

    def record(self) -> dict[str, Any]:
        """Return the entry of metrics.json: the counts, the commands (latest first), and `text`."""
        return {
            "checked": True,
            "looks_before": len(self.same),
            "models_before": self.models,
            "looks_at_another_val": self.other,
            "damaged_lines": self.unreadable,
            "val_clips": self.val_clips,
            "by_command": self.by_command(),
            "not_noted": self.unnoted,
            "text": self.text(),
        }

    def by_command(self) -> list[dict[str, Any]]:
        """List the commands that looked at the same val, the latest first.

        Each entry has the command, its number of looks, and the purpose, time and accuracy of its last look.
        """
        found: dict[str, dict[str, Any]] = {}
        for entry in self.same:
            command = str(entry.get("command", ""))
            looks = found.pop(command, {"looks": 0})["looks"] + 1
            figures = entry.get("figures")
            accuracy = figures.get("accuracy") if isinstance(figures, dict) else None
            found[command] = {
                "command": command,
                "purpose": str(entry.get("purpose", "")),
                "looks": looks,
                "last": str(entry.get("time", "")),
                "accuracy": accuracy if is_share(accuracy) else None,
            }
        return list(reversed(found.values()))


def record_of_others(clips: int, combined: Path) -> dict[str, Any]:
    """Return the entry of metrics.json if none of the judged clips is in that folder's val: no look is counted."""
    said = f"none of these {clips} clips is val of {combined / manifest.FILE_NAME}, by content, so no look is counted"
    return {"checked": True, "looks_before": 0, "text": said}


def record_unchecked(combined: Path) -> dict[str, Any]:
    """Return the entry of metrics.json if there is no manifest with whose val the judged clips could be compared."""
    said = (
        f"not checked whether these clips are val of a manifest: there is no {combined / manifest.FILE_NAME}"
    )
    return {"checked": False, "text": said}


class _Lines(NamedTuple):
    entries: list[dict[str, Any]]
    damaged: int


def note(combined: Path, look: Look) -> Looks:
    """Append a look, and return the looks before it. Call this before anybody is shown the figures.

    Earlier entries of the same run are not counted as looks before it. Reading and appending are one step for all
    processes that share the folder, and the line is on disk on return. If the user may not write to the folder, nothing
    is raised, so that measuring goes on; `unnoted` then gives the reason.
    """
    val = val_of(combined)
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": redaction.without_secrets(look.command),
        "purpose": look.purpose,
        "model": look.model,
        "model_sha256": look.model_sha256,
        "val_clips": look.val_clips,
        "val_clips_of": len(val),
        "val_sha256": _hash(val),
        "manifest_sha256": storage.sha256_file(combined / manifest.FILE_NAME),
        "figures": json.loads(storage.as_json(look.figures)),
        **({"generated_samples": True} if is_generated(combined) else {}),
        **({_RUN_KEY: look.run} if look.run else {}),
    }
    try:
        with locks.locked(combined / _LOCK_NAME):
            before_lines = _read(combined / FILE_NAME)
            with storage.appending_journal(combined / FILE_NAME, sync=True) as record:
                record(uuid.uuid4().hex, entry)
    except OSError as e:
        if e.errno not in _READ_ONLY_ERRORS:
            raise
        log.warning("%s: this look at val cannot be recorded (%s)", combined / FILE_NAME, e.strerror)
        return _looks(_read(combined / FILE_NAME), val, look.run, e.strerror or str(e))
    before = _looks(before_lines, val, look.run)
    log.info("val of %s: %s", combined, before.text())
    return before


def read(combined: Path) -> Looks:
    """Return all looks at the present val of the folder."""
    return _looks(_read(combined / FILE_NAME), val_of(combined))


def check(combined: Path) -> None:
    """Raise UserError if a look could not be recorded or counted. Call this before anything is judged.

    A folder that may only be read is not an error: `note` allows for it.
    """
    val_of(combined)
    if (path := combined / FILE_NAME).is_dir():
        raise UserError(
            f"{path} is a folder, but looks at val are recorded in a file of that name. Move it away, and run the same "
            "command again"
        )
    try:
        _read(path)
    except OSError as e:
        raise UserError(
            f"{path} cannot be read ({e.strerror}), so earlier looks at val cannot be counted. Give this user the "
            "right to read it, and run the same command again"
        ) from e


def val_of(combined: Path) -> list[str]:
    """Return the ids of the clips of val, sorted. Raises UserError if the manifest lacks the columns for that."""
    path = combined / manifest.FILE_NAME
    try:
        return sorted(row["clip_id"] for row in storage.read_csv(path) if row["split"] == manifest.SPLITS[1])
    except KeyError as e:
        raise UserError(
            f"{path} is missing the column {e}. Make it again with combine_all_datasets.py"
        ) from e


def _script(command: str) -> str:
    """The name of the script in a command, without its arguments."""
    words = [word for word in command.partition("(")[0].split() if word != "python"]
    return words[0][:_MOST_NAME_CHARACTERS] if words else "an unknown command"


def _hash(clip_ids: Sequence[str]) -> str:
    return storage.stable_hash(list(clip_ids), 64)


def _read(path: Path) -> _Lines:
    """Read every line of the ledger. Damaged lines, such as the half line of a killed writer, are only counted."""
    entries: list[dict[str, Any]] = []
    damaged = 0
    if not path.is_file():
        return _Lines(entries, damaged)
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict) and isinstance(entry.get("val_sha256"), str):
            entries.append(entry)
        else:
            damaged += bool(line.strip())
    return _Lines(entries, damaged)


def _looks(lines: _Lines, val: Sequence[str], run: str = "", unnoted: str = "") -> Looks:
    """Sort the looks by whether they were at this val; the entries of `run`, the present one, are left out."""
    wanted = _hash(val)
    runs, looks = {run} - {""}, []
    for entry in lines.entries:
        of = str(entry.get(_RUN_KEY, ""))
        if of not in runs:
            looks.append(entry)
            runs |= {of} - {""}
    same = tuple(entry for entry in looks if entry["val_sha256"] == wanted)
    return Looks(len(val), same, len(looks) - len(same), lines.damaged, unnoted)
