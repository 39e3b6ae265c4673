"""Disks: free space, checks that a folder can be written, and messages for a disk that cannot."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import psutil

from violence_detection.errors import UserError
from violence_detection.system import storage

#: Space to leave free on a disk in addition to what the data needs.
RESERVE_BYTES = 1 << 30
_FULL = (
    "Free some space there and run the same command again (it continues where it stopped), or name a folder on "
    "another disk"
)
#: Error numbers of a file or folder that cannot be written, with what the user can do.
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "Mount it writable, or name another folder",
    errno.EACCES: "Give this user permission to use it (chmod, chown), or name another",
    errno.EPERM: "Give this user permission to use it (chmod, chown), or name another",
}
#: An absolute path in the text of an error message.
_PATH = re.compile(r"(?<![\w.])/[^\s'\":;,]+")
#: Characters that FAT and exFAT do not allow in a file name.
_NOT_ON_FAT = re.compile(r'[\x01-\x1f"*:<>?\\|]')
#: A disk with fewer free bytes counts as full when an error does not say which disk is.
_FULL_BELOW_BYTES = 1 << 20
#: Size of the file that `check_writable` writes to try a disk.
_CHECKED_BYTES = 1 << 20


def free_bytes_of(path: Path) -> int:
    """Bytes that this user may still write to the disk of `path`, which need not exist yet."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def size_bytes(folder: Path) -> int:
    """Total size of all files below a folder; files that disappear while it is read are skipped."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def gigabytes(size_bytes: float) -> str:
    """The size as text: `12.0 GB`, or in MB below one gigabyte (10^9 bytes)."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def temporary_folder() -> Path:
    """The folder for temporary files; `/tmp` if none can be written to, since not every caller writes to it."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path("/tmp")


def check_writable(folder: Path, flag: str = "") -> None:
    """Create `folder` if needed and write a test file to it; to be called before the work whose result goes there.

    Also removes temporary files that killed runs left there. Raises UserError, naming the folder and the `flag` that
    sets it, if it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage.remove_abandoned(folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".check.{storage.writer()}.tmp.") as f:
            f.write(bytes(_CHECKED_BYTES))
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        remedy = _REMEDIES.get(e.errno or 0, "Fix that, or name another folder")
        raise UserError(
            f"cannot write in {folder} ({e.strerror or e}). {remedy}{flag and f' ({flag})'}"
        ) from e


def check_can_write(folder: Path, flag: str = "") -> None:
    """Like `check_writable`, but removes the folders that it created, because the run may still be refused."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        check_writable(folder, flag)
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it could not be created, or another run already writes there
                path.rmdir()


def check_takes_names(
    folder: Path, names: Iterable[str], flag: str, or_else: str = "rename the video"
) -> None:
    """Check that the disk of `folder`, which need not exist yet, accepts the characters in these file names.

    To be called before the work whose results get these names. Raises UserError, naming the folder, the file name and
    the `flag` that sets the folder, if it does not. `or_else`: how the user can get other names, for the message.
    """
    there = folder
    while not there.exists():
        there = there.parent
    odd = {"".join(sorted(set(_NOT_ON_FAT.findall(name)))): name for name in names}
    for characters in filter(None, odd):
        try:
            tempfile.NamedTemporaryFile(
                dir=there, prefix=f".check.{storage.writer()}.tmp.", suffix=characters
            ).close()
        except OSError as e:
            if remedy := _REMEDIES.get(e.errno or 0):
                raise UserError(f"cannot write in {there} ({e.strerror}). {remedy} ({flag})") from e
            raise UserError(
                f"{flag}: the disk of {folder} does not accept a file named {odd[characters]} ({e.strerror or e}). "
                'FAT and exFAT, for example, do not allow \\ : * ? " < > | in a name. Name a folder on another '
                "disk, or " + or_else
            ) from e


def disk_trouble(error: BaseException) -> str | None:
    """The message for the user if a disk that cannot be written, or a missing permission, caused the error; else None.

    Causes and contexts of the error count too. Errors of other packages are recognised by the text that the system has
    for a full, read-only or over-quota disk.
    """
    code = _disk_code(error)
    if code is None and isinstance(error, OSError) and error.errno in _REMEDIES and error.filename:
        code = error.errno
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    code = code or next(filter(None, map(_disk_code, chain)), None)
    if code is None:
        return None
    names = [name for e in chain if (name := _named_in(e, code))]
    where = names[0] if names else ", ".join(_full_disks()) or "a folder that this run writes to"
    return f"{where}: {os.strerror(code)}. {_REMEDIES[code]}"


def _disk_code(error: BaseException) -> int | None:
    """The errno if the error says that a disk is full, over quota or read-only; else None."""
    if isinstance(error, OSError) and error.errno in storage.TAKES_NOTHING:
        return error.errno
    return next((code for code in storage.TAKES_NOTHING if os.strerror(code) in str(error)), None)


def _named_in(error: BaseException, code: int) -> Path | None:
    """The path that an error with this errno names: the file, or its folder if the disk cannot be written."""
    if isinstance(error, OSError) and error.filename is not None:
        named = error.filename2 or error.filename
    elif _disk_code(error) == code and (written := _PATH.search(str(error))):
        named = written[0]
    else:
        return None
    where = Path(os.fsdecode(named)).absolute()
    return where.parent if code in storage.TAKES_NOTHING and not where.is_dir() else where


def _full_disks() -> list[str]:
    """Mount points of the writable disks that are full."""
    full = []
    for disk in psutil.disk_partitions(all=True):
        with contextlib.suppress(OSError):
            room = shutil.disk_usage(disk.mountpoint)
            if "rw" in disk.opts.split(",") and room.total and room.free < _FULL_BELOW_BYTES:
                full.append(disk.mountpoint)
    return sorted(set(full))
