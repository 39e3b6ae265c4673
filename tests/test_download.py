"""Step 1 as a whole, with the real Kaggle client against a local server: whole data sets, or errors with the remedy."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import fault_server
from tests.fault_server import (
    LEGACY_KEY,
    SIGNATURE,
    TOKEN,
    FaultServer,
    Handler,
    Served,
    cut,
    cut_and,
    short_body,
    stall,
    status,
)  # fmt: skip
from violence_detection import completion, download, fetch, kaggle_source, storage
from violence_detection.config import DownloadConfig
from violence_detection.errors import UserError

SCRIPT = Path(__file__).parents[1] / "download_all_violence_datasets.py"
PATIENT = fetch.Policy(attempts=4, first_wait_s=0.005, max_wait_s=2.0, read_timeout_s=0.5)
PLENTY_BYTES = 10**12
SLUG = "owner/fights"
ENTRY = """
[{key}]
title = "{key}"
roadmap = true
archive_bytes = 500000
extracted_bytes = 500000
clips = {{ fight = 5, nonfight = 5 }}
licence = "MIT"
terms = "none"
citation = "none"
notes = "none"
sources = [{sources}]
labels = [{{ pattern = 'fight/.+', label = "fight" }}]
"""


def clips(seed: int, count: int = 10, size: int = 50_000) -> dict[str, bytes]:
    draw = random.Random(seed)
    return {f"Set/{'noFight' if i % 2 else 'fight'}/{i:04d}.avi": draw.randbytes(size) for i in range(count)}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in completion.tree_paths(folder)}


class Bench:
    """A server, a data root and a catalogue with `kaggle_set` (Kaggle) and `plain_set` (plain address)."""

    def __init__(self, server: FaultServer, folder: Path):
        self.server, self.root, self.catalogue = server, folder / "root", folder / "catalogue.toml"
        self.files = clips(1)
        self.plain_files = clips(2)
        server.files = {
            "/k/archive.zip": Served(zipped(self.files)),
            "/plain.zip": Served(zipped(self.plain_files)),
        }
        server.datasets = {SLUG: "/k/archive.zip"}
        kaggle = f'{{ kind = "kaggle", slug = "{SLUG}", file = "fights.zip" }}'
        self.write_catalogue(kaggle_set=kaggle, plain_set=self.url_source("/plain.zip"))

    def url_source(self, path: str) -> str:
        return f'{{ kind = "url", url = "{self.server.url}{path}?key={SIGNATURE}", file = "plain.zip" }}'

    def write_catalogue(self, **sources: str) -> None:
        self.catalogue = self.catalogue.with_name(
            f"catalogue{time.monotonic_ns()}.toml"
        )  # catalogues are cached
        self.catalogue.write_text("".join(ENTRY.format(key=k, sources=s) for k, s in sources.items()))

    def config(self, *keys: str, **values: Any) -> DownloadConfig:
        return DownloadConfig(
            **{"datasets": keys, "data_root": self.root, "catalogue": self.catalogue, **values}
        )

    def run(self, *keys: str, free: int = PLENTY_BYTES, **values: Any) -> download.Result:
        return download.run(self.config(*keys, **values), free_bytes=lambda _: free, policy=PATIENT)

    def raw(self, key: str) -> Path:
        return self.root / "raw" / key

    def assert_whole(self, key: str = "kaggle_set") -> None:
        expected = self.files if key == "kaggle_set" else self.plain_files
        assert tree(self.raw(key)) == expected
        assert completion.problems(self.raw(key)) == []
        assert not (self.root / "downloads" / key).exists()
        assert not list((self.root / "raw").glob(".*"))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            str(SCRIPT),
            "--data-root",
            str(self.root),
            "--catalogue",
            str(self.catalogue),
        ]
        return subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Credentials from KAGGLE_API_TOKEN; the client reaches its http://localhost through the server as proxy."""
    with fault_server.running() as server:
        for name in [n for n in os.environ if n.startswith("KAGGLE_") or n.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        home = tmp_path / "home"
        (home / ".kaggle").mkdir(parents=True)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield Bench(server, tmp_path)


def failure(bench: Bench) -> str:
    """Run both; the Kaggle one fails, the other arrives all the same. Returns the reason."""
    result = bench.run("kaggle_set", "plain_set")
    failed, other = result.outcomes
    assert (failed.status, other.status) == ("failed", "downloaded")
    assert not bench.raw("kaggle_set").exists()
    bench.assert_whole("plain_set")
    assert (bench.root / "raw" / "download_failures.csv").read_text().startswith("path,reason\nkaggle_set,")
    assert result.summary()["failed"] == 1
    return failed.reason


def arrives(bench: Bench) -> download.Result:
    result = bench.run("kaggle_set")
    assert [o.status for o in result.outcomes] == ["downloaded"], result.outcomes
    bench.assert_whole()
    assert not (bench.root / "raw" / "download_failures.csv").exists()
    return result


@pytest.mark.parametrize("seed", range(3))
def test_kaggle_connection_cut_at_random_offsets(bench: Bench, seed: int) -> None:
    draw = random.Random(seed)
    bench.server.faults.append(lambda _: False)  # the client's own look at the headers
    bench.server.faults.extend(cut(draw.randrange(200_000), reset=draw.random() < 0.5) for _ in range(3))
    arrives(bench)


def test_kaggle_signed_address_expires_in_the_middle(bench: Bench) -> None:
    def expire() -> None:
        bench.server.signature = "second"

    bench.server.faults.extend([lambda _: False, lambda _: False, cut_and(200_000, expire)])
    arrives(bench)
    statuses = [code for method, path, _, code in bench.server.log if "/k/archive.zip" in path]
    assert 403 in statuses
    assert statuses[-1] == 206


def test_kaggle_asks_to_wait(bench: Bench) -> None:
    bench.server.api_faults.extend([lambda _: False, status(429, {"Retry-After": "1"})])
    start_s = time.monotonic()
    arrives(bench)
    assert time.monotonic() - start_s > 0.9


def test_kaggle_that_is_overloaded_before_the_first_byte_is_tried_again(bench: Bench) -> None:
    bench.server.api_faults.extend([status(503), status(503)])
    arrives(bench)


def test_kaggle_file_changes_between_attempts(bench: Bench) -> None:
    old = dict(bench.files)
    bench.files = clips(7)
    assert bench.files.keys() == old.keys()

    def publish() -> None:
        bench.server.files["/k/archive.zip"] = Served(zipped(bench.files))

    bench.server.faults.extend([lambda _: False, lambda _: False, cut_and(300_000, publish)])
    arrives(bench)


def test_kaggle_store_without_range(bench: Bench) -> None:
    bench.server.files["/k/archive.zip"].ranges = False
    bench.server.faults.extend([lambda _: False, lambda _: False, cut(100_000)])
    arrives(bench)


def test_kaggle_stalls(bench: Bench) -> None:
    bench.server.faults.extend([lambda _: False, lambda _: False, stall(0.8)])
    arrives(bench)


def test_kaggle_refuses_the_token(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_wrong")
    reason = failure(bench)
    assert "does not accept" in reason
    assert "KAGGLE_API_TOKEN" in reason
    assert "https://www.kaggle.com/settings/api" in reason
    assert f"https://www.kaggle.com/datasets/{SLUG}" in reason
    assert "KGAT_wrong" not in reason


def test_a_refused_token_is_not_hidden_by_a_legacy_pair(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would pass over the token, and then send it all the same."""
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_wrong")
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    monkeypatch.setenv("KAGGLE_KEY", LEGACY_KEY)
    assert "remove or replace" in failure(bench)


@pytest.mark.parametrize(("code", "remedy"), [(401, "settings/api"), (403, "accept the data set's terms")])
def test_kaggle_refuses_the_data_set(bench: Bench, code: int, remedy: str) -> None:
    bench.server.api_faults.append(status(code))
    reason = failure(bench)
    assert str(code) in reason
    assert remedy in reason
    assert "KAGGLE_API_TOKEN" in reason, "which credentials were tried"
    assert f"https://www.kaggle.com/datasets/{SLUG}" in reason


def test_kaggle_data_set_is_gone(bench: Bench) -> None:
    bench.server.datasets = {}
    assert "404" in failure(bench)


def test_no_kaggle_credentials(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    reason = failure(bench)
    assert "no Kaggle credentials" in reason
    assert "access_token" in reason
    assert str(bench.root / "downloads" / "kaggle_set" / "fights.zip") in reason, "the way by hand"


@pytest.mark.parametrize("way", ["variable", "access_token", "legacy pair", "log-in"])
def test_each_way_of_authenticating_works_and_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way != "variable":
        monkeypatch.delenv("KAGGLE_API_TOKEN")
    if way == "access_token":
        Path("~/.kaggle/access_token").expanduser().write_text(TOKEN + "\n")
    if way == "legacy pair":
        monkeypatch.setenv("KAGGLE_USERNAME", "someone")
        monkeypatch.setenv("KAGGLE_KEY", LEGACY_KEY)
    if way == "log-in":
        saved = {"refresh_token": "r", "access_token": TOKEN, "username": "someone"}
        saved["access_token_expiration"] = "2999-01-01T00:00:00+00:00"
        storage.write_json(Path("~/.kaggle/credentials.json").expanduser(), saved)
    named = {
        "variable": "KAGGLE_API_TOKEN",
        "access_token": "access_token",
        "legacy pair": "KAGGLE_USERNAME",
        "log-in": "kaggle auth login",
    }
    assert named[way] in kaggle_source.authenticate().how
    arrives(bench)


def test_html_log_in_page_in_place_of_the_zip(bench: Bench) -> None:
    page = b"<!DOCTYPE html><html><title>Kaggle: Sign in</title></html>"
    bench.server.files["/k/archive.zip"] = Served(page, content_type="text/html")
    reason = failure(bench)
    assert "Kaggle: Sign in" in reason
    assert "in a browser" in reason


def test_wrong_length_is_never_published(bench: Bench) -> None:
    body = bench.server.files["/plain.zip"].body
    bench.server.faults.extend([short_body(len(body), body[:5000])] * 20)
    with pytest.raises(UserError, match=r"cut before the announced length|bytes arrived") as raised:
        raise UserError(bench.run("plain_set").outcomes[0].reason)
    assert "run the same command again" in str(raised.value)
    bench.server.faults.clear()
    bench.run("plain_set")
    bench.assert_whole("plain_set")


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
    arrives(bench)
    assert bench.server.log == []


def test_tree_put_there_by_hand_is_recorded_and_never_touched(bench: Bench) -> None:
    for name, content in bench.files.items():
        path = bench.raw("kaggle_set") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    result = bench.run("kaggle_set")
    assert [o.status for o in result.outcomes] == ["adopted"]
    bench.assert_whole()
    assert (completion.read(bench.raw("kaggle_set")) or {})["source"] == {"kind": "by hand"}


def test_archive_lying_in_the_raw_folder_is_not_taken_for_the_data_set(bench: Bench) -> None:
    bench.raw("kaggle_set").mkdir(parents=True)
    (bench.raw("kaggle_set") / "fights.zip").write_bytes(zipped(bench.files))
    with pytest.raises(UserError, match=r"move the published one to .*downloads"):
        bench.run("kaggle_set")


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
    assert bench.run("kaggle_set").summary()["skipped"] == 1
    bench.assert_whole()


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


def test_a_complete_data_set_that_lost_files_is_reported_not_skipped(bench: Bench) -> None:
    arrives(bench)
    (bench.raw("kaggle_set") / "Set/fight/0000.avi").unlink()
    with pytest.raises(UserError, match=r"no longer as recorded.*remove"):
        bench.run("kaggle_set")
    assert len(tree(bench.raw("kaggle_set"))) == len(bench.files) - 1


def test_leftovers_of_a_killed_unpacking_are_replaced(bench: Bench) -> None:
    leftover = bench.root / "raw" / ".kaggle_set.unpacking" / "Set"
    leftover.mkdir(parents=True)
    (leftover / "half.avi").write_bytes(b"half")
    arrives(bench)


def test_two_runs_below_one_root_do_not_disturb_each_other(bench: Bench) -> None:
    import fcntl

    (bench.root / "downloads").mkdir(parents=True)
    with (bench.root / "downloads" / ".lock").open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another download is at work"):
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
    """Sends half of the body and leaves the connection open."""
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


def test_script_without_what_it_needs_exits_with_2(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    process = bench.start("--datasets", "kaggle_set")
    output, log_text = process.communicate(timeout=30)
    assert (process.returncode, output) == (2, "")
    assert "https://www.kaggle.com/settings/api" in log_text
    assert "Traceback" not in log_text


def test_verbose_logs_hold_no_credentials(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the client's own switch would print each request with its headers."""
    monkeypatch.setenv("VERBOSE", "1")
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    (Path.home() / ".kaggle" / "kaggle.json").write_text(
        json.dumps({"username": "someone", "key": LEGACY_KEY})
    )
    bench.server.faults.extend(
        [lambda _: False, lambda _: False, cut(1000), status(503, {"Retry-After": "0"})]
    )
    process = bench.start("-v", "--datasets", "kaggle_set,plain_set")
    output, log_text = process.communicate(timeout=30)
    assert process.returncode == 0, log_text
    assert "kaggle.json" in log_text
    assert len(output.splitlines()) == 1
    for secret in (LEGACY_KEY, SIGNATURE, "Authorization"):
        assert secret not in output + log_text


def test_list_shows_the_catalogue_and_the_roadmap_s_wrong_count() -> None:
    command = [sys.executable, str(SCRIPT), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "kaggle:vulamnguyen/rwf2000" in done.stderr
    assert "movie_fights: the roadmap says 1,000 clips; published are 200" in done.stderr
    assert len(json.loads(done.stdout)["datasets"]) >= 13
