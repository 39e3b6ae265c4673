"""The memory that benchmarks report is that of the measured process, not of the process that starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peak_memory

ROOT = Path(__file__).resolve().parent.parent
_TAKES = "import sys; taken = b'x' * (int(sys.argv[1]) << 20); print('done')"


@pytest.fixture(autouse=True)
def _large_parent() -> None:
    """Let this process have used 400 MB at some time, which its children must not report as theirs."""
    assert np.ones(400 << 20, np.uint8).all()


def test_a_process_tells_its_own_peak_and_not_that_of_its_parent() -> None:
    program = "import sys; from benchmarks import peak_memory; print(peak_memory.of_this_mb())"
    before, after = (
        int(
            subprocess.run(
                [sys.executable, "-c", text, "150"], cwd=ROOT, capture_output=True, check=True
            ).stdout.split()[-1]
        )
        for text in (program, f"{_TAKES}; del taken; {program}")
    )
    assert before < 100
    assert 145 < after - before < 200


def test_of_a_command_the_peak_of_its_largest_process_is_told() -> None:
    for code, mb in ((0, 0), (3, 150)):
        inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_TAKES!r}, '{mb}']); sys.exit({code})"
        done, peak_mb = peak_memory.of_command([sys.executable, "-c", inner])
        assert (done.returncode, done.stdout.split()) == (code, ["done"])
        assert mb <= peak_mb < mb + 60
