"""Files are complete or absent, and hashes are the same on every machine."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from violence_detection.errors import DamagedFile, UserError
from violence_detection.system import disks, locks, storage


def _writing(path: Path) -> subprocess.Popen[bytes]:
    """A process that is halfway through writing the file."""
    program = (
        "import sys, time; from pathlib import Path; from violence_detection.system import storage\n"
        "with storage.atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); print('half', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(storage.__file__).parents[2])}
    writing = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], env=environment, stdout=subprocess.PIPE
    )
    assert writing.stdout
    assert writing.stdout.readline() == b"half\n"
    return writing


def _held(folder: Path) -> None:
    with locks.only_one(folder, "a run"):
        pass


def test_a_finished_file_takes_its_name_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.json"
    with storage.atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent
        assert temporary.suffix == ".json", "some writers choose the format by the suffix"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_an_error_while_writing_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    storage.write_text(path, "old")

    def write_half() -> None:
        with storage.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_killed_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    storage.write_text(path, "old")
    program = (
        "import os, signal, sys; from pathlib import Path; from violence_detection.system import storage\n"
        "with storage.atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(storage.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program, str(path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_writers_of_the_same_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    texts = [str(i) * 50_000 for i in range(8)]
    stop, seen = threading.Event(), set()

    def watch() -> None:
        while not stop.is_set():
            if path.exists():
                seen.add(path.read_text())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda text: storage.write_text(path, text), texts * 3))
    stop.set()
    watcher.join()
    assert seen <= set(texts)
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_read_back_and_the_same_in_any_key_order(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "a.json", {"b": [1, None, "größer"], "a": 0.5})
    storage.write_json(tmp_path / "b.json", {"a": 0.5, "b": [1, None, "größer"]})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert storage.read_json(tmp_path / "a.json") == {"a": 0.5, "b": [1, None, "größer"]}


def test_json_has_null_for_what_is_no_number_and_takes_any_file_name(tmp_path: Path) -> None:
    storage.write_json(
        tmp_path / "a.json", {"auc": math.nan, "all": [math.inf, (0.5, -math.inf)], "n": "ö\udcff"}
    )
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    assert "ö\\udcff" in text
    assert storage.read_json(tmp_path / "a.json") == {"auc": None, "all": [None, [0.5, None]], "n": "ö\udcff"}


@pytest.mark.parametrize(
    ("value", "said"),
    [("[" * 100_000, "nested too deeply"), ("1" * 5_000, "Exceeds the limit")],
    ids=["lists", "digits"],
)
def test_json_that_python_does_not_take_is_damage_by_name_and_a_damaged_line(
    tmp_path: Path, value: str, said: str
) -> None:
    (tmp_path / "a.json").write_text(value)
    with pytest.raises(DamagedFile, match=rf"a\.json is damaged: .*{said}"):
        storage.read_json(tmp_path / "a.json")
    (tmp_path / "j.jsonl").write_text(f'{value}\n{{"key": "a", "n": 1}}\n')
    assert storage.read_journal(tmp_path / "j.jsonl", frozenset({"n"})) == {"a": {"n": 1}}


def test_a_journal_says_at_once_that_the_disk_is_full_and_its_other_lines_stay(tmp_path: Path) -> None:
    with storage.appending_journal(tmp_path / "j.jsonl", sync=True) as record:
        record("a", {"n": 1})
        assert storage.read_journal(tmp_path / "j.jsonl", frozenset({"n"})) == {"a": {"n": 1}}
    with (
        storage.appending_journal(Path("/dev/full")) as record,
        pytest.raises(OSError, match="No space left"),
    ):
        record("b", {"n": 2})
    with (
        storage.appending_journal(tmp_path / "j.jsonl") as record,
        pytest.raises(ValueError, match="not JSON"),
    ):
        record("c", {"n": math.nan})


def test_a_line_that_a_full_disk_has_cut_takes_no_later_one_with_it(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    program = f"""
import pathlib, resource
from violence_detection.system import storage
with storage.appending_journal(pathlib.Path({str(path)!r})) as record:
    record("a", {{"n": 1}})
    resource.setrlimit(resource.RLIMIT_FSIZE, (36, resource.RLIM_INFINITY))
    try:
        record("b", {{"n": 2}})
    except OSError:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        record("c", {{"n": 3}})
        record("d", {{"n": 4}})
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(storage.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert b'{"key": "b"' in path.read_bytes(), "half of it was written"
    assert list(storage.read_journal(path, frozenset({"n"}))) == ["a", "c", "d"]


def test_failures_are_sorted_and_an_old_list_goes_when_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "failures.csv"
    rows = [{"path": "b", "reason": "cut, off"}, {"path": "a", "reason": "empty"}]
    storage.write_failures(path, rows)
    assert path.read_text() == 'path,reason\na,empty\nb,"cut, off"\n'
    storage.write_failures(path, [])
    assert not path.exists()
    storage.write_failures(path, [])


def test_a_file_name_that_is_no_utf_8_comes_back_from_every_kind_of_file_as_it_was(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x98\x80.avi")
    storage.write_json(tmp_path / "a.json", {"path": name})
    assert storage.read_json(tmp_path / "a.json") == {"path": name}
    (tmp_path / "a.json").read_text(encoding="utf-8")  # the file itself is valid UTF-8
    storage.write_csv(tmp_path / "a.csv", ["path"], [{"path": name}])
    assert storage.read_csv(tmp_path / "a.csv") == [{"path": name}]
    with storage.appending_journal(tmp_path / "journal") as record:
        record("key", {"path": name})
    assert storage.read_journal(tmp_path / "journal", frozenset({"path"})) == {"key": {"path": name}}
    storage.write_text(tmp_path / "a.txt", name)
    assert os.fsdecode((tmp_path / "a.txt").read_bytes()) == name
    assert storage.stable_seed(name) != storage.stable_seed("cafe")


def test_a_name_with_a_carriage_return_tears_no_table(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"path": "a\rb.mp4", "n": 1, "no column": 2}, {"path": "c,d", "n": 0.5}, {}]
    storage.write_csv(tmp_path / "a.csv", ["path", "n"], rows)
    assert (tmp_path / "a.csv").read_bytes() == b'path,n\n"a\rb.mp4","1"\n"c,d",0.5\n,\n'
    read = [{"path": "a\rb.mp4", "n": "1"}, {"path": "c,d", "n": "0.5"}, {"path": "", "n": ""}]
    assert storage.read_csv(tmp_path / "a.csv") == read
    assert pd.read_csv(tmp_path / "a.csv", dtype=str, keep_default_na=False).to_dict("records") == read


def test_a_table_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('path\n"' + "x" * 200_000)
    with pytest.raises(DamagedFile, match=r"a\.csv is damaged \(field larger than field limit"):
        storage.read_csv(tmp_path / "a.csv")


def test_the_hash_of_a_file_is_sha256_of_all_of_it(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 17)
    (tmp_path / "a").write_bytes(content)
    assert storage.sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_hashes_and_seeds_are_the_same_on_every_machine() -> None:
    assert storage.stable_hash({"b": (1, 2.5), "a": None}) == "e57f5d378654"
    assert storage.stable_hash({"a": None, "b": [1, 2.5]}) == "e57f5d378654"
    assert storage.stable_seed(0, "clip", "v1") == 4573072402004295680
    assert storage.stable_seed(0, "clip", "v1") != storage.stable_seed(0, "clipv", "1")
    assert 0 <= storage.stable_seed("anything") < 2**63


def test_temporary_files_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = storage.machine()
    dead = tmp_path / f".clip.with.dots.{here}.{gone.pid}-77.tmp.npz"
    dead_record = tmp_path / f".record.{here}.{gone.pid}-77.tmp.json"
    elsewhere_old = tmp_path / f".clip.other_host_1.{os.getpid()}-77.tmp.npz"
    alive = tmp_path / f".clip.{here}.{os.getpid()}-77.tmp.npz"
    older_than_its_process = tmp_path / f".clip.{here}.{os.getpid()}-78.tmp.npz"
    elsewhere = tmp_path / f".clip.other_host_1.{gone.pid}-78.tmp.npz"
    entry = tmp_path / "clip.npz"
    stranger = tmp_path / ".my.notes.tmp.txt"
    for path in (
        dead, dead_record, elsewhere_old, alive, older_than_its_process, elsewhere, entry, stranger
    ):  # fmt: skip
        path.write_bytes(b"x")
    began_s = psutil.Process().create_time()
    os.utime(alive, (began_s, began_s))
    for path in (elsewhere_old, older_than_its_process, entry, stranger):
        os.utime(path, (began_s - 7200, began_s - 7200))
    storage.remove_abandoned(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [alive.name, elsewhere.name, entry.name, stranger.name]
    )


def test_a_process_that_cannot_be_seen_counts_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system can hide the processes of other users, but still tells whether a process number is in use."""

    def hidden(pid: int) -> psutil.Process:
        raise psutil.NoSuchProcess(pid)

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setattr(psutil, "Process", hidden)
    assert storage.is_running(os.getpid())
    assert not storage.is_running(gone.pid)
    assert not storage.is_running(10**30)


def test_a_machine_is_another_after_it_was_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are not unique: two machines on a shared volume would take each other's files for those of the dead."""
    here, read_text = storage.machine.__wrapped__(), Path.read_text
    assert here == storage.machine()

    def other_boot(path: Path, *how: str) -> str:
        return "another\n" if path.name == "boot_id" else read_text(path, *how)

    monkeypatch.setattr(Path, "read_text", other_boot)
    assert storage.machine.__wrapped__() != here


@pytest.mark.parametrize("begin", [disks.check_writable, _held])
def test_what_a_killed_run_left_goes_with_the_next_and_what_another_writes_stays(
    tmp_path: Path, begin: Callable[[Path], None]
) -> None:
    killed, other = _writing(tmp_path / "killed.mp4"), _writing(tmp_path / "other.mp4")
    killed.kill()
    killed.wait()
    assert len(list(tmp_path.glob(".*.tmp.mp4"))) == 2
    begin(tmp_path)
    (left,) = tmp_path.glob(".*.tmp*")
    assert left.name.startswith(".other.")
    other.kill()
    other.wait()


def test_the_temporary_name_of_a_living_writer_is_known_as_such(tmp_path: Path) -> None:
    with storage.atomic_path(tmp_path / "a.b.npz") as temporary:
        temporary.write_bytes(b"half")
        storage.remove_abandoned(tmp_path)
        assert temporary.exists()


def test_a_process_that_has_ended_but_was_not_asked_for_does_not_run() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert ended.stdout
    assert ended.stdout.read() == b""
    deadline = time.monotonic() + 10
    while storage.is_running(ended.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not storage.is_running(ended.pid)
    ended.wait()
    assert not storage.is_running(ended.pid)
    assert storage.is_running(os.getpid())


def test_short_names_stay_and_limits_are_in_bytes() -> None:
    assert storage.shorten_name("a" * 255, 255) == "a" * 255
    for length in range(100, 400, 7):
        for letter in "aé漢":
            assert len(storage.shorten_name(letter * length + ".avi", 143).encode()) <= 143


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_that_a_person_has_saved_is_read_with_its_mark_or_without(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes('{"a":\r\n "größer"}\r'.encode(encoding))
    assert storage.read_text(path) == '{"a":\n "größer"}\n'
    assert storage.read_json(path) == {"a": "größer"}


def test_a_file_of_brackets_alone_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(DamagedFile, match=r"deep\.json is damaged"):
        storage.read_json(tmp_path / "deep.json")


def test_a_damaged_file_is_named_with_the_line_whoever_catches_it(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1,\n "b": ')
    with pytest.raises(UserError, match=r"x\.json is damaged: Expecting value in line 2, column 7"):
        storage.read_json(path)
    with pytest.raises(ValueError, match="damaged"):
        storage.read_json(path)
    path.write_bytes(b"{}\n\n\xff")
    with pytest.raises(UserError, match=r"x\.json is not valid UTF-8 in line 3"):
        storage.read_json(path)


@pytest.mark.parametrize(
    "name",
    ["x" * 250 + ".json", "ж" * 120 + ".explained.jpg", "𝗔" * 62 + ".mp4"],
    ids=["one byte", "two bytes", "four bytes"],
)
def test_a_name_that_the_disk_takes_can_be_written(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary name beside it also contains the machine's name, which on a pod may have 64 letters."""
    monkeypatch.setattr(platform, "node", lambda: "a-pod-of-many-words-" * 3 + "1234")
    with storage.atomic_path(tmp_path / name) as path:
        path.write_bytes(b"x")
        storage.remove_abandoned(tmp_path)
        assert path.suffix == Path(name).suffix
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(name, b"x")]


def test_a_clock_that_is_ahead_makes_nothing_of_another_machine_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    being_written, left = (tmp_path / f".{name}.other_host.1-2.tmp.npz" for name in ("new", "old"))
    for path in (being_written, left):
        path.write_bytes(b"x")
    hours_ago = time.time() - 7200
    os.utime(left, (hours_ago, hours_ago))
    ahead = time.time() + 86400
    monkeypatch.setattr(time, "time", lambda: ahead)
    storage.remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [being_written]


def test_a_volume_whose_clock_is_behind_makes_nothing_of_a_living_writer_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as writer:
        being_written, left = (
            tmp_path / f".{name}.{storage.machine()}.{writer.pid}-2.tmp.npz" for name in ("new", "old")
        )
        two_hours_ago = time.time() - 7200
        for path, changed_s in ((being_written, two_hours_ago), (left, two_hours_ago - 7200)):
            path.write_bytes(b"x")
            os.utime(path, (changed_s, changed_s))
        monkeypatch.setattr(storage, "clock_s", lambda _: two_hours_ago)
        storage.remove_abandoned(tmp_path)
        assert list(tmp_path.iterdir()) == [being_written]
        writer.communicate(b"\n")
