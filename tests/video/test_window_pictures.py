"""What several runs of backbones see of a window, from frames that are kept once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from violence_detection.features.config import FeatureConfig
from violence_detection.video import decode, occlusion, pictures, sampling, window_pictures, writer
from violence_detection.video.augment import PLAIN
from violence_detection.video.config import ClipConfig
from violence_detection.video.window_pictures import Viewer, WindowPlan

CONFIG = replace(FeatureConfig(), streams=("rgb",), frames=4, window_s=1.0)


def test_whole_frames_are_the_smallest_that_show_nothing_but_the_video() -> None:
    """A letterboxed size counts only if there is no other; the larger picture that crops are cut from never does."""
    viewers = [
        Viewer(16, replace(CONFIG, letterbox=True)),
        Viewer(24, replace(CONFIG, streams=("rgb", "crop"))),
        Viewer(40, CONFIG),
    ]
    info = decode.VideoInfo(25, 25.0, 60, 40, "")
    window = sampling.Window(0.0, 25.0)
    for seen_by, side in ((viewers, 24), (viewers[:1], 16), (viewers[::2], 40)):
        plan = WindowPlan(window, info, seen_by, [v.draws("clip", [PLAIN]) for v in seen_by])
        keep = window_pictures.keeper(seen_by)
        kept = {n: keep(np.full((40, 60, 3), 77, np.uint8)) for n in plan.frames}
        frames = list(plan.seen(kept).whole_frames())
        assert len(frames) == len(plan.frames)
        assert {frame.shape for frame in frames} == {(side, side, 3)}


class _Counted:
    """Stands in for pictures.keeper: counts how often frames are shrunk to each size."""

    def __init__(self) -> None:
        self.made: Counter[int] = Counter()

    def __call__(self, size: int, config: ClipConfig) -> Callable[..., np.ndarray]:
        def make(frame: np.ndarray, half: np.ndarray | None = None) -> np.ndarray:
            self.made[size] += 1
            return pictures.resize(frame, size, half)

        return make


def test_a_frame_is_shrunk_to_the_sizes_that_are_asked_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes of viewers of other frames are not made, but the smallest always is: it shows whether a window is still."""
    counted = _Counted()
    monkeypatch.setattr(pictures, "keeper", counted)
    few, many = replace(CONFIG, frames=3), replace(CONFIG, frames=24, span_s=0.5)
    viewers = [Viewer(16, many), Viewer(24, few)]
    path = tmp_path / "clip.mp4"
    writer.write(path, 25.0, (np.full((64, 64, 3), 9 * t, np.uint8) for t in range(25)), "mp4v")
    info = decode.probe(path)
    windows = sampling.sliding_windows(info, 1.0, 0.5)
    (seen,) = window_pictures.of_file(path, info, windows, viewers, "clip", [PLAIN])
    shown = [seen.pictures(n, PLAIN)["rgb"] for n in (0, 1)]
    assert [len(s) for s in shown] == [24, 3]
    assert counted.made == {24: 3, 16: len(seen._frames)}
    assert len([*seen.whole_frames()]) == len(seen._frames)


def test_a_frame_that_is_kept_as_it_is_is_shrunk_when_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrinking at once must give the same. Larger frames are shrunk at once, to all sizes unless told which."""
    viewers = [
        Viewer(16, CONFIG, closer_look=True),
        Viewer(24, replace(CONFIG, streams=("rgb", "crop"), letterbox=True), closer_look=True),
    ]
    rng = np.random.default_rng(0)
    small, large = (rng.integers(0, 255, (360, width, 3), np.uint8) for width in (640, 642))
    sizes = [viewer.kept_as for viewer in viewers]
    of_large = window_pictures.keeper(viewers)(large)
    assert set(of_large) == {*sizes, window_pictures.NEAR}
    at_once = window_pictures.keeper(viewers, to_change=True)(small)
    counted = _Counted()
    makers = pictures.keeper
    monkeypatch.setattr(pictures, "keeper", counted)
    kept = window_pictures.keeper(viewers)(small)
    assert not kept
    assert not counted.made
    for kept_as, viewer in zip(sizes, viewers, strict=True):
        for _ in range(2):
            kept[kept_as]
        assert counted.made.pop(viewer.size) == 1, "once"
    assert kept[window_pictures.NEAR].picture is small
    monkeypatch.setattr(pictures, "keeper", makers)
    kept = window_pictures.keeper(viewers)(small)
    np.testing.assert_array_equal(kept[sizes[0]], at_once[sizes[0]])
    # the stream `crop` keeps two pictures
    for picture, same in zip(kept[sizes[1]], at_once[sizes[1]], strict=True):
        np.testing.assert_array_equal(picture, same)
    np.testing.assert_array_equal(kept[window_pictures.NEAR].grey, at_once[window_pictures.NEAR].grey)
    with pytest.raises(KeyError):
        kept[99, 0, False]


def test_a_frame_can_take_the_place_of_another_in_every_size(tmp_path: Path) -> None:
    """To explain a verdict, frames that some viewer never looks at stand in for frames that it does look at."""
    few, many = replace(CONFIG, frames=3), replace(CONFIG, frames=24, span_s=0.5)
    viewers = [Viewer(16, many), Viewer(24, few), Viewer(32, replace(few, letterbox=True))]
    path = tmp_path / "clip.mp4"
    writer.write(path, 25.0, (np.full((64, 64, 3), 9 * t, np.uint8) for t in range(25)), "mp4v")
    info = decode.probe(path)
    window = sampling.Window(0.0, 25.0)
    (seen,) = window_pictures.of_file(path, info, [window], viewers, "clip", [PLAIN], to_change=True)
    for first in range(0, 25, 5):
        still = seen.changed(lambda frames, first=first: occlusion.without_time(frames, first, first + 5))  # type: ignore[misc]
        covered = seen.changed(lambda frames: occlusion.without_places(frames, occlusion.grid(2, 2)[:1], 1.0))
        for changed in (still, covered):
            for n, count in enumerate((24, 3, 3)):
                assert len(changed.pictures(n, PLAIN)["rgb"]) == count
