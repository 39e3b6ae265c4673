"""What the machine has: free memory, its processor's name, GPUs as the driver sees them."""

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
    """Where a version of control groups keeps the memory of a group: below `mount`, in files of these names.

    `reclaimable`: the lines of memory.stat that the kernel gives back before it refuses memory, above all pages of
    files that were read; they count as used.
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
    """Memory that can still be used: the machine's, or what a container's limit leaves if that is less.

    What the kernel keeps of files that were read is free. `root`: where /proc and /sys are.
    """
    free = [psutil.virtual_memory().available]
    for version, group in _memory_cgroups(root):
        mount = root / version.mount
        # Every group above may have a limit too. A container may see paths of the machine, but only its own group,
        # at the mount.
        for folder in [mount / group, *(mount / parent for parent in PurePosixPath(group).parents)]:
            try:
                limit = int((folder / version.limit).read_text())
                used = int((folder / version.used).read_text()) - _reclaimable_bytes(folder, version)
            except (OSError, ValueError):  # no such group, or no limit ("max")
                continue
            free.append(limit - max(0, used))
    return max(0, min(free))


def _memory_cgroups(root: Path) -> Iterator[tuple[_CgroupVersion, str]]:
    """This process's groups that may limit its memory: the version, and the path below where it is mounted."""
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
    """The processor's name, such as `AMD EPYC 7B13`; its architecture where the system names none."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver reports it."""

    name: str
    use_percent: float
    memory_used_mb: float
    memory_mb: float


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs that the driver sees, whether TensorFlow can use them or not; none without a driver."""
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
    """nvidia-smi's CSV lines `name, use %, used MiB, all MiB`; what a GPU does not report ([N/A]) becomes NaN."""
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
