"""Figures of a group are those of its clips; the worst group comes first, and each clip is looked at only once."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_videos

from violence_detection.evaluation import clip_groups, metrics
from violence_detection.video.appearance import Appearance


def _tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """60 clips of 20 sources: 20 are 720 high, half of them misjudged; of the others none is, and two are 240 high."""
    n = 60
    fight = np.arange(n) % 2 == 0
    height = np.where(np.arange(n) < 20, 720, 360)
    height[-2:] = 240
    wrong = (height == 720) & (np.arange(n) % 4 < 2)
    p = np.where(fight != wrong, 0.9, 0.1)
    rows = pd.DataFrame(
        {
            "clip_id": [f"{i:016x}" for i in range(n)], "path": [f"val/{i}.avi" for i in range(n)],
            "source_path": "", "dataset": "a", "source_group": [f"s{i // 3}" for i in range(n)],
            "label": np.where(fight, "fight", "nonfight"), "height": height, "fps": 25.0, "duration_s": 2.0,
        }
    )  # fmt: skip
    return rows.drop(columns=["height", "fps", "duration_s"]).assign(p_violent=p), rows


def test_groups_have_their_clips_figures_and_the_worst_comes_first() -> None:
    predictions, rows = _tables()
    tables = clip_groups.tables(predictions, rows, {}, {}, 0.5)
    assert tables[0]["property"] == "resolution"
    assert [g["group"] for g in tables[0]["groups"]] == ["over 480", "over 240, up to 480", "up to 240"]
    worst, best, small = tables[0]["groups"]
    tall = predictions[rows.height == 720]
    right = ((tall.p_violent >= 0.5) == (tall.label == "fight")).to_numpy()
    assert worst["accuracy"] == right.mean() == 0.5
    assert worst["ci95"] == list(metrics.accuracy_interval(right, tall.source_group.to_numpy()))
    assert (worst["n"], worst["n_groups"], worst["fights"]) == (20, 7, 10)
    calm = tall[tall.label == "nonfight"]
    assert worst["false_alarm_rate"] == (calm.p_violent >= 0.5).mean()
    assert (best["accuracy"], best["too_small"]) == (1.0, False)
    assert (small["n"], small["too_small"]) == (2, True)
    assert tables[0]["lowest"] == 0.5


def test_what_was_not_measured_is_said_and_clips_without_a_prediction_do_not_count() -> None:
    predictions, rows = _tables()
    predictions.loc[0, "p_violent"] = np.nan
    looks = {i: Appearance(0.1 * (k % 9), 0.01) for k, i in enumerate(rows.clip_id[:30])}
    edges = clip_groups.terciles(looks)
    by_name = {t["property"]: t for t in clip_groups.tables(predictions, rows, looks, edges, 0.5)}
    brightness = by_name["brightness"]
    assert (brightness["measured"], brightness["clips"]) == (29, 59)
    assert sum(g["n"] for g in brightness["groups"]) == 29
    assert len(brightness["groups"]) == 3
    nothing = {t["property"]: t for t in clip_groups.tables(predictions, rows, {}, {}, 0.5)}
    assert (nothing["amount of motion"]["measured"], nothing["amount of motion"]["groups"]) == (0, [])


def test_without_peaceful_clips_there_is_no_rate_of_false_alarms() -> None:
    predictions, _ = _tables()
    fights = predictions[predictions.label == "fight"]
    assert clip_groups.false_alarms(fights, 0.5) == {"false_alarm_rate": None, "false_alarm_ci95": None}


def test_clips_are_looked_at_once_and_a_large_set_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        small_videos.write(tmp_path / f"val/{seed}.avi", seed, brightness=30 * seed)
    rows = pd.DataFrame({"clip_id": list("dacb"), "path": [f"val/{i}.avi" for i in range(4)]})
    monkeypatch.setattr(clip_groups, "MOST_LOOKED_AT", 3)
    seen = clip_groups.looks_of(rows, tmp_path, tmp_path, 5.0, 1)
    assert sorted(seen) == ["a", "b", "c"]
    assert all(one.brightness is not None for one in seen.values())
    assert seen["a"].brightness < seen["c"].brightness < seen["b"].brightness  # type: ignore[operator]
    for path in (tmp_path / "val").iterdir():
        path.unlink()
    assert clip_groups.looks_of(rows, tmp_path, tmp_path, 5.0, 1) == seen


@pytest.mark.parametrize("fails", ["opened", "written"])
def test_a_disk_that_takes_no_notes_costs_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    for seed in range(2):
        small_videos.write(tmp_path / f"val/{seed}.avi", seed)
    rows = pd.DataFrame({"clip_id": list("ab"), "path": ["val/0.avi", "val/1.avi"]})

    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def journal(_: Path) -> Iterator[Callable[..., None]]:
        if fails == "opened":
            refused()
        yield refused

    monkeypatch.setattr(clip_groups.storage, "appending_journal", journal)
    seen = clip_groups.looks_of(rows, tmp_path, tmp_path, 5.0, 1)
    assert all(seen[clip].brightness is not None for clip in "ab")
    (said,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "clip_looks.jsonl cannot be written (No space left on device)" in said
