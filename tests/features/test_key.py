"""What a cache is named after: all that changes a feature's value, and nothing that would make old caches useless."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from violence_detection.backbones import registry
from violence_detection.features import key
from violence_detection.features.config import FeatureConfig


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    return path


@pytest.mark.parametrize(
    ("backbone", "stream", "focus", "folder"),
    [
        ("efficientnet_lite0", "rgb", 0.0, "efficientnet_lite0-9ea603404ca0"),
        ("efficientnet_lite0", "motion", 0.0, "efficientnet_lite0-f0bb2ed0ef83"),
        ("i3d_local", "rgb", 0.6, "i3d_local-e96e8921ed74"),
        ("vgg19", "rgb", 0.0, "vgg19-902154358726"),
    ],
)
def test_caches_that_people_have_keep_their_names(
    weights: Path, backbone: str, stream: str, focus: float, folder: str
) -> None:
    """A change that makes this fail on purpose makes every user extract all features again."""
    config = FeatureConfig(backbone=(backbone,), focus=focus)
    assert key.folder_of(Path(), key.record(config, backbone, stream, weights)).name == folder


def test_what_a_backbone_asks_for_is_part_of_its_key(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FeatureConfig(backbone=("dinov2_change",))
    backbone = registry.get("dinov2_change")
    record = key.record(config, "dinov2_change", "rgb", weights)
    assert {k: record[k] for k in ("frames", "burst", "burst_spacing_s", "largest")} == {
        "frames": 10, "burst": 2, "burst_spacing_s": 0.2, "largest": 16
    }  # fmt: skip
    names = {key.folder_of(Path(), record)}
    for change in ({"spacing_s": 0.1}, {"largest": 32}, {"frames_per_step": 5}, {"spacing_s": None}):
        other = replace(backbone, sampling=replace(backbone.sampling, **change))
        monkeypatch.setitem(registry._backbones, "dinov2_change", other)
        names.add(key.folder_of(Path(), key.record(config, "dinov2_change", "rgb", weights)))
    assert len(names) == 5


def test_settings_as_one_backbone_takes_them() -> None:
    config = FeatureConfig(backbone=("efficientnet_lite0", "dinov2_change"), streams=("rgb", "motion"))
    taken = key.for_backbone(config, "dinov2_change")
    assert (taken.frames, taken.burst, taken.burst_spacing_s, taken.streams) == (10, 2, 0.2, ("rgb",))
    assert key.for_backbone(config, "efficientnet_lite0") == replace(config, backbone=("efficientnet_lite0",))


def test_a_models_record_names_the_settings_that_users_have_and_no_others() -> None:
    assert sorted(key.as_recorded(FeatureConfig())) == [
        "augment_seed", "backbone", "focus", "frames", "i3d_frames", "motion_gain", "motion_spacing_s", "streams",
        "window_s",
    ]  # fmt: skip
