"""The ledger of looks at val: how often, by which command and with which model it was judged, and what was seen.

A held-out part that is looked at again and again is tuned by, whoever looks (Dwork et al., "The reusable holdout",
Science 2015). `combined_all/val_ledger.jsonl` stands beside the manifest, has one JSON line a look, and is only
appended to: combining again leaves it there. A line carries the hash of the manifest and that of the val clips' ids, so
that looks at the same val count even where train has changed since.
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
#: A volume, or a folder, that is only lent for reading.
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)
#: Where an entry has what all entries of one evaluation have; those of before, and of training, are looks of their own.
_RUN_KEY = "run"
#: Of the name of a script.
_MOST_LETTERS = 60
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """One look at val. `purpose`: evaluation, training, hard clips, folds, left-out data sets, progression or
    probe of features.

    `model`: its folder or file, `model_sha256` its identity. `val_clips`: clips of val that were judged. `figures`:
    what was seen, JSON-able, with `n`, the clips that it rests on: of folds these are more than those of val.
    `run`: what all lines of an evaluation have, one look however many of its sets have clips of val; else empty.
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
    """What a ledger says. `same`: looks at the same val clips, the first entry of each, oldest first; `other`: how many
    at another val of that folder.

    `unreadable`: lines that are damaged; each may have been a look at any val. `unnoted`: why the look that asked for
    this could not be written down; empty if it was, or none was to be.
    """

    val_clips: int
    same: Sequence[Mapping[str, Any]] = ()
    other: int = 0
    unreadable: int = 0
    unnoted: str = ""

    @property
    def models(self) -> int:
        """With how many models the same val was looked at."""
        return len({str(entry.get("model_sha256")) for entry in self.same})

    def text(self) -> str:
        """In words, for people."""
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
                f"{self.other} more on another val of this folder, which may have had some of these clips"
            )
        if self.unreadable:
            said.append(f"{plural(self.unreadable, 'damaged line')} beside these")
        if self.unnoted:
            said.append(f"this look could not be noted: {self.unnoted}")
        return "; ".join(said)

    def record(self) -> dict[str, Any]:
        """For metrics.json: the counts, and by which commands, the latest first."""
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
        """The commands that looked at the same val: command, purpose, looks, and the last one's time and accuracy."""
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
    """What metrics.json says where none of the clips is val of that folder: no look was counted."""
    said = f"none of these {clips} clips is val of {combined / manifest.FILE_NAME}, by content: no look is counted"
    return {"checked": True, "looks_before": 0, "text": said}


def record_unchecked(combined: Path) -> dict[str, Any]:
    """What metrics.json says where there is no manifest whose val clips could be compared with."""
    said = f"not looked for whether these clips are val of a manifest: there is no {combined / manifest.FILE_NAME}"
    return {"checked": False, "text": said}


class _Lines(NamedTuple):
    entries: list[dict[str, Any]]
    damaged: int


def note(combined: Path, look: Look) -> Looks:
    """Append a look, and return those before it. To be called before anybody is shown what was seen.

    What the same run has noted is no look before it.

    Reading and appending are one step for all processes that share the folder, and the line is on the disk on return.
    A folder that cannot be written is no reason not to measure: `unnoted` then says so.
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
        if e.errno not in _NOT_OURS:
            raise
        log.warning("%s: this look at val cannot be noted (%s)", combined / FILE_NAME, e.strerror)
        return _looks(_read(combined / FILE_NAME), val, look.run, e.strerror or str(e))
    before = _looks(before_lines, val, look.run)
    log.info("val of %s: %s", combined, before.text())
    return before


def read(combined: Path) -> Looks:
    """All looks at the val that stands there now."""
    return _looks(_read(combined / FILE_NAME), val_of(combined))


def check(combined: Path) -> None:
    """Raise UserError where a look could not be noted: to be asked before anything is judged."""
    val_of(combined)
    if (path := combined / FILE_NAME).is_dir():
        raise UserError(
            f"{path} is a folder, where looks at val are noted. Move it away, and run the same command again"
        )


def val_of(combined: Path) -> list[str]:
    """The ids of the clips of val, sorted. Raises UserError where the manifest has no columns for that."""
    path = combined / manifest.FILE_NAME
    try:
        return sorted(row["clip_id"] for row in storage.read_csv(path) if row["split"] == manifest.SPLITS[1])
    except KeyError as e:
        raise UserError(f"{path} lacks the column {e}. Make it again with combine_all_datasets.py") from e


def _script(command: str) -> str:
    """What was called, without what it was told."""
    words = [word for word in command.partition("(")[0].split() if word != "python"]
    return words[0][:_MOST_LETTERS] if words else "an unknown command"


def _hash(clip_ids: Sequence[str]) -> str:
    return storage.stable_hash(list(clip_ids), 64)


def _read(path: Path) -> _Lines:
    """Every line of the ledger; half a line of a writer that was killed is damaged."""
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
    """`run`: whose own entries are none of those before it."""
    wanted = _hash(val)
    runs, looks = {run} - {""}, []
    for entry in lines.entries:
        of = str(entry.get(_RUN_KEY, ""))
        if of not in runs:
            looks.append(entry)
            runs |= {of} - {""}
    same = tuple(entry for entry in looks if entry["val_sha256"] == wanted)
    return Looks(len(val), same, len(looks) - len(same), lines.damaged, unnoted)
