"""A head that is a whole network learns from pictures, and what is kept is the average that it says it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import seeded_i3d
import synthetic
import tensorflow as tf

from violence_detection.backbones import registry
from violence_detection.backbones.networks import i3d
from violence_detection.errors import UserError
from violence_detection.features.config import FeatureConfig
from violence_detection.system import storage
from violence_detection.training import fine_tuning, heads, run_folder, saved_heads, trainer
from violence_detection.training.config import HeadConfig
from violence_detection.training.picture_augmentation import PictureAugmentation, shown_side
from violence_detection.training.training_data import Data, Samples

SIDE, FRAMES, NAME = 24, 8, "i3d_pictures.rgb"
HEAD = HeadConfig(dropout=0.1, tuned_steps=8, tuned_batch_size=6, tuned_learning_rate=1e-4)
FEATURES = FeatureConfig(backbone=(seeded_i3d.PICTURES,), streams=("rgb",))


def _samples(count: int, seed: int) -> Samples:
    """Fights flicker, the others stand still."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.float32)
    values = np.repeat(rng.integers(0, 256, (count, 1, 1, SIDE * SIDE * 3)), FRAMES, axis=2)
    values[labels == 1] = rng.integers(0, 256, values[labels == 1].shape)
    rows = pd.DataFrame(
        {
            "clip_id": [f"{seed:08x}{i:08x}" for i in range(count)],
            "path": [f"train/{i}.avi" for i in range(count)],
            "source_path": "",
            "dataset": ["b" if i < 2 else "a" for i in range(count)],
            "source_group": [f"g{i}" for i in range(count)],
            "label": ["fight" if x else "nonfight" for x in labels],
            "fingerprint": "",
        }
    )
    return Samples(rows, {NAME: values.astype(np.float16)}, labels)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        seeded_i3d.shrink(patch.setattr)
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeded_i3d.write(tmp_path_factory.mktemp("weights") / "i3d.ckpt")


@pytest.fixture(scope="module")
def data(weights: Path) -> Data:
    record = {
        "backbone": seeded_i3d.PICTURES,
        "stream": "rgb",
        "weights_sha256": storage.sha256_file(weights),
    }
    return dataclasses.replace(
        synthetic.data(),
        train=_samples(12, 1),
        selection=_samples(6, 2),
        val=_samples(6, 3),
        records={NAME: record},
        engines={NAME: ["openvino-float32"]},
    )


@pytest.fixture(scope="module")
def trained(data: Data, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "i3d_tuned"
    record = trainer.run_record("i3d_tuned", data, FEATURES, 1, HEAD, synthetic.TRAIN)
    with pytest.MonkeyPatch.context() as patch:
        seeded_i3d.install_pictures(patch.setattr, weights, SIDE, FRAMES)
        trainer.train(record, data, folder, tf.distribute.get_strategy(), backbone_weights=weights)
    return folder


def test_training_lowers_the_loss_in_the_steps_asked_for(trained: Path) -> None:
    log = pd.read_csv(trained / run_folder.LOG_NAME)
    print(log)
    assert len(log) == 4, "8 steps of 6 clips are four epochs of 12"
    assert log.loss.iloc[-1] < log.loss.iloc[0]
