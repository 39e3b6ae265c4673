"""What the machine has is what this process may use of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from violence_detection.system import machine

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_container_limit_bounds_the_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "limit", tmp_path / "used"
    used.write_text("1000")
    monkeypatch.setattr(machine, "_CGROUP_FILES", (("no/such/file", "nor/this"), (str(limit), str(used))))
    limit.write_text("max")
    assert machine.free_memory_bytes() > 1 << 20
    limit.write_text("5000")
    assert machine.free_memory_bytes() == 4000
    limit.write_text("500")
    assert machine.free_memory_bytes() == 0


def test_a_process_counts_the_processors_it_is_bound_to() -> None:
    program = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from violence_detection.system import machine; print(machine.usable_cpus())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_room_is_measured_on_the_disk_that_a_new_folder_will_be_on(tmp_path: Path) -> None:
    assert machine.free_bytes_of(tmp_path / "not" / "yet") > 0
    assert machine.gigabytes(2.5e9) == "2.5 GB"
    assert machine.gigabytes(2.5e6) == "2.5 MB"
