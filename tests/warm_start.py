"""Scripts in separate processes, without the seconds that importing TensorFlow takes each time.

multiprocessing's fork server imports what scripts import, once for each process of pytest and before any thread starts.
A script is forked from it: a process with its own arguments, working folder, environment, output and exit code, which
can be killed. Tests of what only a real start shows (the time it takes, what it prints meanwhile, how the interpreter
ends) use subprocess.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[1]
#: This package comes first, so that TensorFlow starts as it does for the scripts.
_IMPORTED_ONCE = (
    "violence_detection.ensemble.ensemble_run",
    "violence_detection.evaluation.evaluate",
    "violence_detection.evaluation.report.report",
    "violence_detection.prediction.detector",
)


class Running:
    """A script, or a function that can be pickled, in a process of its own."""

    def __init__(
        self,
        what: Path | Callable[..., Any],
        arguments: tuple[object, ...],
        cwd: Path,
        more: Mapping[str, str],
    ) -> None:
        self.name = f"{what} {' '.join(map(str, arguments))}"
        self._said = tempfile.TemporaryDirectory(prefix="said-")
        self._out, self._err = (Path(self._said.name) / name for name in ("out", "err"))
        self._out.touch()
        self._err.touch()
        environment = {**os.environ, **more}
        self._process = _fork_server().Process(
            target=_run, args=(what, arguments, cwd, environment, self._out, self._err)
        )
        self._process.start()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        return self._process.exitcode

    def stderr(self) -> str:
        """Return what the process has written to stderr so far."""
        return self._err.read_text(errors="replace")

    def kill(self) -> int | None:
        """Kill the process with SIGKILL; return the exit code."""
        self._process.kill()
        self._process.join()
        return self._process.exitcode

    def wait(self, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Wait for the process to end. After `timeout_s`, it is killed, and TimeoutExpired is raised."""
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.name, timeout_s, stderr=self.stderr().encode())
        return subprocess.CompletedProcess(
            self.name, self._process.exitcode, self._out.read_text(), self.stderr()
        )


def start(what: Path | Callable[..., Any], *arguments: object, cwd: Path, **environment: str) -> Running:
    """Start a script as `python SCRIPT ARGUMENTS` would in `cwd`, with additional environment variables."""
    return Running(what, arguments, cwd, environment)


def run(
    what: Path | Callable[..., Any], *arguments: object, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end; return its exit code, stdout and stderr."""
    return start(what, *arguments, cwd=cwd, **environment).wait()


def _fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED_ONCE))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(_REPOSITORY)  # the fork server needs it to find the package
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _run(
    what: Path | Callable[..., Any],
    arguments: tuple[object, ...],
    cwd: Path,
    environment: Mapping[str, str],
    out: Path,
    err: Path,
) -> None:
    """Run in the forked process: redirect stdout and stderr, then run the script or call the function."""
    for descriptor, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if not isinstance(what, Path):
        what(*arguments)
        return
    sys.argv[:] = [str(what), *map(str, arguments)]
    sys.path.insert(0, str(what.parent))
    runpy.run_path(str(what), run_name="__main__")
