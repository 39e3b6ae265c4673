"""What the machine has is what this process may use of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from violence_detection.system import machine


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


def test_a_container_quota_bounds_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota, period = tmp_path / "quota", tmp_path / "period"
    period.write_text("100000")
    monkeypatch.setattr(machine, "_CPU_QUOTA_FILES", ((str(quota), str(period)),))
    quota.write_text("50000")
    assert machine.usable_cpus() == 1
    quota.write_text("-1")
    assert machine.usable_cpus() >= 1


def test_room_is_measured_on_the_disk_that_a_new_folder_will_be_on(tmp_path: Path) -> None:
    assert machine.free_bytes_of(tmp_path / "not" / "yet") > 0
    assert machine.gigabytes(2.5e9) == "2.5 GB"
    assert machine.gigabytes(2.5e6) == "2.5 MB"
