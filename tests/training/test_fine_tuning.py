"""Training the head `i3d_tuned`, a whole network: it learns from pictures, and the right average is stored."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import seeded_i3d
import synthetic
import tensorflow as tf
from sklearn.metrics import log_loss

from benchmarks import keep_pretrained
from violence_detection.backbones import eight_bits, engines
from violence_detection.errors import UserError
from violence_detection.features.config import FeatureConfig
from violence_detection.system import processes, storage, tensorflow_start
from violence_detection.training import (
    activation_ranges,
    fine_tuning,
    given_weights,
    heads,
    run_folder,
    saved_heads,
    trainer,
)
from violence_detection.training.config import HeadConfig
from violence_detection.training.run_folder import Trained
from violence_detection.training.training_data import Data, Samples

SIDE, FRAMES, NAME = 24, 8, "i3d_pictures.rgb"
HEAD = HeadConfig(dropout=0.1, tuned_steps=16, tuned_batch_size=6, tuned_learning_rate=1e-3)
FEATURES = FeatureConfig(backbone=(seeded_i3d.PICTURES,), streams=("rgb",))


def _samples(count: int, seed: int) -> Samples:
    """Clips of one random picture each, shown in all frames; in fights, random frames are black instead."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.float32)
    values = np.repeat(rng.integers(0, 256, (count, 1, 1, SIDE * SIDE * 3)), FRAMES, axis=2)
    shown = rng.integers(0, 2, (count, 1, FRAMES, 1))
    values = np.where(labels[:, None, None, None] == 1, values * shown, values)
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
def weights(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeded_i3d.write(tmp_path_factory.mktemp("weights") / "i3d.ckpt")


@pytest.fixture(scope="module")
def data(weights: Path) -> Data:
    sha256 = storage.sha256_file(weights)
    return dataclasses.replace(
        synthetic.data(),
        train=_samples(12, 1),
        selection=_samples(6, 2),
        val=_samples(6, 3),
        records={NAME: {"backbone": seeded_i3d.PICTURES, "stream": "rgb", "weights_sha256": sha256}},
        engines={NAME: ["openvino-float32"]},
    )


def _train(folder: Path, data: Data, weights: Path) -> Trained:
    record = trainer.run_record("i3d_tuned", data, FEATURES, 1, HEAD, synthetic.TRAIN)
    return trainer.train(record, data, folder, tf.distribute.get_strategy(), backbone_weights=weights)


@pytest.fixture(scope="module")
def trained(data: Data, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "i3d_tuned"
    _train(folder, data, weights)
    return folder


def test_it_learns_in_the_steps_asked_for(trained: Path, data: Data) -> None:
    log = pd.read_csv(trained / run_folder.LOG_NAME)
    assert len(log) == 8, "16 steps of 6 clips go through 12 clips eight times"
    last = saved_heads.load(trained / "final_model.safetensors")
    for samples in (data.train, data.selection):
        assert log_loss(samples.labels, heads.predict(last, samples.plain())) < 0.5  # untrained: 0.69


def test_it_comes_back_from_its_files_and_its_figure_is_of_the_weights_that_are_kept(
    trained: Path, data: Data
) -> None:
    p, other = (
        heads.predict(saved_heads.load(trained / f"best_model.{kind}"), data.selection.plain())
        for kind in ("safetensors", "keras")
    )
    np.testing.assert_array_equal(p, other)
    said = run_folder.read_result(trained / run_folder.RESULT_NAME).selection_accuracy
    assert said == np.mean((p >= 0.5) == (data.selection.labels == 1))
    last = heads.predict(saved_heads.load(trained / "final_model.keras"), data.selection.plain())
    assert np.abs(p - last).max() > 1e-3, "the last weights are kept beside the average"


def test_one_that_was_killed_at_its_end_ends_with_the_same_weights(
    trained: Path, data: Data, weights: Path
) -> None:
    best = trained / "best_model.safetensors"
    before = best.read_bytes()
    (trained / run_folder.RESULT_NAME).unlink()
    _train(trained, data, weights)
    assert best.read_bytes() == before, "averaged once, not twice"


def test_the_ranges_of_its_convolutions_are_those_of_training_clips(
    trained: Path, data: Data, weights: Path
) -> None:
    path = trained / run_folder.RANGES_NAME
    before = path.read_text()
    head = saved_heads.load(trained / "best_model.safetensors")
    clips = (clip[None] for clip in data.train.plain()[NAME])
    assert eight_bits.from_record(json.loads(before)) == tuple(activation_ranges.measured(head, clips))
    path.unlink()
    _train(trained, data, weights)
    assert path.read_text() == before, (
        "one that an earlier version finished gets them, and is not trained again"
    )


def test_another_share_of_the_published_weights_needs_no_other_training(
    trained: Path, data: Data, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "quarter" / "i3d_tuned" / given_weights.FILE_NAME
    arguments = ["--run", trained.parent, "--keep-pretrained", 0.25, "--backbone-weights", weights]
    monkeypatch.setattr(
        "sys.argv", ["keep_pretrained.py", *map(str, arguments), "--output", str(given.parents[1])]
    )
    assert keep_pretrained.main() == 0
    head = dataclasses.replace(HEAD, keep_pretrained=0.25)
    record = trainer.run_record("i3d_tuned", data, FEATURES, 1, head, synthetic.TRAIN)
    strategy = tf.distribute.get_strategy()
    trainer.train(record | given_weights.record_of(given.parent), data, given.parent, strategy)
    trainer.train(record, data, tmp_path / "trained", strategy, backbone_weights=weights)
    taken, wanted, half = (
        saved_heads.load(folder / run_folder.BEST_NAME).get_weights()
        for folder in (given.parent, tmp_path / "trained", trained)
    )
    for a, b in zip(taken, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert max(np.abs(a - b).max() for a, b in zip(half, wanted, strict=True)) > 1e-4


def test_weights_other_than_those_of_the_cache_are_refused(data: Data, weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.ckpt"
    other.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"other\.ckpt is not the file .*--backbone-weights"):
        _train(tmp_path / "run", data, other)


def test_a_model_that_is_there_stays_where_the_one_to_replace_it_cannot_be_trained(
    trained: Path, data: Data, weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "i3d_tuned"
    shutil.copytree(trained, folder)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    longer = dataclasses.replace(HEAD, tuned_steps=HEAD.tuned_steps + 1)
    record = trainer.run_record("i3d_tuned", data, FEATURES, 1, longer, synthetic.TRAIN)
    strategy, absent = tf.distribute.get_strategy(), tmp_path / "absent.ckpt"
    with pytest.raises(UserError, match=r"absent\.ckpt"):
        trainer.train(record, data, folder, strategy, overwrite=True, backbone_weights=absent)
    np.savez(folder / given_weights.FILE_NAME, np.zeros(3, np.float32))
    given = record | given_weights.record_of(folder)
    with pytest.raises(UserError, match=r"given_weights\.npz has array 0"):
        trainer.train(given, data, folder, strategy, overwrite=True)
    (folder / given_weights.FILE_NAME).unlink()
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    again = trainer.run_record("i3d_tuned", data, FEATURES, 1, HEAD, synthetic.TRAIN)
    trainer.train(again, data, folder, strategy, overwrite=True, backbone_weights=absent)


def test_the_network_moves_a_twentieth_as_fast_and_ends_half_way_to_the_published_weights(
    weights: Path,
) -> None:
    model = heads.build("i3d_tuned", {NAME: (FRAMES, SIDE * SIDE * 3)}, HEAD)
    fine_tuning.start(model, weights)
    optimizer = fine_tuning.optimizer(model, 0.02, weight_decay=0.5)
    model.compile(optimizer, "binary_crossentropy")
    optimizer.build(model.trainable_variables)
    trunk, logits = model.get_layer("trunk"), model.get_layer("logits")
    published = trunk.get_weights()
    states = []
    for _ in range(2):
        optimizer.apply([np.ones(v.shape, np.float32) for v in model.trainable_variables])
        states.append((trunk.get_weights(), logits.get_weights()))
    for before, after in zip(published, states[0][0], strict=True):
        # the first step of Adam moves each weight by the learning rate; the trunk has no weight decay
        np.testing.assert_allclose(before - after, 0.001, rtol=1e-2)
    np.testing.assert_allclose(states[0][1][1], -0.02, rtol=1e-2)
    optimizer.finalize_variable_values(model.trainable_variables)
    np.testing.assert_array_equal(trunk.get_weights()[0], states[1][0][0])
    fine_tuning.finish(model, dataclasses.replace(HEAD, keep_pretrained=0.25), weights)
    for kept, p, a, b in zip(trunk.get_weights(), published, states[0][0], states[1][0], strict=True):
        np.testing.assert_allclose(kept, 0.75 * (0.98 * a + 0.02 * b) + 0.25 * p, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(logits.get_weights()[1], 0.98 * states[0][1][1] + 0.02 * states[1][1][1])


def test_some_clips_are_mixed_with_their_labels() -> None:
    labels = np.arange(400, dtype=np.float32)[:, None]
    inputs = {"a.rgb": np.repeat(labels[:, :, None], 3, axis=2)}
    x, y = fine_tuning.mixed(inputs, labels, keras.random.SeedGenerator(1))
    y = keras.ops.convert_to_numpy(y)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(x["a.rgb"])[:, 0, 0], y[:, 0], rtol=1e-5)
    moved = labels[1:, 0] - y[1:, 0]  # towards the label of the clip before
    assert ((moved >= -1e-3) & (moved <= 1 + 1e-3)).all()
    # 40 % of the clips are mixed, some of them so little that it does not show
    assert 0.25 < np.mean(np.abs(moved) > 1e-4) < 0.45


@pytest.mark.parametrize(
    ("at_once", "cores", "said"),
    [(1, 16, "60 min (1.00 USD) to 1.8 h (1.75 USD) on 2 free cores"),
     (5, 16, "12 min (0.20 USD) to 21 min (0.35 USD) on 10 free cores"),
     (9, 16, "12 min (0.20 USD) to 21 min (0.35 USD) on 10 free cores"),
     (5, 4, "30 min (0.50 USD) to 52 min (0.88 USD) on 4 free cores"),
     (None, 16, "12 min to 21 min each on 2 free cores")],
)  # fmt: skip
def test_what_it_takes_is_told_for_as_many_models_as_are_trained_at_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    at_once: int | None,
    cores: int,
    said: str,
) -> None:
    monkeypatch.setattr(logging.getLogger("violence_detection"), "propagate", True)
    monkeypatch.setattr(tensorflow_start, "gpus", list)
    monkeypatch.setattr(engines, "has_avx512_bf16", lambda: False)
    monkeypatch.setattr(engines, "has_amx", lambda: False)
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 2)
    monkeypatch.setattr(processes, "usable_cpus", lambda: cores)
    head = dataclasses.replace(HEAD, tuned_steps=300)
    fine_tuning.say_what_it_takes(head, synthetic.TRAIN, 5, 1.0, at_once)
    assert (
        f"5 network(s) to train end to end, 9,000 clips forward and backward, without a GPU: {said}"
        in caplog.text
    )


@pytest.mark.parametrize("asked", ["auto", "on", "off"])
@pytest.mark.parametrize("fast_at_it", [True, False])
def test_it_trains_in_bfloat16_on_a_cpu_that_is_fast_at_it_and_where_asked(
    monkeypatch: pytest.MonkeyPatch, asked: str, fast_at_it: bool
) -> None:
    if tensorflow_start.gpus():
        pytest.skip("a GPU computes in float16")
    monkeypatch.setattr(engines, "has_avx512_bf16", lambda: fast_at_it)
    monkeypatch.setattr(engines, "has_amx", lambda: False)
    before = keras.config.dtype_policy().name
    with fine_tuning.precision(dataclasses.replace(synthetic.TRAIN, mixed_precision=asked)):
        model = heads.build("i3d_tuned", {NAME: (FRAMES, SIDE * SIDE * 3)}, HEAD)
    assert keras.config.dtype_policy().name == before
    taken = asked == "on" or (asked == "auto" and fast_at_it)
    network = model.get_layer("trunk").network
    convolutions = [layer for layer in network.layers if layer.weights]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16" if taken else "float32"}
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
