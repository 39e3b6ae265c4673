"""Two logical devices train the same model as one; where they do not, the canary goes on with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import warm_start

from violence_detection.training import canary

_TWO_DEVICES = """
import dataclasses, json, sys, logging
from pathlib import Path
import keras
import numpy as np
import synthetic
from violence_detection.training import canary, devices, trainer
config = dataclasses.replace(synthetic.TRAIN, devices=2, epochs=2)
strategy = devices.set_up(config)
import tensorflow as tf
data, one = synthetic.data(), tf.distribute.get_strategy()
record = trainer.run_record("gru", data, synthetic.FEATURES, 2, synthetic.HEAD, config)
batches = lambda: (b for epoch in range(4) for b in data.train.batches(16, 0, epoch))
"""
_SOUND = """
build = lambda: trainer.build(record, 5)
losses = {n: canary.trial(s, build, batches, 10)[0] for n, s in (("one", one), ("two", strategy))}
logging.basicConfig(level=logging.INFO, force=True)
trained = trainer.train(record, data, Path(sys.argv[1]) / "two", strategy)
print(json.dumps({"losses": losses, "epochs": trained.epochs_run}))
"""
_FAULTY = """
no_warmup = {**record, "architecture": "average", "train": {**record["train"], "warmup_epochs": 0}}
build = lambda: trainer.build(no_warmup, 5)

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
logging.basicConfig()
policy, *names = sys.argv[1:]
keras.mixed_precision.set_dtype_policy(policy)
left = {}
for name in names:
    wrong = build if name == "none" else planted(faults[name])
    left[name] = canary.sound_strategy(strategy, wrong, batches, 3).num_replicas_in_sync
overflow = None
if policy == "mixed_float16":
    losses, moved = canary.trial(strategy, planted(faults["one device's inf"]), batches, 3)
    overflow = [all(map(np.isfinite, losses)), moved]
print(json.dumps({"left": left, "overflow": overflow}))
"""


def _run(folder: Path, script: str, *arguments: object) -> tuple[Any, str]:
    """What the script says of two devices, in a process of its own: (its JSON line, its stderr)."""
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
    assert said["epochs"] == 2


@pytest.mark.slow
def test_the_canary_leaves_a_faulty_device_in_float32(tmp_path: Path) -> None:
    said, log = _run(tmp_path, _FAULTY, "float32", "sign", "nan")
    assert said["left"] == {"sign": 1, "nan": 1}
    assert "GOING ON WITH ONE DEVICE" in log


@pytest.mark.slow
def test_in_mixed_precision_an_overflow_costs_the_step_and_a_faulty_device_is_left(
    tmp_path: Path,
) -> None:
    said, log = _run(tmp_path, _FAULTY, "mixed_float16", "none", "nan", "one device's inf")
    assert said["left"] == {"none": 2, "nan": 1, "one device's inf": 1}
    assert "where they changed no weight" in log
    assert said["overflow"] == [True, False], "an overflow on one device must cost the step, not the weights"


def test_losses_agree_only_if_all_are_numbers_and_near() -> None:
    assert canary.agree([1.0, 0.5], [1.0005, 0.5], 1e-3)
    assert not canary.agree([1.0, 0.5], [1.0, 0.502], 1e-3)
    assert not canary.agree([1.0, 0.5], [1.0, float("nan")], 1e-3)
