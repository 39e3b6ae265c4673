"""The cache contains exactly the pictures that training and prediction make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import small_videos

from violence_detection.backbones import registry
from violence_detection.features import extract, key
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.extraction_pass import WantedClip
from violence_detection.video import pictures

NAME = "i3d_pictures"


def test_the_cache_holds_the_frames_of_i3d_steady_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "i3d.ckpt").write_bytes(b"what the head starts from; pictures need none of it")
    clip = WantedClip("c", small_videos.write(tmp_path / "c.avi", 1), ("v0", "v1"))
    config = FeatureConfig(backbone=(NAME,), streams=("rgb", "motion", "moving"))
    how = ExtractConfig(data_root=tmp_path, augment=2, backbone_weights=tmp_path / "i3d.ckpt")
    stores = extract.ensure([clip], config, how).stores
    assert list(stores) == [f"{NAME}.rgb"]
    own = key.for_backbone(config, NAME)
    steady = registry.get("i3d_steady").sampling
    assert (own.frames, own.span_s) == (steady.frames, steady.span_s)
    stored = stores[f"{NAME}.rgb"].read("c", clip.variants)
    made = dict(pictures.clip_variants(clip.path, "c", clip.variants, 176, own))
    for variant, values in zip(clip.variants, stored, strict=True):
        np.testing.assert_array_equal(values, made[variant]["rgb"].reshape(32, -1).astype(np.float16))
    assert stored.nbytes / 2 / 1e6 < 6
