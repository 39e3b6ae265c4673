"""Training on two logical devices gives the model of one; if it does not, the canary continues with one device."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm_start

from violence_detection.training import canary

_TWO_DEVICES = """
import dataclasses, io, json, logging, multiprocessing, sys
from pathlib import Path
import keras
import numpy as np
import synthetic
from violence_detection.training import canary, compiled_model, devices, pod_check, trainer
config = dataclasses.replace(synthetic.TRAIN, devices=2, epochs=2)
looked = []
pod_check.warn_of_unseen_gpus = looked.append
multiprocessing.parent_process = lambda: None  # as in a script, which this one stands for
strategy = devices.set_up(config)
import tensorflow as tf
data, one = synthetic.data(["rgb"]), tf.distribute.get_strategy()
record_of = lambda head: trainer.run_record(head, data, synthetic.FEATURES, 2, synthetic.HEAD, config)
batches = lambda: (b for epoch in range(4) for b in data.train.batches(16, 0, epoch))
"""
_SOUND = """
def build():
    model = compiled_model.build(record_of("gru"), 5)
    model.optimizer.global_clipnorm = 0.02  # below what the gradients have: every step is clipped
    return model

losses = {n: canary.trial(s, build, batches, 10)[0] for n, s in (("one", one), ("two", strategy))}
logging.basicConfig(level=logging.INFO, force=True)
from violence_detection.training import feed
data = dataclasses.replace(data, selection=data.selection.take(np.arange(19)))  # which two cannot halve
shared, plain = [], feed.Feed.plain
feed.Feed.plain = lambda self, size, devices=1: (shared.append(devices), plain(self, size, devices))[1]
trained = trainer.train(record_of("average"), data, Path(sys.argv[1]) / "two", strategy)
print(json.dumps({"losses": losses, "epochs": trained.epochs_run, "shared": shared, "looked": looked}))
"""
_DRAWN = """
from violence_detection.training import training_run
with strategy.scope():
    model = compiled_model.build(record_of("gru"), 5)
alone = compiled_model.build(record_of("gru"), 5)
dropped = {}
for name, s, m in (("two", strategy, model), ("one", one, alone)):
    training_run._reseed(s, m, 0, 3)
    layer = next(l for l in m.layers if isinstance(l, keras.layers.Dropout))
    drawn = s.run(tf.function(lambda: layer(tf.ones((1, 4, 64)), training=True)))
    dropped[name] = [np.flatnonzero(x == 0).tolist() for x in s.experimental_local_results(drawn)]
print(json.dumps(dropped))
"""
_UNEVEN = """
logging.basicConfig(level=logging.INFO, force=True)
config = dataclasses.replace(config, batch_size=15, epochs=1)
trained = trainer.train(record_of("average"), data, Path(sys.argv[1]) / "uneven", strategy)
print(json.dumps({"epochs": trained.epochs_run}))
"""
_FAULTY = """
record = record_of("average")
no_warmup = {**record, "train": {**record["train"], "warmup_epochs": 0}}
build = lambda: compiled_model.build(no_warmup, 5)

def planted(fault):  # in the gradients of a device, as (gradient, number of the device) -> gradient
    def build_wrong():
        model = build()
        apply = model.optimizer.apply

        def wrong(gradients, variables=None):
            replica = tf.distribute.get_replica_context()
            if replica.num_replicas_in_sync > 1:
                number = replica.replica_id_in_sync_group
                gradients = [fault(g, tf.cast(number, g.dtype)) for g in gradients]
            return apply(gradients, variables)

        model.optimizer.apply = wrong
        return model
    return build_wrong

faults = {
    "nan": lambda g, device: g * np.nan,
    "one device's inf": lambda g, device: g / (1 - device),
    "sign": lambda g, device: -g,
}
policy, *names = sys.argv[1:]
keras.mixed_precision.set_dtype_policy(policy)
left, said = {}, {}
for name in names:
    wrong = build if name == "none" else planted(faults[name])
    heard = io.StringIO()
    logging.basicConfig(stream=heard, force=True)
    left[name] = canary.sound_strategy(strategy, wrong, batches, 3).num_replicas_in_sync
    said[name] = heard.getvalue()
print(json.dumps({"left": left, "said": said}))
"""


def _run(folder: Path, script: str, *arguments: object) -> tuple[Any, str]:
    """Run the script with two logical devices in a separate process: (its JSON line, its stderr)."""
    (folder / "two_devices.py").write_text(_TWO_DEVICES + script)
    done = warm_start.run(folder / "two_devices.py", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.slow
def test_mirrored_on_two_devices_gives_the_losses_of_one(tmp_path: Path) -> None:
    said, log = _run(tmp_path, _SOUND, tmp_path)
    assert len(said["losses"]["two"]) == 10
    assert said["losses"]["two"] == pytest.approx(said["losses"]["one"], rel=1e-4)
    assert "mirrored training checked: 5 steps give the losses of one device" in log
    assert "eagerly has significant overhead" not in log
    assert set(said["shared"]) == {2}
    assert said["looked"] == [0], "training says where GPUs stand idle"
    assert said["epochs"] == 2


@pytest.mark.slow
def test_each_device_drops_its_own_and_the_first_as_a_single_one_does(tmp_path: Path) -> None:
    dropped, _ = _run(tmp_path, _DRAWN)
    first, second = dropped["two"]
    assert first
    assert first == dropped["one"][0]
    assert first != second


@pytest.mark.slow
def test_a_batch_that_two_devices_cannot_halve_is_taken_by_one(tmp_path: Path) -> None:
    said, log = _run(tmp_path, _UNEVEN, tmp_path)
    assert "a batch of 15 clips cannot be shared evenly by 2 devices: GOING ON WITH ONE DEVICE" in log
    assert said["epochs"] == 1


@pytest.mark.slow
def test_the_canary_leaves_a_faulty_device_in_float32(tmp_path: Path) -> None:
    found, _ = _run(tmp_path, _FAULTY, "float32", "sign", "nan")
    assert found["left"] == {"sign": 1, "nan": 1}
    assert all("GOING ON WITH ONE DEVICE" in said for said in found["said"].values())


@pytest.mark.slow
def test_in_mixed_precision_an_overflow_costs_the_step_and_a_faulty_device_is_left(
    tmp_path: Path,
) -> None:
    found, _ = _run(tmp_path, _FAULTY, "mixed_float16", "none", "nan", "one device's inf")
    assert found["left"] == {"none": 2, "nan": 1, "one device's inf": 1}
    assert not found["said"]["none"]
    overflow = re.search(
        r"the same 3 steps gave the losses (.*) on one device and (.*) on 2, where no weight changed\.",
        found["said"]["one device's inf"],
    )
    assert overflow, "an overflow on one device must cost the step, not the weights"
    losses = [[float(loss) for loss in losses.split(", ")] for losses in overflow.groups()]
    assert np.isfinite(losses).all()
    assert np.shape(losses) == (2, 3)


def test_losses_agree_only_if_all_are_numbers_and_near() -> None:
    assert canary.agree([1.0, 0.5], [1.0005, 0.5], 1e-3)
    assert not canary.agree([1.0, 0.5], [1.0, 0.502], 1e-3)
    assert not canary.agree([1.0, 0.5], [1.0, float("nan")], 1e-3)
