"""What the page shows of a video is made again if it would show something else, and only then."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numbered_videos
import pytest

from violence_detection.prediction import written_outputs
from violence_detection.prediction.config import EventConfig, OutputConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.prediction.review import review_media
from violence_detection.video import browser_video


@pytest.fixture
def verdict(tmp_path: Path) -> Verdict:
    """A verdict on a video that browsers do not play."""
    video = numbered_videos.write(tmp_path / "v.avi", 60, 10.0)
    windows = tuple(JudgedWindow(2.0 * i, 2.0 * i + 2, p) for i, p in enumerate((0.6, 0.1, 0.9)))
    return Verdict(str(video), windows, EventConfig(merge_gap_s=0.0), 6.0, 6.0, fps=10.0)


def test_a_copy_is_encoded_once_whatever_the_verdict_says(
    tmp_path: Path, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[Path] = []
    write_copy = browser_video.write_copy

    def counted(video: Path, path: Path, comment: str = "") -> None:
        copies.append(video)
        write_copy(video, path, comment)

    monkeypatch.setattr(browser_video, "write_copy", counted)

    def shown(threshold: float, made_of: str) -> list[str]:
        of = replace(verdict, events_by=EventConfig(threshold, merge_gap_s=0.0))
        return [path.name for path in review_media.write(of, tmp_path, "v", made_of)]

    assert shown(0.5, "first") == ["v.jpg", "v.event001.jpg", "v.event002.jpg", "v.mp4"]
    assert shown(0.8, "second") == ["v.jpg", "v.event001.jpg"]
    assert review_media.read(verdict, tmp_path, "v").video == "./media/v.mp4"
    (tmp_path / "media" / "v.mp4").unlink()
    assert "v.mp4" in shown(0.5, "third")
    os.utime(verdict.path, (2, 2))
    assert "v.mp4" in shown(0.5, "fourth"), "another video"
    assert len(copies) == 3


def test_another_path_and_another_margin_make_nothing_again_that_does_not_show_them(
    tmp_path: Path, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(verdict: Verdict, margin_s: float) -> set[str]:
        config = OutputConfig((), tmp_path / "a", tmp_path / "c", tmp_path / "page", clip_margin_s=margin_s)
        names = {flag: {verdict.path: "v"} for flag in ("--annotate", "--clips", "--timeline")}
        return {Path(path).name for path in written_outputs.load_shower(config, names)(verdict)}

    assert {"v.annotated.mp4", "v.event001.mp4", "v.mp4"} <= shown(verdict, 1.0)
    monkeypatch.chdir(tmp_path)
    assert shown(replace(verdict, path="v.avi"), 1.0) == set()
    assert shown(verdict, 0.5) == {"v.event001.mp4", "v.event002.mp4"}
