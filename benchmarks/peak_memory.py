"""Peak memory of a process alone; what getrusage tells of one begins with that of the process that started it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: Starts a command from a process so small that it adds nothing, and says behind its output what it took.
_SMALL_PARENT = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    "print('', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, sep='\\n'); sys.exit(code)"
)


def of_this_mb() -> int:
    """Of this process so far, in MB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024


def of_command(
    command: Sequence[str], cwd: Path | None = None
) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run a command: how it ended with its stdout, and the peak of the largest of its processes in MB."""
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_PARENT, *command],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=cwd,
    )
    done.stdout, _, peak_kb = done.stdout.rstrip().rpartition("\n")
    return done, int(peak_kb) // 1024
