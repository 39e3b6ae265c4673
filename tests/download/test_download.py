"""Step 1 as a whole: data sets are published completely or not at all, and runs continue where earlier ones ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.download_bench import (
    PATIENT,
    PLENTY_BYTES,
    SCRIPT,
    SLUG,
    Bench,
    arrives,
    clips,
    failure,
    running_bench,
    tree,
    zipped,
)
from tests.fault_server import (
    SIGNATURE,
    TOKEN,
    Handler,
    Served,
    cut_and,
    short_body,
)  # fmt: skip
from violence_detection.download import completion, download, download_job, kaggle_source, plan
from violence_detection.download.config import DownloadConfig
from violence_detection.errors import UserError
from violence_detection.system import disks, locks, storage


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with running_bench(tmp_path, monkeypatch) as running:
        yield running


@pytest.mark.parametrize(("key", "path"), [("plain_set", "/plain.zip"), ("kaggle_set", "/k/archive.zip")])
def test_wrong_length_is_never_published(bench: Bench, key: str, path: str) -> None:
    body = bench.server.files[path].body
    bench.server.faults.extend([short_body(len(body), body[:5000])] * 20)
    (outcome,) = bench.run(key).outcomes
    assert outcome.status == "failed"
    assert re.search(r"cut before the announced length|bytes arrived", outcome.reason)
    assert "run the same command again" in outcome.reason
    assert not bench.raw(key).exists()
    bench.server.faults.clear()
    bench.run(key)
    bench.assert_whole(key)


@pytest.mark.parametrize("damage", ["flipped byte", "truncated at the publisher"])
def test_corrupt_archive_is_deleted_and_fetched_anew(bench: Bench, damage: str) -> None:
    good = bench.server.files["/k/archive.zip"].body
    middle = len(good) // 2
    bad = (
        good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
        if damage == "flipped byte"
        else good[:middle]
    )
    bench.server.files["/k/archive.zip"] = Served(bad)
    reason = failure(bench)
    assert "damaged" in reason
    assert "fights.zip" in reason
    assert not list((bench.root / "downloads" / "kaggle_set").iterdir())
    bench.server.files["/k/archive.zip"] = Served(good)
    arrives(bench)


def test_harmful_archive_publishes_nothing(bench: Bench) -> None:
    bench.server.files["/k/archive.zip"] = Served(zipped({"a.avi": b"1", "../../../evil.avi": b"2"}))
    assert "outside its folder" in failure(bench)
    assert not list(bench.root.parent.rglob("evil.avi"))


def test_disk_too_small_is_told_before_the_first_byte(bench: Bench) -> None:
    with pytest.raises(UserError, match=r"free, .* needed") as raised:
        bench.run("kaggle_set", "plain_set", free=1 << 30)
    assert "--data-root" in str(raised.value)
    assert not bench.server.requests_for("/plain.zip")
    assert not bench.root.exists()


def test_disk_message_says_which_data_sets_would_fit(bench: Bench) -> None:
    with pytest.raises(UserError, match=r"--datasets (kaggle_set|plain_set)$"):
        bench.run("kaggle_set", "plain_set", free=(1 << 30) + 1_200_000)


def test_disk_message_says_that_fewer_at_a_time_would_fit(bench: Bench) -> None:
    """Both data sets unpacked need 1.5 MB with one archive at a time, and 2 MB with both archives at once."""
    free = disks.RESERVE_BYTES + 1_700_000
    with pytest.raises(UserError, match=r"--workers 1, with which all of them fit"):
        bench.run("kaggle_set", "plain_set", free=free)
    assert bench.run("kaggle_set", "plain_set", free=free, workers=1).failures == []


def test_dry_run_says_everything_and_does_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.log, "propagate", True)
    caplog.set_level("INFO", logger="violence_detection")
    result = bench.run("kaggle_set", "plain_set", dry_run=True)
    assert [o.status for o in result.outcomes] == ["planned", "planned"]
    assert not bench.root.exists()
    for needed in (
        "kaggle:owner/fights",
        "0.5 MB",
        "terms: none",
        "licence: MIT",
        "free",
        "KAGGLE_API_TOKEN",
    ):
        assert needed in caplog.text


def test_complete_data_set_is_skipped_without_a_request(bench: Bench) -> None:
    arrives(bench)
    before = len(bench.server.log)
    result = bench.run("kaggle_set")
    assert result.summary()["skipped"] == 1
    assert result.summary()["datasets"]["kaggle_set"]["files"] == len(bench.files)
    assert len(bench.server.log) == before
    bench.assert_whole()


def test_second_source_is_used_when_the_first_fails(bench: Bench) -> None:
    gone = '{ kind = "kaggle", slug = "owner/gone", file = "gone.zip" }'
    broken = bench.url_source("/broken.zip")
    bench.server.files["/broken.zip"] = Served(b"PK\x03\x04 nonsense")
    bench.write_catalogue(plain_set=f"{gone}, {broken}, {bench.url_source('/plain.zip')}")
    assert bench.run("plain_set").outcomes[0].status == "downloaded"
    bench.assert_whole("plain_set")


def test_archive_put_there_by_hand_needs_no_credentials(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    archive = bench.root / "downloads" / "kaggle_set" / "fights.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(zipped(bench.files))
    (archive.parent / "notes.txt").write_text("mine")
    result = bench.run("kaggle_set")
    assert [o.status for o in result.outcomes] == ["downloaded"]
    assert completion.problems(bench.raw("kaggle_set")) == []
    assert bench.server.log == []
    assert bench.run("kaggle_set").summary()["skipped"] == 1
    assert {p.name for p in archive.parent.iterdir()} == {"fights.zip", "notes.txt"}, (
        "what was not fetched stays"
    )


def test_an_archive_on_the_disk_is_taken_before_a_source_that_would_be_fetched(bench: Bench) -> None:
    kaggle = f'{{ kind = "kaggle", slug = "{SLUG}", file = "fights.zip" }}'
    bench.write_catalogue(plain_set=f"{kaggle}, {bench.url_source('/plain.zip')}")
    archive = bench.root / "downloads" / "plain_set" / "plain.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(zipped(bench.plain_files))
    result = bench.run("plain_set")
    assert result.failures == []
    assert result.fetched_bytes == 0
    assert tree(bench.raw("plain_set")) == bench.plain_files


def test_a_damaged_archive_put_there_by_hand_stays_and_is_named(bench: Bench) -> None:
    archive = bench.root / "downloads" / "kaggle_set" / "fights.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(zipped(bench.files)[:-1000])
    (outcome,) = bench.run("kaggle_set").outcomes
    assert outcome.status == "failed"
    assert "fights.zip" in outcome.reason
    assert "put there by hand and is not deleted" in outcome.reason
    assert archive.is_file()


def test_volumes_of_an_archive_put_there_by_hand_are_told_before_it_is_fetched(bench: Bench) -> None:
    folder = bench.root / "downloads" / "plain_set"
    folder.mkdir(parents=True)
    (folder / "plain.zip.001").write_bytes(zipped(bench.plain_files))
    with pytest.raises(
        UserError,
        match=r"plain\.zip\.001: one volume of an archive that 7-Zip has split.*cat .*plain\.zip\.\[0-9\]\* >",
    ):
        bench.run("plain_set")
    assert not bench.server.requests_for("/plain.zip")


def test_tree_put_there_by_hand_is_recorded_and_never_touched(bench: Bench) -> None:
    for name, content in bench.files.items():
        path = bench.raw("kaggle_set") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    result = bench.run("kaggle_set")
    assert [o.status for o in result.outcomes] == ["adopted"]
    bench.assert_whole()
    assert (completion.read(bench.raw("kaggle_set")) or {})["source"] == {"kind": "by hand"}


def test_a_tree_below_raw_in_a_folder_of_another_name_is_fetched_all_the_same_as_the_guide_says(
    bench: Bench,
) -> None:
    for name, content in bench.plain_files.items():
        (bench.raw("elsewhere") / name).parent.mkdir(parents=True, exist_ok=True)
        (bench.raw("elsewhere") / name).write_bytes(content)
    assert [o.status for o in bench.run("plain_set").outcomes] == ["downloaded"]
    guide = (SCRIPT.parent / "docs/guides/download.md").read_text()
    assert "Unpack it into `<root>/raw/<key>/`" in guide
    assert "this script looks at `<root>/raw/<key>/` alone" in " ".join(guide.split())


def test_a_dangling_link_in_a_tree_put_there_by_hand_fails_that_one_by_name(bench: Bench) -> None:
    bench.raw("kaggle_set").mkdir(parents=True)
    (bench.raw("kaggle_set") / "link.avi").symlink_to(bench.root / "gone.avi")
    outcomes = bench.run("kaggle_set", "plain_set").outcomes
    assert [o.status for o in outcomes] == ["failed", "downloaded"]
    assert "link.avi" in outcomes[0].reason


def test_archive_lying_in_the_raw_folder_is_not_taken_for_the_data_set(bench: Bench) -> None:
    bench.raw("kaggle_set").mkdir(parents=True)
    (bench.raw("kaggle_set") / "fights.zip").write_bytes(zipped(bench.files))
    with pytest.raises(UserError, match=r"move the published one to .*downloads"):
        bench.run("kaggle_set")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([".DS_Store"], "contains only empty folders"),
        ([".DS_Store", "fights.zip"], "contains archives but no video; move the published one to"),
        (["fights.zip", "fights.zip.md5"], "contains archives but no video; move the published one to"),
        (["README.txt"], "contains no video, only README.txt. Unpack"),
    ],
)
def test_a_folder_without_a_video_is_never_taken_for_the_data_set(
    bench: Bench, names: list[str], said: str
) -> None:
    bench.raw("kaggle_set").mkdir(parents=True)
    for name in names:
        (bench.raw("kaggle_set") / name).write_bytes(b"x")
    with pytest.raises(UserError, match=said):
        bench.run("kaggle_set")
    assert sorted(p.name for p in bench.raw("kaggle_set").iterdir()) == sorted(names)


def test_an_archive_of_archives_is_named_until_they_are_unpacked(bench: Bench) -> None:
    bench.server.files["/plain.zip"] = Served(zipped({"part1.zip": zipped(bench.plain_files), "a.txt": b"a"}))
    for status in ("downloaded", "skipped"):
        result = bench.run("plain_set")
        assert [o.status for o in result.outcomes] == [status]
        (failure,) = result.failures
        assert "contains no video, but archives (part1.zip). Unpack them" in failure["reason"]
        assert "part1.zip" in (bench.root / "raw" / "download_failures.csv").read_text()
    with zipfile.ZipFile(bench.raw("plain_set") / "part1.zip") as inner:
        inner.extractall(bench.raw("plain_set"))
    for name in ("part1.zip", completion.RECORD_NAME):
        (bench.raw("plain_set") / name).unlink()
    for status in ("adopted", "skipped"):
        result = bench.run("plain_set")
        assert ([o.status for o in result.outcomes], result.failures) == ([status], [])


def test_an_archive_of_pictures_is_named(bench: Bench) -> None:
    bench.server.files["/plain.zip"] = Served(zipped({"frames/1.png": b"1"}))
    (failure,) = bench.run("plain_set").failures
    assert (
        "contains no video, only frames/1.png: what the source delivers is not this data set"
        in failure["reason"]
    )


def test_what_systems_write_into_folders_makes_no_data_set_damaged(bench: Bench) -> None:
    bench.server.files["/plain.zip"] = Served(zipped({**bench.plain_files, "Set/.DS_Store": b"a"}))
    for name, content in {**bench.files, "Set/Thumbs.db": b"a"}.items():
        path = bench.raw("kaggle_set") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert [o.status for o in bench.run("kaggle_set", "plain_set").outcomes] == ["adopted", "downloaded"]
    (bench.raw("kaggle_set") / "Set" / "Thumbs.db").write_bytes(b"longer")
    (bench.raw("kaggle_set") / "Set" / "fight" / ".DS_Store").write_bytes(b"new")
    (bench.raw("plain_set") / "Set" / ".DS_Store").write_bytes(b"longer")
    assert [o.status for o in bench.run("kaggle_set", "plain_set").outcomes] == ["skipped", "skipped"]
    outcomes = download.verify(bench.config("kaggle_set", "plain_set")).outcomes
    assert [o.status for o in outcomes] == ["whole", "whole"]
    (bench.raw("plain_set") / "Set" / ".DS_Store").unlink()
    assert [o.status for o in bench.run("plain_set").outcomes] == ["skipped"]


def test_tree_linked_from_elsewhere_is_recorded(bench: Bench, tmp_path: Path) -> None:
    for name, content in bench.files.items():
        path = tmp_path / "elsewhere" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    bench.raw("kaggle_set").mkdir(parents=True)
    (bench.raw("kaggle_set") / "Set").symlink_to(tmp_path / "elsewhere" / "Set")
    (tmp_path / "elsewhere" / "Set" / "loop").symlink_to(tmp_path / "elsewhere")
    assert [o.status for o in bench.run("kaggle_set").outcomes] == ["adopted"]
    bench.assert_whole()


def test_empty_folders_in_the_way_are_told_before_anything_is_fetched(bench: Bench) -> None:
    (bench.raw("plain_set") / "Set").mkdir(parents=True)
    with pytest.raises(UserError, match="only empty folders"):
        bench.run("plain_set")
    assert bench.server.log == []


def test_a_root_that_cannot_be_written_is_a_clear_error(bench: Bench) -> None:
    bench.root.write_text("a file")
    with pytest.raises(UserError, match=f"cannot write in {bench.root}/downloads .*--data-root"):
        bench.run("plain_set")


def test_only_by_hand_says_what_to_do(bench: Bench) -> None:
    bench.write_catalogue(
        far='{ kind = "manual", url = "https://x.org/", instructions = "Ask the authors." }'
    )
    with pytest.raises(UserError, match=r"Ask the authors\..*https://x\.org/"):
        bench.run("far")


def test_unknown_data_set_lists_the_known(bench: Bench) -> None:
    with pytest.raises(UserError, match="kaggle_set, plain_set"):
        bench.run("nonsense")


def test_an_archive_left_by_a_run_killed_at_the_end_is_dropped(bench: Bench) -> None:
    arrives(bench)
    left = bench.root / "downloads" / "kaggle_set" / "fights.zip"
    left.parent.mkdir()
    left.write_bytes(b"left")
    left.with_name("fights.zip.fetched.json").write_text("{}")
    assert bench.run("kaggle_set").summary()["skipped"] == 1
    bench.assert_whole()


def test_an_archive_that_was_fetched_goes_once_its_data_set_is_unpacked_by_hand(bench: Bench) -> None:
    """The message about an unsupported archive asks the user to unpack it; the archive is then no longer needed."""
    bench.server.files["/plain.zip"] = Served(b"Rar!\x1a\x07" + bytes(500))
    (outcome,) = bench.run("plain_set").outcomes
    assert "RAR archives are not supported" in outcome.reason
    folder = bench.root / "downloads" / "plain_set"
    assert (folder / "plain.zip").is_file()
    (folder / "notes.txt").write_text("mine")
    for name, content in bench.plain_files.items():
        (bench.raw("plain_set") / name).parent.mkdir(parents=True, exist_ok=True)
        (bench.raw("plain_set") / name).write_bytes(content)
    assert [o.status for o in bench.run("plain_set").outcomes] == ["adopted"]
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_archives_are_kept_on_request(bench: Bench) -> None:
    bench.run("plain_set", keep_archives=True)
    bench.run("plain_set")
    kept = bench.root / "downloads" / "plain_set" / "plain.zip"
    source = (completion.read(bench.raw("plain_set")) or {})["source"]
    assert source["archive_sha256"] == storage.sha256_file(kept)
    assert SIGNATURE not in json.dumps(source)


def test_verify_names_what_is_missing_changed_and_new(bench: Bench) -> None:
    arrives(bench)
    assert download.verify(bench.config("kaggle_set")).failures == []
    folder = bench.raw("kaggle_set") / "Set" / "fight"
    (folder / "0000.avi").unlink()
    changed = bytearray((folder / "0002.avi").read_bytes())
    changed[100] ^= 1
    (folder / "0002.avi").write_bytes(changed)
    (folder / "0004.avi").write_bytes(b"short")
    (folder / "new.avi").write_bytes(b"new")
    result = download.verify(bench.config("kaggle_set"))
    assert {p.rpartition("/")[2]: reason.split(",")[0] for p, reason in result.outcomes[0].problems} == {
        "0000.avi": "missing",
        "0002.avi": "content changed",
        "0004.avi": "5 bytes",
        "new.avi": "not in the record",
    }
    assert "kaggle_set/Set/fight/0000.avi,missing" in (bench.root / "raw" / "verify_failures.csv").read_text()


def test_verify_names_a_file_that_cannot_be_read_and_goes_on(bench: Bench) -> None:
    folder = bench.raw("plain_set")
    for name, content in {**bench.plain_files, "Set/empty.txt": b""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert [o.status for o in bench.run("plain_set", "kaggle_set").outcomes] == ["adopted", "downloaded"]
    (folder / "Set/empty.txt").unlink()
    (folder / "Set/empty.txt").symlink_to("/proc/self/mem")  # reading it is an error, as with a bad block
    result = download.verify(bench.config("plain_set", "kaggle_set"))
    assert [o.status for o in result.outcomes] == ["damaged", "whole"]
    assert result.outcomes[0].problems == [("Set/empty.txt", "cannot be read: Input/output error")]
    assert "plain_set/Set/empty.txt,cannot" in (bench.root / "raw" / "verify_failures.csv").read_text()


def test_a_complete_data_set_that_lost_files_is_reported_not_skipped(bench: Bench) -> None:
    arrives(bench)
    (bench.raw("kaggle_set") / "Set/fight/0000.avi").unlink()
    with pytest.raises(UserError, match=r"no longer match the record.*remove"):
        bench.run("kaggle_set")
    assert len(tree(bench.raw("kaggle_set"))) == len(bench.files) - 1


def test_leftovers_of_a_killed_unpacking_are_replaced(bench: Bench) -> None:
    leftover = bench.root / "raw" / ".kaggle_set.unpacking" / "Set"
    leftover.mkdir(parents=True)
    (leftover / "half.avi").write_bytes(b"half")
    arrives(bench)


def test_leftovers_of_a_killed_unpacking_do_not_take_the_room_for_it(bench: Bench) -> None:
    leftover = bench.root / "raw" / ".kaggle_set.unpacking"
    leftover.mkdir(parents=True)

    def free_bytes(_: Path) -> int:
        return 0 if leftover.exists() and not (leftover / "Set").exists() else PLENTY_BYTES

    result = download.run(bench.config("kaggle_set"), free_bytes=free_bytes, policy=PATIENT)
    assert result.failures == []
    bench.assert_whole()


def test_leftovers_of_a_data_set_that_is_not_asked_for_now_make_room_too(bench: Bench) -> None:
    leftover = bench.root / "raw" / ".kaggle_set.unpacking"
    leftover.mkdir(parents=True)

    def free_bytes(_: Path) -> int:
        return 0 if leftover.exists() else PLENTY_BYTES

    result = download.run(bench.config("plain_set"), free_bytes=free_bytes, policy=PATIENT)
    assert result.failures == []
    bench.assert_whole("plain_set")


def test_a_dry_run_counts_what_a_killed_unpacking_has_left_as_room(bench: Bench) -> None:
    leftover = bench.root / "raw" / ".kaggle_set.unpacking"
    leftover.mkdir(parents=True)
    with pytest.raises(UserError, match=r"free, .* needed"):
        bench.run("kaggle_set", free=disks.RESERVE_BYTES, dry_run=True)
    with (leftover / "half.avi").open("wb") as f:
        f.truncate(10**9)
    result = bench.run("kaggle_set", free=disks.RESERVE_BYTES, dry_run=True)
    assert [o.status for o in result.outcomes] == ["planned"]
    assert leftover.exists()


def test_two_runs_below_one_root_do_not_disturb_each_other(bench: Bench) -> None:
    told = pytest.raises(UserError, match=f"another run .process {os.getpid()} on")
    with locks.only_one(bench.root / "downloads", "another run"), told:
        bench.run("plain_set")
    assert bench.run("plain_set").failures == []


def wait_for(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "did not happen"
        time.sleep(0.005)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def half_then_silence(handler: Handler) -> bool:
    """Send the first 300 kB of the body, then leave the connection open without sending more."""
    handler.cut_after, handler.afterwards = 300_000, lambda: time.sleep(5)
    return False


def test_killed_while_fetching_and_restarted_ends_the_same(bench: Bench) -> None:
    bench.server.faults.extend([lambda _: False, lambda _: False, half_then_silence])
    part = bench.root / "downloads" / "kaggle_set" / "fights.zip.part"
    process = bench.start("--datasets", "kaggle_set")
    wait_for(lambda: part.exists() and part.stat().st_size > 200_000)
    kill(process)
    have = part.stat().st_size
    output, log_text = (process := bench.start("--datasets", "kaggle_set")).communicate(timeout=30)
    assert process.returncode == 0, log_text
    bench.assert_whole()
    assert bench.server.requests_for("/k/archive.zip")[-1]["Range"] == f"bytes={have}-"
    summary = json.loads(output)
    assert summary["downloaded"] == 1
    assert summary["datasets"]["kaggle_set"]["files"] == len(bench.files)
    for secret in (TOKEN, SIGNATURE):
        assert secret not in output + log_text


def test_killed_when_the_archive_has_its_name_it_is_not_taken_for_one_put_there_by_hand(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        replace(self, target)
        if self.name == "fights.zip.part":
            raise KeyboardInterrupt
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            bench.run("kaggle_set")
    assert (bench.root / "downloads" / "kaggle_set" / "fights.zip").is_file()
    arrives(bench)


def test_killed_while_unpacking_and_restarted_ends_the_same(bench: Bench, tmp_path: Path) -> None:
    bench.plain_files = clips(3, count=600, size=30_000)
    bench.server.files["/plain.zip"] = Served(zipped(bench.plain_files))
    staging = bench.root / "raw" / ".plain_set.unpacking"
    process = bench.start("--datasets", "plain_set", "--keep-archives")
    wait_for(lambda: (staging / "Set" / "fight" / "0020.avi").exists())
    kill(process)
    assert staging.exists(), "killed too late to show anything"
    assert not bench.raw("plain_set").exists()
    archive = bench.root / "downloads" / "plain_set" / "plain.zip"
    assert archive.read_bytes() == bench.server.files["/plain.zip"].body, "the whole archive is not lost"
    asked = len(bench.server.log)
    assert bench.run("plain_set").failures == []
    assert len(bench.server.log) == asked
    bench.assert_whole("plain_set")
    record = (bench.raw("plain_set") / completion.RECORD_NAME).read_bytes()
    bench.root = tmp_path / "undisturbed"
    bench.run("plain_set")
    assert (bench.raw("plain_set") / completion.RECORD_NAME).read_bytes() == record


def test_interrupted_while_fetching_ends_soon_and_goes_on(bench: Bench) -> None:
    bench.server.faults.append(cut_and(300_000, lambda: time.sleep(3.0)))
    part = bench.root / "downloads" / "plain_set" / "plain.zip.part"
    process = bench.start("--datasets", "plain_set")
    wait_for(lambda: part.exists() and part.stat().st_size > 200_000)
    process.send_signal(signal.SIGINT)
    _, log_text = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "the same command continues from here" in log_text
    assert "Traceback" not in log_text
    assert part.stat().st_size > 200_000
    assert bench.run("plain_set").failures == []
    bench.assert_whole("plain_set")


def test_interrupted_while_unpacking_publishes_nothing(bench: Bench) -> None:
    config, layout = bench.config("plain_set"), plan.DownloadFolders(bench.root)
    archive = bench.root / "downloads" / "plain_set" / "plain.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(zipped(bench.plain_files))
    archive.with_name("plain.zip.fetched.json").write_text("{}")
    planned = plan.make_plan(download.choose(config)[0], layout, kaggle_source.authenticate)
    job = download_job.DownloadJob(layout, config, lambda _: PLENTY_BYTES, PATIENT, 0)
    job.stop.set()
    outcome = job.run_all([planned])[0]
    assert "interrupted" in outcome.reason
    assert not (bench.root / "raw").exists()
    assert archive.exists()
    assert bench.run("plain_set").failures == []
    bench.assert_whole("plain_set")


def test_script_without_what_it_needs_exits_with_2(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    process = bench.start("--datasets", "kaggle_set")
    output, log_text = process.communicate(timeout=30)
    assert (process.returncode, output) == (2, "")
    assert "https://www.kaggle.com/settings/api" in log_text
    assert "Traceback" not in log_text


def test_list_shows_the_catalogue_its_terms_and_the_roadmap_s_wrong_count() -> None:
    command = [sys.executable, str(SCRIPT), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "kaggle:vulamnguyen/rwf2000" in done.stderr
    assert "movie_fights: the roadmap says 1,000 clips; 200 are published" in done.stderr
    assert "rwf_2000: The authors forbid redistribution and commercial use" in done.stderr
    assert len(json.loads(done.stdout)["datasets"]) >= 13


def test_list_shows_the_data_sets_that_are_named() -> None:
    command = [sys.executable, str(SCRIPT), "--list", "--datasets", "rwf_2000,movie_fights"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(json.loads(done.stdout)["datasets"]) == ["movie_fights", "rwf_2000"]
    assert "ucf_crime" not in done.stderr


@pytest.mark.parametrize(
    ("mode", "flag"),
    [
        ("--list", "--dry-run"),
        ("--list", "--keep-archives"),
        ("--list", "--workers=2"),
        ("--verify", "--dry-run"),
        ("--verify", "--keep-archives"),
    ],
)
def test_what_listing_and_verifying_do_not_obey_is_refused(tmp_path: Path, mode: str, flag: str) -> None:
    root = tmp_path / "not there"
    command = [sys.executable, str(SCRIPT), f"--data-root={root}", mode, flag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{flag.partition('=')[0]} would do nothing with {mode}" in done.stderr
    assert not root.exists()


def test_verify_makes_no_root_that_is_not_there(tmp_path: Path) -> None:
    config = DownloadConfig(datasets=("rwf_2000",), data_root=tmp_path / "not there")
    with pytest.raises(UserError, match="contains no data set to verify"):
        download.verify(config)
    assert not config.data_root.exists()


def test_a_disk_that_fills_up_is_the_users_to_mend(bench: Bench) -> None:
    part = bench.root / "downloads" / "plain_set" / "plain.zip.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    storage.write_json(part.with_suffix(".part.json"), {"identity": f"{bench.server.url}/plain.zip"})
    with pytest.raises(UserError, match=rf"^{part.parent}: No space left on device\. Free some space"):
        bench.run("plain_set", "kaggle_set")
    assert "plain_set" in (bench.root / "raw" / "download_failures.csv").read_text()
    bench.assert_whole("kaggle_set")  # the other data set is not affected
    part.unlink()
    assert bench.run("plain_set").failures == []


@pytest.mark.parametrize("password", ["secret", "sec#ret", "sec/ret", "sec ret"])
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, password: str
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{password}@127.0.0.1:9")
    monkeypatch.delenv("no_proxy")
    caplog.set_level("DEBUG")
    (outcome,) = bench.run("plain_set").outcomes
    written = (bench.root / "raw" / "download_failures.csv").read_text()
    assert outcome.status == "failed"
    for told in (outcome.reason, written, caplog.text):
        assert password not in told
        assert "me:" not in told
