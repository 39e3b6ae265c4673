"""Marks are read as the page saves them, and other files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from violence_detection.errors import DamagedFile, UserError
from violence_detection.prediction.review import marks
from violence_detection.prediction.review.marks import Mark, MarkedVideo

SAVED: dict[str, Any] = {
    "format": marks.FORMAT, "version": 1, "model": "m",
    "marks": [
        {"path": "a.mp4", "start_s": 20.0, "end_s": 25, "mark": "missed"},
        {"path": "a.mp4", "start_s": 2.5, "end_s": 7.5, "mark": "right"},
        {"path": "b.mp4", "start_s": 0, "end_s": 5.0, "mark": "wrong"},
    ],
    "reviewed": ["b.mp4", "quiet.mp4"],
}  # fmt: skip


def _write(path: Path, **changed: Any) -> Path:
    path.write_text(json.dumps(SAVED | changed))
    return path


def test_marks_by_video_in_order_of_time(tmp_path: Path) -> None:
    found = marks.read(_write(tmp_path / "marks.json"))
    assert found.by_video == {
        "a.mp4": [Mark(2.5, 7.5, "right"), Mark(20.0, 25.0, "missed")],
        "b.mp4": [Mark(0.0, 5.0, "wrong")],
        "quiet.mp4": [],
    }
    assert (found.count, found.reviewed, found.model) == (3, {"b.mp4", "quiet.mp4"}, "m")
    assert [m.is_fight for m in (*found.by_video["a.mp4"], *found.by_video["b.mp4"])] == [True, True, False]


@pytest.mark.parametrize(
    "changed",
    [{"format": "x"}, {"version": 2}, {"marks": [{"path": "a", "start_s": 5, "end_s": 5, "mark": "right"}]},
     {"marks": [{"path": "a", "start_s": 5, "end_s": 6, "mark": "maybe"}]}, {"reviewed": None},
     {"marks": [{"path": "a", "start_s": "x", "end_s": 6, "mark": "right"}]}, {"reviewed": "b.mp4"},
     {"marks": [{"path": "a", "start_s": 5, "end_s": 10**400, "mark": "right"}]}, {"model": ["m"]},
     {"marks": [{"path": "a", "start_s": 5, "end_s": float("inf"), "mark": "right"}]}, {"reviewed": [["b.mp4"]]},
     {"videos": [{"path": "a.mp4"}]}, {"videos": 3}],
)  # fmt: skip
def test_what_holds_no_marks_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(DamagedFile, match=r"marks\.json"):
        marks.read(_write(tmp_path / "marks.json", **changed))
    with pytest.raises(UserError, match="no file at"):
        marks.read(tmp_path / "missing.json")


def test_a_stretch_that_is_marked_both_ways_or_behind_the_end_is_refused_and_one_marked_twice_counts_once(
    tmp_path: Path,
) -> None:
    """Files edited by hand: marks of times that do not exist were once learnt from, and repeated ones counted again."""
    mark = {"path": "a.mp4", "start_s": 2.5, "end_s": 7.5, "mark": "right"}
    file = {"path": "a.mp4", "real_path": "/gate/a.mp4", "content": "", "duration_s": 30}
    assert marks.read(_write(tmp_path / "twice.json", marks=[mark] * 12)).count == 1
    with pytest.raises(DamagedFile, match=r"both.json marks 2\.5-7\.5 s of a\.mp4 as right and as wrong"):
        marks.read(_write(tmp_path / "both.json", marks=[mark, mark | {"mark": "wrong"}]))
    behind = mark | {"start_s": 30.0, "end_s": 35.0}
    with pytest.raises(
        DamagedFile, match=r"behind.json marks 30\.0-35\.0 s of a\.mp4, which is only 30\.0 s"
    ):
        marks.read(_write(tmp_path / "behind.json", marks=[behind], videos=[file]))


def test_which_files_were_marked(tmp_path: Path) -> None:
    made = {"path": "a.mp4", "real_path": "/gate/a.mp4", "content": "", "duration_s": 30}
    found = marks.read(_write(tmp_path / "marks.json", videos=[made]))
    assert found.videos == {"a.mp4": MarkedVideo("/gate/a.mp4", 30.0)}
    assert marks.read(_write(tmp_path / "marks.json")).videos == {}


def test_a_model_that_is_not_known_may_be_null(tmp_path: Path) -> None:
    assert marks.read(_write(tmp_path / "marks.json", model=None)).model == ""
