"""A fetched file equals the published one, or the error says what to do and a part that can be continued is kept."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import logging
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests import fault_server
from tests.fault_server import FaultServer, Served, chunked, cut, cut_and, html, short_body, stall, status
from violence_detection.download import transfer
from violence_detection.system import storage

BODY = random.Random(1).randbytes(700_000)
PATIENT = transfer.Policy(attempts=4, first_wait_s=0.005, max_wait_s=2.0, read_timeout_s=0.4)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server.running() as running:
        running.files["/data.zip"] = Served(BODY)
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data.zip"


def get(server: FaultServer, target: Path, policy: transfer.Policy = PATIENT) -> None:
    transfer.fetch(transfer.plain(f"{server.url}/data.zip"), target, policy=policy)


def bytes_sent(server: FaultServer) -> list[str | None]:
    return [headers.get("Range") for headers in server.requests_for("/data.zip")]


@pytest.mark.parametrize("seed", range(5))
def test_connection_cut_at_random_offsets_gives_the_exact_bytes(
    server: FaultServer, target: Path, seed: int
) -> None:
    draw = random.Random(seed)
    server.faults.extend(cut(draw.randrange(0, 300_000), reset=draw.random() < 0.5) for _ in range(4))
    get(server, target)
    assert target.read_bytes() == BODY
    assert sorted(p.name for p in target.parent.iterdir()) == ["data.zip"]


def test_what_arrived_is_continued_by_the_next_run(server: FaultServer, target: Path) -> None:
    server.faults.extend([cut(400_000)] + [cut(0)] * 5)
    with pytest.raises(transfer.FetchError, match="run the same command again"):
        get(server, target)
    kept = transfer.part_path(target).stat().st_size
    assert kept > 300_000
    server.faults.clear()
    get(server, target)
    assert target.read_bytes() == BODY
    assert bytes_sent(server)[-1] == f"bytes={kept}-"


def test_progress_counts_each_byte_once(server: FaultServer, target: Path) -> None:
    server.files["/data.zip"].ranges = False
    server.faults.append(cut(200_000))
    told: list[int] = []
    transfer.fetch(transfer.plain(f"{server.url}/data.zip"), target, policy=PATIENT, on_bytes=told.append)
    assert sum(told) == len(BODY)


def test_server_without_range_starts_again_cleanly(server: FaultServer, target: Path) -> None:
    server.files["/data.zip"].ranges = False
    server.faults.extend([cut(100_000), cut(500_000)])
    get(server, target)
    assert target.read_bytes() == BODY


def test_server_without_range_that_always_cuts_is_given_up(server: FaultServer, target: Path) -> None:
    server.files["/data.zip"].ranges = False
    server.faults.extend([cut(100_000)] * 50)
    with pytest.raises(transfer.FetchError, match="gave up after"):
        get(server, target)
    assert not target.exists()


def test_file_changed_between_attempts_is_never_mixed(server: FaultServer, target: Path) -> None:
    new = random.Random(2).randbytes(len(BODY))

    def publish() -> None:
        server.files["/data.zip"] = Served(new)

    server.faults.append(cut_and(300_000, publish))
    get(server, target)
    assert target.read_bytes() == new
    assert bytes_sent(server)[1] is not None, "the second attempt did not try to continue"
    assert [code for *_, code in server.log] == [200, 200], "If-Range spares the useless partial answer"


def test_server_that_ignores_if_range_is_found_out_by_its_etag(server: FaultServer, target: Path) -> None:
    new = random.Random(3).randbytes(len(BODY))

    def ignore_if_range(handler: fault_server.Handler) -> bool:
        server.files["/data.zip"] = Served(new)
        del handler.headers["If-Range"]
        return False

    server.faults.extend([cut(300_000), ignore_if_range])
    get(server, target)
    assert target.read_bytes() == new


def test_chunked_answers_without_a_length_arrive_whole_or_again(server: FaultServer, target: Path) -> None:
    server.faults.extend([chunked(300_000), chunked(0), chunked()])
    get(server, target)
    assert target.read_bytes() == BODY
    assert bytes_sent(server) == [None, None, None]


def test_part_without_validator_is_not_continued(server: FaultServer, target: Path) -> None:
    server.files["/data.zip"].etag = 'W/"weak"'
    server.faults.append(cut(300_000))
    get(server, target)
    assert target.read_bytes() == BODY
    assert bytes_sent(server) == [None, None]


def test_part_of_another_address_is_dropped(server: FaultServer, target: Path) -> None:
    transfer.part_path(target).write_bytes(b"x" * 1000)
    storage.write_json(
        target.with_name("data.zip.part.json"),
        {"identity": "kaggle:other/set", "etag": server.files["/data.zip"].tag, "size_bytes": len(BODY)},
    )
    get(server, target)
    assert target.read_bytes() == BODY


def test_part_longer_than_the_file_starts_again(server: FaultServer, target: Path) -> None:
    transfer.part_path(target).write_bytes(b"x" * (len(BODY) + 10))
    storage.write_json(
        target.with_name("data.zip.part.json"),
        {"identity": f"{server.url}/data.zip", "etag": server.files["/data.zip"].tag},
    )
    get(server, target)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(("code", "as_date"), [(429, False), (503, True)])
def test_retry_after_is_obeyed(server: FaultServer, target: Path, code: int, as_date: bool) -> None:
    value = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    server.faults.append(status(code, {"Retry-After": value}))
    start_s = time.monotonic()
    get(server, target)
    assert time.monotonic() - start_s >= 0.9
    assert target.read_bytes() == BODY


def test_retry_after_beyond_patience_is_told_not_waited_for(server: FaultServer, target: Path) -> None:
    server.faults.extend([cut(300_000), status(429, {"Retry-After": "3600"})])
    with pytest.raises(transfer.FetchError, match="asks for a wait of 3600 s"):
        get(server, target)
    assert transfer.part_path(target).stat().st_size > 200_000


def test_server_errors_are_tried_again(server: FaultServer, target: Path) -> None:
    server.faults.extend([status(500), status(502), status(504)])
    get(server, target)
    assert target.read_bytes() == BODY
    assert not server.faults, "each was met"


@pytest.mark.parametrize("code", [408, 507, 520, 522, 529])
def test_errors_of_servers_before_the_store_are_tried_again(
    server: FaultServer, target: Path, code: int
) -> None:
    server.faults.append(status(code))
    get(server, target)
    assert target.read_bytes() == BODY
    assert not server.faults, "it was met"


@pytest.mark.parametrize("length", ["{0}, {0}", "about {0}", "-5", ""])
def test_a_length_that_a_proxy_has_altered_is_right_or_none(
    server: FaultServer, target: Path, length: str
) -> None:
    headers = {"Content-Length": length.format(len(BODY)), "Connection": "close"}
    server.faults.extend([status(200, headers, BODY)] * 10)
    get(server, target)
    assert target.read_bytes() == BODY


def test_a_length_beside_chunks_says_nothing(server: FaultServer, target: Path) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    server.faults.extend([status(200, {"Content-Length": "9", "Transfer-Encoding": "chunked"}, chunks)] * 10)
    get(server, target)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("wait", ["²", "soon", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"])
def test_retry_after_that_says_nothing_is_not_obeyed(server: FaultServer, target: Path, wait: str) -> None:
    server.faults.append(status(503, {"Retry-After": wait}))
    get(server, target)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    "address", ["http://[::1/x", f"http://{'a' * 70}.example/x", "http://localhost:1/\xff"]
)
def test_a_redirect_to_no_address_is_a_clear_error(server: FaultServer, target: Path, address: str) -> None:
    server.faults.append(status(302, {"Location": address}))
    with pytest.raises(transfer.FetchError, match=r"redirects to an invalid address .* browser"):
        get(server, target)


def test_stall_is_a_time_out_and_tried_again(server: FaultServer, target: Path) -> None:
    server.faults.append(stall(0.8))
    get(server, target)
    assert target.read_bytes() == BODY
    assert len(bytes_sent(server)) == 1, "the request that stalled sent nothing"
    assert not server.faults


def test_stall_in_the_middle_costs_only_what_had_not_arrived(server: FaultServer, target: Path) -> None:
    server.faults.append(cut_and(400_000, lambda: time.sleep(0.8)))
    get(server, target)
    assert target.read_bytes() == BODY
    assert bytes_sent(server)[1] is not None


def test_server_that_only_stalls_is_given_up_with_the_reason(server: FaultServer, target: Path) -> None:
    server.faults.extend([stall(0.3)] * 10)
    with pytest.raises(transfer.FetchError, match="time-out"):
        get(server, target, transfer.Policy(attempts=1, first_wait_s=0.001, read_timeout_s=0.1))


def test_server_that_is_not_there_is_a_clear_error(target: Path) -> None:
    remote = transfer.plain("http://127.0.0.1:9/data.zip?sig=secretsignature")
    with pytest.raises(transfer.FetchError, match=r"connection failed .Connection refused") as raised:
        transfer.fetch(remote, target, policy=transfer.Policy(attempts=1, first_wait_s=0.001))
    assert "secretsignature" not in str(raised.value)


@pytest.mark.parametrize("code", [401, 403, 404])
def test_refusal_is_final_and_keeps_the_part(server: FaultServer, target: Path, code: int) -> None:
    server.faults.extend([cut(300_000), status(code)])
    with pytest.raises(transfer.Refused, match=str(code)):
        get(server, target)
    assert transfer.part_path(target).stat().st_size > 200_000
    assert len(bytes_sent(server)) == 2
    get(server, target)
    assert target.read_bytes() == BODY


def test_expired_signature_in_the_middle_is_asked_for_again(server: FaultServer, target: Path) -> None:
    def expire() -> None:
        server.signature = "second"

    def locate() -> transfer.Location:
        url = f"{server.url}/data.zip?sig={server.signature}"
        return transfer.Location(requests.Request("GET", url).prepare())

    server.faults.append(cut_and(300_000, expire))
    remote = transfer.Remote("signed", locate, expires=True)
    transfer.fetch(remote, target, policy=PATIENT)
    assert target.read_bytes() == BODY
    assert [code for *_, code in server.log] == [200, 403, 206]


def test_html_page_in_place_of_the_file_is_refused_by_name(server: FaultServer, target: Path) -> None:
    server.faults.append(html("Log in to Example"))
    with pytest.raises(transfer.NotTheFile, match="Log in to Example"):
        get(server, target)
    assert not target.exists()


def test_html_page_during_a_resume_does_not_cost_the_part(server: FaultServer, target: Path) -> None:
    server.faults.extend([cut(400_000), html("Quota exceeded")])
    with pytest.raises(transfer.NotTheFile):
        get(server, target)
    assert transfer.part_path(target).stat().st_size > 300_000
    get(server, target)
    assert target.read_bytes() == BODY


def test_html_without_its_content_type_is_recognised(server: FaultServer, target: Path) -> None:
    server.files["/data.zip"] = Served(
        b"\n<html><title>Consent</title></html>", content_type="application/zip"
    )
    with pytest.raises(transfer.NotTheFile, match="Consent"):
        get(server, target)


def test_length_that_is_never_reached_is_a_clear_error(server: FaultServer, target: Path) -> None:
    server.files["/data.zip"].ranges = False
    server.faults.extend([short_body(len(BODY), BODY[:1000])] * 10)
    with pytest.raises(transfer.FetchError, match=r"cut before the announced length|bytes arrived"):
        get(server, target)
    assert not target.exists()


def test_published_hash_is_checked_and_wrong_bytes_are_deleted(server: FaultServer, target: Path) -> None:
    wrong = base64.b64encode(hashlib.md5(b"something else").digest()).decode()
    server.files["/data.zip"].headers["x-goog-hash"] = f"crc32c=AAAAAA==,md5={wrong}"
    with pytest.raises(transfer.WrongBytes, match="MD5"):
        get(server, target)
    assert list(target.parent.iterdir()) == []
    right = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    server.files["/data.zip"].headers["x-goog-hash"] = f"md5={right}"
    get(server, target)
    assert target.read_bytes() == BODY


def test_stop_from_another_thread_keeps_the_part(server: FaultServer, target: Path) -> None:
    stop = threading.Event()

    def on_bytes(n: int) -> None:
        if n:
            stop.set()

    with pytest.raises(transfer.Interrupted):
        transfer.fetch(transfer.plain(f"{server.url}/data.zip"), target, on_bytes=on_bytes, stop=stop)
    assert transfer.part_path(target).stat().st_size > 0
    get(server, target)
    assert target.read_bytes() == BODY


def test_logs_hold_no_signature(
    server: FaultServer, target: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.log, "propagate", True)
    caplog.set_level(logging.DEBUG, logger="violence_detection")
    server.signature = "hushhush"
    server.faults.extend([cut(1000), status(503), stall(0.6)])
    remote = transfer.plain(f"{server.url}/data.zip?sig=hushhush".replace("//", "//user:password@"))
    transfer.fetch(remote, target, policy=PATIENT)
    assert "trying again" in caplog.text
    assert "hushhush" not in caplog.text
    assert "password" not in caplog.text


def test_broken_encryption_is_tried_again(server: FaultServer, target: Path) -> None:
    remote = transfer.plain(f"{server.url}/data.zip".replace("http://", "https://"))
    with pytest.raises(transfer.FetchError, match=r"gave up .* encrypted connection broke"):
        transfer.fetch(remote, target, policy=PATIENT)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_certificate_that_is_not_trusted_is_final(server: FaultServer, target: Path) -> None:
    server.encrypt(target.parent)
    remote = transfer.plain(f"{server.url}/data.zip".replace("http://", "https://"))
    with pytest.raises(transfer.FetchError, match="REQUESTS_CA_BUNDLE"):
        transfer.fetch(remote, target, policy=PATIENT)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_log_in_is_told_at_once(
    server: FaultServer, target: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv(f"{scheme}_proxy", server.url)
    server.faults.append(status(407))
    with pytest.raises(transfer.FetchError, match=r"the proxy answered 407.*http_proxy and https_proxy"):
        transfer.fetch(transfer.plain(f"{scheme}://nowhere.invalid/data.zip"), target, policy=PATIENT)
    assert len(server.log) == 1
