"""Measure the peak memory of a process alone. What getrusage reports starts at the memory of its parent process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: Program that runs a command and prints its peak memory, in KiB, on a line after its output. It is so small that it
#: does not raise that peak as the command's parent.
_SMALL_PARENT = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    "print('', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, sep='\\n'); sys.exit(code)"
)


def of_this_mb() -> int:
    """The peak memory of this process so far, in MiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024


def of_command(
    command: Sequence[str], cwd: Path | None = None
) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run a command; return how it ended, with its stdout, and the peak memory in MiB of its largest process."""
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_PARENT, *command],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=cwd,
    )
    done.stdout, _, peak_kb = done.stdout.rstrip().rpartition("\n")
    return done, int(peak_kb) // 1024
