"""Every head accepts every combination of inputs, and a .keras file keeps it unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from violence_detection.ensemble.config import MEMBERS
from violence_detection.training import heads
from violence_detection.training.config import KERNEL, ON_FEATURES, HeadConfig

SMALL = HeadConfig(projection=8, units=8)


def _random(shapes: dict[str, tuple[int, int]], count: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(count, *shape)).astype(np.float32) for name, shape in shapes.items()}


def _p_fight(model: keras.Model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Return P(fight) without `predict`, which would take a second to trace the head."""
    return np.asarray(model(inputs, training=False))


@pytest.mark.parametrize("architecture", sorted(ON_FEATURES))
def test_head_gives_a_probability_a_clip_and_survives_a_file(architecture: str, tmp_path: Path) -> None:
    shapes = {"a.rgb": (6, 12), "a.motion": (6, 12)}
    model = heads.build(architecture, shapes, SMALL)
    inputs = _random(shapes)
    p = model.predict(inputs, verbose=0)
    assert p.shape == (3, 1)
    assert p.dtype == np.float32
    assert ((p > 0) & (p < 1)).all()
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(again.predict(inputs, verbose=0), p)


@pytest.mark.parametrize("architecture", MEMBERS)
def test_inputs_with_time_axes_of_their_own_stand_side_by_side(architecture: str) -> None:
    shapes = {"a.rgb": (6, 12), "b.rgb": (4, 5)}
    model = heads.build(architecture, shapes, SMALL)
    plain, changed = _random(shapes), _random(shapes)
    changed["b.rgb"] = changed["b.rgb"] + 1.5 * np.arange(5)
    p = _p_fight(model, plain)
    assert p.shape == (3, 1)
    assert np.abs(p - _p_fight(model, changed)).max() > 1e-5


@pytest.mark.parametrize("architecture", sorted(set(ON_FEATURES) - {"average", KERNEL}))
def test_every_head_with_layers_in_time_looks_at_the_order_of_frames(architecture: str) -> None:
    keras.utils.set_random_seed(1)
    shapes = {"a.rgb": (8, 12)}
    model = heads.build(architecture, shapes, SMALL)
    inputs = _random(shapes)
    for weights in model.trainable_variables:  # a new position embedding is too small to show
        if weights.path.startswith("position_embedding"):
            weights.assign(np.random.default_rng(0).normal(size=weights.shape))
    backwards = {name: x[:, ::-1] for name, x in inputs.items()}
    assert np.abs(_p_fight(model, inputs) - _p_fight(model, backwards)).max() > 1e-4


def test_the_average_sees_every_frame_alike_in_any_order() -> None:
    keras.utils.set_random_seed(1)
    shapes = {"a.rgb": (8, 12)}
    model = heads.build("average", shapes, SMALL)
    inputs = _random(shapes)
    p = _p_fight(model, inputs)
    shuffled = {name: x[:, [3, 0, 7, 1, 6, 2, 5, 4]] for name, x in inputs.items()}
    np.testing.assert_allclose(_p_fight(model, shuffled), p, atol=1e-6)
    for frame in range(8):
        changed = {name: x.copy() for name, x in inputs.items()}
        changed["a.rgb"][:, frame] *= np.arange(12)
        assert np.abs(_p_fight(model, changed) - p).max() > 1e-4


def test_softmaxes_are_computed_in_float32_under_mixed_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = heads.TemporalAttention(4, dtype="mixed_bfloat16")
    assert layer.hidden.compute_dtype == layer.score.compute_dtype == "bfloat16"
    given, real = [], heads.ops.softmax

    def softmax(scores: Any, axis: int) -> Any:
        given.append(keras.backend.standardize_dtype(scores.dtype))
        return real(scores, axis)

    monkeypatch.setattr(heads.ops, "softmax", softmax)
    layer(np.zeros((2, 3, 4), np.float32))
    assert given == ["float32"]

    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = heads.build("attention", {"a.rgb": (8, 12)}, SMALL)
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    found = [x for x in model._flatten_layers() if isinstance(x, keras.layers.Softmax)]
    assert len(found) == 2
    assert {x.compute_dtype for x in found} == {"float32"}


def test_the_sum_over_time_is_exact_enough_under_mixed_precision() -> None:
    layer = heads.TemporalAttention(4, dtype="mixed_bfloat16")
    x = np.random.default_rng(0).normal(size=(2, 300, 4)).astype(np.float32)
    out = keras.ops.convert_to_numpy(keras.ops.cast(layer(np.repeat(x[:, :1], 300, axis=1)), "float32"))
    # 300 frames of equal weight: with softmax and sum in bfloat16, the result would be off by several per cent
    np.testing.assert_allclose(out, x[:, 0], rtol=0.03, atol=0.03)


@pytest.mark.parametrize("architecture", ["attention", "bilstm_attention"])
def test_attention_is_what_the_pooling_weighs_the_steps_by(architecture: str) -> None:
    keras.utils.set_random_seed(2)
    shapes = {"a.rgb": (6, 12), "a.motion": (6, 12)}
    model = heads.build(architecture, shapes, SMALL)
    inputs = _random(shapes)
    (shares,) = heads.attention(model, inputs)
    assert shares.shape == (3, 6)
    assert shares.min() > 0
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    (pooling,) = (layer for layer in model.layers if isinstance(layer, heads.TemporalAttention))
    steps, pooled = keras.Model(model.input, [pooling.input, pooling.output]).predict_on_batch(inputs)
    np.testing.assert_allclose((shares[:, :, None] * steps).sum(axis=1), pooled, atol=1e-6)


def test_attention_stands_apart_for_each_time_axis_and_other_heads_have_none() -> None:
    shapes = {"a.rgb": (6, 12), "b.rgb": (4, 5)}
    found = heads.attention(heads.build("attention", shapes, SMALL), _random(shapes))
    assert sorted(share.shape for share in found) == [(3, 4), (3, 6)]
    assert heads.attention(heads.build("gru", shapes, SMALL), _random(shapes)) == []


@pytest.mark.parametrize(
    "inputs", [{"b.rgb": (1, 5)}, {"a.rgb": (6, 12), "b.rgb": (1, 5)}], ids=["alone", "beside"]
)
@pytest.mark.parametrize("architecture", ON_FEATURES)
def test_every_head_takes_a_backbone_of_one_time_step(
    architecture: str, inputs: dict[str, tuple[int, int]]
) -> None:
    """The backbones dinov2_spread and movenet_poses output a single step per clip."""
    head = heads.build(architecture, inputs, SMALL)
    assert head.predict(_random(inputs), verbose=0).shape == (3, 1)
