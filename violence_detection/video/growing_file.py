"""Read a file that another program still writes: at its present end, wait for more."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import BinaryIO

from violence_detection.errors import SourceError
from violence_detection.system import processes

#: Seconds between two attempts to read more.
_LOOK_EVERY_S = 0.05
#: The boxes of an MP4 file that contain its index and its pictures. The file can be read while it grows only if the
#: index comes first.
_INDEX, _PICTURES = b"moov", b"mdat"


class GrowingFile:
    """A file object for FFmpeg that waits for more at the present end of the file.

    It ends when the file has not grown for `still_s` seconds, is shorter than what was read of it, or `closed` is set.
    The file need not exist yet: then it is waited for, also for `still_s` seconds.
    """

    def __init__(self, path: Path, still_s: float, closed: threading.Event):
        self._path, self._still_s, self._closed = path, still_s, closed
        self._file: BinaryIO | None = None
        self._ended = False

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" when the file has ended."""
        until_s = time.monotonic() + self._still_s
        while not (self._ended or self._closed.is_set()):
            if self._file is None and self._path.is_file():
                self._file = self._path.open("rb")
            if self._file and self._is_begun_anew(self._file):
                self._ended = True
                break
            if self._file and (data := self._file.read(size)):
                return data
            self._ended = time.monotonic() >= until_s
            processes.beat()
            self._closed.wait(_LOOK_EVERY_S)
        return b""

    @property
    def has_another(self) -> bool:
        """Whether its path now has footage that was not read: it is another file, or was rewritten from the start."""
        if self._file is None or self._closed.is_set():
            return False
        try:
            return self._is_begun_anew(self._file) or not os.path.samestat(
                self._path.stat(), os.fstat(self._file.fileno())
            )
        except OSError:  # it was moved away
            return False

    def _is_begun_anew(self, file: BinaryIO) -> bool:
        return os.fstat(file.fileno()).st_size < file.tell()

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._file is not None:
            self._file.close()


def check_readable_meanwhile(path: Path) -> None:
    """Raise SourceError for an MP4 file with its index behind its pictures: it cannot be read until it is complete."""
    if not path.is_file():
        return
    with path.open("rb") as f:
        at = 0
        while header := f.read(8):
            kind, length = header[4:], int.from_bytes(header[:4], "big")
            if at == 0 and kind != b"ftyp":
                return
            if kind == _PICTURES:  # looked at before the length, which is 0 while the file is written
                raise SourceError(
                    str(path),
                    "this MP4 has its index at the end, so it cannot be read before it is complete. Record to .ts or "
                    ".mkv, or with -movflags +frag_keyframe+empty_moov",
                )
            if kind == _INDEX or len(header) < 8 or length < 8:
                return
            at += length
            f.seek(at)
