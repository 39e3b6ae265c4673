"""A script that is forked with TensorFlow already loaded runs like any other process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm_start

_SCRIPT = """
import os, sys
print(__name__, sys.argv[1:], os.getcwd(), os.environ["ANSWER"], "tensorflow" in sys.modules)
print("also said", file=sys.stderr)
if __name__ == "__main__":
    sys.exit(3)
"""


def test_it_has_its_own_arguments_folder_environment_output_and_exit_code(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    done = warm_start.run(script, "a b", 1, cwd=tmp_path, ANSWER="42")
    assert done.returncode == 3
    assert done.stdout == f"__main__ ['a b', '1'] {tmp_path} 42 True\n"
    assert done.stderr == "also said\n"
    assert "ANSWER" not in os.environ


def _say_threads_of_the_server() -> None:
    print([task.name for task in Path(f"/proc/{os.getppid()}/task").iterdir()] == [str(os.getppid())])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_it_is_forked_from_has_one_thread(tmp_path: Path) -> None:
    assert warm_start.run(_say_threads_of_the_server, cwd=tmp_path).stdout == "True\n"


def test_it_can_be_killed_and_is_when_it_takes_too_long(tmp_path: Path) -> None:
    running = warm_start.start(time.sleep, 600, cwd=tmp_path)
    assert running.poll() is None
    assert running.kill() == -signal.SIGKILL
    with pytest.raises(subprocess.TimeoutExpired):
        warm_start.start(time.sleep, 600, cwd=tmp_path).wait(timeout_s=0.1)
