"""Where a model fails: its figures by resolution, frame rate, length, brightness and amount of motion, worst first.

The first three are columns of the manifest. Brightness and motion are measured on a few frames of each clip, once, and
stored by clip id. In a large set only some of the clips are measured: those with the lowest ids, which is as good as
drawing them at random, because ids are hashes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.evaluation import metrics
from violence_detection.system import console, storage
from violence_detection.video import appearance, video_files
from violence_detection.video.appearance import Appearance

if TYPE_CHECKING:
    import pandas as pd

    from violence_detection.evaluation.measure import Evaluation

#: Where brightness and motion are stored, in the folder of the feature caches.
LOOKS_NAME = "clip_looks.jsonl"
#: Clips of a set that are measured, at most. A hundred take about three seconds of processor time.
MOST_LOOKED_AT = 1_000
#: A group with fewer clips, or from fewer sources, is too small to say anything.
FEWEST_CLIPS, FEWEST_SOURCES = 5, 2
#: Properties that are measured on frames: fields of Appearance.
_LOOKED_AT = ("brightness", "motion")
#: (column, name, unit, upper edges of the groups). The edges are fixed, so that all sets have the same groups.
_FROM_MANIFEST: tuple[tuple[str, str, str, tuple[float, ...]], ...] = (
    ("height", "resolution", "pixels high", (240, 480)),
    ("fps", "frame rate", "frames a second", (20, 26, 31)),
    ("duration_s", "length", "s", (3, 6)),
)
#: Field of Appearance -> (name, unit).
_IN_WORDS = {
    "brightness": ("brightness", "mean luma, 0 black to 1 white"),
    "motion": ("amount of motion", "mean change of luma over 0.08 s"),
}


def of_sets(sets: Mapping[str, Evaluation], workers: int) -> dict[str, Any]:
    """Return set -> tables by group. Brightness and motion are divided at the terciles of the first set."""
    out: dict[str, Any] = {}
    edges: Mapping[str, tuple[float, ...]] | None = None
    for name, one in sets.items():
        window_s = one.model.features.window_s
        looks = looks_of(one.clips.rows, one.clips.base, one.clips.data_root, window_s, workers)
        edges = terciles(looks) if edges is None else edges
        out[name] = tables(one.predictions, one.clips.rows, looks, edges, one.model.threshold)
    return out


def looks_of(
    rows: pd.DataFrame, base: Path, data_root: Path, window_s: float, workers: int
) -> dict[str, Appearance]:
    """Return clip id -> Appearance of at most MOST_LOOKED_AT of the clips.

    `rows`: of the manifest, with paths relative to `base`. Measurements of any earlier run are read from
    `<data_root>/features`, and new ones are added there. If that folder cannot be written to, a warning says so, and
    the next run measures again.
    """
    chosen = rows.sort_values("clip_id").head(MOST_LOOKED_AT)
    paths = {str(base / p): str(i) for i, p in zip(chosen.clip_id, chosen.path, strict=True)}
    journal = data_root / "features" / LOOKS_NAME
    keys = {clip_id: f"{clip_id} {window_s:g} {appearance.VERSION}" for clip_id in paths.values()}
    known = storage.read_journal(journal, frozenset(Appearance.__dataclass_fields__))
    found = {clip_id: Appearance(**known[key]) for clip_id, key in keys.items() if key in known}
    todo = [Path(path) for path, clip_id in paths.items() if clip_id not in found]
    if not todo:
        return found
    console.log.info("brightness and motion: %d clips measured before, %d to measure", len(found), len(todo))
    look = functools.partial(appearance.look, window_s=window_s)
    with (
        console.progress(total=len(todo), desc="look", unit="clip") as bar,
        _noting(journal) as note,
    ):
        for path, seen in video_files.map_files(look, todo, workers, lambda p: p, _not_seen):
            clip_id = paths[str(path)]
            found[clip_id] = seen
            if not video_files.may_pass(seen.reason):
                note(keys[clip_id], asdict(seen))
            bar.update()
    return found


@contextlib.contextmanager
def _noting(journal: Path) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Yield a function that appends (key, fields) to the journal, and after an error does nothing.

    The journal only saves work in later runs: if it cannot be written, this run must not lose its figures.
    """
    with contextlib.ExitStack() as opened:
        record: Callable[[str, Mapping[str, Any]], None] | None = None

        def note(key: str, fields: Mapping[str, Any]) -> None:
            nonlocal record
            try:
                if record:
                    record(key, fields)
            except OSError as e:
                record = None
                _warn_not_noted(journal, e)

        try:
            record = opened.enter_context(storage.appending_journal(journal))
        except OSError as e:
            _warn_not_noted(journal, e)
        yield note


def _warn_not_noted(journal: Path, error: OSError) -> None:
    console.log.warning(
        "%s cannot be written (%s): the next run measures brightness and motion of these clips again",
        journal,
        error.strerror or error,
    )


def _not_seen(_: Path, reason: str) -> Appearance:
    return Appearance(reason=reason)


def terciles(looks: Mapping[str, Appearance]) -> dict[str, tuple[float, ...]]:
    """Edges that divide these clips into thirds by brightness and by motion; no edges if nothing was measured."""
    out = {}
    for name in _LOOKED_AT:
        values = [value for seen in looks.values() if (value := getattr(seen, name)) is not None]
        out[name] = tuple(float(x) for x in np.quantile(values, (1 / 3, 2 / 3))) if values else ()
    return out


def tables(
    predictions: pd.DataFrame,
    rows: pd.DataFrame,
    looks: Mapping[str, Appearance],
    edges: Mapping[str, tuple[float, ...]],
    threshold: float,
) -> list[dict[str, Any]]:
    """Figures by group, JSON-able, one table per property.

    The groups with the lowest accuracy come first, and so do the tables with the lowest accuracy of a group; groups
    that are too small come last and do not count in this. `predictions`: see metrics; `rows`: of the manifest, for the
    same clips; `edges`: of brightness and motion (see `terciles`). Clips without a prediction are left out, and so are
    those whose property is unknown; `measured` says how many remain.
    """
    known = predictions[predictions[metrics.ENSEMBLE_COLUMN].notna()]
    known = known.merge(rows[["clip_id", *(c for c, *_ in _FROM_MANIFEST)]], on="clip_id")
    out = [
        _table(known, known[column].to_numpy(float), name, unit, at, threshold)
        for column, name, unit, at in _FROM_MANIFEST
    ]
    for column in _LOOKED_AT:
        values = np.array([getattr(looks.get(i, Appearance()), column) for i in known.clip_id], float)
        out.append(_table(known, values, *_IN_WORDS[column], edges.get(column, ()), threshold))
    return sorted(out, key=lambda table: table["lowest"])


def _table(
    known: pd.DataFrame, values: np.ndarray, name: str, unit: str, edges: Sequence[float], threshold: float
) -> dict[str, Any]:
    there = np.isfinite(values)
    place = np.searchsorted(np.asarray(edges, float), values, side="left")
    groups = [
        {"group": _group_name(edges, i), **_figures(known[there & (place == i)], threshold)}
        for i in sorted(set(place[there].tolist()))
    ]
    groups.sort(key=lambda g: (g["too_small"], g["accuracy"]))
    telling = [g["accuracy"] for g in groups if not g["too_small"]]
    return {
        "property": name,
        "unit": unit,
        "edges": list(edges),
        "measured": int(there.sum()),
        "clips": len(known),
        "lowest": min(telling, default=1.0),
        "groups": groups,
    }


def _group_name(edges: Sequence[float], i: int) -> str:
    """Name of the group `i`: its values are above the edge before it, up to and including the edge after it."""
    if not edges:
        return "all"
    shown = [f"{edge:.3g}" for edge in edges]
    if i == 0:
        return f"up to {shown[0]}"
    return f"over {shown[i - 1]}" + ("" if i == len(edges) else f", up to {shown[i]}")


def _figures(rows: pd.DataFrame, threshold: float) -> dict[str, Any]:
    scores = metrics.score(rows, rows[metrics.ENSEMBLE_COLUMN], threshold)
    return {
        **{k: scores[k] for k in ("accuracy", "ci95", "n", "n_groups", "recall")},
        **false_alarms(rows, threshold),
        "fights": int((rows.label == metrics.FIGHT).sum()),
        "too_small": len(rows) < FEWEST_CLIPS or scores["n_groups"] < FEWEST_SOURCES,
    }


def false_alarms(rows: pd.DataFrame, threshold: float) -> dict[str, Any]:
    """Share of the nonfight clips that are called fights, with its 95 % interval by source; None without such clips."""
    calm = rows[(rows.label == metrics.NONFIGHT) & rows[metrics.ENSEMBLE_COLUMN].notna()]
    if calm.empty:
        return {"false_alarm_rate": None, "false_alarm_ci95": None}
    called = (calm[metrics.ENSEMBLE_COLUMN] >= threshold).to_numpy()
    low, high = metrics.accuracy_interval(called, calm.source_group.astype(str).to_numpy())
    return {"false_alarm_rate": float(called.mean()), "false_alarm_ci95": [low, high]}
