"""Work on a Ray cluster: every item once in the results, whatever dies; errors come out as what they are."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from violence_detection import cluster
from violence_detection.errors import UserError

ray = pytest.importorskip("ray", reason="Ray is optional")


@pytest.fixture(scope="module")
def local() -> Iterator[None]:
    """One small Ray instance for all tests of this file."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             object_store_memory=80_000_000)  # fmt: skip
    yield
    ray.shutdown()


def _run(function: Any, items: Any, **how: Any) -> dict[int, Any]:
    return dict(cluster.map_unordered("local", function, items, what="number", **how))


@pytest.mark.usefixtures("local")
def test_every_item_gives_its_result_and_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    def square(number: int) -> int:
        mark = tmp_path / str(number)
        if number == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2

    assert _run(square, range(5)) == {i: i**2 for i in range(5)}
    assert (tmp_path / "2").exists(), "no worker was killed"


@pytest.mark.usefixtures("local")
def test_an_item_that_kills_every_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ATTEMPTS", 2)

    def kill(_: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match=r"number 0 \('poison'\): its worker died 2 times"):
        _run(kill, ["poison"])


@pytest.mark.usefixtures("local")
def test_what_the_user_must_mend_comes_out_as_such_and_other_errors_name_the_item() -> None:
    def refuse(_: int) -> None:
        raise UserError("give another --flag")

    def fail(number: int) -> float:
        return 1 / number

    with pytest.raises(UserError, match=r"^give another --flag$"):
        _run(refuse, [1])
    with pytest.raises(RuntimeError, match=r"number 1 \(0\) failed: .*ZeroDivisionError"):
        _run(fail, [1, 0])
    with pytest.raises(UserError, match="2 GPUs on one machine; the cluster has: 2 CPUs, 0 GPUs"):
        _run(fail, [1], gpus_each=2)


def test_an_address_where_no_cluster_answers_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match="local, auto or HOST:PORT"), cluster.connected("nowhere"):
        pass
    with (
        pytest.raises(UserError, match=r"--ray 127.0.0.1:1: cannot join.*ray start --head"),
        cluster.connected("127.0.0.1:1"),
    ):
        pass
