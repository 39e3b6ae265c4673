"""The machine's memory and CPUs are what this process may use of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from violence_detection.system import machine

REPOSITORY = Path(__file__).resolve().parents[2]


GB = 10**9
STAT_2 = {
    "anon": GB,
    "file": 59 * GB,
    "inactive_file": 40 * GB,
    "active_file": 18 * GB,
    "slab_reclaimable": GB,
}
STAT_1 = {"inactive_file": 1, "total_inactive_file": 40 * GB, "total_active_file": 19 * GB, "total_rss": GB}


def _group(folder: Path, limit: int | str, used: int, stat: Mapping[str, int], version: int = 2) -> None:
    """The files of a control group, as the kernel writes them."""
    names = (
        ("memory.max", "memory.current")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text("".join(f"{k} {v}\n" for k, v in stat.items()))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 100 GB of free memory."""
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=100 * GB))
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def _in_groups(root: Path, *lines: str) -> None:
    (root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in lines))


def test_a_containers_limit_bounds_the_free_memory(root: Path) -> None:
    assert machine.free_memory_bytes(root) == 100 * GB
    _in_groups(root, "0::/")
    group = root / "sys/fs/cgroup"
    for limit, free in (("max", 100 * GB), (64 * GB, 54 * GB), (5 * GB, 0)):
        _group(group, limit, 10 * GB, {})
        assert machine.free_memory_bytes(root) == free
    (group / "memory.max").unlink()
    assert machine.free_memory_bytes(root) == 100 * GB


def test_what_the_kernel_keeps_of_files_is_free_memory(root: Path) -> None:
    _in_groups(root, "0::/")
    _group(root / "sys/fs/cgroup", 64 * GB, 63 * GB, STAT_2)
    assert machine.free_memory_bytes(root) == 60 * GB
    # The statistics are read at another moment than the use, and may exceed it.
    _group(root / "sys/fs/cgroup", 64 * GB, 10 * GB, STAT_2)
    assert machine.free_memory_bytes(root) == 64 * GB


def test_an_older_kernels_groups_count_as_well(root: Path) -> None:
    _in_groups(root, "5:cpuset:/", "4:hugetlb,memory:/docker/abc", "0::/")
    _group(root / "sys/fs/cgroup/memory", 64 * GB, 63 * GB, STAT_1, version=1)
    assert machine.free_memory_bytes(root) == 60 * GB
    _group(root / "sys/fs/cgroup/memory", 9223372036854771712, 63 * GB, STAT_1, version=1)
    assert machine.free_memory_bytes(root) == 100 * GB


@pytest.mark.parametrize("limited", ["", "pod.slice", "pod.slice/mine.scope"])
def test_the_limit_of_every_group_around_the_process_counts(root: Path, limited: str) -> None:
    _in_groups(root, "0::/pod.slice/mine.scope")
    for path in ("", "pod.slice", "pod.slice/mine.scope"):
        _group(
            root / "sys/fs/cgroup" / path, 8 * GB if path == limited else "max", 3 * GB, {"active_file": GB}
        )
    assert machine.free_memory_bytes(root) == 6 * GB


def test_the_memory_of_this_machine_is_some() -> None:
    assert 0 < machine.free_memory_bytes() <= psutil.virtual_memory().total


def test_a_process_counts_the_processors_it_is_bound_to() -> None:
    program = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from violence_detection.system import processes; print(processes.usable_cpus())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_the_processor_has_its_name_or_that_of_its_kind(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD EPYC 7B13\nmodel name\t: other\n")
    assert machine.processor(cpuinfo) == "AMD EPYC 7B13"
    cpuinfo.write_text("processor\t: 0\nCPU part\t: 0xd0c\n")
    assert machine.processor(cpuinfo) == machine.processor(tmp_path / "none") == os.uname().machine
