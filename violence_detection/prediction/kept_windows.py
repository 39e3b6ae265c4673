"""Probabilities of all windows, as kept in files, so that other thresholds can be applied without judging again."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from violence_detection.constants import EARLY_EXIT_KEY
from violence_detection.errors import DamagedFile, UserError
from violence_detection.prediction import verdict_journal
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import JudgedWindow, Verdict, event_at
from violence_detection.system import storage

log = logging.getLogger(__name__)

#: Columns of a table with a row per window: the window, then what is known of its video, repeated in each row.
COLUMNS = (
    "path", "start_s", "end_s", "p_violent", "event", "duration_s", "judged_s", "fps", "calibrated", "warning",
    "p_model", "still", "early_exit", "real_path", "model",
)  # fmt: skip
#: Endings of the names of files that keep windows.
ENDINGS = (".journal.jsonl", ".windows.jsonl", ".windows.csv", ".verdict.json")


def rows(verdict: Verdict) -> list[dict[str, Any]]:
    """Return one row per window, see COLUMNS. `event`: the number, from 1, of the event around its middle; 0: none.

    Some columns are only in rows where they say something: `p_model` if a camera profile changed P(violent), `still` if
    nothing moved and no network judged the window, `early_exit` (False) if the model's early exit was not taken,
    `real_path` and `model` if they are known.
    """
    events = verdict.events
    of_video = {name: getattr(verdict, name) for name in COLUMNS[5:10]}
    return [
        {
            "path": verdict.path,
            **window.record(),
            "event": event_at(events, window.middle_s),
            **of_video,
            **({} if verdict.early_exit else {EARLY_EXIT_KEY: False}),
            **{name: value for name in ("real_path", "model") if (value := getattr(verdict, name))},
        }
        for window in verdict.windows
    ]


def read(given: Path, events_by: EventConfig, model: str = "") -> list[Verdict]:
    """Read the kept windows of one file, or of all files below a folder, as verdicts with events by `events_by`.

    Probabilities are those of the model, without any camera profile. A video is identified by its real path, or, in
    files of earlier versions that lack it, by the path by which it was judged. If several runs judged a video, the
    newest verdict counts. Its `path` is the one by which it was judged, or the real path if the former leads to another
    file, or to none, from here. Sorted by path.

    `model`: identity of the model that must have judged the windows; empty: any. Verdicts of other models are passed
    over if the video has one of this model. A warning counts the verdicts that do not name their model, as in files of
    earlier versions. Raises UserError if there are no kept windows or only those of another model, and DamagedFile for
    a file with other content.
    """
    if not given.exists():
        raise UserError(f"no file or folder at {given}")
    files = [given] if given.is_file() else files_below(given)
    kept = _dated_by_journals([item for file in sorted(files) for item in _kept_in(file, events_by)])
    kept.sort(key=lambda item: (item.time_s, not _is_journal(item.file)))
    named = {verdict.path: verdict.real_path for verdict, _, _ in kept if verdict.real_path}
    found: dict[str, tuple[Verdict, Path]] = {}
    for verdict, file, _ in kept:
        video = verdict.real_path or named.get(verdict.path) or _whole(verdict.path)
        before = found.get(video)
        if before is None or not _is_of_another(verdict, model):
            found[video] = _completed(verdict, before[0] if before else None), file
    if not found:
        raise UserError(
            f"{given} holds no judged windows. Judge the videos with --output first. Names of files with windows end "
            f"in {', '.join(ENDINGS)}"
        )
    if model:
        _check_model(list(found.values()), given, model)
    return sorted(_with_paths_of_here([verdict for verdict, _ in found.values()]), key=lambda v: v.path)


class _KeptVideo(NamedTuple):
    """A verdict, the file that holds it, and when a run last gave it, in seconds since 1970."""

    verdict: Verdict
    file: Path
    time_s: float


def _kept_in(file: Path, events_by: EventConfig) -> list[_KeptVideo]:
    """Return the verdicts of a file, in its order (of a journal: oldest first). Raises as `read` does."""
    found: list[_KeptVideo] = []
    try:
        time_s = file.stat().st_mtime
        for record in reversed(list(_records(file))):
            # lines of earlier versions have no time: they are no newer than the lines after them
            time_s = min(float(record.get(verdict_journal.TIME_KEY) or time_s), time_s)
            found.append(_KeptVideo(_verdict(record, events_by), file, time_s))
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        if not file.name.endswith(ENDINGS):
            raise UserError(
                f"{file} holds no windows of judged videos: files with windows have names that end in "
                f"{', '.join(ENDINGS)}. Give one of those, or the folder that --output named"
            ) from e
        why = f"missing field: {e}" if isinstance(e, KeyError) else f"{type(e).__name__}: {e}"
        why = str(e) if isinstance(e, DamagedFile) else why
        raise DamagedFile(
            f"{file} holds no windows of judged videos ({why}). Give a file that was written with --output and whose "
            f"name ends in {', '.join(ENDINGS)}, or the folder of such files"
        ) from e
    return found[::-1]


def _dated_by_journals(kept: Sequence[_KeptVideo]) -> list[_KeptVideo]:
    """Date no verdict later than a journal in its folder dates the same windows.

    A file's own date is that of its copy. Tables hold no date, so that the same verdict always gives the same file.
    """

    def of(item: _KeptVideo) -> tuple[Path, str, tuple[JudgedWindow, ...]]:
        verdict = item.verdict
        return item.file.parent, verdict.real_path or verdict.path, verdict.windows

    said = {
        of(item): item.time_s for item in sorted(kept, key=lambda item: item.time_s) if _is_journal(item.file)
    }
    return [item._replace(time_s=min(item.time_s, said.get(of(item), item.time_s))) for item in kept]


def _is_journal(file: Path) -> bool:
    return verdict_journal.output_of(file) is not None


def _whole(path: str) -> str:
    return os.path.realpath(path) if os.path.isabs(path) else path  # noqa: PTH117 - a path of any system, as text


def _with_paths_of_here(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Replace the path of a verdict by the real path where it does not lead to the judged file from here.

    A path is kept if it leads to the file, if the real path is not known, or if the file is no longer at its real path
    and no other verdict has the same path.
    """
    count = Counter(verdict.path for verdict in verdicts)
    out = []
    for verdict in verdicts:
        real, given = verdict.real_path, verdict.path
        is_gone = not os.path.exists(real) and count[given] == 1  # noqa: PTH110
        if not real or os.path.realpath(given) == real or is_gone:
            out.append(verdict)
        else:
            out.append(replace(verdict, path=real, given_as=given))
    return out


def _completed(verdict: Verdict, before: Verdict | None) -> Verdict:
    """Fill in fields that not every format has from an older verdict on the same windows."""
    if before and verdict.windows == before.windows:
        known = {
            name: getattr(verdict, name) or getattr(before, name) for name in ("judged_with", "real_path")
        }
        return replace(verdict, **known)
    return verdict


def _is_of_another(verdict: Verdict, model: str) -> bool:
    return bool(model and verdict.model) and verdict.model != model


def _check_model(found: Sequence[tuple[Verdict, Path]], given: Path, model: str) -> None:
    for verdict, file in found:
        if _is_of_another(verdict, model):
            raise UserError(
                f"{file}: {verdict.path} was judged by another model than the one named. Name the --model that judged "
                "it, or judge the video itself"
            )
    if unknown := sum(not verdict.model for verdict, _ in found):
        log.warning(
            "%s does not say which model judged %d of its %d videos (files of earlier versions do not): whether it was "
            "the one named cannot be checked",
            given, unknown, len(found),
        )  # fmt: skip


def early_exit(verdicts: Iterable[Verdict]) -> bool:
    """Return whether the model's early exit was taken; raise UserError if only some of the verdicts were judged so."""
    taken = {verdict.early_exit: verdict.path for verdict in verdicts}
    if len(taken) > 1:
        raise UserError(
            f"{taken[True]} was judged with the model's early exit, {taken[False]} without it: their probabilities "
            "cannot be used together. Judge all videos with the same --operating-point and --threshold"
        )
    return next(iter(taken), True)


def are_at(given: Path) -> bool:
    """Whether `given` is a file of kept windows, or a folder with one in or below it."""
    return given.name.endswith(ENDINGS) if given.is_file() else any(files_below(given))


def files_below(folder: Path) -> list[Path]:
    """Return the files of kept windows in and below a folder, sorted, without the `._NAME` files that macOS adds."""
    return [
        f
        for f in sorted(folder.rglob("*"))
        if f.name.endswith(ENDINGS) and not f.name.startswith("._") and f.is_file()
    ]


def _records(file: Path) -> Iterator[Mapping[str, Any]]:
    """Yield one record per video: the fields of a Verdict, with its windows as mappings."""
    if file.name.endswith(".journal.jsonl"):
        return iter(verdict_journal.read(file).values())
    if file.suffix == ".csv":
        return _by_video(storage.read_csv(file))
    if file.suffix == ".jsonl":
        text = file.read_text(encoding="utf-8", errors=storage.NAME_ERRORS)
        return _by_video(json.loads(line) for line in storage.lines(text) if line)
    return iter([storage.read_json(file)])


def _by_video(found: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    videos: dict[str, dict[str, Any]] = {}
    for row in found:
        video = videos.setdefault(row["path"], {**row, "windows": []})
        video["windows"].append(row)
    return iter(videos.values())


def _verdict(record: Mapping[str, Any], events_by: EventConfig) -> Verdict:
    windows = tuple(
        JudgedWindow(float(w["start_s"]), float(w["end_s"]), _p_judged(w), still=_is_still(w) or None)
        for w in record["windows"]
    )
    if not windows:
        raise ValueError("a video without windows")
    return Verdict(
        str(record["path"]),
        tuple(sorted(windows, key=lambda w: w.start_s)),
        events_by,
        duration_s=float(record["duration_s"]),
        judged_s=float(record["judged_s"]),
        warning=str(record.get("warning") or ""),
        calibrated=str(record["calibrated"]).lower() == "true",
        fps=float(record["fps"]),
        judged_with=str(record.get("judged_with") or ""),
        early_exit=str(record.get(EARLY_EXIT_KEY, "")).lower() != "false",
        model=str(record.get("model") or ""),
        real_path=str(record.get("real_path") or ""),
    )


def _p_judged(window: Mapping[str, Any]) -> float:
    """P(violent) as the model gave it, before any camera profile."""
    p = window.get("p_model")
    return float(window["p_violent"] if p in (None, "") else p)


def _is_still(window: Mapping[str, Any]) -> bool:
    return str(window.get("still", "")).lower() == "true"
