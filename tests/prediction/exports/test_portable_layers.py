"""Networks rewritten for other formats give the same as the original ones."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import seeded_i3d
import tiny_networks
from keras import layers

from violence_detection.errors import UserError
from violence_detection.prediction.exports import portable_layers, whole_graph
from violence_detection.training import heads
from violence_detection.training.config import HeadConfig
from violence_detection.video import pictures


def test_a_network_of_clips_in_two_dimensions_gives_the_same() -> None:
    network = tiny_networks.clip_network(Path())
    flat = portable_layers.in_two_dimensions(network)
    assert not any(isinstance(layer, (layers.Conv3D, layers.MaxPooling3D)) for layer in flat.layers)
    frames = np.random.default_rng(0).uniform(0, 255, (9, 24, 24, 3)).astype(np.float32)
    expected = np.asarray(network(frames))
    np.testing.assert_allclose(np.asarray(flat(frames)), expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_a_network_of_images_stays_as_it_is() -> None:
    network = tiny_networks.images_network(Path())
    assert portable_layers.in_two_dimensions(network) is network


def test_a_convolution_of_another_kind_is_refused() -> None:
    given = keras.Input((4, 8, 8, 3))
    network = keras.Model(given, layers.Conv3D(2, 3, padding="valid", name="odd")(given))
    with pytest.raises(UserError, match="layer odd"):
        portable_layers.in_two_dimensions(network)


@pytest.mark.parametrize("architecture", ["bilstm_attention", "attention", "kernel"])
def test_a_head_without_loops_gives_the_same(architecture: str) -> None:
    keras.utils.set_random_seed(1)
    head = heads.build(
        architecture, {"a": (4, 6), "b": (2, 5)}, HeadConfig(units=8, projection=4, landmarks=3)
    )
    rng = np.random.default_rng(1)
    head.set_weights([w + 0.1 * rng.standard_normal(w.shape).astype(np.float32) for w in head.get_weights()])
    inputs = {
        "a": rng.standard_normal((1, 4, 6), np.float32),
        "b": rng.standard_normal((1, 2, 5), np.float32),
    }
    logits = np.asarray(portable_layers.unrolled_logits(head)(inputs))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, 0])), heads.predict(head, inputs), atol=1e-6)


@pytest.mark.parametrize("count", [8, 9])
def test_what_stands_still_is_taken_away_as_the_package_does_it(count: int) -> None:
    frames = np.random.default_rng(count).integers(0, 256, (count, 6, 6, 3), np.uint8)
    found = np.asarray(whole_graph.without_still(keras.ops.cast(frames, "float32")))
    np.testing.assert_array_equal(found, pictures.without_still(frames))


def test_numbers_are_rounded_as_the_cache_keeps_them() -> None:
    x = np.random.default_rng(2).standard_normal(5000).astype(np.float32) * 30
    found = np.asarray(whole_graph.in_half_precision(keras.ops.convert_to_tensor(x)))
    np.testing.assert_allclose(found, x.astype(np.float16).astype(np.float32), atol=1e-7)
    assert np.abs(found - x).max() > 1e-3


@pytest.mark.parametrize("two_dimensional", [False, True])
def test_a_head_that_is_a_network_over_time_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, two_dimensional: bool
) -> None:
    seeded_i3d.shrink(monkeypatch.setattr)
    name, shape = "i3d_pictures.rgb", (8, 12 * 12 * 3)
    head = heads.build("i3d_tuned", {name: shape}, HeadConfig())
    rng = np.random.default_rng(0)
    head.set_weights([rng.normal(0, 0.3, w.shape).astype(np.float32) for w in head.get_weights()])
    clips = {name: rng.integers(0, 256, (3, *shape)).astype(np.float32)}
    portable = portable_layers.unrolled_logits(head, two_dimensional)
    assert two_dimensional != any(isinstance(layer, layers.Conv3D) for layer in portable._flatten_layers())
    logits = [np.asarray(portable({name: clip[None]}, training=False)).item() for clip in clips[name]]
    whole = keras.Model(head.inputs, head.get_layer("logits").output)
    expected = np.asarray(whole(clips, training=False))[:, 0]
    np.testing.assert_allclose(logits, expected, rtol=1e-4)
    assert np.ptp(expected) > 0.1
