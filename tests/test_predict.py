"""Verdicts: events from windows, which files are looked at, long videos in bounded memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from violence_detection import predict
from violence_detection.errors import UserError
from violence_detection.predict import Verdict


def test_touching_windows_above_the_threshold_are_one_event() -> None:
    windows = [
        (0.0, 5.0, 0.2),
        (2.5, 7.5, 0.7),
        (5.0, 10.0, 0.9),
        (7.5, 12.5, 0.1),
        (10.0, 15.0, 0.1),
        (12.5, 17.5, 0.6),
    ]
    verdict = Verdict("v.mp4", windows, 0.5)
    assert verdict.events() == [
        {"start_s": 2.5, "end_s": 10.0, "p_violent": 0.9},
        {"start_s": 12.5, "end_s": 17.5, "p_violent": 0.6},
    ]
    assert verdict.summary()["label"] == "fight"
    assert verdict.p_violent == 0.9


def test_nothing_above_the_threshold_is_no_event() -> None:
    verdict = Verdict("v.mp4", [(0.0, 5.0, 0.49)], 0.5)
    assert verdict.summary() == {"path": "v.mp4", "label": "nonfight", "p_violent": 0.49, "events": []}


def test_folders_are_searched_in_order_and_files_taken_as_given(tmp_path: Path) -> None:
    for name in ("b/2.AVI", "a/1.mp4", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    odd = tmp_path / "a" / "notes.txt"
    assert predict.find_videos([tmp_path, odd]) == [tmp_path / "a/1.mp4", tmp_path / "b/2.AVI", odd]


def test_folder_without_videos_and_wrong_path_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no video files below"):
        predict.find_videos([tmp_path])
    with pytest.raises(UserError, match=r"no file or folder at .*gone"):
        predict.find_videos([tmp_path / "gone"])
