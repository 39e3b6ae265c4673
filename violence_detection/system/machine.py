"""The machine: free memory, the name of its processor, and its GPUs as the driver reports them."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil


@dataclass(frozen=True)
class _CgroupVersion:
    """Where a version of control groups reports a group's memory: `limit` and `used` are file names below `mount`.

    `reclaimable`: the entries of memory.stat that count as used but that the kernel frees before it refuses memory:
    mostly cached pages of files.
    """

    mount: str
    limit: str
    used: str
    reclaimable: tuple[str, ...]


_CGROUP_1 = _CgroupVersion(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
_CGROUP_2 = _CgroupVersion(
    "sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable")
)


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory still available: on the machine, or within the container's limit if that is less.

    The kernel's cache of files counts as free. `root`: the folder that contains proc/ and sys/.
    """
    free = [psutil.virtual_memory().available]
    for version, group in _memory_cgroups(root):
        mount = root / version.mount
        # Every parent group may have a limit too. In a container the path may be the machine's and not exist here; the
        # container's own group is then the mount itself, the last of the parents.
        for folder in [mount / group, *(mount / parent for parent in PurePosixPath(group).parents)]:
            try:
                limit = int((folder / version.limit).read_text())
                used = int((folder / version.used).read_text()) - _reclaimable_bytes(folder, version)
            except (OSError, ValueError):  # no such group, or no limit (the file says "max")
                continue
            free.append(limit - max(0, used))
    return max(0, min(free))


def _memory_cgroups(root: Path) -> Iterator[tuple[_CgroupVersion, str]]:
    """The control groups that may limit this process's memory: the version, and the group's path below its mount."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield _CGROUP_2, path.strip("/")
        elif "memory" in controllers.split(","):
            yield _CGROUP_1, path.strip("/")


def _reclaimable_bytes(folder: Path, version: _CgroupVersion) -> int:
    lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return sum(int(size) for name, size in lines if name in version.reclaimable)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, such as `AMD EPYC 7B13`, or its architecture if the system gives no name."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver reports it. Values that it does not report are NaN; memory is in MiB."""

    name: str
    use_percent: float
    memory_used_mb: float
    memory_mb: float


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs that the driver reports, usable by TensorFlow or not; empty if nvidia-smi is missing or fails."""
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    query = "--query-gpu=name,utilization.gpu,memory.used,memory.total"
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_smi(done.stdout)


def parse_smi(text: str) -> list[Gpu]:
    """Parse nvidia-smi's CSV lines `name, use in %, used MiB, total MiB`; values not reported ([N/A]) become NaN."""
    found = []
    for line in text.splitlines():
        name, *numbers = (part.strip() for part in line.rsplit(",", 3))
        if len(numbers) == 3:
            found.append(Gpu(name, *(_number(n) for n in numbers)))
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
