"""Work spread over the processes and machines of a Ray cluster. Work of a worker or machine that dies is repeated.

Ray is optional: `pip install "ray>=2.40,<3"`. An address is `local` (only this machine, with a Ray instance that starts
and stops with the work), `auto` (the cluster that this machine has joined with `ray start`) or HOST:PORT (the head of
that cluster, which this machine must have joined). Every machine needs the same Python, the same packages and the same
data root: a shared volume mounted at the same path. This package itself is sent along: workers run this code, not the
version that is installed there.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import os
import platform
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from violence_detection.errors import UserError
from violence_detection.system import disks

log = logging.getLogger(__name__)

#: How many times an item is tried if its worker dies; after that, the item is taken for the cause.
ATTEMPTS = 4
#: Packages whose version may change the results.
_DECIDING = ("numpy", "opencv-python-headless", "av", "openvino", "tensorflow", "keras")
#: The name of this package.
_PACKAGE = __name__.partition(".")[0]
_INSTALL = "pip install -r requirements.txt"
#: After this long without a result, check whether the cluster still has a machine that is big enough.
_LOOK_AGAIN_S = 300.0
#: How long the head of a cluster may take to answer. Ray itself would try for minutes.
_ANSWERS_WITHIN_S = 10.0
#: Opens a connection to Ray's head, which speaks HTTP/2: the connection preface and an empty SETTINGS frame.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
#: The type of the first frame in an HTTP/2 server's answer.
_SETTINGS = 4
#: The position of the type byte in a frame.
_KIND_AT = 3


@contextlib.contextmanager
def connected(address: str) -> Iterator[Mapping[str, float]]:
    """Connect to the cluster at `address`, or use the connection that exists; yields its resources (CPU, GPU).

    Raises UserError if Ray is not installed, the address is invalid, or no cluster answers there.
    """
    ray = _ray()
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    _check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Workers' output stays in Ray's log files, because stdout is reserved for the summary.
    settings: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.WARNING}
    if address == "local":
        settings["include_dashboard"] = False
    else:
        settings["runtime_env"] = {"py_modules": [str(Path(__file__).parents[1])]}
    try:
        if ":" in address:
            _see_that_it_answers(*address.rsplit(":", 1))
        ray.init(**settings)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as e:
        raise UserError(f"--ray {address}: {_why_not(address, e)}") from e
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    if address in ("local", "auto"):
        return
    found = re.fullmatch(r"[^\s:/]+:(\d+)", address)
    if not (found and 0 < int(found[1]) < 1 << 16):
        raise UserError(f"--ray takes local, auto or HOST:PORT. Received: {address!r}")


def _see_that_it_answers(host: str, port: str) -> None:
    """Raise OSError if nothing answers there, or something that is not the head of a Ray cluster."""
    with socket.create_connection((host, int(port)), timeout=_ANSWERS_WITHIN_S) as link:
        if os.environ.get("RAY_USE_TLS", "0") != "0":  # such a head answers only after a TLS handshake
            return
        link.sendall(_HELLO)
        frame = b""
        while len(frame) <= _KIND_AT and (more := link.recv(_KIND_AT + 1 - len(frame))):
            frame += more
    if frame[_KIND_AT:] != bytes([_SETTINGS]):
        raise OSError(
            "what answers there is not the head of a Ray cluster, whose port is 6379 unless it was started with another"
        )


def _why_not(address: str, error: Exception) -> str:
    """The error message if Ray cannot start, or the cluster cannot be joined."""
    reason = " ".join(str(getattr(error, "message", error)).split())
    if address == "local":
        return f"Ray cannot start on this machine ({reason})"
    return (
        f"cannot join the cluster ({reason}). Start it with `ray start --head` on one machine and `ray start "
        "--address=HOST:6379` on each of the others, this one included, with the same versions of Python and Ray, and "
        "the same token if it asks for one (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH)"
    )


def map_unordered(
    address: str,
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    cpus_each: float = 1,
    gpus_each: float = 0,
    what: str,
) -> Iterator[tuple[int, Any]]:
    """Run function(item) for each item somewhere in the cluster; yield (index, result) in order of completion.

    `what` is the kind of item, for messages ("shard of clips"). An item whose worker or machine dies is started again,
    so `function` must be safe to repeat. `cpus_each`, `gpus_each`: what an item needs on one machine.

    Raises UserError if `function` raises one or fails because a disk cannot be written, naming the machine unless it is
    this one; if a machine lacks a package, has another version of one than this machine, or cannot be prepared for the
    work; if an item's worker has died `ATTEMPTS` times; and if no machine of the cluster is big enough. Raises
    RuntimeError, naming the item, for any other exception. Items still running are then cancelled.
    """
    ray = _ray()
    todo = list(items)
    with connected(address):
        _check_fits(cpus_each, gpus_each, what)
        remote = ray.remote(
            num_cpus=cpus_each, num_gpus=gpus_each, max_retries=0, scheduling_strategy="SPREAD"
        )(_call)
        shared, versions = ray.put(function), _versions()
        attempts = [0] * len(todo)
        pending: dict[Any, int] = {}

        def submit(index: int) -> None:
            attempts[index] += 1
            pending[remote.remote(shared, todo[index], platform.node(), versions)] = index

        try:
            for index in range(len(todo)):
                submit(index)
            while pending:
                done, _ = ray.wait(list(pending), num_returns=1, timeout=_LOOK_AGAIN_S)
                if not done:
                    # the last machine that is big enough may have left; Ray would wait for another without end
                    _check_fits(cpus_each, gpus_each, what)
                    continue
                index = pending.pop(done[0])
                try:
                    result = ray.get(done[0])
                except (ray.exceptions.RayTaskError, ray.exceptions.RuntimeEnvSetupError) as e:
                    raise _task_error(e, f"{what} {index} ({_short(todo[index])})") from e
                except _lost(ray) as e:
                    if attempts[index] == ATTEMPTS:
                        raise UserError(
                            f"{what} {index} ({_short(todo[index])}): its worker died {ATTEMPTS} times, most likely "
                            f"because memory ran out. Finished work is kept. Last error: {' '.join(str(e).split())}"
                        ) from e
                    log.warning(
                        "%s %d: its worker died (%s); it is started again", what, index, type(e).__name__
                    )
                    submit(index)
                else:
                    yield index, result
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)


def _task_error(error: Any, item: str) -> Exception:
    """The error to raise for a task that failed.

    The UserError that the task raised, a UserError for a machine that lacks a package or cannot be prepared, or else a
    RuntimeError that names the item.
    """
    if isinstance(error, _ray().exceptions.RuntimeEnvSetupError):
        said = str(error).strip().splitlines()[-1]  # the lines before it are Ray's traceback
        return UserError(f"a machine of the cluster cannot be made ready to work: {said}")
    if isinstance(error.cause, UserError):
        return error.cause
    # modules are also imported while the task is unpickled, and Ray then wraps the error
    cause = getattr(error.cause, "client_exc", error.cause)
    if isinstance(cause, ImportError) and (cause.name or "").partition(".")[0] != _PACKAGE:
        found = re.search(r"\bip=([^\s,)]+)", str(error))
        machine = f"the machine {found[1]}" if found else "a machine"
        return UserError(f"{machine} of the cluster lacks a package ({cause}). Run there: {_INSTALL}")
    return RuntimeError(f"{item} failed: {error.cause!r}")


@functools.cache
def _versions() -> dict[str, str]:
    """Installed versions of the packages in _DECIDING: package -> version, empty if it is not installed."""
    found = {}
    for package in _DECIDING:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = ""
    return found


def _check_versions(asked_by: str, versions: Mapping[str, str]) -> None:
    """Raise UserError if packages here differ from `versions`, those of the machine `asked_by` that sent the work."""
    here = _versions()
    if other := [package for package in _DECIDING if here[package] != versions[package]]:
        differing = ", ".join(
            f"{package} {here[package] or 'none'} where {asked_by} has {versions[package] or 'none'}"
            for package in other
        )
        same = " ".join(f"{package}=={versions[package]}" for package in other if versions[package])
        raise UserError(
            f"{platform.node()} has {differing}: the results of the two could differ, and would be mixed. Install the "
            f"same versions on all machines{f', on the one named first with: pip install {same}' if same else ''}"
        )


def _call(function: Callable[[Any], Any], item: Any, asked_by: str, versions: Mapping[str, str]) -> Any:
    """The task that a worker runs. `asked_by`: the machine that sent it; `versions`: from `_versions` there."""
    _check_versions(asked_by, versions)
    here = platform.node()
    where = "" if here == asked_by else f"on {here}: "
    try:
        return function(item)
    except UserError as e:
        if not where:
            raise
        raise UserError(f"{where}{e}") from e
    except Exception as e:
        if trouble := disks.disk_trouble(e):
            raise UserError(f"{where}{trouble}") from e
        raise


def _ray() -> Any:
    try:
        import ray
    except ImportError as e:
        raise UserError('--ray needs the package ray. Run: pip install "ray>=2.40,<3"') from e
    return ray


def _lost(ray: Any) -> tuple[type[Exception], ...]:
    """Ray's errors for a worker, machine or result that was lost."""
    e = ray.exceptions
    return e.WorkerCrashedError, e.NodeDiedError, e.ObjectLostError, e.OutOfMemoryError


def machines() -> list[dict[str, float]]:
    """The resources (CPU, GPU) of each live machine in the cluster; only within `connected`."""
    return [node["Resources"] for node in _ray().nodes() if node["Alive"]]


def _check_fits(cpus_each: float, gpus_each: float, what: str) -> None:
    """Raise UserError if no machine is big enough for one item; Ray would wait for such a machine without end."""
    found = machines()
    if not any(m.get("CPU", 0) >= cpus_each and m.get("GPU", 0) >= gpus_each for m in found):
        sizes = "; ".join(f"{m.get('CPU', 0):g} CPUs, {m.get('GPU', 0):g} GPUs" for m in found)
        raise UserError(
            f"a {what} needs {cpus_each:g} CPUs and {gpus_each:g} GPUs on one machine; the cluster has: {sizes}. "
            "Request fewer, or add a machine with `ray start --address=HOST:6379`"
        )


def _short(item: Any) -> str:
    text = repr(item)
    return text if len(text) <= 120 else text[:117] + "..."
