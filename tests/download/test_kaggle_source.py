"""The real Kaggle client against a local server: exact bytes, or an error with the remedy."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fault_server
from tests.download_bench import SLUG, Bench, arrives, clips, failure, running_bench, zipped
from tests.fault_server import (
    LEGACY_KEY,
    SIGNATURE,
    TOKEN,
    Served,
    cut,
    cut_and,
    html,
    stall,
    status,
)  # fmt: skip
from violence_detection.download import kaggle_source, transfer
from violence_detection.system import storage

MOVED = "the data set has moved: name a catalogue that has its new slug (--catalogue FILE)"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with running_bench(tmp_path, monkeypatch) as running:
        yield running


@pytest.mark.parametrize("seed", range(3))
def test_kaggle_connection_cut_at_random_offsets(bench: Bench, seed: int) -> None:
    draw = random.Random(seed)
    bench.server.faults.append(lambda _: False)  # the client's own request, which only reads the headers
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
    assert not bench.server.faults, "the cut was met"


def test_kaggle_stalls(bench: Bench) -> None:
    bench.server.faults.extend([lambda _: False, lambda _: False, stall(0.8)])
    arrives(bench)
    assert not bench.server.faults, "the stall was met"


def test_kaggle_that_never_answers_is_not_waited_for_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a time limit around them, the client's own requests would wait for ever."""
    kaggle = kaggle_source.authenticate()
    monkeypatch.setattr(kaggle_source, "_CALL_TIMEOUT_S", 0.3)
    bench.server.api_faults.append(stall(1.0))
    with pytest.raises(transfer.TryAgain, match="time-out"):
        kaggle.locate("owner/fights")
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
    """The client would fall back to the legacy pair, and yet send the refused token with every request."""
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
    assert (MOVED in reason) == (code == 403), "Kaggle answers so for a data set that is gone, too"


def test_kaggle_data_set_is_gone(bench: Bench) -> None:
    bench.server.datasets = {}
    reason = failure(bench)
    assert "404" in reason
    assert MOVED in reason


@pytest.mark.parametrize("call", ["log-in", "log-in, encrypted", "data set"])
def test_a_proxy_that_wants_a_log_in_is_told_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    if call == "log-in, encrypted":
        monkeypatch.delenv("KAGGLE_API_ENVIRONMENT")
        monkeypatch.setenv("https_proxy", bench.server.url)
    faults = bench.server.api_faults if call == "data set" else bench.server.log_in_faults
    faults.extend([status(407)] * 2)  # two, because importing the client logs in as well
    reason = failure(bench)
    assert "the proxy answered 407" in reason
    assert "http_proxy and https_proxy" in reason


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_a_certificate_that_is_not_trusted_is_told_at_once(bench: Bench, tmp_path: Path) -> None:
    with fault_server.running() as server:
        server.encrypt(tmp_path)
        address = server.url.replace("http:", "https:")
        bench.server.api_faults.append(status(302, {"Location": f"{address}/k/archive.zip"}))
        assert "set REQUESTS_CA_BUNDLE to that certificate's file" in failure(bench)


def test_no_kaggle_credentials(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    reason = failure(bench)
    assert "no Kaggle credentials were found" in reason
    assert "access_token" in reason
    assert str(bench.root / "downloads" / "kaggle_set" / "fights.zip") in reason, "the way by hand"


def test_kaggle_client_that_is_not_installed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaggle.api.kaggle_api_extended", None)
    assert "pip install -r requirements.txt" in failure(bench)


def test_kaggle_log_in_that_is_overloaded(bench: Bench) -> None:
    bench.server.log_in_faults.append(status(503))
    assert "Kaggle answered 503" in failure(bench)


def test_a_page_that_answers_in_kaggles_place_is_told_and_takes_no_other_data_set_with_it(
    bench: Bench,
) -> None:
    bench.server.log_in_faults.append(html("Hotel"))
    kaggle, plain = bench.run("kaggle_set", "plain_set").outcomes
    assert kaggle.status == "failed"
    assert "the response to the log-in is not from Kaggle" in kaggle.reason
    assert plain.status == "downloaded"
    bench.assert_whole("plain_set")


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


@pytest.mark.parametrize("variable", ["KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"])
def test_the_folder_of_the_clients_settings_may_begin_with_the_home_folder(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The client takes `~` literally. It reads the variables when imported, so this runs in a process of its own."""
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    Path("~/.kaggle").expanduser().rmdir()
    monkeypatch.setenv(variable, "~/own")
    file = Path("~/own").expanduser() / ("kaggle" if variable == "XDG_CONFIG_HOME" else "") / "kaggle.json"
    storage.write_json(file, {"username": "someone", "key": LEGACY_KEY})
    monkeypatch.chdir(tmp_path)
    run = bench.start("--datasets", "kaggle_set")
    assert run.wait(60) == 0, run.communicate()
    bench.assert_whole()
    assert not (tmp_path / "~").exists()


def test_a_folder_that_the_client_cannot_make_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nobody")
    run = bench.start("--datasets", "kaggle_set")
    _, told = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "cannot create its folder /proc/nobody/.config/kaggle" in told
    assert "Set KAGGLE_CONFIG_DIR" in told
    assert "Traceback" not in told


MARKED = {"UTF-8": "utf-8-sig", "UTF-16": "utf-16"}


@pytest.mark.parametrize("encoding", MARKED)
def test_settings_that_an_editor_has_marked_are_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """The client itself silently ignores settings with a byte order mark."""
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    text = json.dumps({"username": "someone", "key": LEGACY_KEY})
    Path("~/.kaggle/kaggle.json").expanduser().write_text(text, encoding=MARKED[encoding])
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(Path("~/.kaggle").expanduser()))
    arrives(bench)
    assert not {"KAGGLE_USERNAME", "KAGGLE_KEY"} & os.environ.keys()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '{\n "username": "someone",\n "key": "01',
            "is damaged: Unterminated string starting at in line 3, column 9",
        ),
        ('{"username": "someone"}', "has no key"),
        ("[]", "has no username and no key"),
    ],
)
def test_settings_that_are_damaged_are_named_with_what_is_wrong(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    file = Path("~/.kaggle/kaggle.json").expanduser()
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(file.parent))
    file.write_text(text)
    reason = failure(bench)
    assert f"{file} {told}" in reason
    assert "settings/api" in reason
    assert "accept" not in reason


def test_a_token_that_an_editor_has_marked_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    Path("~/.kaggle/access_token").expanduser().write_text(TOKEN, encoding="utf-8-sig")
    reason = failure(bench)
    assert "access_token contains more than a token" in reason
    assert TOKEN not in reason


@pytest.mark.parametrize(
    ("token", "told"),
    [(TOKEN + "\n", "KAGGLE_API_TOKEN contains more than a token"), (TOKEN * 20, "Put the token into")],
)
def test_a_token_in_the_variable_that_the_client_cannot_take_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, token: str, told: str
) -> None:
    """One token ends with a line break, as some web forms add it; the other is too long to be a file name."""
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    reason = failure(bench)
    assert told in reason
    assert TOKEN not in reason


def test_the_variable_of_the_token_may_name_a_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client accepts the name of a file there, too."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(tmp_path / "token"))
    arrives(bench)


def test_html_log_in_page_in_place_of_the_zip(bench: Bench) -> None:
    page = b"<!DOCTYPE html><html><title>Kaggle: Sign in</title></html>"
    bench.server.files["/k/archive.zip"] = Served(page, content_type="text/html")
    reason = failure(bench)
    assert "Kaggle: Sign in" in reason
    assert "in a browser" in reason


def test_verbose_logs_hold_no_credentials(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable VERBOSE would make the client itself print each request with its headers."""
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
