"""Locks: files that one thread, process or machine holds at a time, and folders in which one run works at a time."""

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
#: Error numbers of a volume that does not support file locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
#: The lock file in a folder in which one run works at a time.
ONLY_ONE_NAME = ".run.lock"
#: The file beside it that says which run holds the lock.
HOLDER_NAME = ".run.json"
#: How often a waiting lock tries again; short, because most locks (merging a cache's entries) last milliseconds.
_LOCK_POLL_S = 0.01


class LockTaken(Exception):
    """Somebody else holds the lock file."""


@contextlib.contextmanager
def locked(path: Path, wait: bool = True, waits_for: str = "") -> Iterator[None]:
    """Hold the lock file `path` exclusively among all threads, processes and machines that share the volume.

    The system releases the lock if its holder dies. On a volume without file locks, the code runs unlocked after a
    warning. `waits_for`: a message to log before waiting, for a wait that may take minutes. Raises LockTaken if `wait`
    is false and somebody else holds the lock.
    """
    import filelock

    path.parent.mkdir(parents=True, exist_ok=True)
    # preserve_lock_file: everybody who waits must wait on the same file. It also disables filelock's fallback for
    # volumes without locks, a file whose existence is the lock: that would outlive a holder that was killed.
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
    """Reserve `folder` for this run among all processes and machines that share it; it is created if needed.

    `what` names this run in the error that another run gets. Raises UserError if another run works in the folder,
    naming that run and when it began, or if the folder cannot be written to. A killed run's lock blocks nobody, and its
    temporary files in the folder are removed.
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
                f"{folder}: {_described(holder)} is working in this folder. Wait until it ends, or stop it, and run "
                "the same command again; or name another folder"
            ) from e
        except OSError as e:
            raise UserError(f"cannot write in {folder} ({e}). Fix that, or name another folder") from e
        # The record is removed before the lock is released, so it cannot be the next holder's.
        held.callback(holder.unlink, missing_ok=True)
        storage.remove_abandoned(folder)
        yield


def _described(holder: Path) -> str:
    """The run that holds a folder, from its record; "another run" if there is none yet or it cannot be read."""
    try:
        run = storage.read_json(holder)
        return f"{run['what']} (process {run['pid']} on {run['host']}, since {run['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


@functools.cache
def _warn_no_locks(folder: Path) -> None:
    log.warning(
        "%s: this volume does not support file locks. Let only one process at a time write there", folder
    )
