"""Disks: the room on them, whether they take what is written, and what to tell of one that does not."""

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

#: Room left on the disk beside what the data needs.
RESERVE_BYTES = 1 << 30
#: What a disk says that takes nothing, and the remedy.
_FULL = "Free some space there, or name a folder on another disk; the same command then goes on"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "Mount it so that it can be written, or name another folder",
    errno.EACCES: "Give this user the right to it (chmod, chown), or name another",
    errno.EPERM: "Give this user the right to it (chmod, chown), or name another",
}
_PATH = re.compile(r"(?<![\w.])/[^\s'\":;,]+")
#: What FAT and exFAT take in no name.
_NOT_ON_FAT = re.compile(r'[\x01-\x1f"*:<>?\\|]')
#: Free bytes of a disk that counts as full where nobody says which one it was.
_FULL_BELOW_BYTES = 1 << 20
_CHECKED_BYTES = 1 << 20


def free_bytes_of(path: Path) -> int:
    """Bytes the user may still write on the disk that holds `path`, which need not exist yet."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def size_bytes(folder: Path) -> int:
    """What the files below a folder hold, but for those that go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def gigabytes(size_bytes: float) -> str:
    """`12.0 GB`, or MB below one."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def temporary_folder() -> Path:
    """The folder for temporary files, also where none can be written to: what is asked for may need none."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path("/tmp")


def check_writable(folder: Path, flag: str = "") -> None:
    """Make `folder` if need be and write to it, before the work begins whose result is to be there.

    What a run that was killed has left there half written is removed. Raises UserError, naming the folder and the
    `flag` that takes another, if it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage.remove_abandoned(folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".check.{storage.writer()}.tmp.") as f:
            f.write(bytes(_CHECKED_BYTES))
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        remedy = _REMEDIES.get(e.errno or 0, "Mend that, or name another folder")
        raise UserError(
            f"cannot write in {folder} ({e.strerror or e}). {remedy}{flag and f' ({flag})'}"
        ) from e


def check_can_write(folder: Path, flag: str = "") -> None:
    """As check_writable, but no folder is left that was not there: the run may yet be refused."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        check_writable(folder, flag)
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it could not be made, or another run writes there by now
                path.rmdir()


def check_takes_names(
    folder: Path, names: Iterable[str], flag: str, or_else: str = "rename the video"
) -> None:
    """Try whether the disk of `folder`, which need not exist yet, takes the characters of these names of files.

    To be asked before the work begins whose result is to be called so. Raises UserError, naming folder, name and the
    `flag` that takes another folder, if it does not. `or_else`: how they get other names.
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
                f"{flag}: the disk of {folder} takes no file called {odd[characters]} ({e.strerror or e}). FAT and "
                'exFAT, for one, have none of \\ : * ? " < > | in a name. Name a folder on another disk, or '
                + or_else
            ) from e


def disk_trouble(error: BaseException) -> str | None:
    """What to tell the user of an error that says, or comes of one that says, that a disk takes nothing or a file is
    not this user's; None for every other.

    Writers of other packages raise errors of their own; these count by the system's text in them.
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
    where = names[0] if names else ", ".join(_full_disks()) or "a folder that is written to"
    return f"{where}: {os.strerror(code)}. {_REMEDIES[code]}"


def _disk_code(error: BaseException) -> int | None:
    """The number of the error if it says that a disk takes nothing."""
    if isinstance(error, OSError) and error.errno in storage.TAKES_NOTHING:
        return error.errno
    return next((code for code in storage.TAKES_NOTHING if os.strerror(code) in str(error)), None)


def _named_in(error: BaseException, code: int) -> Path | None:
    """The folder that an error with this number speaks of, or for want of a right the file."""
    if isinstance(error, OSError) and error.filename is not None:
        named = error.filename2 or error.filename
    elif _disk_code(error) == code and (written := _PATH.search(str(error))):
        named = written[0]
    else:
        return None
    where = Path(os.fsdecode(named)).absolute()
    return where.parent if code in storage.TAKES_NOTHING and not where.is_dir() else where


def _full_disks() -> list[str]:
    """Where disks are mounted that have no room left."""
    full = []
    for disk in psutil.disk_partitions(all=True):
        with contextlib.suppress(OSError):
            room = shutil.disk_usage(disk.mountpoint)
            if "rw" in disk.opts.split(",") and room.total and room.free < _FULL_BELOW_BYTES:
                full.append(disk.mountpoint)
    return sorted(set(full))
