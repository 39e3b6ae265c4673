"""Windows of a stream are those of the same footage as a file, and little is kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from violence_detection.features.config import FeatureConfig
from violence_detection.prediction.window_stream import WindowStream
from violence_detection.video import augment, decode, sampling
from violence_detection.video.sources import TimedFrame
from violence_detection.video.window_pictures import Kept, Viewer, WindowPlan

SIZE = 8
EVEN = FeatureConfig(frames=10, window_s=2.0, streams=("rgb", "motion"))
BURSTS = replace(EVEN, streams=("rgb",), frames=8, burst=4, burst_spacing_s=0.2)
VIEWERS = (Viewer(SIZE, EVEN), Viewer(SIZE, BURSTS))
VIEWS = ("v0", "w1", "w2")


def _frame(number: int, time_s: float) -> TimedFrame:
    """A picture that tells its number."""
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    picture[..., 0], picture[..., 1] = number % 256, number // 256
    return TimedFrame(time_s, picture)


def _numbers(frames: Mapping[int, Kept]) -> dict[int, int]:
    return {moment: int(kept[SIZE, 0, False][0, 0] @ (1, 256, 0)) for moment, kept in frames.items()}


Seen = list[tuple[float, float, dict[int, int]]]


def _seen(stream: WindowStream, frames: Sequence[TimedFrame]) -> Seen:
    """Of each window where it lies, and which frame stands for each moment that it needs."""
    windows = [w for frame in frames for w in stream.push(frame)] + stream.finish()
    return [(w.window.start, w.window.length, _numbers(w._frames)) for w in windows]


def _stream(**settings: object) -> WindowStream:
    return WindowStream(VIEWERS, 2.0, 0.5, variants=VIEWS, **settings)  # type: ignore[arg-type]


def _of_file(n_frames: int, fps: float, start_s: float = 0.0) -> Seen:
    """The same of a file whose frames come at that rate."""
    info = decode.VideoInfo(n_frames, fps, SIZE, SIZE, "", start_s=start_s)
    out = []
    draws = [viewer.draws("stream", VIEWS) for viewer in VIEWERS]
    for window in sampling.sliding_windows(info, 2.0, 0.5):
        numbers = WindowPlan(window, info, VIEWERS, draws).frames
        out.append((window.start, window.length, {i: i for i in numbers}))
    return out


@pytest.mark.parametrize("fps", [8.0, 12.5, 25.0, 29.97, 60.0])
@pytest.mark.parametrize("seconds", [1.1, 2.0, 2.04, 2.3, 5.0, 7.77])
@pytest.mark.parametrize("start_s", [0.0, 3.3])
def test_windows_and_frames_are_those_of_the_file(fps: float, seconds: float, start_s: float) -> None:
    rng = np.random.default_rng(0)
    count = round(seconds * fps)
    jitter_s = rng.uniform(-0.2, 0.2, count) / fps  # of clocks and containers
    jitter_s[0] = 0
    frames = [_frame(i, start_s + i / fps + jitter_s[i]) for i in range(count)]
    expected = _of_file(count, fps, start_s)
    assert _seen(_stream(stated_fps=fps), frames) == expected
    assert expected


def test_every_view_is_drawn_as_for_a_file() -> None:
    assert VIEWERS[0].draws("stream", VIEWS)["w1"] == augment.draw(EVEN.augment_seed, "stream", "w1")


def test_windows_come_as_soon_as_their_frames_are_there() -> None:
    stream = _stream(stated_fps=25.0)
    came_at = [i / 25 for i in range(500) for _ in stream.push(_frame(i, i / 25))]
    assert len(came_at) == 36
    delays_s = np.array(came_at) - (2.0 + 0.5 * np.arange(36))
    assert (delays_s >= -0.05).all()
    assert (delays_s < 0.35).all(), "motion viewers on a little beyond a window"


@pytest.mark.parametrize(("fps", "stated"), [(25.0, 90_000.0), (25.0, 0.0), (30.0, 25.0), (12.0, 24.0)])
def test_a_rate_that_is_not_the_streams_own_is_not_believed(fps: float, stated: float) -> None:
    frames = [_frame(i, i / fps) for i in range(round(9 * fps))]
    assert _seen(_stream(stated_fps=stated), frames) == _of_file(len(frames), fps)


def test_what_is_kept_is_bounded_however_long_the_stream() -> None:
    stream = _stream(stated_fps=25.0)
    most = 0
    for i in range(5000):
        stream.push(_frame(i, i / 25))
        most = max(most, stream.frames_kept)
    assert most <= 25 * (2.0 + 0.5 + 1.0), "a window, a step, and what samples reach beyond"


def test_frames_that_were_lost_leave_the_windows_where_they_are() -> None:
    """Three seconds are missing: windows of which little came are left out, the others lie as before."""
    there = [i for i in range(300) if not 100 <= i < 175]
    stream = _stream(stated_fps=25.0)
    seen = _seen(stream, [_frame(i, i / 25) for i in there])
    whole = {(start, length): frames for start, length, frames in _of_file(300, 25.0)}
    assert stream.still == len(whole) - len(seen) > 0
    for start, length, frames in seen:
        assert (start, length) in whole
        for moment, number in frames.items():
            assert number == max(i for i in there if i <= moment)
    untouched = [s for s in seen if s[0] + s[1] + 25 <= 100 or s[0] >= 175]
    assert len(untouched) >= 8
    assert all(whole[start, length] == frames for start, length, frames in untouched)


def test_a_stream_of_nothing_has_no_windows() -> None:
    assert _stream().finish() == []
    assert _seen(_stream(), [_frame(i, i / 25) for i in range(5)]) == []
