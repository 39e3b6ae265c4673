"""Windows are placed inside fights or away from them, of one length, spread out, only where the class is certain."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re

import pytest

from violence_detection.combine.config import CutConfig
from violence_detection.combine.cut import windows
from violence_detection.combine.cut.windows import CutWindow
from violence_detection.datasets.annotations import Segments
from violence_detection.datasets.own_table import Stretch
from violence_detection.errors import UserError
from violence_detection.video.decode import VideoInfo

CONFIG = CutConfig()
FPS = 10.0  # a window is 50 frames, the margin 20


def video(n_frames: int, fps: float = FPS) -> VideoInfo:
    """Describe a video of constant frame rate."""
    return VideoInfo(n_frames, fps, 64, 48, "", n_decoded=n_frames)


def of(found: tuple[CutWindow, ...], label: str) -> list[tuple[int, int]]:
    return [(w.first, w.end) for w in found if w.label == label]


def test_fights_are_cut_inside_and_the_rest_at_a_margin() -> None:
    found = windows.plan(video(400), "fight", Segments(((100, 210),)), CONFIG)
    assert of(found, "fight") == [(102, 152), (157, 207)]
    assert of(found, "nonfight") == [(15, 65), (233, 283), (290, 340), (346, 396)]


def test_whatever_the_annotation_every_window_is_surely_of_its_class() -> None:
    random_ = random.Random(0)
    for _ in range(300):
        n_frames, fps = random_.randint(30, 3000), random_.choice([6.0, 12.5, 25.0, 29.97, 60.0])
        starts = sorted(random_.sample(range(n_frames), 4))
        spans = tuple((float(s), float(s + random_.randint(1, 400))) for s in starts)
        config = CutConfig(margin_s=random_.choice([0.0, 1.0, 3.0]), windows_per_video=random_.randint(1, 9))
        segments, info = Segments(spans), video(n_frames, fps)
        fights, margin = windows.fights(info, segments), round(config.margin_s * fps)
        found = windows.plan(info, "fight", segments, config)
        assert found == windows.plan(info, "fight", segments, config)
        for first, end in of(found, "fight"):
            assert any(a <= first and end <= b for a, b in fights)
        for first, end in of(found, "nonfight"):
            assert all(end <= a - margin or first >= b + margin for a, b in fights)
        assert all(w.end - w.first == round(5 * fps) and w.first >= 0 and w.end <= n_frames for w in found)
        assert all(a.end <= b.first for a, b in itertools.pairwise(found))
        assert all(len(of(found, label)) <= config.windows_per_video for label in ("fight", "nonfight"))


@pytest.mark.parametrize(("fps", "window_s"), [(1.4, 5.0), (0.5, 5.0), (0.5, 30.0), (25.0, 0.2)])
def test_where_a_window_has_too_few_pictures_none_is_cut_and_none_is_longer(
    fps: float, window_s: float
) -> None:
    config = CutConfig(window_s=window_s)
    info = video(round(120 * fps), fps)
    assert windows.plan(info, "nonfight", None, config) == ()
    assert windows.plan(info, "fight", Segments(((0, 60),), in_seconds=True), config) == ()
    stretches = [Stretch(0.0, 60.0, "fight", "a.csv:2"), Stretch(60.0, 60.0 + window_s, "fight", "a.csv:3")]
    found, refused = windows.inside(info, stretches, config)
    assert found == ()
    assert all(
        re.search(r"has \d frames, fewer|has \d different|stand for 2 s each", r) for r in refused.values()
    )
    assert sorted(refused) == [0, 1]


def test_of_a_long_normal_video_a_few_are_taken_from_all_over_it() -> None:
    assert len(windows.plan(video(36_000), "nonfight", None, CONFIG)) == CONFIG.normal_windows == 2
    found = windows.plan(video(36_000), "nonfight", None, dataclasses.replace(CONFIG, normal_windows=8))
    assert len(found) == 8
    eighths = [w.first * 8 // 36_000 for w in found]
    assert eighths == list(range(8))


def test_a_normal_video_of_one_window_gives_its_middle_and_a_shorter_one_nothing() -> None:
    assert windows.plan(video(60), "nonfight", None, CONFIG) == (CutWindow(5, 55, "nonfight"),)
    assert windows.plan(video(49), "nonfight", None, CONFIG) == ()


def test_a_violent_video_that_nobody_annotated_is_not_guessed_at() -> None:
    assert windows.plan(video(400), "fight", None, CONFIG) == ()
    assert windows.plan(video(400), "fight", Segments(()), CONFIG) == ()
    admitted = dataclasses.replace(CONFIG, cut_unannotated=True)
    assert {w.label for w in windows.plan(video(400), "fight", None, admitted)} == {"fight"}
    assert windows.plan(video(400), "fight", Segments(()), admitted) == ()


def test_a_normal_video_never_gives_a_fight() -> None:
    found = windows.plan(video(400), "nonfight", Segments(((100, 200),)), CONFIG)
    assert {w.label for w in found} == {"nonfight"}
    assert all(w.end <= 80 or w.first >= 220 for w in found)


def test_short_fights_are_cut_only_when_asked_for() -> None:
    segments = Segments(((100, 130), (200, 215)))
    assert of(windows.plan(video(400), "fight", segments, CONFIG), "fight") == []
    admitted = dataclasses.replace(CONFIG, shortest_s=2.0)
    assert of(windows.plan(video(400), "fight", segments, admitted), "fight") == [(100, 130)]


def test_fights_that_touch_are_one_in_frames_and_in_seconds() -> None:
    numbers = Segments(((50, 60), (1, 20), (15, 30), (30, 40)))
    assert windows.fights(video(400), numbers) == [(1, 40), (50, 60)]
    seconds = Segments(((2.5, 9.0), (12.0, 20.25)), in_seconds=True)
    assert windows.fights(video(900, 30.0), seconds) == [(75, 270), (360, 608)]


def test_a_fight_that_lasts_past_the_end_is_cut_off_there() -> None:
    assert of(windows.plan(video(400), "fight", Segments(((340, 900),)), CONFIG), "fight") == [(345, 395)]


def test_an_annotation_of_another_version_of_the_video_is_refused() -> None:
    with pytest.raises(ValueError, match="frame 500"):
        windows.plan(video(400), "fight", Segments(((10, 90), (500, 900))), CONFIG)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"window_s": 0.0}, r"\(--window-s\) must be from 0\.01 to .*Received: 0\.0$"),
        ({"margin_s": -1.0}, r"\(--margin-s\) must be from 0 to .*Received: -1\.0$"),
        ({"windows_per_video": 0}, r"\(--windows-per-video\) must be from 1 to .*Received: 0$"),
        ({"normal_windows": 0}, r"\(--normal-windows\) must be from 1 to .*Received: 0$"),
        ({"shortest_s": 6.0}, r"--shortest-s must be .*at most --window-s\. Received: 6\.0$"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        windows.check(dataclasses.replace(CONFIG, **wrong))  # type: ignore[arg-type]
