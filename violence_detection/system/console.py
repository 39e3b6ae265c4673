"""Output that people read while a script runs: log lines on stderr and in files, and progress bars."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from violence_detection.system import redaction

#: The package's root logger. Each module logs to a child named after the module.
log = logging.getLogger("violence_detection")
#: Characters that can clear a terminal, move its cursor, break a line or reverse the direction of text.
_CONTROLS = re.compile("[\0-\b\n-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def in_a_line(text: str) -> str:
    """The text as one line that is safe on a terminal, whatever file names it contains: control characters escaped."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def in_lines(text: str) -> str:
    """Like `in_a_line` for each line of the text; lines after the first are indented, so none passes for a log line."""
    return "\n    ".join(map(in_a_line, text.split("\n")))


def log_to(files: Sequence[Path | str], level: int) -> None:
    """Make this process log to stderr and append to these files, from `level` up. Replaces earlier handlers."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers += [_LogFile(path, encoding="utf-8", errors="backslashreplace") for path in files]
    for handler in handlers:
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    log.handlers = handlers
    log.setLevel(level)
    log.propagate = False


class _Formatter(logging.Formatter):
    """Removes credentials in addresses and escapes terminal control characters, in messages and tracebacks alike."""

    def format(self, record: logging.LogRecord) -> str:
        return in_lines(redaction.without_secrets(super().format(record)))


class _LogFile(logging.FileHandler):
    """A log file that is closed, with one warning, once it cannot be written; the other handlers carry on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            return super().handleError(record)
        log.removeHandler(self)
        # Closed here, or Python 3.13 reports the error when the file object is collected.
        with contextlib.suppress(OSError):
            self.close()
        log.warning(
            "%s cannot be written (%s); the log continues on stderr only", self.baseFilename, error.strerror
        )


def log_files() -> list[str]:
    """The files that this process logs to."""
    return [h.baseFilename for h in log.handlers if isinstance(h, logging.FileHandler)]


def progress(iterable: Any = None, **kwargs: Any) -> Any:
    """A tqdm bar with rate and time left; if stderr is not a terminal, it prints a line every ten seconds instead."""
    from tqdm import tqdm

    terminal = sys.stderr is not None and sys.stderr.isatty()
    kwargs = {
        "mininterval": 0.2 if terminal else 10.0,
        "dynamic_ncols": terminal,
        "smoothing": 0.05,
        **kwargs,
    }
    if kwargs.get("desc"):
        kwargs["desc"] = in_a_line(kwargs["desc"])
    if not terminal:  # nested bars would write cursor movements into a log file
        kwargs |= {"position": 0, "leave": True, "ascii": True}
    return tqdm(iterable, file=(_BarWriter if terminal else _LineWriter)(sys.stderr), **kwargs)


def tell(text: str) -> None:
    """Print a line to stderr. If stderr is missing or cannot be written, the line is dropped without an error."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr)


def people() -> typing.TextIO:
    """stderr as a stream for other code to write to: write errors are ignored, as in `tell`."""
    return typing.cast(typing.TextIO, _BarWriter(sys.stderr))


class _BarWriter:
    """Wraps a stream, or None, so that a write error (closed pipe, full disk) does not end the work."""

    def __init__(self, stream: typing.TextIO | None):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:  # tqdm reads others, such as fileno for the terminal's width
        return getattr(self.stream, name)

    def write(self, text: str) -> None:
        if self.stream is not None:
            with contextlib.suppress(OSError):
                self.stream.write(text)

    def flush(self) -> None:
        if self.stream is not None:
            with contextlib.suppress(OSError):
                self.stream.flush()


class _LineWriter(_BarWriter):
    """Writes each tqdm update as a line instead of overwriting the last one, for logs that are read with tail."""

    def write(self, text: str) -> None:
        if text := text.strip():
            super().write(text + "\n")
