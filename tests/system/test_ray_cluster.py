"""Work on a Ray cluster: one result per item, whatever dies, and errors that are reported as what they are."""

from __future__ import annotations

import functools
import http.server
import logging
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_videos
import stand_in

from violence_detection.errors import UserError
from violence_detection.features import extract, extract_ray, meter
from violence_detection.features.config import ExtractConfig
from violence_detection.system import ray_cluster

ray = pytest.importorskip("ray", reason="Ray is optional")


TESTS = Path(__file__).resolve().parents[1]
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes on this machine, whose workers have the stand-in backbone, made slow."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:  # workers inherit the environment of their node
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # health checks: with Ray's own settings a death is noticed only after 15 s
        for name in ("period", "initial_delay"):
            patch.setenv(f"RAY_health_check_{name}_ms", "500")
        nodes = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        nodes.add_node(**NODE)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR",
                 runtime_env={"worker_process_setup_hook": "stand_in.install_slow"})  # fmt: skip
        yield nodes
        ray.shutdown()
        nodes.shutdown()


def _run(function: Any, items: Any, **how: Any) -> dict[int, Any]:
    return dict(ray_cluster.map_unordered("local", function, items, what="number", **how))


@pytest.mark.usefixtures("two_nodes")
def test_every_item_gives_its_result_and_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    def square(number: int) -> int:
        mark = tmp_path / str(number)
        if number == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2

    assert _run(square, range(5)) == {i: i**2 for i in range(5)}
    assert (tmp_path / "2").exists(), "no worker was killed"


def test_work_that_no_machine_left_can_do_is_told(two_nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_LOOK_AGAIN_S", 1.0)
    big = two_nodes.add_node(**NODE | {"num_cpus": 3})
    threading.Timer(3, lambda: two_nodes.remove_node(big, allow_graceful=False)).start()
    with pytest.raises(UserError, match="needs 3 CPUs"):
        _run(time.sleep, [60], cpus_each=3)


@pytest.mark.usefixtures("two_nodes")
def test_an_item_that_kills_every_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "ATTEMPTS", 1)

    def kill(_: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(
        UserError, match=r"number 0 \('poison'\): its worker died 1 times, most likely because memory"
    ):
        _run(kill, ["poison"])


@pytest.mark.usefixtures("two_nodes")
def test_what_only_another_machine_lacks_is_told_of_that_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise UserError("OpenVINO is not installed")

    workers_name = re.escape(platform.node())
    monkeypatch.setattr(platform, "node", lambda: "first-pod")
    with pytest.raises(UserError, match=rf"^on {workers_name}: OpenVINO is not installed$"):
        _run(refuse, [1])
    with pytest.raises(UserError, match=rf"^on {workers_name}: .*No space left on device"):
        _run(Path("/dev/full").write_text, ["x"])


@pytest.mark.usefixtures("two_nodes")
def test_a_machine_that_cannot_get_the_code_is_told_and_no_fault_of_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {"working_dir": f"file://{tmp_path / 'code.zip'}"}
    monkeypatch.setattr(ray, "remote", functools.partial(ray.remote, runtime_env=absent))
    with pytest.raises(
        UserError, match=r"a machine of the cluster cannot be made ready to work: .*code\.zip"
    ):
        _run(abs, [1])


@pytest.mark.usefixtures("two_nodes")
def test_a_package_that_a_machine_lacks_is_told_and_no_fault_of_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def twice(number):\n    return 2 * number\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    def imports_it(number: int) -> int:
        import only_here

        return int(only_here.twice(number))

    def imports_ours(_: int) -> None:
        import violence_detection.nowhere  # type: ignore[import-not-found]  # noqa: F401

    for lacks_it in (only_here.twice, imports_it):
        with pytest.raises(
            UserError, match=r"\d+\.\d+\.\d+\.\d+ .*only_here.*pip install -r requirements\.txt"
        ):
            _run(lacks_it, [1])
    with pytest.raises(RuntimeError, match=r"number 0 .* failed: .*nowhere"):
        _run(imports_ours, [1])


@pytest.mark.usefixtures("two_nodes")
def test_a_machine_of_other_packages_is_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache takes engines of one name for the same engine, so nothing else would notice different versions."""
    here = ray_cluster._versions()
    assert {"numpy", "opencv-python-headless", "av", "openvino", "tensorflow", "keras"} == set(here)
    assert _run(abs, [-1]) == {0: 1}
    monkeypatch.setattr(ray_cluster, "_versions", lambda: here | {"openvino": "2025.2.0", "av": ""})
    name = re.escape(platform.node())
    told = (
        rf"av \S+ where {name} has none, openvino {re.escape(here['openvino'])} where {name} has 2025\.2\.0"
    )
    with pytest.raises(UserError, match=rf"{told}.*pip install openvino==2025\.2\.0$"):
        _run(abs, [-1])


@pytest.mark.usefixtures("two_nodes")
def test_what_the_user_must_mend_comes_out_as_such_and_other_errors_name_the_item() -> None:
    def refuse(_: int) -> None:
        raise UserError("give another --flag")

    def fail(number: int) -> float:
        return 1 / number

    with pytest.raises(UserError, match=r"^give another --flag$"):
        _run(refuse, [1])
    with pytest.raises(UserError, match=r"No space left on device\. Free some space"):
        _run(Path("/dev/full").write_text, ["x"])
    with pytest.raises(RuntimeError, match=r"number 1 \(0\) failed: .*ZeroDivisionError"):
        _run(fail, [1, 0])
    with pytest.raises(UserError, match="2 GPUs on one machine; the cluster has: 1 CPUs, 0 GPUs; 1 CPUs"):
        _run(fail, [1], gpus_each=2)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [small_videos.write(tmp_path / f"clip{i:02}.avi", i) for i in range(16)]


def test_a_cluster_gives_the_features_of_one_process_even_if_a_node_dies_half_way(
    tmp_path: Path,
    paths: list[Path],
    two_nodes: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logging.getLogger("violence_detection"), "propagate", True)
    stand_in.install(monkeypatch.setattr)
    bad = tmp_path / "bad.avi"
    bad.write_bytes(b"no video")
    monkeypatch.chdir(tmp_path)  # so that paths are relative, while workers have other working folders
    wanted = stand_in.wanted([path.relative_to(tmp_path) for path in (*paths, bad)], 4)
    here = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=Path("here")))
    caplog.clear()
    with caplog.at_level(logging.INFO, "violence_detection"):
        spread = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=Path("spread"), ray="auto"))
    assert (spread.failures, spread.clips_extracted) == (here.failures, len(paths))
    assert (here.machines, spread.machines) == (1, 2)
    told = rf"{len(wanted)} clips in .* clips/s, (\d+) frames/s, the engine waited for the decoder (\d+)% of the time"
    assert (rates := re.search(told, caplog.text))
    assert int(rates[1]) > 0
    assert int(rates[2]) < 100
    assert _content(spread.stores, wanted[1:]) == _content(here.stores, wanted[1:])

    stuck = tmp_path / "stuck"
    with monkeypatch.context() as patch:
        patch.setenv(stand_in.STUCK, str(stuck))
        victim = two_nodes.add_node(**NODE)
    _run(time.sleep, [0.3] * 6)  # starts a worker on each node
    died = threading.Event()

    def kill_half_way() -> None:
        entries = tmp_path / "killed" / "features"
        while len(list(entries.glob("*/clip*.npz"))) < len(paths) // 2 or not stuck.exists():
            time.sleep(0.005)
        two_nodes.remove_node(victim, allow_graceful=False)
        died.set()

    threading.Thread(target=kill_half_way, daemon=True).start()
    caplog.clear()
    killed = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path / "killed", ray="auto"))
    assert died.wait(10), "no node was killed"
    assert "its worker died" in caplog.text, "the node had nothing to do when it was killed"
    assert _content(killed.stores, wanted[1:]) == _content(here.stores, wanted[1:])


@pytest.mark.usefixtures("two_nodes")
def test_a_machine_that_sees_another_data_root_is_refused(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install(monkeypatch.setattr)
    monkeypatch.setattr(extract_ray.ray_cluster, "map_unordered", _on_another_machine)
    with pytest.raises(UserError, match=r"does not see .*the data root must be on a volume"):
        extract.ensure(
            stand_in.wanted(paths, 1), stand_in.CONFIG, ExtractConfig(data_root=tmp_path, ray="auto")
        )


@pytest.mark.usefixtures("two_nodes")
def test_clips_that_only_another_machine_does_not_see_are_not_left_out(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """combined_all may link to a disk that only the machine that combined has. This must not leave the clips out."""
    stand_in.install(monkeypatch.setattr)
    away = tmp_path / "away"

    def on_a_machine_without_the_clips(_: str, function: Any, shards: Any, **how: Any) -> Iterator[Any]:
        for index, shard in enumerate(shards):
            paths[0].rename(away)
            done = function(shard)
            away.rename(paths[0])
            yield index, done

    with monkeypatch.context() as patch:
        patch.setattr(extract_ray.ray_cluster, "map_unordered", on_a_machine_without_the_clips)
        with pytest.raises(
            UserError,
            match=rf"does not see {paths[0]} \(cannot be read: no such file\), but this machine does",
        ):
            extract.ensure(
                stand_in.wanted(paths, 1), stand_in.CONFIG, ExtractConfig(data_root=tmp_path, ray="auto")
            )
    paths[1].write_bytes(b"no video")
    paths[2].unlink()
    done = extract.ensure(
        stand_in.wanted(paths[:4], 1), stand_in.CONFIG, ExtractConfig(data_root=tmp_path, ray="auto")
    )
    failed = {Path(failure["path"]) for failure in done.failures}
    assert failed == {paths[1], paths[2]}, "gone here too, and read but no video"


@pytest.mark.usefixtures("two_nodes")
def test_workers_without_a_shard_do_not_count_as_waiting_for_the_decoder(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.install(monkeypatch.setattr)
    monkeypatch.setattr(logging.getLogger("violence_detection"), "propagate", True)
    counted: list[int] = []

    def meter_of(did: Any, *how: Any) -> meter.Meter:
        counted.append(did.n_runners)
        return meter.Meter(did, *how)

    monkeypatch.setattr(extract_ray, "Meter", meter_of)
    with caplog.at_level(logging.INFO, "violence_detection"):
        for clips in (paths[:1], paths[:2]):
            extract.ensure(
                stand_in.wanted(clips, 1), stand_in.CONFIG, ExtractConfig(data_root=tmp_path, ray="auto")
            )
    assert re.search(r"1 shards for [2-9] workers", caplog.text), "there are others, without one"
    assert counted == [1, 1]
    assert "the remaining clips will take" not in caplog.text, "there are none"


def _on_another_machine(_: str, function: Any, shards: Any, **how: Any) -> Iterator[tuple[int, Any]]:
    for folder in function.args[0].folders.values():
        (folder / "record.json").unlink()
    for index, shard in enumerate(shards):
        yield index, function(shard)


def _content(stores: Any, clips: list[extract.WantedClip]) -> dict[tuple[str, str], bytes]:
    """The values of all wanted variants: (model input, clip) -> bytes."""
    return {
        (name, clip.clip_id): store.read(clip.clip_id, clip.variants).tobytes()
        for name, store in stores.items()
        for clip in clips
    }


@pytest.mark.parametrize("address", ["nowhere", "host:0", "host:65536", "127.0.0.1:99999"])
def test_an_address_that_can_be_none_is_refused_before_anything_is_tried(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match="local, auto or HOST:PORT"), ray_cluster.connected(address):
        pass


def test_an_address_where_no_cluster_answers_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(UserError, match=r"--ray 127.0.0.1:1: cannot join.*ray start --head"),
        ray_cluster.connected("127.0.0.1:1"),
    ):
        pass


def test_an_address_where_something_else_answers_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself retries for minutes, and takes the port of its own dashboard for a head that is slow to answer."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    tried: list[str] = []
    monkeypatch.setattr(ray, "init", lambda **settings: tried.append(settings["address"]))
    page = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    try:
        with (
            pytest.raises(
                UserError, match=r"cannot join the cluster \(what answers there is not the head of a Ray"
            ),
            ray_cluster.connected(f"127.0.0.1:{page.server_port}"),
        ):
            pass
    finally:
        page.shutdown()
        page.server_close()
    assert not tried


def test_the_head_of_a_cluster_is_known_as_one(two_nodes: Any) -> None:
    ray_cluster._see_that_it_answers(*two_nodes.address.rsplit(":", 1))


#: A program that joins the cluster at the address in its first argument.
JOIN = """
import sys
from violence_detection.errors import UserError
from violence_detection.system import ray_cluster
try:
    with ray_cluster.connected(sys.argv[1]):
        print("joined")
except UserError as e:
    print(e)
"""


def _said_on_joining(address: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", JOIN, address],
        env=os.environ | variables | {"PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr[-2000:]


def test_why_a_cluster_cannot_be_joined_is_told_whole(two_nodes: Any, tmp_path: Path) -> None:
    missing = tmp_path / "token"
    said = _said_on_joining(two_nodes.address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(missing))
    assert said.startswith(
        f"--ray {two_nodes.address}: cannot join the cluster (RAY_AUTH_TOKEN_PATH is set but"
    )
    assert "the same token" in said
    other = "from unittest import mock; import ray; mock.patch.object(ray, '__version__', '2.40.0').start()"
    (tmp_path / "sitecustomize.py").write_text(other)
    done = subprocess.run(
        [sys.executable, "-c", JOIN, two_nodes.address],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(TESTS.parent)])},
        capture_output=True,
        text=True,
    )
    assert f"The cluster was started with: Ray: {ray.__version__} Python:" in done.stdout
    assert "Ray: 2.40.0" in done.stdout


def test_the_guides_commands_keep_strangers_out() -> None:
    """What the guide exports must turn on Ray's tokens; naming the token file alone does not."""
    guide = (TESTS.parent / "docs" / "guides" / "several_machines.md").read_text(encoding="utf-8")
    exports = dict(re.findall(r"^ +export (\w+)=(\S+)", guide, re.MULTILINE))
    asked = (
        "from ray._raylet import AuthenticationMode as m, get_authentication_mode as g; print(g() == m.TOKEN)"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], env=os.environ | exports, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"
