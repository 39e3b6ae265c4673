"""VideoPrism in keras_hub: from clips to cached features with a small preset, and the errors if a part is missing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import small_videos

from violence_detection.backbones import registry
from violence_detection.backbones.networks import videoprism
from violence_detection.errors import UserError
from violence_detection.features import extract, key
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.video import pictures

SMALL = {
    "patch_size": 72,
    "intermediate_dim": 32,
    "num_heads": 4,
    "num_spatial_layers": 1,
    "num_temporal_layers": 1,
}


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a preset that keras_hub has saved: the published network with two layers and random weights."""
    hub = pytest.importorskip("keras_hub", reason="keras_hub, for videoprism_b, is not installed")
    folder = tmp_path_factory.mktemp("preset")
    keras.utils.set_random_seed(0)
    hub.models.VideoPrismBackbone(**(videoprism._PUBLISHED | SMALL)).save_to_preset(str(folder))
    return folder


def test_features_of_clips_are_extracted_with_a_preset(preset: Path, tmp_path: Path) -> None:
    """The extraction is that of training. Its features are compared with keras_hub's own, from the same preset."""
    import keras_hub

    clips = [small_videos.write(tmp_path / f"{seed}.avi", seed) for seed in (1, 2)]
    wanted = [extract.WantedClip(path.stem, path, ("v0", "v1")) for path in clips]
    config = FeatureConfig(backbone=("videoprism_b",))
    how = ExtractConfig(data_root=tmp_path, backbone_weights=preset / "model.weights.h5", precision="float32")
    done = extract.ensure(wanted, config, how)
    assert not done.failures
    assert list(done.stores) == ["videoprism_b.rgb"]
    network = keras_hub.models.VideoPrismBackbone.from_preset(str(preset))
    taken = key.for_backbone(config, "videoprism_b")
    for clip in wanted:
        cached = done.stores["videoprism_b.rgb"].read(clip.clip_id, clip.variants)
        assert cached.shape == (2, 16, 768)
        for features, (_, shown) in zip(
            cached, pictures.clip_variants(clip.path, clip.clip_id, clip.variants, 288, taken), strict=True
        ):
            tokens = np.asarray(network(shown["rgb"][None] / np.float32(255)))
            np.testing.assert_allclose(features, tokens[0].mean(axis=1), rtol=2e-3, atol=2e-3)
    assert np.abs(cached[0, 0] - cached[0, -1]).max() > 0.01, "every moment looks alike to it"


def test_weights_of_other_sizes_are_refused(preset: Path, tmp_path: Path) -> None:
    path = shutil.copy(preset / "model.weights.h5", tmp_path)
    config = json.loads((preset / "config.json").read_text())
    config["config"]["intermediate_dim"] = 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"model\.weights\.h5 does not contain the Keras weights of videoprism_b"
    ):
        videoprism.build(Path(path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is not the config of a keras_hub preset"),
        ("[]", "is not the config of a keras_hub preset"),
        ('{"config": {"num_frames": 8}}', "num_frames is 8; videoprism_b has 16"),
        ('{"config": {"num_heads": 0}}', "num_heads is 0, not a whole number above 0"),
        ('{"config": {"patch_size": "18"}}', "patch_size is '18'"),
    ],
)
def test_a_config_of_another_network_is_refused(tmp_path: Path, config: str, message: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        videoprism._sizes(tmp_path / "config.json")


def test_without_a_config_the_published_sizes_hold(tmp_path: Path) -> None:
    assert videoprism._sizes(tmp_path / "config.json") == videoprism._PUBLISHED


def test_keras_hub_that_is_missing_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keras_hub.models", None)
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(UserError, match=r'needs keras_hub.*pip install -r requirements\.txt "keras-hub'):
        registry.get("videoprism_b").build(tmp_path / "model.weights.h5")


def test_the_extra_is_what_the_message_says() -> None:
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f"videoprism = [{videoprism._PACKAGE}]" in project
