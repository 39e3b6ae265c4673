"""Two logical devices train the same model as one; where they do not, the canary goes on with one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from violence_detection import canary

ROOT = Path(__file__).resolve().parent.parent
_SCRIPT = """
import dataclasses, json, sys, logging
from pathlib import Path
import numpy as np
import synthetic
from violence_detection import canary, devices, training
config = dataclasses.replace(synthetic.TRAIN, devices=2, epochs=2)
strategy = devices.set_up(config)
import tensorflow as tf
data, one = synthetic.data(), tf.distribute.get_strategy()
record = training.run_record("gru", data, synthetic.FEATURES, 2, synthetic.HEAD, config)
build = lambda: training.build(record, 5)
batches = lambda: (b for epoch in range(4) for b in data.train.batches(16, 0, epoch))
losses = {n: canary.losses(s, build, batches, 20) for n, s in (("one", one), ("two", strategy))}
sound = canary.sound_strategy(strategy, build, batches)
trained = training.train(record, data, Path(sys.argv[1]) / "two", strategy)

wrong = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
real = canary.losses  # an all-reduce that gives NaN on several devices, as tensorflow#90686
canary.losses = lambda s, *a: [x * (np.nan if s is wrong else 1) for x in real(s, *a)]
logging.basicConfig()
fallen_back = canary.sound_strategy(wrong, build, batches)
print(json.dumps({"losses": losses, "kept": sound is strategy, "epochs": trained.epochs_run,
                  "fell_back_to": fallen_back.num_replicas_in_sync}))
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
    assert said["fell_back_to"] == 1
    assert "GOING ON WITH ONE DEVICE" in done.stderr


def test_losses_agree_only_if_all_are_numbers_and_near() -> None:
    assert canary.agree([1.0, 0.5], [1.0005, 0.5], 1e-3)
    assert not canary.agree([1.0, 0.5], [1.0, 0.502], 1e-3)
    assert not canary.agree([1.0, 0.5], [1.0, float("nan")], 1e-3)
