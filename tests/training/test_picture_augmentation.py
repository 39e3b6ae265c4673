"""Pictures are augmented in training only, each clip differently, and all frames of a clip in the same way."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from violence_detection.training import picture_augmentation
from violence_detection.training.picture_augmentation import PictureAugmentation

SIDE, FRAMES, CLIPS = 22, 6, 40


def _clips(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (CLIPS, FRAMES, SIDE * SIDE * 3)).astype(np.float16)


def _array(values: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(values)


def test_whole_pictures_are_judged_as_they_are() -> None:
    clips = _clips()
    out = _array(PictureAugmentation()(clips, training=False))
    assert out.shape == (CLIPS, FRAMES, SIDE, SIDE, 3)
    np.testing.assert_allclose((out.reshape(clips.shape) + 1) * 127.5, clips.astype(np.float32), atol=1e-3)


def test_frames_of_a_clip_are_altered_alike_and_clips_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_augmentation, "_NOISE_P", 0.0)
    still = np.repeat(_clips()[:1, :1], CLIPS, axis=0).repeat(FRAMES, axis=1)
    out = _array(PictureAugmentation()(still, training=True))
    assert out.shape == (CLIPS, FRAMES, 20, 20, 3)
    assert np.abs(out).max() <= 1 + 1e-5
    np.testing.assert_allclose(out, out[:, :1].repeat(FRAMES, axis=1), atol=1e-4)
    different = {clip.tobytes() for clip in out}
    # subtracting the mean picture leaves still clips grey, so those are all the same
    assert len(different) > 0.6 * CLIPS


def test_the_state_of_the_generator_decides_all_draws() -> None:
    layer = PictureAugmentation()
    before = _array(layer.seed_generator.state)
    one, other = (_array(layer(_clips(), training=True)) for _ in range(2))
    assert np.abs(one - other).max() > 0.1
    layer.seed_generator.state.assign(before)
    np.testing.assert_array_equal(_array(layer(_clips(), training=True)), one)


def test_frames_keep_their_order_and_a_shorter_span_repeats_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_augmentation, "_TIME_P", 1.0)
    layer = PictureAugmentation()
    layer.build((None, FRAMES, SIDE * SIDE * 3))
    numbers = np.broadcast_to(np.arange(FRAMES, dtype=np.float32)[:, None], (CLIPS, FRAMES, 2))
    shown = _array(layer._in_time(numbers))[:, :, 0]
    assert (np.diff(shown, axis=1) >= 0).all()
    assert set(shown.ravel()) == set(range(FRAMES))
    counts = np.array([len(set(row)) for row in shown])
    assert counts.min() >= FRAMES // 2
    assert counts.min() < FRAMES


def test_a_crop_shows_a_part_as_large_as_the_rest_and_mirrors_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_augmentation, "_COARSER_P", 0.0)
    layer = PictureAugmentation()
    layer.build((None, FRAMES, SIDE * SIDE * 3))
    # red grows with the column of a pixel, green with its row
    ramp = np.zeros((CLIPS, FRAMES, SIDE, SIDE, 3), np.float32)
    ramp[..., 0], ramp[..., 1] = np.arange(SIDE), np.arange(SIDE)[:, None]
    out = _array(layer._in_space(ramp.reshape(CLIPS, FRAMES, -1)))
    right, down = out[..., 0], out[..., 1]
    np.testing.assert_allclose(right, right[:, :1, :1].repeat(FRAMES, 1).repeat(20, 2), atol=1e-3)
    mirrored = right[:, 0, 0, 0] > right[:, 0, 0, -1]
    assert 0.2 < mirrored.mean() < 0.8
    assert (np.diff(down[:, 0, :, 0], axis=1) >= -1e-4).all()
    area = np.abs(right[:, 0, 0, -1] - right[:, 0, 0, 0]) * (down[:, 0, -1, 0] - down[:, 0, 0, 0]) / SIDE**2
    assert 0.25 < area.min() < 0.6 < area.max() <= 1


@pytest.mark.parametrize("channels", [0, 3 * 5, 12 * 12])
def test_what_is_no_square_picture_is_refused(channels: int) -> None:
    with pytest.raises(ValueError, match="not a square picture"):
        picture_augmentation.side_of(channels)
