"""Runs a command for each piece of news of an event."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from violence_detection.errors import UserError
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs.outbox import Outbox

#: Fields of the message that the command also gets in its environment, as VIOLENCE_TYPE and so on.
_IN_ENVIRONMENT = (
    "type",
    "id",
    "camera",
    "start",
    "end",
    "start_s",
    "end_s",
    "p_violent",
    "snapshot",
    "clip",
)
#: Longest wait for this output's thread after its command was killed.
_KILLED_S = 1.0


class CommandOutput(Outbox):
    """Runs `command`, split into words as a shell would but without one. JSON on stdin; its output goes to stderr."""

    name = "on-event"

    def __init__(self, command: str, timeout_s: float):
        """Raises UserError if the command cannot be run."""
        self._words = words(command)
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False
        super().__init__()

    def close(self, timeout_s: float) -> None:
        """Run it for the waiting messages for up to `timeout_s` seconds; kill one that is still running then."""
        try:
            super().close(timeout_s)
        finally:  # also if the wait is interrupted
            with self._changed:
                self._is_over, process = True, self._process
            if process is not None:
                _kill(process)
                self._thread.join(_KILLED_S)

    def deliver(self, message: EventMessage) -> None:
        """Run it. Raises OSError if it does not exist or fails, TimeoutError if it had to be killed."""
        fields = message.fields()
        said = {f"VIOLENCE_{name.upper()}": _text(fields[name]) for name in _IN_ENVIRONMENT}
        # stdout is for the summary alone; and writing to a stderr that nobody reads any more would end the command
        to = subprocess.DEVNULL if _stderr_is_gone() else 2
        process = subprocess.Popen(
            self._words,
            stdin=subprocess.PIPE,
            stdout=to,
            stderr=to,
            env={**os.environ, **said},
            start_new_session=True,  # Ctrl-C must not reach it; and _kill ends what it started, too
        )
        with self._changed:
            self._process, is_over = process, self._is_over
        if is_over:
            _kill(process)
        try:
            process.communicate(message.text().encode() + b"\n", self._timeout_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            with contextlib.suppress(
                subprocess.TimeoutExpired
            ):  # stuck in the kernel, as on a dead network drive
                process.communicate(timeout=_KILLED_S)
            raise TimeoutError(
                f"{self._words[0]} took more than {self._timeout_s:g} s and was killed"
            ) from None
        finally:
            with self._changed:
                self._process, is_over = None, self._is_over
        if is_over and process.returncode == -signal.SIGKILL:
            raise TimeoutError(f"{self._words[0]} was still running at the end and was killed")
        if process.returncode:
            raise OSError(f"{self._words[0]} ended with exit code {process.returncode}")


def _stderr_is_gone() -> bool:
    """Whether stderr is closed, or is a pipe or terminal whose other end is closed."""
    poll = select.poll()
    poll.register(2, 0)
    return bool(poll.poll(0))


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def words(command: str) -> list[str]:
    """Split a command into words. Raises UserError if it cannot be run, without the arguments: one may be a key."""
    try:
        found = shlex.split(command)
    except ValueError as e:
        raise UserError(f"--on-event cannot be split into words ({e})") from e
    if not found:
        raise UserError("--on-event is empty. Name a command")
    if shutil.which(found[0]) is None:
        if Path(found[0]).is_file():
            raise UserError(
                f"--on-event: {found[0]} is not executable. Run: chmod +x {shlex.quote(found[0])}"
            )
        raise UserError(
            f"--on-event: there is no command {found[0]}. No shell is used, so ~, $ and | do not work. Give its path"
        )
    return found


def _text(value: object) -> str:
    return "" if value is None else str(value).replace("\0", "")
