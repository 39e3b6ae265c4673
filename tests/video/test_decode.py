"""Decoding: the frames asked for, whatever the container claims, or an error that names the file."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numbered_videos
import numpy as np
import pytest

from violence_detection.errors import UnreadableVideo
from violence_detection.video import decode, sampling


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_videos.write(tmp_path_factory.mktemp("video") / "clip.avi", 40)


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_the_frames_decoded_are_those_asked_for(tmp_path: Path, suffix: str) -> None:
    path = numbered_videos.write(tmp_path / f"clip{suffix}", 40)
    info, frames = decode.read(path, lambda _: [0, 7, 8, 23, 39])
    assert {i: numbered_videos.number_of(f) for i, f in frames.items()} == {i: i for i in (0, 7, 8, 23, 39)}
    assert (info.n_frames, info.fps, info.width, info.height) == (40, 20.0, 128, 32)
    assert info.duration_s == pytest.approx(2.0)


def test_frames_are_rgb(tmp_path: Path) -> None:
    path = tmp_path / "blue.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 64))
    for _ in range(10):
        writer.write(np.full((64, 64, 3), (250, 10, 10), np.uint8))  # OpenCV writes BGR
    writer.release()
    _, frames = decode.read(path, lambda _: [3])
    red, _, blue = frames[3].mean(axis=(0, 1))
    assert blue > 200
    assert red < 60


@pytest.mark.parametrize("claimed", [11, 24, 90, 4000])
def test_a_header_that_lies_about_the_frame_count_changes_nothing(tmp_path: Path, claimed: int) -> None:
    path = numbered_videos.write(tmp_path / "clip.avi", 40)
    numbered_videos.claim_frames(path, claimed)
    capture = cv2.VideoCapture(str(path))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) != 40, "the lie did not reach the decoder"
    capture.release()
    info, frames = decode.read(path, lambda i: sampling.sample_indices(i.n_frames, 4).tolist())
    assert info.n_frames == decode.probe(path).n_frames == 40
    assert {i: numbered_videos.number_of(f) for i, f in frames.items()} == {i: i for i in (5, 15, 25, 35)}


def test_transform_is_applied_to_what_is_kept_only(clip: Path) -> None:
    seen = []

    def shrink(frame: np.ndarray) -> np.ndarray:
        seen.append(numbered_videos.number_of(frame))
        return frame[:2, :2]

    _, frames = decode.read(clip, lambda _: [4, 30], shrink)
    assert seen == [4, 30]
    assert frames[4].shape == (2, 2, 3)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("Not a video, but a page that says so.\n" * 200)


def _cut(path: Path) -> None:
    whole = numbered_videos.write(path, 40).read_bytes()
    path.write_bytes(whole[: whole.index(b"movi") + 200])


def _cut_in_header(path: Path) -> None:
    path.write_bytes(numbered_videos.write(path, 40).read_bytes()[:150])


def _short(path: Path) -> None:
    numbered_videos.write(path, decode.MIN_FRAMES - 1)


def _absent(path: Path) -> None:
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("damage", [_empty, _text, _cut, _cut_in_header, _short, _absent])
def test_an_unreadable_file_is_a_failure_that_names_it(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "some clip.avi"
    damage(path)  # type: ignore[operator]
    with pytest.raises(UnreadableVideo, match=r"some clip\.avi") as e:
        decode.read(path, lambda i: [i.n_frames - 1])
    assert e.value.path == str(path)
    assert e.value.reason


def test_a_folder_is_no_video_and_the_reason_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match=r"a folder, not a video\. Name the videos in it"):
        decode.probe(tmp_path)


def test_an_mp4_cut_off_is_a_failure_that_names_it(tmp_path: Path) -> None:
    path = numbered_videos.write(tmp_path / "cut.mp4", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableVideo, match=r"cut\.mp4"):
        decode.probe(path)


def test_an_avi_cut_off_counts_the_frames_that_are_left(tmp_path: Path) -> None:
    path = numbered_videos.write(tmp_path / "half.avi", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    info, frames = decode.read(path, lambda i: sampling.sample_indices(i.n_frames, 5).tolist())
    assert decode.MIN_FRAMES <= info.n_frames < 40
    assert len(frames) == 5
    assert all(numbered_videos.number_of(f) == i for i, f in frames.items())


def test_groups_yield_what_one_decode_yields(clip: Path) -> None:
    groups = [frozenset(range(i, i + 12, 3)) for i in range(0, 28, 4)]
    _, whole = decode.read(clip, lambda _: sorted(frozenset[int]().union(*groups)))
    decoded = list(decode.read_groups(clip, decode.probe(clip), groups))
    assert [frozenset(d) for d in decoded] == groups
    for group in decoded:
        for number, frame in group.items():
            np.testing.assert_array_equal(frame, whole[number])


def test_groups_hold_few_frames_however_long_the_video(tmp_path: Path) -> None:
    path = numbered_videos.write(tmp_path / "long.avi", 250)
    frame_bytes = numbered_videos.frame(0).nbytes
    info = decode.probe(path)
    tracemalloc.start()
    for _ in decode.read_groups(path, info, [frozenset(range(i, i + 5)) for i in range(0, 240, 5)]):
        pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 25 * frame_bytes


def test_groups_beyond_the_end_are_a_failure_that_names_the_file(clip: Path) -> None:
    with pytest.raises(UnreadableVideo, match=r"clip\.avi.*ended at frame 40.*51"):
        list(decode.read_groups(clip, decode.probe(clip), [frozenset({3}), frozenset({50})]))


@pytest.mark.parametrize(("n_frames", "count"), [(1, 3), (8, 20), (20, 20), (41, 20), (1000, 7)])
def test_samples_are_in_range_in_order_and_even(n_frames: int, count: int) -> None:
    chosen = sampling.sample_indices(n_frames, count)
    assert chosen.shape == (count,)
    assert chosen.dtype == np.int64
    assert 0 <= chosen.min() <= chosen.max() < n_frames
    steps = np.diff(chosen)
    assert steps.min() >= 0
    assert steps.max() - steps.min() <= 1
    assert abs(int(chosen[0]) - (n_frames - 1 - int(chosen[-1]))) <= 1, "not centred"
    if n_frames >= count:
        assert steps.min() >= 1, "repeats a frame though there are enough"


def test_samples_of_a_window_stay_in_it() -> None:
    chosen = sampling.sample_indices(100, 10, start=30.0, length=20.0)
    assert 30 <= chosen.min() <= chosen.max() < 50
    np.testing.assert_array_equal(chosen, 30 + sampling.sample_indices(20, 10))
