"""Two logical devices train the same model as one; where they do not, the canary goes on with one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from violence_detection.training import canary

ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = """
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
build = lambda: trainer.build(record, 5)
batches = lambda: (b for epoch in range(4) for b in data.train.batches(16, 0, epoch))
losses = {n: canary.trial(s, build, batches, 20)[0] for n, s in (("one", one), ("two", strategy))}
sound = canary.sound_strategy(strategy, build, batches)
trained = trainer.train(record, data, Path(sys.argv[1]) / "two", strategy)

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
no_warmup = {**record, "train": {**record["train"], "warmup_epochs": 0}}
build = lambda: trainer.build(no_warmup, 5)
left = {}
for policy, names in (("float32", ("sign", "nan")), ("mixed_float16", ("none", "nan", "one device's inf"))):
    keras.mixed_precision.set_dtype_policy(policy)
    for name in names:
        wrong = build if name == "none" else planted(faults[name])
        left[f"{name}, {policy}"] = canary.sound_strategy(strategy, wrong, batches, 3).num_replicas_in_sync
skipped = canary.trial(strategy, planted(faults["one device's inf"]), batches, 3)
print(json.dumps({"losses": losses, "kept": sound is strategy, "epochs": trained.epochs_run, "left": left,
                  "skipped": [all(map(np.isfinite, skipped[0])), skipped[1]]}))
"""


@pytest.mark.slow
def test_mirrored_on_two_devices_gives_the_losses_of_one_and_the_canary_knows(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path)],
        env={
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "PATH": os.environ["PATH"],
            "TF_CPP_MIN_LOG_LEVEL": "2",
        },
        check=False,
        timeout=600,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert len(said["losses"]["two"]) == 20
    assert said["losses"]["two"] == pytest.approx(said["losses"]["one"], rel=1e-4)
    assert said["kept"]
    assert said["epochs"] == 2
    assert said["left"] == {
        "sign, float32": 1,
        "nan, float32": 1,
        "none, mixed_float16": 2,
        "nan, mixed_float16": 1,
        "one device's inf, mixed_float16": 1,
    }
    assert "GOING ON WITH ONE DEVICE" in done.stderr
    assert "where they changed no weight" in done.stderr
    assert said["skipped"] == [True, False], "an overflow on one device must cost the step, not the weights"


def test_losses_agree_only_if_all_are_numbers_and_near() -> None:
    assert canary.agree([1.0, 0.5], [1.0005, 0.5], 1e-3)
    assert not canary.agree([1.0, 0.5], [1.0, 0.502], 1e-3)
    assert not canary.agree([1.0, 0.5], [1.0, float("nan")], 1e-3)
