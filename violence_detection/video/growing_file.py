"""A file that another program still writes, read as far as it goes."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import BinaryIO

from violence_detection.errors import SourceError
from violence_detection.system import processes

_LOOK_EVERY_S = 0.05
#: Boxes of an MP4 file that hold no pictures; which of these two comes first decides whether it can be read meanwhile.
_INDEX, _PICTURES = b"moov", b"mdat"


class GrowingFile:
    """What FFmpeg reads instead of a file: at its present end it waits for more.

    The file ends when it has not grown for `still_s` seconds, is shorter than what was read, or `closed` is set. It may
    not be there yet.
    """

    def __init__(self, path: Path, still_s: float, closed: threading.Event):
        self._path, self._still_s, self._closed = path, still_s, closed
        self._file: BinaryIO | None = None
        self._ended = False

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none where the file has ended."""
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
        """Whether its name has footage that is not read: another file's, or its own, written from the beginning on."""
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
        """Give the file back."""
        if self._file is not None:
            self._file.close()


def check_readable_meanwhile(path: Path) -> None:
    """Raise SourceError for an MP4 file with its index behind its pictures, which is readable when complete."""
    if not path.is_file():
        return
    with path.open("rb") as f:
        at = 0
        while header := f.read(8):
            kind, length = header[4:], int.from_bytes(header[:4], "big")
            if at == 0 and kind != b"ftyp":
                return
            if kind == _PICTURES:  # its length is 0 as long as the file is written
                raise SourceError(
                    str(path),
                    "this MP4 has its index at the end, so it can be read when it is complete and not before. Record "
                    "to .ts or .mkv, or with -movflags +frag_keyframe+empty_moov",
                )
            if kind == _INDEX or len(header) < 8 or length < 8:
                return
            at += length
            f.seek(at)
