"""Locks: files that one thread, process or machine at a time holds, and folders that one run works in."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from violence_detection.errors import UserError
from violence_detection.system import storage

log = logging.getLogger(__name__)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
#: The lock of a folder that one run at a time works in, and who has it.
ONLY_ONE_NAME, HOLDER_NAME = ".run.lock", ".run.json"
#: Locks are held for milliseconds, while entries of a cache are merged.
_LOCK_POLL_S = 0.01


class LockTaken(Exception):
    """Somebody else holds the lock file."""


@contextlib.contextmanager
def locked(path: Path, wait: bool = True, waits_for: str = "") -> Iterator[None]:
    """Hold the lock file `path`, alone among the threads, processes and machines that share the volume.

    The system lets go of it when its holder dies. Where the volume knows no locks, a warning says what that means.
    `waits_for`: what is logged where it has to wait, for what may take minutes. Raises LockTaken if it is held and one
    is not to `wait`.
    """
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    # A file that stays is the same one for all who wait. The package's own way out where there are no locks, a file
    # whose existence is the lock, would survive its holder.
    lock = filelock.FileLock(path, blocking=wait, poll_interval=_LOCK_POLL_S, preserve_lock_file=True)
    try:
        try:
            lock.acquire(blocking=wait and not waits_for)
        except filelock.Timeout as e:
            if not wait:
                raise LockTaken(str(path)) from e
            log.info("%s", waits_for)
            lock.acquire()
    except OSError as e:
        if e.errno not in _NO_LOCKS:
            raise
        _warn_no_locks(path.parent)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` for this run alone, among all the processes and machines that share it; it is made if need be.

    `what` names the run in the message to another. Raises UserError, which says who has the folder and since when, or
    that nothing can be written there. What a run that was killed leaves of this stops nobody, and what it left there
    half written is removed.
    """
    holder = folder / HOLDER_NAME
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(folder / ONLY_ONE_NAME, wait=False))
            storage.write_json(
                holder, {"what": what, "pid": os.getpid(), "host": platform.node(), "since": since}
            )
        except LockTaken as e:
            raise UserError(
                f"{folder}: {_described(holder)} has this folder. Wait until it ends, or stop it, and run the same "
                "command again; or name another folder"
            ) from e
        except OSError as e:
            raise UserError(f"cannot write in {folder} ({e}). Mend that, or name another folder") from e
        # Before the lock is let go, so that nobody's record but our own can go.
        held.callback(holder.unlink, missing_ok=True)
        storage.remove_abandoned(folder)
        yield


def _described(holder: Path) -> str:
    """Who has a folder, as far as its record says; between lock and record there is none."""
    try:
        run = storage.read_json(holder)
        return f"{run['what']} (process {run['pid']} on {run['host']}, since {run['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


@functools.cache
def _warn_no_locks(folder: Path) -> None:
    log.warning("%s: this volume has no file locks. Let one process at a time write there", folder)
