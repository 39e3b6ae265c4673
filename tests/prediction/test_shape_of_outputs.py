"""Pictures and videos made of a video have the shape in which players show it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import timed_videos

from violence_detection.evaluation.report import film_strip
from violence_detection.prediction import annotated_video, event_clips, explanation
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.prediction.live.recent_footage import RecentFootage, picture_of
from violence_detection.prediction.review import review_media
from violence_detection.video import browser_video, decode, sampling, sources

SIDE = 240


def _segment(path: Path, size: tuple[int, int], sar: Fraction | None = None, seconds: float = 2) -> Path:
    """Write a video of a white square in the middle, half as high as the picture.

    `size`: (width, height) as stored. `sar`: the pixels' ratio of width to height.
    """
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    half_wide = round(height / 4 / (sar or 1))
    picture[height // 4 : 3 * height // 4, width // 2 - half_wide : width // 2 + half_wide] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264" if path.suffix == ".mp4" else "mpeg2video", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if sar:
            stream.codec_context.sample_aspect_ratio = sar
        for _ in range(round(25 * seconds)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _verdict(path: Path, duration_s: float = 2.0) -> Verdict:
    windows = (JudgedWindow(0.0, duration_s, 0.9),)
    return Verdict(str(path), windows, EventConfig(), duration_s, duration_s, fps=25.0)


def _annotated(video: Path, folder: Path) -> np.ndarray:
    verdict = _verdict(video)
    annotated_video.write(verdict, folder / "a.mp4")
    picture = _middle(folder / "a.mp4")
    return picture[: -annotated_video.Panel(verdict, picture.shape[1]).height]


def _clip(video: Path, folder: Path) -> np.ndarray:
    return _middle(event_clips.write(_verdict(video), folder, "v", 1.0)[0])


def _picture_of_event(video: Path, folder: Path) -> np.ndarray:
    return _jpeg(event_clips.write(_verdict(video), folder, "v", 1.0)[0].with_suffix(".jpg"))


def _copy_on_the_page(video: Path, folder: Path) -> np.ndarray:
    browser_video.write_copy(video, folder / "c.mp4")
    return _middle(folder / "c.mp4")


def _picture_on_the_page(video: Path, folder: Path) -> np.ndarray:
    return _jpeg(review_media.write(_verdict(video), folder, "v", "made of this")[0])


def _explained(video: Path, folder: Path) -> np.ndarray:
    info = decode.probe(video)
    ((_, picture), *_), *_ = explanation._shown(video, info, [sampling.Window(0, 50)])
    return picture


def _camera(video: Path, folder: Path) -> np.ndarray:
    frame = next(iter(sources.FileSource(video).frames()))
    kept = RecentFootage(5.0).kept(frame.time_s, frame.picture, frame.pixel_shape)
    assert kept is not None
    return picture_of(kept)


def _growing(video: Path, folder: Path) -> np.ndarray:
    stream = folder / "v.ts"
    _segment(stream, (SIDE, SIDE), Fraction(4, 3))
    frame = next(iter(sources.open_source(f"growing:{stream}", still_s=0.1).frames()))
    kept = RecentFootage(5.0).kept(frame.time_s, frame.picture, frame.pixel_shape)
    assert kept is not None
    return picture_of(kept)


def _film_strip(video: Path, folder: Path) -> np.ndarray:
    picture = cv2.imdecode(
        np.frombuffer(film_strip.clip_frames(video, 5)[0].jpeg, np.uint8), cv2.IMREAD_COLOR
    )
    assert picture is not None
    return picture


def _middle(path: Path) -> np.ndarray:
    info, frames = decode.read(path, lambda info: [info.n_frames // 2])
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 1)
    return frames[info.n_frames // 2]


def _jpeg(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


def _bright(picture: np.ndarray) -> tuple[int, int]:
    """Return the height and width of the bright part of a picture."""
    bright = picture.min(axis=-1) > 128
    return int(bright.any(axis=1).sum()), int(bright.any(axis=0).sum())


@pytest.mark.parametrize(
    "shown",
    [
        _annotated,
        _clip,
        _picture_of_event,
        _copy_on_the_page,
        _picture_on_the_page,
        _explained,
        _camera,
        _growing,
        _film_strip,
    ],
)
def test_pixels_that_are_not_square_keep_the_shape(
    shown: Callable[[Path, Path], np.ndarray], tmp_path: Path
) -> None:
    video = _segment(tmp_path / "v.mp4", (SIDE, SIDE), Fraction(4, 3))
    picture = shown(video, tmp_path)
    assert picture.shape[1] / picture.shape[0] == pytest.approx(4 / 3, abs=0.02)
    height, width = _bright(picture)
    assert width / height == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("shown", [_annotated, _clip, _camera, _film_strip])
def test_those_of_an_upright_video_are_turned_with_it(
    shown: Callable[[Path, Path], np.ndarray], tmp_path: Path
) -> None:
    lying = _segment(tmp_path / "lying.mp4", (SIDE, SIDE), Fraction(4, 3))
    picture = shown(timed_videos.turned(lying, tmp_path / "v.mp4"), tmp_path)
    assert picture.shape[1] / picture.shape[0] == pytest.approx(3 / 4, abs=0.02)
    height, width = _bright(picture)
    assert width / height == pytest.approx(1, abs=0.05)


def test_a_shape_that_cannot_be_true_is_not_believed(tmp_path: Path) -> None:
    assert decode.probe(_segment(tmp_path / "v.mp4", (64, 64), Fraction(1, 60))).pixel_shape == 1


@pytest.mark.parametrize("shown", [_annotated, _clip, _copy_on_the_page])
def test_pictures_of_another_shape_stand_in_that_of_the_first(
    shown: Callable[[Path, Path], np.ndarray], tmp_path: Path
) -> None:
    upright = _segment(tmp_path / "b.ts", (240, 320)).read_bytes()
    video = tmp_path / "v.ts"
    video.write_bytes(_segment(tmp_path / "a.ts", (320, 240), seconds=1).read_bytes() + upright)
    picture = shown(video, tmp_path)
    assert picture.shape == (240, 320, 3)
    assert _bright(picture) == (pytest.approx(120, abs=3), pytest.approx(120, abs=3))


def test_what_is_larger_than_h264_can_be_is_shrunk(tmp_path: Path) -> None:
    """A very narrow video, enlarged to make its panel readable, once ended the run as if the disk were full."""
    video = _segment(tmp_path / "v.mp4", (16, 1000), seconds=0.4)
    annotated_video.write(_verdict(video, 0.4), tmp_path / "a.mp4")
    assert _middle(tmp_path / "a.mp4").shape[0] == 16_384
