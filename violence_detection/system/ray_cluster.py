"""Work spread over the processes and machines of a Ray cluster; a worker or machine that dies loses nothing.

Ray is optional: `pip install "ray>=2.40,<3"`. An address is `local` (this machine alone, started and ended with the
work), `auto` (the cluster that `ray start` has joined this machine to) or HOST:PORT (the head of that cluster; this
machine must have joined it). Every machine needs the same Python, the same packages and the same data root, that is a
shared volume mounted at the same path. The package itself travels: workers run this code, not what they have installed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from violence_detection.errors import UserError
from violence_detection.system import storage

log = logging.getLogger(__name__)

#: So often an item is begun before its workers' deaths are put down to the item itself.
ATTEMPTS = 4


@contextlib.contextmanager
def connected(address: str) -> Iterator[Mapping[str, float]]:
    """Be part of the cluster at `address` for a while, or of the one already joined; yields its resources (CPU, GPU).

    Raises UserError if Ray is not installed, the address is none, or no cluster answers there.
    """
    ray = _ray()
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    if address not in ("local", "auto") and not re.fullmatch(r"[^\s:/]+:\d+", address):
        raise UserError(f"--ray takes local, auto or HOST:PORT. Received: {address!r}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Workers' output stays in Ray's own log files: stdout carries our summary alone.
    settings: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.WARNING}
    if address == "local":
        settings["include_dashboard"] = False
    else:
        settings["runtime_env"] = {"py_modules": [str(Path(__file__).parents[1])]}
    try:
        if ":" in address:  # Ray itself would try for minutes
            host, port = address.rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(**settings)
    except (OSError, RuntimeError, ValueError) as e:
        raise UserError(
            f"--ray {address}: cannot join the cluster ({str(e).splitlines()[0]}). Start it with `ray start --head` on "
            "one machine and `ray start --address=HOST:6379` on each of the others, this one included, with the same "
            "versions of Python and Ray"
        ) from e
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


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

    `what` is the kind of item, for messages ("shard of clips"). An item whose worker or machine dies is begun again,
    so `function` must be one that may be repeated. Raises the UserError that `function` raised, or one for a disk that
    takes nothing; RuntimeError naming the item for any other exception, and for an item whose worker has died
    `ATTEMPTS` times; UserError if no machine of the cluster is big enough. What is still running is then cancelled.
    """
    ray = _ray()
    todo = list(items)
    with connected(address):
        _check_fits(cpus_each, gpus_each, what)
        remote = ray.remote(
            num_cpus=cpus_each, num_gpus=gpus_each, max_retries=0, scheduling_strategy="SPREAD"
        )(_call)
        shared = ray.put(function)
        attempts = [0] * len(todo)
        pending: dict[Any, int] = {}

        def submit(index: int) -> None:
            attempts[index] += 1
            pending[remote.remote(shared, todo[index])] = index

        try:
            for index in range(len(todo)):
                submit(index)
            while pending:
                done, _ = ray.wait(list(pending), num_returns=1)
                index = pending.pop(done[0])
                try:
                    result = ray.get(done[0])
                except ray.exceptions.RayTaskError as e:
                    if isinstance(e.cause, UserError):
                        raise e.cause from None
                    if trouble := storage.disk_trouble(e.cause):
                        raise UserError(trouble) from e
                    raise RuntimeError(f"{what} {index} ({_short(todo[index])}) failed: {e.cause!r}") from e
                except _lost(ray) as e:
                    if attempts[index] == ATTEMPTS:
                        raise RuntimeError(
                            f"{what} {index} ({_short(todo[index])}): its worker died {ATTEMPTS} times, last: {e}"
                        ) from e
                    log.warning(
                        "%s %d: its worker died (%s); it is begun again", what, index, type(e).__name__
                    )
                    submit(index)
                else:
                    yield index, result
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


def _ray() -> Any:
    try:
        import ray
    except ImportError as e:
        raise UserError('--ray needs the package ray. Run: pip install "ray>=2.40,<3"') from e
    return ray


def _lost(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises when a worker, its machine or a result is gone."""
    e = ray.exceptions
    return e.WorkerCrashedError, e.NodeDiedError, e.ObjectLostError, e.OutOfMemoryError


def machines() -> list[dict[str, float]]:
    """The resources (CPU, GPU) of each machine of the cluster that one is `connected` to."""
    return [node["Resources"] for node in _ray().nodes() if node["Alive"]]


def _check_fits(cpus_each: float, gpus_each: float, what: str) -> None:
    """Ray would wait for ever for a machine that is not there."""
    found = machines()
    if not any(m.get("CPU", 0) >= cpus_each and m.get("GPU", 0) >= gpus_each for m in found):
        sizes = "; ".join(f"{m.get('CPU', 0):g} CPUs, {m.get('GPU', 0):g} GPUs" for m in found)
        raise UserError(
            f"a {what} needs {cpus_each:g} CPUs and {gpus_each:g} GPUs on one machine; the cluster has: {sizes}. "
            "Ask for less, or add a machine with `ray start --address=HOST:6379`"
        )


def _short(item: Any) -> str:
    text = repr(item)
    return text if len(text) <= 120 else text[:117] + "..."
