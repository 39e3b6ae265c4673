"""Small made-up features whose classes a head learns in seconds, for tests of training."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from violence_detection.ensemble import ensemble, folds, member_jobs
from violence_detection.ensemble.member_jobs import Settings, TrainingJob
from violence_detection.ensemble.pool import Pool
from violence_detection.features.cache import FeatureStore
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.system import storage
from violence_detection.training.config import HeadConfig, TrainConfig
from violence_detection.training.training_data import Data, Samples

HEAD = HeadConfig(projection=8, units=8, dropout=0.2, input_dropout=0.1)
TRAIN = TrainConfig(
    epochs=6, batch_size=16, schedule_epochs=6, warmup_epochs=1, patience=6, learning_rate=0.01
)
FEATURES = FeatureConfig(backbone=("efficientnet_lite0",), frames=6)
STREAMS = ("rgb", "motion")


def samples(count: int, seed: int, variants: int = 2, streams: Sequence[str] = STREAMS) -> Samples:
    """Make features of clips. Fights differ from non-fights in the first four channels of each stream."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.float32)
    inputs = {}
    for stream in streams:
        values = rng.normal(0, 1, (count, variants, 6, 12))
        values[..., :4] += labels[:, None, None, None]
        inputs[f"efficientnet_lite0.{stream}"] = values.astype(np.float16)
    rows = pd.DataFrame(
        {
            "clip_id": [f"{seed:08x}{i:08x}" for i in range(count)],
            "path": [f"train/x/{i}.avi" for i in range(count)],
            "source_path": [f"raw/x/{i}.avi" for i in range(count)],
            "dataset": ["a" if i % 3 else "b" for i in range(count)],
            "source_group": [f"g{i // 4}" for i in range(count)],
            "label": ["fight" if x else "nonfight" for x in labels],
            "fingerprint": "",
        }
    )
    return Samples(rows, inputs, labels)


def data(streams: Sequence[str] = STREAMS) -> Data:
    """Make the data of a training. For most tests one stream is enough; each adds to the tracing of steps."""
    record = {"backbone": "efficientnet_lite0", "weights_sha256": "0" * 64}
    return Data(
        train=samples(70, 1, 2, streams),
        selection=samples(20, 2, 1, streams),
        val=samples(24, 3, 1, streams),
        failures=[],
        records={f"efficientnet_lite0.{s}": {**record, "stream": s} for s in streams},
        manifest_sha256="f" * 64,
        generated=False,
        engines={f"efficientnet_lite0.{s}": ["openvino-float32"] for s in streams},
    )


def train_once(folder: Path, architecture: str = "gru", config: TrainConfig = TRAIN) -> None:
    """Train in this process, from the beginning or continuing. Tests that kill it run it in a separate process."""
    from violence_detection.training import devices, trainer

    strategy = devices.set_up(config)
    made = data()
    record = trainer.run_record(architecture, made, FEATURES, 2, HEAD, config)
    trainer.train(record, made, folder, strategy)


def train_on_clips(
    root: Path,
    folder: Path,
    own: Sequence[str] = ("mine",),
    architecture: str = "average",
    config: TrainConfig = TRAIN,
) -> None:
    """Combine the clips in `root`/raw, one folder per data set, and train on the stand-in features of them."""
    import stand_in
    import tensorflow as tf

    from violence_detection.combine import combine
    from violence_detection.combine.config import CombineConfig
    from violence_detection.training import trainer, training_data

    sets = tuple(f"{name}={root}/raw/{name}" for name in own)
    combine.run(CombineConfig(data_root=root, own=sets, workers=1))
    made = training_data.prepare(stand_in.CONFIG, ExtractConfig(data_root=root, augment=1), 0.25, 0)
    record = trainer.run_record(architecture, made, stand_in.CONFIG, 1, HEAD, config)
    trainer.train(record, made, folder, tf.distribute.get_strategy())


def pool(root: Path, count: int = 96) -> Pool:
    """Make a pool of clips, with two variants and a test-time view on disk; the last quarter is val.

    Features that another test has already written to the same folder are kept.
    """
    made = samples(count, 7, 3)
    rows = made.rows.assign(split=["train" if i < count * 3 // 4 else "val" for i in range(count)])
    stores = {}
    for name, values in made.inputs.items():
        stores[name] = FeatureStore(root / name)
        storage.write_json(root / name / "engine-made-up.json", {})
        for clip_id, variants in zip(rows.clip_id, values, strict=True):
            if not stores[name].path(clip_id).exists():
                stores[name].add(clip_id, dict(zip(("v0", "v1", "w1"), variants, strict=True)), "made up")
    return Pool(rows, stores, ("v0", "v1"), [], data().records, "f" * 64, False)


def damage_unseen(store: FeatureStore, clip_id: str) -> Path:
    """Damage an entry of the cache so that it still counts as verified, and only reading it reveals the damage."""
    store.index.save()
    path = store.path(clip_id)
    content, stamp = bytearray(path.read_bytes()), path.stat()
    content[160:170] = bytes(10)
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return path


def settings(config: TrainConfig = TRAIN) -> Settings:
    return Settings(FEATURES, 2, HEAD, config)


def jobs(features: Path, output: Path) -> list[TrainingJob]:
    """Return the jobs of two small members on made-up clips, whose features are written once."""
    made = pool(features)
    fold = folds.official(made.frame, {"a", "b"}, 0.2, 0)
    short = dataclasses.replace(TRAIN, epochs=4)
    return ensemble.jobs(("conv_lstm", "average"), made, fold, settings(short), output, False)


def train_jobs(features: Path, output: Path) -> None:
    """Train the two members one after another as the script does; meant for a separate process."""
    from violence_detection.training import devices

    member_jobs.fix_threads()
    member_jobs.run(jobs(features, output), strategy=devices.set_up(TRAIN))
