"""What the machine has: processors, free memory, room on its disks, GPUs as the driver sees them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import loky
import psutil

#: Room left on the disk beside what the data needs.
RESERVE_BYTES = 1 << 30
_CGROUP_FILES = (  # limit, use: version 2, then version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def usable_cpus() -> int:
    """Processors that this process may use: those it is bound to, or fewer by the container's quota; at least 1."""
    return int(loky.cpu_count())


def free_memory_bytes() -> int:
    """Memory that can still be used: the machine's, or what the container's limit leaves if that is less."""
    free = [psutil.virtual_memory().available]
    for limit, used in _CGROUP_FILES:
        try:
            free.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such limit here ("max")
            continue
    return max(0, min(free))


def free_bytes_of(path: Path) -> int:
    """Bytes the user may still write on the disk that holds `path`, which need not exist yet."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def gigabytes(size_bytes: float) -> str:
    """`12.0 GB`, or MB below one."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


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
