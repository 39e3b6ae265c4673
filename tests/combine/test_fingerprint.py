"""Fingerprints of real video files: what they survive, and what they tell apart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import small_videos

from benchmarks import alterations
from violence_detection.combine import duplicates, fingerprint
from violence_detection.video import decode

N_CLIPS = 6


def write_frames(path: Path, frames: list[np.ndarray], fps: float = 12.0) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def moving_blobs(seed: int, n_frames: int = 50) -> list[np.ndarray]:
    """Draw BGR frames, (128, 192, 3) uint8: three bright moving discs on a fixed background of coarse noise."""
    rng = np.random.default_rng(seed)
    background = cv2.resize(
        rng.integers(0, 180, (6, 9, 3), np.uint8), (192, 128), interpolation=cv2.INTER_CUBIC
    )
    starts, speeds = rng.uniform(20, 110, (3, 2)), rng.uniform(-1.5, 1.5, (3, 2))
    frames = []
    for k in range(n_frames):
        frame = background.copy()
        for x, y in starts + k * speeds:
            cv2.circle(frame, (round(x), round(y)), 14, (250, 250, 250), cv2.FILLED)
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [write_frames(folder / f"{k}.mp4", moving_blobs(k), fps=25.0) for k in range(N_CLIPS)]


@pytest.mark.parametrize("kind", sorted({**alterations.KINDS, **alterations.MIRRORED_KINDS}))
def test_an_altered_copy_is_paired_with_its_original_and_with_nothing_else(
    kind: str, clips: list[Path], tmp_path: Path
) -> None:
    """A mirrored copy shares footage with its original, but does not count as the same clip."""
    rng, same = np.random.default_rng(0), kind in alterations.KINDS
    copies = [alterations.write(c, tmp_path / c.stem, alterations.draw(kind, rng), rng) for c in clips]
    pairs = duplicates.find_pairs([fingerprint.of_video(p)[1] for p in clips + copies])
    assert [(p.i, p.j, p.same_clip) for p in pairs] == [(k, k + N_CLIPS, same) for k in range(N_CLIPS)]


def test_mirrored_spectra_are_those_of_mirrored_pictures(clips: list[Path]) -> None:
    info, frames = decode.read(clips[0], fingerprint.sample_plan, fingerprint.shrink)
    pictures = [frames[i] for i in fingerprint.sample_plan(info)]
    plain, _ = fingerprint.to_arrays([fingerprint.from_frames(pictures)])
    changed_over, _ = fingerprint.to_arrays([fingerprint.from_frames([p[:, ::-1] for p in pictures])])
    assert np.abs(fingerprint.mirrored(plain) - changed_over).max() <= 0.02 * np.abs(plain).max()
    assert (fingerprint.mirrored(fingerprint.mirrored(plain)) == plain).all()


def test_a_fingerprint_is_compact_hex_and_the_same_each_time(clips: list[Path]) -> None:
    first, again = (fingerprint.of_video(clips[0])[1] for _ in range(2))
    assert first == again
    assert 0 < len(bytes.fromhex(first)) <= 200


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_clip_of_one_colour_has_no_identity(level: int, tmp_path: Path) -> None:
    path = write_frames(tmp_path / "flat.mp4", [np.full((64, 96, 3), level, np.uint8)] * 24)
    assert fingerprint.of_video(path)[1] == ""


def test_a_black_clip_with_faint_noise_has_no_identity(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 6, (64, 96, 3), np.uint8) for _ in range(24)]
    assert fingerprint.of_video(write_frames(tmp_path / "noise.mp4", frames))[1] == ""


def test_wide_black_bars_do_not_make_clips_alike(tmp_path: Path) -> None:
    prints = []
    for seed in range(4):
        frames = [cv2.copyMakeBorder(f, 20, 20, 0, 0, cv2.BORDER_CONSTANT) for f in small_videos.frames(seed)]
        prints.append(fingerprint.of_video(write_frames(tmp_path / f"{seed}.mp4", frames))[1])
    assert duplicates.find_pairs(prints) == []


def test_shrunk_frames_and_whole_frames_give_the_same_fingerprint(clips: list[Path]) -> None:
    info, frames = decode.read(clips[0], fingerprint.sample_plan)
    whole = fingerprint.from_frames([frames[i] for i in fingerprint.sample_plan(info)])
    assert whole == fingerprint.of_video(clips[0])[1]


@pytest.mark.parametrize("fps", [5.0, 12.0, 29.97, 60.0])
def test_the_plan_is_at_fixed_times_whatever_the_frame_rate(fps: float) -> None:
    info = decode.VideoInfo(n_frames=round(fps * 10), fps=fps, width=64, height=64, codec="")
    plan = fingerprint.sample_plan(info)
    wanted_s = 0.1 + 0.2 * np.arange(8)
    assert len(plan) == 8
    assert np.all(np.abs(np.array(plan) / fps - wanted_s) <= 1 / fps)


def test_the_plan_of_a_window_stays_inside_it_and_begins_with_it() -> None:
    info = decode.VideoInfo(n_frames=1000, fps=25.0, width=64, height=64, codec="")
    whole = fingerprint.sample_plan(info)
    assert fingerprint.sample_plan(info, start=500, length=125) == [500 + f for f in whole]
    assert fingerprint.sample_plan(info, start=500, length=20) == [500 + f for f in whole if f < 20]
    assert max(fingerprint.sample_plan(info, start=990, length=125)) < 1000


def test_a_long_video_has_one_wherever_a_clip_may_be_cut_from_it(tmp_path: Path) -> None:
    frames = moving_blobs(7, 120)
    long = write_frames(tmp_path / "long.mp4", frames)
    found = fingerprint.along(long)
    assert found[0] == (0, fingerprint.of_video(long)[1])
    assert [start for start, _ in found] == [0, 9, 19, 28, 38, 48, 57, 67, 76, 86, 96]
    for first in (5, 43, 80):
        cut = write_frames(tmp_path / f"{first}.mp4", frames[first : first + 24])
        pairs = duplicates.find_pairs([*(text for _, text in found), fingerprint.of_video(cut)[1]])
        assert any(pair.j == len(found) for pair in pairs), f"cut at frame {first}"
    brief = write_frames(tmp_path / "brief.mp4", frames[:10], 120.0)
    assert fingerprint.along(brief) == [(0, fingerprint.of_video(brief)[1])]


def test_a_text_that_is_no_fingerprint_is_refused() -> None:
    for text in ("abcd", "00" * 24 * 9, "zz" * 24):
        with pytest.raises(ValueError, match=r"fingerprint|hexadecimal"):
            fingerprint.to_arrays([text])


@pytest.mark.real
def test_copies_of_real_clips_are_found(real_clips: Path, tmp_path: Path) -> None:
    names = ["hockey_fights/data/no1_xvid.avi", "hockey_fights/data/fi94_xvid.avi",
             "surveillance_fight/fight/fi001.mp4", "surveillance_fight/noFight/nofi012.mp4"]  # fmt: skip
    paths = [real_clips / "raw" / n for n in names]
    prints = [fingerprint.of_video(p)[1] for p in paths]
    rng = np.random.default_rng(0)
    for kind in ("low_bitrate", "scaled_half", "trimmed_end", "letterbox"):
        copies = [alterations.write(p, tmp_path / p.stem, alterations.draw(kind, rng), rng) for p in paths]
        pairs = duplicates.find_pairs(prints + [fingerprint.of_video(c)[1] for c in copies])
        assert [(p.i, p.j, p.same_clip) for p in pairs] == [(k, k + 4, True) for k in range(4)], kind
