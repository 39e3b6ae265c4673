"""DINOv2 computes what the paper describes, and its features are how much the patches change between frames."""

from __future__ import annotations

import dataclasses
import functools
import gc
from pathlib import Path

import keras
import numpy as np
import published_weights
import pytest
from scipy import special

from violence_detection.backbones import eight_bits, engines, onnx_file, precision, registry
from violence_detection.backbones.networks import dinov2
from violence_detection.backbones.registry import BackboneSampling, PerFrame
from violence_detection.backbones.shared_frames import FrameSharingEngine
from violence_detection.errors import UserError
from violence_detection.system import storage
from violence_detection.video import decode, pictures, sampling

#: The tensor of the ONNX file from which the features are made.
TOKENS = "/backbone/layernorm/Add_1_output_0"
#: The first two blocks are enough to test what a block computes.
BLOCKS = 2
Arrays = dict[str, np.ndarray]


def _seeded_weights() -> Arrays:
    """Return random arrays with the names and shapes of the ONNX file's, each from a seed of its own."""
    width = dinov2.WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.embeddings.cls_token": (1, 1, width),
        "backbone/embeddings/Concat_6": (1, 1, width),
        "backbone/embeddings/Reshape_1": (1, 37 * 37, width),
        "backbone.embeddings.patch_embeddings.projection.weight": (width, 3, 14, 14),
        "backbone.embeddings.patch_embeddings.projection.bias": (width,),
        "backbone.layernorm.weight": (width,),
        "backbone.layernorm.bias": (width,),
    }
    for i in range(BLOCKS):
        block = f"backbone.encoder.layer.{i}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        for scale in ("layer_scale1", "layer_scale2"):
            shapes[f"{block}.{scale}.lambda1"] = (width,)
        attention = ("attention/attention/query", "attention/attention/key", "attention/attention/value",
                     "attention/output/dense")  # fmt: skip
        sizes = dict.fromkeys(attention, (width, width))
        sizes |= {"mlp/fc1": (width, 4 * width), "mlp/fc2": (4 * width, width)}
        for name, size in sizes.items():
            shapes[f"backbone/encoder/layer.{i}/{name}/MatMul"] = size
            shapes[f"{block}.{name.replace('/', '.')}.bias"] = size[1:]
    out = {}
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[1:])) if name.endswith("projection.weight") else shape[0]
        deviation = fan_in**-0.5 if len(shape) in (2, 4) else 0.5
        values = np.random.default_rng(storage.stable_seed(name)).standard_normal(shape, np.float32)
        out[name] = values * np.float32(deviation)
    return out


def _reference_tokens(w: Arrays, picture: np.ndarray) -> np.ndarray:
    """Compute the tokens (257, 384) of a picture (224, 224, 3), 0..255, in float64, step by step as in the paper."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = (picture / 255.0 - mean) / deviation
    patches = pixels.reshape(16, 14, 16, 14, 3).transpose(0, 2, 4, 1, 3).reshape(256, -1)
    projection = "backbone.embeddings.patch_embeddings.projection"
    x = patches @ w[f"{projection}.weight"].reshape(384, -1).T + w[f"{projection}.bias"]
    first = w["backbone.embeddings.cls_token"][0] + w["backbone/embeddings/Concat_6"][0]
    across = _cubic(37, 16)
    grid = w["backbone/embeddings/Reshape_1"].reshape(37, 37, 384)
    x = np.concatenate([first, x + np.einsum("ip,jq,pqc->ijc", across, across, grid).reshape(256, 384)])

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x: np.ndarray, i: int, name: str) -> np.ndarray:
        bias = w[f"backbone.encoder.layer.{i}.{name.replace('/', '.')}.bias"]
        return x @ w[f"backbone/encoder/layer.{i}/{name}/MatMul"] + bias

    for i in range(BLOCKS):
        block = f"backbone.encoder.layer.{i}"
        normed = norm(x, f"{block}.norm1")
        q, k, v = (
            dense(normed, i, f"attention/attention/{part}").reshape(257, 6, 64).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        attended = special.softmax(q @ k.transpose(0, 2, 1) / 8, axis=-1) @ v
        out = dense(attended.transpose(1, 0, 2).reshape(257, 384), i, "attention/output/dense")
        x = x + out * w[f"{block}.layer_scale1.lambda1"]
        hidden = dense(norm(x, f"{block}.norm2"), i, "mlp/fc1")
        hidden = hidden * (1 + special.erf(hidden / np.sqrt(2))) / 2
        x = x + dense(hidden, i, "mlp/fc2") * w[f"{block}.layer_scale2.lambda1"]
    return norm(x, "backbone.layernorm")


def _cubic(before: int, after: int) -> np.ndarray:
    """Return the matrix (after, before) of a bicubic resize along one axis, with a = -0.75 and repeated edges."""
    matrix = np.zeros((after, before))
    for i in range(after):
        position = (i + 0.5) * before / after - 0.5
        for j in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            d = abs(position - j)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[i, np.clip(j, 0, before - 1)] += near if d <= 1 else far
    return matrix


def _frames(count: int) -> np.ndarray:
    """Return frames (count, 224, 224, 3), uint8, of a moving coloured wave."""
    t, y, x = np.mgrid[0:count, 0:224, 0:224].astype(np.float64)
    waves = [np.sin((c + 2) * (x + 9 * t) / 37.0) * np.cos(y / (23.0 + 5 * c) - t / 4) for c in range(3)]
    return np.round(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.fixture(scope="module")
def seeded() -> tuple[Arrays, keras.Model]:
    arrays = _seeded_weights()
    return arrays, dinov2.build_tokens(arrays, BLOCKS)


def test_the_tokens_are_those_of_the_paper(seeded: tuple[Arrays, keras.Model]) -> None:
    frames = _frames(2)
    tokens = np.asarray(seeded[1](frames.astype(np.float32)))
    assert tokens.shape == (2, 257, 384)
    for found, picture in zip(tokens, frames, strict=True):
        np.testing.assert_allclose(found, _reference_tokens(seeded[0], picture), atol=1e-3)


def test_the_features_are_the_largest_changes_of_the_patches_of_each_step(
    seeded: tuple[Arrays, keras.Model],
) -> None:
    frames = _frames(6).astype(np.float32)
    patches = np.asarray(seeded[1](frames))[:, 1:]
    for per_step, largest in ((2, 16), (3, 256)):
        s = BackboneSampling(6, True, per_step, ("rgb",), spacing_s=0.2, largest=largest)
        values = np.asarray(dinov2.build_change(seeded[0], s, BLOCKS)(frames))
        assert values.shape == (6 // per_step, 384)
        assert values.dtype == np.float32
        for step, found in enumerate(values):
            change = np.abs(np.diff(patches[step * per_step : (step + 1) * per_step], axis=0))
            expected = np.sort(change, axis=1)[:, -largest:].mean(axis=(0, 1))
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_spread_is_the_largest_deviation_of_the_patches_over_the_clip(
    seeded: tuple[Arrays, keras.Model],
) -> None:
    frames = _frames(5).astype(np.float32)
    patches = np.asarray(seeded[1](frames))[:, 1:]
    s = BackboneSampling(5, True, 5, ("rgb",), largest=16)
    values = np.asarray(dinov2.build_spread(seeded[0], s, BLOCKS)(frames))
    assert values.shape == (1, 384)
    expected = np.sort(patches.std(axis=0), axis=0)[-16:].mean(axis=0)
    np.testing.assert_allclose(values[0], expected, rtol=1e-3, atol=1e-4)


def test_windows_share_what_is_made_of_their_frames(seeded: tuple[Arrays, keras.Model]) -> None:
    """Two windows of four frames share two. They get the right features from only six runs of the network."""
    frames = _frames(6)
    patches = keras.Model(seeded[1].input, seeded[1].output[:, 1:])
    runs: list[np.ndarray] = []

    def runner(images: np.ndarray) -> np.ndarray:
        runs.append(images)
        return np.asarray(patches(images.astype(np.float32)))

    per_frame = PerFrame(lambda _: None, functools.partial(dinov2.spread_of, largest=16))
    engine = FrameSharingEngine("sharing", [runner, runner], per_frame)
    made = [window.result() for window in [engine.submit(frames[:4]), engine.submit(frames[2:])]]
    assert len(runs) == 6
    whole = dinov2.build_spread(seeded[0], BackboneSampling(4, True, 4, ("rgb",), largest=16), BLOCKS)
    for values, window in zip(made, (frames[:4], frames[2:]), strict=True):
        np.testing.assert_allclose(values, np.asarray(whole(window.astype(np.float32))), rtol=1e-3, atol=1e-4)


def test_features_stay_what_they_are_when_the_model_that_was_converted_is_collected(
    seeded: tuple[Arrays, keras.Model],
) -> None:
    """Dense layers' weights are not copied: OpenVINO must not share them with a Keras model that is deleted."""
    pytest.importorskip("openvino")
    s = BackboneSampling(2, True, 2, ("rgb",), largest=16)

    def build(_: Path) -> keras.Model:
        copies = {name: values.copy() for name, values in seeded[0].items()}
        return dinov2.build_spread(copies, s, BLOCKS)

    backbone = dataclasses.replace(registry.get("dinov2_spread"), build=build, sampling=s)
    engine = engines.create("openvino", backbone, Path("none"), 2)
    before = engine.submit(_frames(2)).result()
    gc.collect()
    taken = [np.full(size, 1e9, np.float32) for size in (384 * 384, 384 * 1536, 384) for _ in range(60)]
    np.testing.assert_array_equal(engine.submit(_frames(2)).result(), before)
    assert len(taken) == 180


def test_weights_that_do_not_fit_are_refused_by_name(seeded: tuple[Arrays, keras.Model]) -> None:
    name = "backbone/encoder/layer.1/mlp/fc1/MatMul"
    lacking = {k: v for k, v in seeded[0].items() if k != name}
    with pytest.raises(UserError, match=r"layer\.1/mlp/fc1/MatMul is missing.*--backbone-weights FILE"):
        dinov2.build_tokens(lacking, BLOCKS)
    with pytest.raises(UserError, match=r"layer\.1/mlp/fc1/MatMul has the shape \(384, 10\)"):
        dinov2.build_tokens(seeded[0] | {name: np.zeros((384, 10), np.float32)}, BLOCKS)


def test_five_pairs_a_fifth_of_a_second_apart_make_five_steps() -> None:
    backbone = registry.get("dinov2_change")
    s = backbone.sampling
    assert (s.frames, s.frames_per_step, s.spacing_s, s.largest) == (10, 2, 0.2, 16)
    assert backbone.is_video
    assert backbone.steps(s.frames or 0) == 5


@pytest.fixture(scope="module")
def published() -> Path:
    """The published file, fetched if it is not in the cache."""
    return published_weights.of("dinov2_change")


@pytest.mark.real
def test_on_real_frames_the_tokens_are_those_of_the_published_file(published: Path, real_clips: Path) -> None:
    ov = pytest.importorskip("openvino")
    clips = [p for ending in ("avi", "mp4") for p in sorted((real_clips / "raw").rglob(f"*.{ending}"))[:1]]
    frames: list[np.ndarray] = []
    for clip in clips:
        _, shown = decode.read(
            clip, lambda i: sampling.sample_indices(i.n_frames, 2).tolist(), pictures.frame_resizer(224)
        )
        frames += [shown[i] for i in sorted(shown)]
    images = np.stack(frames)
    network = ov.Core().read_model(published)
    found = next(o for op in network.get_ops() for o in op.outputs() if TOKENS in o.get_names())
    network = ov.Model([found], network.get_parameters())
    network.reshape([len(images), 3, 224, 224])
    run = ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    normalised = (images / 255.0 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    reference = run(normalised.transpose(0, 3, 1, 2).astype(np.float32))[0]
    tokens = np.asarray(dinov2.build_tokens(onnx_file.read_arrays(published))(images.astype(np.float32)))
    assert np.abs(reference).max() > 1
    np.testing.assert_allclose(tokens, reference, atol=1e-3)


@pytest.mark.real
def test_in_8_bits_the_spread_of_real_frames_is_near(published: Path, real_clips: Path) -> None:
    pytest.importorskip("openvino")
    backbone = registry.get("dinov2_spread")
    network = engines.openvino_network(backbone, published, 1, by_frame=True)
    assert len(eight_bits.convolutions(network)) == 1
    known = {round(r.kernel_sum, 2) for r in backbone.ranges}
    kernels = [eight_bits.kernel_of(layer) for layer in eight_bits.dense_layers(network)]
    rounded = [round(eight_bits.kernel_sum(kernel), 2) in known for kernel in kernels]
    assert (len(rounded), sum(rounded), len(backbone.ranges)) == (72, 62, 63), "all but those with outliers"
    exact, fast = (engines.judging_on_cpu(backbone, published, 10, kind) for kind in ("float32", "int8"))
    clips = [p for ending in ("avi", "mp4") for p in sorted((real_clips / "raw").rglob(f"*.{ending}"))[:2]]
    for clip in clips:
        _, shown = decode.read(
            clip, lambda i: sampling.sample_indices(i.n_frames, 10).tolist(), pictures.frame_resizer(224)
        )
        images = np.stack([shown[i] for i in sorted(shown)])
        error = precision.relative_error(fast.submit(images).result(), exact.submit(images).result())
        assert 0.001 < error < precision.EIGHT_BIT_TOLERANCE / 2
