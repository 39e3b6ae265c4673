"""What people read while the work goes on: log lines on stderr and in files, and progress bars."""

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

#: The package's logger; modules log to children of it, named after themselves.
log = logging.getLogger("violence_detection")
#: What clears a terminal, moves its cursor, breaks a line or turns the order of letters round.
_CONTROLS = re.compile("[\0-\b\n-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def in_a_line(text: str) -> str:
    """Text, names of files in it whatever they hold, as one line for a terminal: control characters are escaped."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def in_lines(text: str) -> str:
    """The same of several lines, of which those behind the first are indented: none looks like one of the log."""
    return "\n    ".join(map(in_a_line, text.split("\n")))


def log_to(files: Sequence[Path | str], level: int) -> None:
    """Have this process log to stderr and to the end of these files."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers += [_LogFile(path, encoding="utf-8", errors="backslashreplace") for path in files]
    for handler in handlers:
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    log.handlers = handlers
    log.setLevel(level)
    log.propagate = False


class _Formatter(logging.Formatter):
    """Lines and tracebacks without the passwords of addresses in them, wherever they come from, nor what controls a
    terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        return in_lines(redaction.without_secrets(super().format(record)))


class _LogFile(logging.FileHandler):
    """A log file; once its disk takes nothing more, that is said once, and the lines go on to stderr alone."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            return super().handleError(record)
        log.removeHandler(self)
        with contextlib.suppress(OSError):  # here, or Python 3.13 shows it when the file is collected
            self.close()
        log.warning(
            "%s cannot be written (%s); the log goes on here alone", self.baseFilename, error.strerror
        )


def log_files() -> list[str]:
    """The files that this process logs to."""
    return [h.baseFilename for h in log.handlers if isinstance(h, logging.FileHandler)]


def progress(iterable: Any = None, **kwargs: Any) -> Any:
    """A tqdm bar with rate and time left; away from a terminal it prints a line every ten seconds."""
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
    if not terminal:  # several bars at once would move the cursor about in a log file
        kwargs |= {"position": 0, "leave": True, "ascii": True}
    return tqdm(iterable, file=(_BarWriter if terminal else _LineWriter)(sys.stderr), **kwargs)


def tell(text: str) -> None:
    """A line on stderr, if there is one that takes it: nothing that is done needs that it is read."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr)


def people() -> typing.TextIO:
    """stderr for what writes by itself, whose words may be lost: whether anybody reads them ends nothing."""
    return typing.cast(typing.TextIO, _BarWriter(sys.stderr))


class _BarWriter:
    """A stream for a bar, whose end (nobody reads it, its disk is full) is not that of the work; None for none."""

    def __init__(self, stream: typing.TextIO | None):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:  # what tqdm asks of terminals, as their width
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
    """Turns tqdm's carriage returns into lines, for logs that are read with tail."""

    def write(self, text: str) -> None:
        if text := text.strip():
            super().write(text + "\n")
