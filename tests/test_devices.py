"""Two logical devices train the same model as one."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_SCRIPT = """
import dataclasses, sys
from pathlib import Path
import synthetic
head = dataclasses.replace(synthetic.HEAD, dropout=0.0, input_dropout=0.0)  # dropout is drawn on each device anew
synthetic.HEAD = head
config = dataclasses.replace(synthetic.TRAIN, devices=int(sys.argv[2]), epochs=3)
synthetic.train_once(Path(sys.argv[1]), "gru", config)
"""


def _losses(folder: Path, devices: int) -> list[float]:
    subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder), str(devices)],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "2"},
        check=True,
        timeout=300,
    )
    with (folder / "training_log.csv").open() as f:
        return [float(row["loss"]) for row in csv.DictReader(f)]


@pytest.mark.slow
def test_mirrored_on_two_devices_gives_the_losses_of_one(tmp_path: Path) -> None:
    one, two = _losses(tmp_path / "one", 1), _losses(tmp_path / "two", 2)
    assert two == pytest.approx(one, rel=1e-3)
