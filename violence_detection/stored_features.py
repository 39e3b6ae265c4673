"""Features that stay on disk while they are trained on: a batch is read from where it lies in the cache.

An entry of the cache is an uncompressed zip, so a variant is a run of bytes with a CRC-32 of its own. Where it begins
is looked up once per clip; after that a variant costs one open, one read and one checksum. Nothing is copied to another
place on the disk, and memory does not depend on the size of the cache.
"""

from __future__ import annotations

import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from violence_detection.errors import UserError
from violence_detection.features import FeatureStore

#: Threads that read side by side. Network volumes answer slowly and many at once; a local disk needs fewer.
_READERS = 8
_LOCAL_HEADER = struct.Struct("<26x2H")  # lengths of name and extra field of a zip member
_restoring = threading.Lock()
_DAMAGE = (zipfile.BadZipFile, struct.error, ValueError, OSError, EOFError, KeyError)


class _Place(NamedTuple):
    """Where a variant lies in its entry: the zip member's bytes, and its values `header` bytes further on."""

    offset: int
    size: int
    header: int
    crc: int


class StoredFeatures:
    """Variants of clips in a store, read like an array (N, V, T, C) float16. Several threads may read.

    An entry found missing or damaged is made again by the store; UserError names it where the store cannot.
    """

    def __init__(self, store: FeatureStore, clip_ids: Sequence[str], variants: Sequence[str]):
        self.store, self.clip_ids, self.variants = store, list(clip_ids), list(variants)
        self._places: list[dict[str, _Place] | None] = [None] * len(self.clip_ids)

    @cached_property
    def _step(self) -> tuple[int, int]:
        first = self.store.read(self.clip_ids[0], self.variants[:1])  # (1, T, C)
        return first.shape[1], first.shape[2]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.clip_ids), len(self.variants), *self._step)

    def take(self, clips: np.ndarray, axis: int = 0) -> StoredFeatures:
        """The same features of some of the clips; nothing is read."""
        assert axis == 0
        return StoredFeatures(self.store, [self.clip_ids[i] for i in clips], self.variants)

    def gather(self, clips: np.ndarray, variants: np.ndarray) -> np.ndarray:
        """One variant of each clip, both given by number: (n, T, C) float16."""
        out = np.empty((len(clips), *self._step), np.float16)
        list(_readers().map(self._read, clips.tolist(), variants.tolist(), out))
        return out

    def _read(self, clip: int, variant: int, out: np.ndarray) -> None:
        """Read a variant into `out` (T, C). An entry that was replaced since it was looked up is looked up again."""
        path, name = self.store.path(self.clip_ids[clip]), self.variants[variant]
        try:
            known = self._places[clip]
            if known is not None and _copy_member(path, known[name], out):
                return
            self._look_up(clip, path, name, out)
        except _DAMAGE:
            with _restoring:  # one at a time; whoever waited may find it done
                self._restore(clip, path, name, out)

    def _look_up(self, clip: int, path: Path, name: str, out: np.ndarray) -> None:
        self._places[clip] = found = _places(path, self.variants)
        if not _copy_member(path, found[name], out):
            raise ValueError(f"{name} fails its checksum")

    def _restore(self, clip: int, path: Path, name: str, out: np.ndarray) -> None:
        """Have the entry made again unless it is whole by now, and read it."""
        try:
            return self._look_up(clip, path, name, out)
        except _DAMAGE as e:
            self.store.restore(self.clip_ids[clip], e)
        try:
            self._look_up(clip, path, name, out)
        except _DAMAGE as e:
            raise UserError(f"{path} was made again and is damaged again ({e}). Check the disk") from e


@cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_READERS, thread_name_prefix="features")


def _copy_member(path: Path, place: _Place, out: np.ndarray) -> bool:
    """Copy a variant's values to `out`; False if the bytes there are not those that the entry's directory promised."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        data = os.pread(fd, place.size, place.offset)
    finally:
        os.close(fd)
    if len(data) != place.size or zlib.crc32(data) != place.crc:
        return False
    out[...] = np.frombuffer(data, np.float16, offset=place.header).reshape(out.shape)
    return True


def _places(path: Path, variants: Sequence[str]) -> dict[str, _Place]:
    """Where the variants of an entry lie."""
    found = {}
    with path.open("rb") as f, zipfile.ZipFile(f) as archive:
        for variant in variants:
            member = archive.getinfo(f"{variant}.npy")
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{variant} is compressed")
            f.seek(member.header_offset)
            name_bytes, extra_bytes = _LOCAL_HEADER.unpack(f.read(_LOCAL_HEADER.size))
            offset = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
            f.seek(offset)
            np.lib.format.read_magic(f)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(f)
            if dtype != np.float16 or fortran or len(shape) != 2:
                raise ValueError(f"{variant} is {dtype} {shape}, not (T, C) float16")
            found[variant] = _Place(offset, member.file_size, f.tell() - offset, member.CRC)
    return found
