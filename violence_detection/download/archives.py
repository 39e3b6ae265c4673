"""Unpack archives from strangers: read through, judged as a whole, then written below one new folder.

`zipfile.extractall` and `tarfile.extractall` are not used. Each entry's name is made into a relative path
here, only regular files and folders are written, no link is ever made, and the amount of data is limited by
what the archive declares, by what really comes out, and by the free disk.
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

#: Video hardly compresses; Deflate cannot exceed 1032:1. Small entries may (an empty list, a table of zeros).
MAX_RATIO = 200
RATIO_FREE_BYTES = 16 << 20
#: Left free when the limit is the disk.
DISK_RESERVE_BYTES = 256 << 20
_CHUNK_BYTES = 1 << 20
_ZIP_END_BYTES = 22 + 0xFFFF  # where a zip's list ends, and the longest remark behind it
_OPENERS: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"", Path.open),  # not compressed
)


class ArchiveError(UserError):
    """An archive that will not be unpacked; the message names it, the entry and the remedy."""


class CorruptArchive(ArchiveError):
    """Cut short, a wrong checksum, or no archive at all."""


class HarmfulArchive(ArchiveError):
    """It would write outside its folder, make links or devices, or fill the disk."""


class NoSpace(ArchiveError):
    """Unpacked it takes more than the disk has free; the archive itself may be fine."""


class UnsupportedArchive(ArchiveError):
    """A kind or feature Python cannot read (RAR, 7z, several parts, encryption, Deflate64)."""


@dataclass(frozen=True)
class Entry:
    """One regular file in an archive: its published name, its path below the target, its declared size."""

    name: str
    path: str
    size_bytes: int
    packed_bytes: int


def kind(path: Path) -> str:
    """`zip` or `tar`, from the first bytes, not from the name.

    Raises UnsupportedArchive for RAR, 7z and parts of an archive, CorruptArchive for anything else.
    """
    check_volume(path)
    with path.open("rb") as f:
        head = f.read(512)
        f.seek(max(0, path.stat().st_size - _ZIP_END_BYTES))
        is_part = head.startswith(b"PK\x07\x08") or _is_last_of_several(f.read())
    if is_part:
        raise UnsupportedArchive(
            f"{path}: one part of a zip archive in several. Unpack all of them yourself (7z x, on the one that "
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
                f"{path}: {name} archives cannot be read here. Unpack it yourself ({tool} {path.name}) into "
                f"the data set's folder below raw/ and run the same command again"
            )
    if not head:
        raise CorruptArchive(f"{path}: the file is empty. Run the same command again to fetch it anew")
    raise CorruptArchive(
        f"{path}: no archive; it begins with {head[:16]!r}. If this is a web page, the source wants a "
        f"log-in; otherwise run the same command again to fetch it anew"
    )


def check_volume(path: Path) -> None:
    """Raise UnsupportedArchive, with what joins them, for a file that is named as 7-Zip's volumes are, `x.zip.001`."""
    if re.fullmatch(r"\.[0-9]{3}", path.suffix):
        whole = path.with_suffix("")
        raise UnsupportedArchive(
            f"{path}: one of 7-Zip's volumes. Join all of them (cat {whole}.[0-9]* > {whole}) and run the same command "
            "again"
        )


def _is_last_of_several(tail: bytes) -> bool:
    """Whether the end of a file is that of the last part of a zip archive: its list says which part it stands in."""
    part = tail[tail.rfind(b"PK\x05\x06") :][4:6] if b"PK\x05\x06" in tail else b""
    return len(part) == 2 and 0 < int.from_bytes(part, "little") < 0xFFFF  # all ones: said in the 64-bit list


def verify(
    path: Path, *, free_bytes: int | None = None, on_bytes: Callable[[int], None] = lambda n: None
) -> list[Entry]:
    """Read the archive through without writing: names, kinds, sizes, checksums. Returns its regular files.

    `free_bytes` limits the unpacked size (default: what the archive's disk has free, less a reserve);
    `on_bytes` is told how many bytes of the archive have been read.
    Raises CorruptArchive, HarmfulArchive or UnsupportedArchive.
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
            f"{path}: the archive holds no files. Run the same command again to fetch it anew"
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

    Returns the files, sorted by path, and {path: published name} for those that had to be renamed (longer
    than the file system allows, or differing from another only in case). Raises as `verify`; the target is
    then partial and the caller's to remove.
    """
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise ArchiveError(f"{target}: not empty; archives are unpacked into new folders only")
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
    """Read an entry to its end; never takes more than it declared, whatever the stream holds."""
    size_bytes = 0
    while chunk := stream.read(_CHUNK_BYTES):
        size_bytes += len(chunk)
        if size_bytes > entry.size_bytes:
            raise HarmfulArchive(
                f"entry {entry.name!r} holds more than the {entry.size_bytes:,} bytes it declares"
            )
        take(chunk)
    if size_bytes != entry.size_bytes:
        raise CorruptArchive(f"entry {entry.name!r} holds {size_bytes:,} of {entry.size_bytes:,} bytes")
    return size_bytes


class _Budget:
    """Counts what entries declare, against the disk and the archive's own size."""

    def __init__(self, archive_bytes: int, limit_bytes: int):
        self.archive_bytes, self.limit_bytes = max(1, archive_bytes), limit_bytes
        self.total_bytes = 0

    def add(self, name: str, size_bytes: int, packed_bytes: int) -> None:
        self.total_bytes += size_bytes
        _check_ratio(f"entry {name!r}", size_bytes, packed_bytes)
        _check_ratio("the archive", self.total_bytes, self.archive_bytes)
        if self.total_bytes > self.limit_bytes:
            raise NoSpace(f"unpacked it takes more than the {self.limit_bytes:,} bytes the disk can give")


def _check_ratio(what: str, size_bytes: int, packed_bytes: int) -> None:
    if size_bytes > RATIO_FREE_BYTES and size_bytes > MAX_RATIO * max(1, packed_bytes):
        raise HarmfulArchive(
            f"{what} would grow from {packed_bytes:,} to {size_bytes:,} bytes (more than {MAX_RATIO}:1), as "
            f"a decompression bomb does"
        )


def _walk(path: Path, limit_bytes: int, names: Names | None = None) -> Iterator[tuple[Entry, IO[bytes]]]:
    """Each regular file with its open stream, in the archive's order, after all checks that need no
    reading."""
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
            # .NET on Windows wrote the names of folders so
            ends_in_backslash = info.filename.endswith("\\") and not info.file_size
            if info.is_dir() or ends_in_backslash:
                names.folder(info.filename)
                continue
            if info.flag_bits & 0x1:
                raise UnsupportedArchive(f"entry {info.filename!r} is encrypted")
            budget.add(info.filename, info.file_size, info.compress_size)
            entry = Entry(info.filename, names.file(info.filename), info.file_size, info.compress_size)
            members.append((info, entry))
        for info, entry in members:  # only now, when the whole list has been judged
            with archive.open(info) as stream:
                yield entry, stream


def _walk_tar(path: Path, names: Names, budget: _Budget) -> Iterator[tuple[Entry, IO[bytes]]]:
    with (
        _decompressed(path) as stream,
        tarfile.open(fileobj=stream, mode="r:", tarinfo=_WholeHeader) as archive,
    ):
        for member in archive:  # streaming: a compressed tar has no list to read ahead
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
    """A member whose header must be whole: tarfile takes a damaged or missing one for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as e:
            if isinstance(e, EOFHeaderError):  # a block of zeros, which ends an archive
                raise
            raise ReadError(str(e)) from e


class _HeaderLimit(io.BufferedReader):
    """tarfile reads a header's extension at one go, whatever its size; contents are read in our own chunks."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _CHUNK_BYTES:
            raise HarmfulArchive(f"a header of {size:,} bytes")
        return super().read(size)


@contextlib.contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    """The tar inside a .tar, .tar.gz, .tar.bz2 or .tar.xz, recognised by the first bytes."""
    with path.open("rb") as f:
        head = f.read(6)
    opener = next(opener for magic, opener in _OPENERS if head.startswith(magic))
    with opener(path, "rb") as source, _HeaderLimit(source, _CHUNK_BYTES) as stream:
        yield stream


def _read_trailer(archive: tarfile.TarFile, budget: _Budget) -> None:
    """Read on to the end of the compressed stream: tarfile stops before it, and its checksum stands there."""
    trailing_bytes = 0
    while archive.fileobj and (chunk := archive.fileobj.read(_CHUNK_BYTES)):
        trailing_bytes += len(chunk)
        _check_ratio("the archive", budget.total_bytes + trailing_bytes, budget.archive_bytes)


@contextlib.contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Name the archive in every error, and turn the libraries' errors into ours."""
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
        raise CorruptArchive(f"{path}: damaged names ({e}). {again}") from e
    # numbers and names that the libraries take as they stand, and what stands in each other without end
    except (ValueError, LookupError, RecursionError) as e:
        raise CorruptArchive(f"{path}: damaged ({e}). {again}") from e
    except OSError as e:
        # the disk's; neither the decompressor's nor a place before the file
        if e.errno not in (None, errno.EINVAL):
            raise
        raise CorruptArchive(f"{path}: damaged ({e}). {again}") from e


_REMEDIES: dict[type[ArchiveError], str] = {
    CorruptArchive: "It must be fetched anew: run the same command again",
    HarmfulArchive: "It was not unpacked. Ask the publisher for a clean one; delete it to fetch it anew",
    NoSpace: "Free some space, or choose another disk with --data-root, and run the same command again",
    UnsupportedArchive: "Unpack it yourself (7z x) into the data set's folder below raw/ and run again",
}
