"""Features that stay on disk during training: each batch is read directly from the cache.

An entry of the cache is an uncompressed zip, so a variant is a run of bytes with a CRC-32 of its own. Where it begins
is looked up once per clip; after that, reading a variant costs one open, one read and one checksum. Nothing is copied
on the disk, and memory holds no values, only the position of each variant (about 150 bytes each).

One thread reads a batch. It first asks the kernel for many variants at once, which the disk then fetches in parallel,
and reads them one after another. Several reading threads would spend most of their time passing Python's global lock to
each other, and would take it from the training.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from isal.isal_zlib import crc32  # the checksum of zips, twenty times as fast as zlib's

from violence_detection.errors import UserError
from violence_detection.features.cache import READING_HEADERS, FeatureStore

#: Variants that the kernel is asked for before the first is read. Each is an open file meanwhile.
_ASKED_AT_ONCE = 64
_LOCAL_HEADER = struct.Struct("<26x2H")  # lengths of name and extra field of a zip member
_restoring = threading.Lock()
_DAMAGE = (zipfile.BadZipFile, struct.error, ValueError, OSError, EOFError, KeyError)


class _Member(NamedTuple):
    """Where a variant is in its entry: the bytes of the zip member, of which the first `header` precede its values."""

    offset: int
    size: int
    header: int
    crc: int


class StoredFeatures:
    """Variants of clips in a store, read like an array (N, V, T, C) float16. Several threads may read.

    An entry found missing or damaged is extracted again by the store; if the store cannot, UserError names the entry.
    """

    def __init__(self, store: FeatureStore, clip_ids: Sequence[str], variants: Sequence[str]):
        self.store, self.clip_ids, self.variants = store, list(clip_ids), list(variants)
        self._members: list[dict[str, _Member] | None] = [None] * len(self.clip_ids)

    @cached_property
    def _step(self) -> tuple[int, int]:
        first = self.store.read(self.clip_ids[0], self.variants[:1])  # (1, T, C)
        return first.shape[1], first.shape[2]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.clip_ids), len(self.variants), *self._step)

    def take(self, clips: np.ndarray, axis: int = 0) -> StoredFeatures:
        """The same for the clips with these numbers only. Reads nothing."""
        assert axis == 0
        return StoredFeatures(self.store, [self.clip_ids[i] for i in clips], self.variants)

    def gather(self, clips: np.ndarray, variants: np.ndarray) -> np.ndarray:
        """Read one variant of each clip, both given by number: (n, T, C) float16, all finite.

        Raises UserError, naming the entry, if a value is not finite, or a damaged entry cannot be extracted again.
        """
        out = np.empty((len(clips), *self._step), np.float16)
        wanted = list(zip(clips.tolist(), variants.tolist(), out, strict=True))
        for start in range(0, len(wanted), _ASKED_AT_ONCE):
            self._read_some(wanted[start : start + _ASKED_AT_ONCE])
        self._check_finite(clips, variants, out)
        return out

    def _check_finite(self, clips: np.ndarray, variants: np.ndarray, values: np.ndarray) -> None:
        """Raise UserError, naming the entry, if a value is not finite: training would learn nothing from it."""
        finite = np.isfinite(values).all(axis=(1, 2))
        if not finite.all():
            i = int(np.argmin(finite))
            raise UserError(
                f"{self.store.path(self.clip_ids[clips[i]])} contains features that are not finite (nan or infinite), "
                f"in {self.variants[variants[i]]}. Remove the file and run the same command again, which makes it again"
            )

    def _read_some(self, wanted: Sequence[tuple[int, int, np.ndarray]]) -> None:
        """Read each (clip, variant, array): the variant's values into the array, (T, C) float16."""
        asked: list[tuple[int, _Member] | None] = []
        try:
            for clip, variant, _ in wanted:
                asked.append(self._ask(clip, self.variants[variant]))
            for (clip, variant, out), file in zip(wanted, asked, strict=True):
                if file is None or not _copy_member(*file, out):  # position not known yet, or out of date
                    self._read(clip, variant, out)
        finally:
            for file in asked:
                if file is not None:
                    os.close(file[0])

    def _ask(self, clip: int, name: str) -> tuple[int, _Member] | None:
        """Open the entry and ask the kernel to fetch the variant; returns the open file and the variant's position.

        None if the position is not known yet, or the file cannot be opened.
        """
        known = self._members[clip]
        if known is None:
            return None
        try:
            fd = os.open(self.store.path(self.clip_ids[clip]), os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return None
        member = known[name]
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # not every file system accepts advice
                os.posix_fadvise(fd, member.offset, member.size, os.POSIX_FADV_WILLNEED)
        return fd, member

    def _read(self, clip: int, variant: int, out: np.ndarray) -> None:
        """Look up a variant's position and read it into `out` (T, C). A damaged entry is extracted again."""
        path, name = self.store.path(self.clip_ids[clip]), self.variants[variant]
        try:
            self._look_up(clip, path, name, out)
        except _DAMAGE:
            with _restoring:  # one thread at a time; the others may then find the entry whole
                self._restore(clip, path, name, out)

    def _look_up(self, clip: int, path: Path, name: str, out: np.ndarray) -> None:
        self._members[clip] = None
        found = _locate_members(path, self.variants)
        with path.open("rb", buffering=0) as f:
            if not _copy_member(f.fileno(), found[name], out):
                raise ValueError(f"{name} fails its checksum")
        self._members[clip] = found

    def _restore(self, clip: int, path: Path, name: str, out: np.ndarray) -> None:
        """Read the variant; if the entry is still damaged, have it extracted again first."""
        try:
            return self._look_up(clip, path, name, out)
        except _DAMAGE as e:
            self.store.restore(self.clip_ids[clip], e)
        try:
            self._look_up(clip, path, name, out)
        except _DAMAGE as e:
            raise UserError(f"{path} was extracted again and is damaged again ({e}). Check the disk") from e


def _copy_member(fd: int, member: _Member, out: np.ndarray) -> bool:
    """Read a variant's values into `out`; False if the bytes do not match the size and checksum in `member`."""
    header, values = bytearray(member.header), out.data.cast("B")
    if member.header + len(values) != member.size:
        return False
    try:
        count = os.preadv(fd, [header, values], member.offset)
    except OSError:
        return False
    return count == member.size and crc32(values, crc32(header)) == member.crc


def _locate_members(path: Path, variants: Sequence[str]) -> dict[str, _Member]:
    """The positions of an entry's variants. Raises an error of _DAMAGE if they are not uncompressed (T, C) float16."""
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
            with READING_HEADERS:
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(f)
            if dtype != np.float16 or fortran or len(shape) != 2:
                raise ValueError(f"{variant} is {dtype} {shape}, not (T, C) float16")
            found[variant] = _Member(offset, member.file_size, f.tell() - offset, member.CRC)
    return found
