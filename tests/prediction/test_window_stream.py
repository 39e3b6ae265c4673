"""A stream has the same windows as a file of the same footage, and keeps few of its frames."""

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
    """A frame whose picture encodes its number."""
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    picture[..., 0], picture[..., 1] = number % 256, number // 256
    return TimedFrame(time_s, picture)


def _numbers(frames: Mapping[int, Kept]) -> dict[int, int]:
    return {moment: int(kept[SIZE, 0, False][0, 0] @ (1, 256, 0)) for moment, kept in frames.items()}


Seen = list[tuple[float, float, dict[int, int]]]


def _seen(stream: WindowStream, frames: Sequence[TimedFrame]) -> Seen:
    """Return each window's start and length, and the frame that stands for each moment that it needs."""
    windows = [w for frame in frames for w in stream.push(frame)] + stream.finish()
    return [(w.window.start, w.window.length, _numbers(w._frames)) for w in windows]


def _stream(**settings: object) -> WindowStream:
    return WindowStream(VIEWERS, 2.0, 0.5, variants=VIEWS, **settings)  # type: ignore[arg-type]


def _of_file(n_frames: int, fps: float, start_s: float = 0.0) -> Seen:
    """Return what `_seen` does, for a file whose frames come at that rate."""
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
    # clocks and containers make times irregular
    jitter_s = rng.uniform(-0.2, 0.2, count) / fps
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
    """Three seconds are missing: windows of which few frames came are left out, and the others keep their places."""
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


@pytest.mark.parametrize("stated", [0.0, 2.0, 25.0, 90_000.0])
@pytest.mark.parametrize("idle_s", [20.0, 21.3])
def test_a_stream_that_speeds_up_is_soon_seen_as_the_file_is(idle_s: float, stated: float) -> None:
    """Some cameras send few frames until something moves. A file of that has the rate of its fastest part."""
    times = np.concatenate([np.arange(0, idle_s, 0.5), idle_s + np.arange(250) / 25])
    stream = _stream(stated_fps=stated)
    seen = {}
    for i, time_s in enumerate(times):
        for window in stream.push(_frame(i, time_s)):
            seen[stream.span_s(window.window)] = _numbers(window._frames)
    seen |= {stream.span_s(w.window): _numbers(w._frames) for w in stream.finish()}
    # the first moment that each frame stands for
    begins = np.ceil(times * 25 - 0.5).astype(int)
    n_frames = int(begins[-1]) + 1
    late = 0
    for start, length, moments in _of_file(n_frames, 25.0):
        span_s = (start / 25, (start + length) / 25)
        if span_s[1] > idle_s + 2.1:
            late += 1
            assert seen[span_s] == {m: int(np.flatnonzero(begins <= m)[-1]) for m in moments}
    assert late > 12
    assert stream.frames_kept <= 25 * (2.0 + 0.5 + 1.0)


def test_frames_that_come_in_one_burst_are_no_other_rate() -> None:
    """After a pause of the network, frames that are timed by their arrival come almost at once."""
    times = [
        *(i / 10 for i in range(100)),
        *(11.2 + i / 1000 for i in range(12)),
        *(11.3 + i / 10 for i in range(90)),
    ]
    stream = _stream(stated_fps=10.0)
    for i, time_s in enumerate(times):
        stream.push(_frame(i, time_s))
        assert stream._info.fps in (10.0, 25.0), "25 before it is known"
    assert stream._info.fps == 10.0


def test_a_stream_of_nothing_has_no_windows() -> None:
    assert _stream().finish() == []
    assert _seen(_stream(), [_frame(i, i / 25) for i in range(5)]) == []
