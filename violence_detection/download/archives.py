"""Unpack untrusted archives: first read and check the whole archive, then write its files below one new folder.

`zipfile.extractall` and `tarfile.extractall` are not used. Each entry's name is turned into a safe relative path
(archive_names), only regular files and folders are written, and no link is ever created. An entry may not yield more
bytes than it declares, and all declared sizes together must be plausible for the archive's size and fit on the disk.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import io
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tarfile import EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]  # typeshed lacks the first
from typing import IO, Any, Self

from violence_detection.download.archive_names import Names, UnsafeName
from violence_detection.download.completion import OWN_NAMES, RecordedFile
from violence_detection.errors import UserError
from violence_detection.system import storage

#: Highest accepted ratio of unpacked to packed size. Video hardly compresses; Deflate can reach 1032:1.
MAX_RATIO = 200
#: The ratio is not checked up to this unpacked size: small tables may compress better.
RATIO_FREE_BYTES = 16 << 20
#: Disk space that unpacking leaves free.
DISK_RESERVE_BYTES = 256 << 20
_CHUNK_BYTES = 1 << 20
#: A zip's end record is within this many bytes of the end: 22 of its own and a comment of at most 65,535.
_ZIP_END_BYTES = 22 + 0xFFFF
_OPENERS: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"", Path.open),  # not compressed
)


class ArchiveError(UserError):
    """An archive that is not unpacked. The message names the archive, the entry if there is one, and the remedy."""


class CorruptArchive(ArchiveError):
    """The archive is cut short, has a wrong checksum, contains no files, or is not an archive at all."""


class HarmfulArchive(ArchiveError):
    """The archive would write outside its folder, create links or devices, or unpack like a decompression bomb."""


class NoSpace(ArchiveError):
    """The unpacked files need more space than the disk has free. The archive itself may be sound."""


class UnsupportedArchive(ArchiveError):
    """The archive has a format or feature that is not supported: RAR, 7z, several parts, encryption, Deflate64."""


@dataclass(frozen=True)
class Entry:
    """One regular file in an archive: its published name, its path below the target, and its declared sizes.

    In a tar, entries are not compressed one by one: `packed_bytes` equals `size_bytes`.
    """

    name: str
    path: str
    size_bytes: int
    packed_bytes: int


def kind(path: Path) -> str:
    """Recognise the archive, `zip` or `tar` (compressed or not), by its content, not by its name.

    Raises UnsupportedArchive for RAR, 7z and archives in several parts, CorruptArchive for anything else.
    """
    check_volume(path)
    with path.open("rb") as f:
        head = f.read(512)
        f.seek(max(0, path.stat().st_size - _ZIP_END_BYTES))
        is_part = head.startswith(b"PK\x07\x08") or _is_last_of_several(f.read())
    if is_part:
        raise UnsupportedArchive(
            f"{path}: one part of a zip archive in several parts. Unpack them yourself (7z x, on the part that "
            "ends in .zip) into the data set's folder below raw/ and run the same command again"
        )
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if (
        head[:2] == b"\x1f\x8b"
        or head[:3] == b"BZh"
        or head[:6] == b"\xfd7zXZ\x00"
        or head[257:262] == b"ustar"
    ):
        return "tar"
    for magic, name, tool in ((b"Rar!\x1a\x07", "RAR", "unrar x"), (b"7z\xbc\xaf\x27\x1c", "7z", "7z x")):
        if head.startswith(magic):
            raise UnsupportedArchive(
                f"{path}: {name} archives are not supported. Unpack it yourself ({tool} {path.name}) into "
                f"the data set's folder below raw/ and run the same command again"
            )
    if not head:
        raise CorruptArchive(f"{path}: the file is empty. Run the same command again to fetch a new copy")
    raise CorruptArchive(
        f"{path}: not an archive; it begins with {head[:16]!r}. If this is a web page, the source requires a "
        f"log-in; otherwise run the same command again to fetch a new copy"
    )


def check_volume(path: Path) -> None:
    """Raise UnsupportedArchive for a file named like a 7-Zip volume (`x.zip.001`), with the command that joins them."""
    if re.fullmatch(r"\.[0-9]{3}", path.suffix):
        whole = path.with_suffix("")
        raise UnsupportedArchive(
            f"{path}: one volume of an archive that 7-Zip has split. Join all volumes (cat {whole}.[0-9]* > {whole}) "
            "and run the same command again"
        )


def _is_last_of_several(tail: bytes) -> bool:
    """Whether a file ends like the last part of a split zip archive: its end record gives a part number above 0."""
    part = tail[tail.rfind(b"PK\x05\x06") :][4:6] if b"PK\x05\x06" in tail else b""
    # 0xFFFF: the number is in the Zip64 record
    return len(part) == 2 and 0 < int.from_bytes(part, "little") < 0xFFFF


def verify(
    path: Path, *, free_bytes: int | None = None, on_bytes: Callable[[int], None] = lambda n: None
) -> list[Entry]:
    """Read the whole archive without writing and check names, kinds, sizes and checksums. Returns its regular files.

    The unpacked size may be at most `free_bytes` (default: what the archive's disk has free) less DISK_RESERVE_BYTES.
    `on_bytes` is called after each entry with its packed size.
    Raises CorruptArchive, HarmfulArchive, NoSpace or UnsupportedArchive.
    """
    if free_bytes is None:
        free_bytes = shutil.disk_usage(path.parent).free
    limit_bytes = max(0, free_bytes - DISK_RESERVE_BYTES)
    entries: list[Entry] = []
    with _readable_errors(path):
        for entry, stream in _walk(path, limit_bytes):
            _drain(stream, entry, lambda chunk: None)
            entries.append(entry)
            on_bytes(entry.packed_bytes)
    if not entries:
        raise CorruptArchive(
            f"{path}: the archive contains no files. Run the same command again to fetch a new copy"
        )
    return entries


def unpack(
    path: Path,
    target: Path,
    *,
    free_bytes: int | None = None,
    on_bytes: Callable[[int], None] = lambda n: None,
) -> tuple[list[RecordedFile], dict[str, str]]:
    """Unpack into `target`, which must be empty or absent. Call `verify` first.

    Returns the files, sorted by path, and {path: published name} for those whose path differs from the published name:
    it was longer than the file system allows, equal to another's but for case, or written otherwise ("./a", "a\\b").
    `on_bytes` is called with the size of each chunk that is written. Raises the same errors as `verify`, and
    ArchiveError when the target is not empty. After an error the target is incomplete, and the caller removes it.
    """
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise ArchiveError(f"{target}: the folder is not empty; archives are unpacked only into new folders")
    free_bytes = shutil.disk_usage(target).free if free_bytes is None else free_bytes
    files: list[RecordedFile] = []
    renamed: dict[str, str] = {}
    with _readable_errors(path):
        for entry, stream in _walk(
            path, max(0, free_bytes - DISK_RESERVE_BYTES), Names.for_folder(target, OWN_NAMES)
        ):
            files.append(_write(stream, entry, target, on_bytes))
            if entry.path != entry.name:
                renamed[entry.path] = entry.name
    return sorted(files, key=lambda f: f.path), renamed


def _write(stream: IO[bytes], entry: Entry, target: Path, on_bytes: Callable[[int], None]) -> RecordedFile:
    """Write one entry to a file that must not exist yet."""
    destination = target / entry.path
    destination.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with storage.naming(destination), destination.open("xb") as f:

        def take(chunk: bytes) -> None:
            f.write(chunk)
            digest.update(chunk)
            on_bytes(len(chunk))

        size_bytes = _drain(stream, entry, take)
    return RecordedFile(entry.path, size_bytes, digest.hexdigest())


def _drain(stream: IO[bytes], entry: Entry, take: Callable[[bytes], None]) -> int:
    """Read an entry to its end and pass its chunks to `take`; never more bytes than the entry declares."""
    size_bytes = 0
    while chunk := stream.read(_CHUNK_BYTES):
        size_bytes += len(chunk)
        if size_bytes > entry.size_bytes:
            raise HarmfulArchive(
                f"entry {entry.name!r} contains more than the {entry.size_bytes:,} bytes it declares"
            )
        take(chunk)
    if size_bytes != entry.size_bytes:
        raise CorruptArchive(
            f"entry {entry.name!r} contains only {size_bytes:,} of {entry.size_bytes:,} bytes"
        )
    return size_bytes


class _Budget:
    """Adds up the sizes that entries declare and checks them against the free disk and the archive's own size."""

    def __init__(self, archive_bytes: int, limit_bytes: int):
        self.archive_bytes, self.limit_bytes = max(1, archive_bytes), limit_bytes
        self.total_bytes = 0

    def add(self, name: str, size_bytes: int, packed_bytes: int) -> None:
        self.total_bytes += size_bytes
        _check_ratio(f"entry {name!r}", size_bytes, packed_bytes)
        _check_ratio("the archive", self.total_bytes, self.archive_bytes)
        if self.total_bytes > self.limit_bytes:
            raise NoSpace(f"its files need more than the {self.limit_bytes:,} bytes available on the disk")


def _check_ratio(what: str, size_bytes: int, packed_bytes: int) -> None:
    if size_bytes > RATIO_FREE_BYTES and size_bytes > MAX_RATIO * max(1, packed_bytes):
        raise HarmfulArchive(
            f"{what} would grow from {packed_bytes:,} to {size_bytes:,} bytes (more than {MAX_RATIO}:1), like "
            f"a decompression bomb"
        )


def _walk(path: Path, limit_bytes: int, names: Names | None = None) -> Iterator[tuple[Entry, IO[bytes]]]:
    """Yield each regular file with its open stream, in the archive's order, after the checks of names and sizes."""
    names = names or Names.for_folder(path.parent)
    budget = _Budget(path.stat().st_size, limit_bytes)
    if kind(path) == "zip":
        yield from _walk_zip(path, names, budget)
    else:
        yield from _walk_tar(path, names, budget)


def _walk_zip(path: Path, names: Names, budget: _Budget) -> Iterator[tuple[Entry, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        members: list[tuple[zipfile.ZipInfo, Entry]] = []
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise HarmfulArchive(f"entry {info.filename!r} is a link or a device")
            # .NET on Windows used to write folder names this way
            ends_in_backslash = info.filename.endswith("\\") and not info.file_size
            if info.is_dir() or ends_in_backslash:
                names.folder(info.filename)
                continue
            if info.flag_bits & 0x1:
                raise UnsupportedArchive(f"entry {info.filename!r} is encrypted")
            budget.add(info.filename, info.file_size, info.compress_size)
            entry = Entry(info.filename, names.file(info.filename), info.file_size, info.compress_size)
            members.append((info, entry))
        for info, entry in members:  # only after every entry of the list has passed
            with archive.open(info) as stream:
                yield entry, stream


def _walk_tar(path: Path, names: Names, budget: _Budget) -> Iterator[tuple[Entry, IO[bytes]]]:
    with (
        _decompressed(path) as stream,
        tarfile.open(fileobj=stream, mode="r:", tarinfo=_WholeHeader) as archive,
    ):
        for member in archive:  # in order: a compressed tar has no list that could be read first
            if member.isdir():
                names.folder(member.name)
                continue
            if not member.isreg():
                raise HarmfulArchive(f"entry {member.name!r} is a link or a device")
            budget.add(member.name, member.size, budget.archive_bytes)
            entry = Entry(member.name, names.file(member.name), member.size, member.size)
            content = archive.extractfile(member)
            if content is None:
                raise CorruptArchive(f"entry {member.name!r} cannot be read")
            with content:
                yield entry, content
        _read_trailer(archive, budget)


class _WholeHeader(tarfile.TarInfo):
    """A tar member that rejects a damaged or missing header, which tarfile would take for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as e:
            if isinstance(e, EOFHeaderError):  # a block of zeros, which ends an archive
                raise
            raise ReadError(str(e)) from e


class _HeaderLimit(io.BufferedReader):
    """A reader that refuses huge headers: tarfile reads a header extension at once, whatever its size.

    File contents are not affected; they are read in chunks.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _CHUNK_BYTES:
            raise HarmfulArchive(f"a header of {size:,} bytes is far too large")
        return super().read(size)


@contextlib.contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    """Open the tar inside a .tar, .tar.gz, .tar.bz2 or .tar.xz, recognised by its first bytes."""
    with path.open("rb") as f:
        head = f.read(6)
    opener = next(opener for magic, opener in _OPENERS if head.startswith(magic))
    with opener(path, "rb") as source, _HeaderLimit(source, _CHUNK_BYTES) as stream:
        yield stream


def _read_trailer(archive: tarfile.TarFile, budget: _Budget) -> None:
    """Read on to the end of the compressed stream, where its checksum is; tarfile stops before it."""
    trailing_bytes = 0
    while archive.fileobj and (chunk := archive.fileobj.read(_CHUNK_BYTES)):
        trailing_bytes += len(chunk)
        _check_ratio("the archive", budget.total_bytes + trailing_bytes, budget.archive_bytes)


@contextlib.contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Name the archive and the remedy in every error, and turn the libraries' errors into ArchiveErrors."""
    again = _REMEDIES[CorruptArchive]
    try:
        yield
    except ArchiveError as e:
        if str(e).startswith(str(path)):
            raise
        raise type(e)(f"{path}: {e}. {_REMEDIES[type(e)]}") from e
    except UnsafeName as e:
        raise HarmfulArchive(f"{path}: {e}. {_REMEDIES[HarmfulArchive]}") from e
    except NotImplementedError as e:
        raise UnsupportedArchive(f"{path}: {e}. {_REMEDIES[UnsupportedArchive]}") from e
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as e:
        raise CorruptArchive(f"{path}: damaged ({e}). {again}") from e
    except UnicodeError as e:
        raise CorruptArchive(f"{path}: damaged file names ({e}). {again}") from e
    # damaged numbers and names that the libraries do not check, and unlimited nesting
    except (ValueError, LookupError, RecursionError) as e:
        raise CorruptArchive(f"{path}: damaged ({e}). {again}") from e
    except OSError as e:
        # without a number it is the decompressor's; EINVAL is a seek to before the file. Others are the disk's.
        if e.errno not in (None, errno.EINVAL):
            raise
        raise CorruptArchive(f"{path}: damaged ({e}). {again}") from e


_REMEDIES: dict[type[ArchiveError], str] = {
    CorruptArchive: "It must be fetched again: run the same command again",
    HarmfulArchive: "It was not unpacked. Ask the publisher for a sound archive, or delete this one to fetch it again",
    NoSpace: "Free some space, or choose another disk with --data-root, and run the same command again",
    UnsupportedArchive: "Unpack it yourself (7z x) into the data set's folder below raw/, then run the command again",
}
