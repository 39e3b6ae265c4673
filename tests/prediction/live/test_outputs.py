"""Where news of events go: to a real command, to a real HTTP server, and into figures that are scraped."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import streamed
from requests.adapters import HTTPAdapter

from violence_detection.errors import UserError
from violence_detection.prediction.config import OutputConfig
from violence_detection.prediction.event_follower import EventNews
from violence_detection.prediction.events import Event
from violence_detection.prediction.live import watch
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs import ways
from violence_detection.prediction.live.outputs.command import CommandOutput
from violence_detection.prediction.live.outputs.metrics import MetricsServer
from violence_detection.prediction.live.outputs.mqtt import MqttOutput
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.prediction.live.outputs.webhook import WebhookOutput
from violence_detection.system import storage


def _message(kind: str = "new", camera: str = "yard") -> EventMessage:
    event = Event(1_795_703_646.5, 1_795_703_651.5, 0.9, 1_795_703_649.0)
    return EventMessage(
        camera, "rtsp://host/s", EventNews(kind, "yard-1", event), 0.5, True, Path("/a/yard-1.jpg")
    )


def test_the_message_has_the_fields_that_programs_read() -> None:
    assert json.loads(_message().text()) == {
        "type": "new", "id": "yard-1", "camera": "yard", "address": "rtsp://host/s",
        "start_s": 1_795_703_646.5, "end_s": 1_795_703_651.5, "peak_s": 1_795_703_649.0, "p_violent": 0.9,
        "threshold": 0.5, "start": "2026-11-26T14:34:06.500Z", "end": "2026-11-26T14:34:11.500Z",
        "snapshot": "/a/yard-1.jpg", "clip": None, "clip_lost_s": None,
    }  # fmt: skip


def test_a_command_gets_json_and_environment_and_no_shell_reads_them(tmp_path: Path) -> None:
    script = tmp_path / "on event.py"
    script.write_text(
        "import os, sys\n"
        f"open({str(tmp_path / 'got')!r}, 'a').write(sys.argv[1] + '|' + os.environ['VIOLENCE_CAMERA'] + '|'"
        " + os.environ['VIOLENCE_CLIP'] + '|' + sys.stdin.read())\n"
    )
    odd = f"$(touch {tmp_path}/hacked); echo"
    output = CommandOutput(f"{sys.executable} '{script}' '$HOME;x'", 10)
    output.send(_message(camera=odd))
    output.close(10)
    word, camera, clip, text = (tmp_path / "got").read_text().split("|")
    assert (word, camera, clip) == ("$HOME;x", odd, "")
    assert json.loads(text)["id"] == "yard-1"
    assert not (tmp_path / "hacked").exists()
    assert (output.sent, output.failed) == (1, 0)


def test_a_command_has_what_scripts_need_in_its_environment(tmp_path: Path) -> None:
    """A variable without a value is empty. The other fields of a message are in the JSON only."""
    script = tmp_path / "on_event.py"
    script.write_text(
        "import json, os\n"
        "said = {name: value for name, value in os.environ.items() if name.startswith('VIOLENCE_')}\n"
        f"json.dump(said, open({str(tmp_path / 'got')!r}, 'w'))\n"
    )
    output = CommandOutput(f"{sys.executable} '{script}'", 10)
    output.send(_message("end"))
    output.close(10)
    got = json.loads((tmp_path / "got").read_text())
    assert {name: value for name, value in got.items() if os.environ.get(name) != value} == {
        "VIOLENCE_TYPE": "end", "VIOLENCE_ID": "yard-1", "VIOLENCE_CAMERA": "yard",
        "VIOLENCE_START": "2026-11-26T14:34:06.500Z", "VIOLENCE_END": "2026-11-26T14:34:11.500Z",
        "VIOLENCE_START_S": "1795703646.5", "VIOLENCE_END_S": "1795703651.5", "VIOLENCE_P_VIOLENT": "0.9",
        "VIOLENCE_SNAPSHOT": "/a/yard-1.jpg", "VIOLENCE_CLIP": "",
    }  # fmt: skip


def test_a_command_is_run_to_its_end_where_nobody_reads_stderr_any_more(tmp_path: Path) -> None:
    script = tmp_path / "on_event.sh"
    script.write_text(f"echo seen; echo seen >&2; touch '{tmp_path / 'got'}'\n")
    reads, writes = os.pipe()
    os.close(reads)
    kept = os.dup(2)
    os.dup2(writes, 2)
    os.close(writes)
    try:
        output = CommandOutput(f"sh '{script}'", 10)
        output.send(_message())
        output.close(10)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert (tmp_path / "got").exists()
    assert (output.sent, output.failed) == (1, 0)


def test_a_slow_or_failing_command_keeps_nobody_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = CommandOutput("sh -c 'sleep 60 & sleep 60'", 0.3)
    began_s = time.monotonic()
    output.send(_message())
    assert time.monotonic() - began_s < 1
    output.close(5)
    assert time.monotonic() - began_s < 10
    assert "took more than 0.3 s and was killed" in caplog.text
    gone = tmp_path / "gone.sh"
    gone.touch(0o755)
    for command, said in ((str(gone), "No such file"), ("false", "ended with exit code 1")):
        output = CommandOutput(command, 5)
        gone.unlink(missing_ok=True)
        output.send(_message())
        output.close(5)
        assert output.failed == 1
        assert said in caplog.text


def _interrupted(*args: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("is_insisted", [False, True])
def test_a_command_that_runs_at_the_end_is_killed_with_what_it_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, is_insisted: bool
) -> None:
    """It once ran on for ever, since nothing was left to kill it at its timeout. A second Ctrl-C kills it at once."""
    script, pid = tmp_path / "hangs.sh", tmp_path / "pid"
    script.write_text(f"sleep 100 &\necho $! > '{pid}.new'\nmv '{pid}.new' '{pid}'\nwait\n")
    output = CommandOutput(f"sh '{script}'", 50)
    for _ in range(2):
        output.send(_message())
    until_s = time.monotonic() + 20
    while not pid.is_file() and time.monotonic() < until_s:
        time.sleep(0.02)
    if is_insisted:
        monkeypatch.setattr(Outbox, "close", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            output.close(5)
        assert not storage.is_running(int(pid.read_text()))
        return
    output.close(0.2)
    assert not storage.is_running(int(pid.read_text()))
    assert (output.sent, output.failed) == (0, 2)
    assert "sh was still running at the end and was killed" in caplog.text


def test_a_command_that_cannot_be_run_is_refused_at_the_start_without_its_arguments(tmp_path: Path) -> None:
    script, folder = tmp_path / "on event.sh", tmp_path / "folder"
    script.touch(0o644)
    folder.mkdir()
    for command, said in (
        ("sh 'GEHEIM", "cannot be split into words"),
        ("", "is empty"),
        (f"{tmp_path}/notfiy.sh GEHEIM", "there is no command .*/notfiy.sh. No shell is used"),
        ("no-such-command GEHEIM", "there is no command no-such-command"),
        (f"{folder} GEHEIM", "there is no command .*/folder"),
        (f"'{script}' GEHEIM", r"on event.sh is not executable. Run: chmod \+x '/.*/on event.sh'"),
    ):
        with pytest.raises(UserError, match=said) as e:
            watch.check(LiveConfig(on_event=command), OutputConfig())
        assert "GEHEIM" not in str(e.value)
        with pytest.raises(UserError, match=said):
            CommandOutput(command, 5)
    script.chmod(0o755)
    watch.check(LiveConfig(on_event=f"'{script}' GEHEIM"), OutputConfig())


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"on_event": "no-such-command"}, "--on-event: there is no command"),
        ({"on_event": "'"}, "--on-event cannot be split"),
        ({"webhook": ("ftp://host",)}, "--webhook must be"),
        ({"mqtt": "http://host"}, "--mqtt must be"),
        ({"mqtt": "mqtt://host", "mqtt_ca": Path("ca.pem")}, "--mqtt-ca is for"),
        ({"mqtt": "mqtts://host", "mqtt_ca": Path("gone.pem")}, "--mqtt-ca: cannot read a certificate"),
        ({"mqtt": "mqtt://host", "mqtt_prefix": "#"}, r"mqtt_prefix \(--mqtt-prefix\) must be"),
    ],
)
def test_what_cannot_work_is_refused_by_the_name_of_its_flag(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}"):
        watch.check(LiveConfig(**setting), OutputConfig())


class _Server(ThreadingHTTPServer):
    """Answers with `answers` in turn (0: with 200 after a second), then with 200; keeps what it was sent."""

    def __init__(self, answers: list[int]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.got = answers, list[tuple[str, str]]()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        code = self.server.answers.pop(0) if self.server.answers else 200
        if code == 0:
            time.sleep(1)
        self.server.got.append((body, self.headers.get("Authorization", "")))
        self.send_response(code or 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server([503, 0])
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_a_webhook_is_tried_again_and_its_password_shown_nowhere(
    server: _Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The first answer is an error, the second comes too late, the third is 200."""
    caplog.set_level(logging.DEBUG, logger="violence_detection")
    output = WebhookOutput(f"http://me:geheim@127.0.0.1:{server.server_port}/hook", 0.4, 0.05)
    output.send(_message())
    output.close(8)
    assert (output.sent, output.failed) == (1, 0)
    assert json.loads(server.got[-1][0])["camera"] == "yard"
    assert server.got[0][1].startswith("Basic ")
    gone = WebhookOutput(f"http://me:geheim@127.0.0.1:{streamed.free_port()}/hook", 0.2, 0.05)
    server.answers[:] = [404]
    refused = WebhookOutput(f"http://127.0.0.1:{server.server_port}/hook?key=geheim", 0.4)
    for output in (gone, refused):
        output.send(_message())
    for output in (refused, gone):
        output.close(8)
        assert output.failed == 1
    assert "answered 404" in caplog.text
    assert "geheim" not in caplog.text + gone.name + refused.name
    with pytest.raises(UserError, match="http"):
        WebhookOutput("ftp://host/x", 1)


def test_at_the_end_a_webhook_lets_go_of_its_connection(server: _Server) -> None:
    server.answers[:] = []
    output = WebhookOutput(f"http://127.0.0.1:{server.server_port}/hook", 2)
    output.send(_message())
    output.close(5)
    assert output.sent == 1
    adapter = output._session.get_adapter("http://")
    assert isinstance(adapter, HTTPAdapter)
    assert not len(adapter.poolmanager.pools), "no pool keeps a connection"


def test_each_way_is_opened_with_the_settings_that_are_given_for_it() -> None:
    port = streamed.free_port()
    live = LiveConfig(
        on_event="true",
        on_event_timeout_s=7.0,
        webhook=("http://127.0.0.1:1/x",),
        webhook_timeout_s=3.0,
        mqtt="mqtt://127.0.0.1:1",
        mqtt_prefix="watch",
        metrics_port=port,
    )
    with ways.opened(live, []) as (command, webhook, broker):
        assert isinstance(command, CommandOutput)
        assert isinstance(webhook, WebhookOutput)
        assert isinstance(broker, MqttOutput)
        assert (command._timeout_s, webhook._timeout_s, broker._prefix) == (7.0, 3.0, "watch")
        assert requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).ok
        # by default it listens on 127.0.0.1 alone
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.2:{port}/metrics", timeout=5)


def test_ways_that_are_open_already_are_closed_where_a_later_one_is_refused() -> None:
    before = set(threading.enumerate())
    live = LiveConfig(webhook=("http://127.0.0.1:1/x", "ftp://host/x"))
    with pytest.raises(UserError, match="http"), ways.opened(live, []):
        pass
    assert set(threading.enumerate()) == before


def test_prometheus_reads_the_figures_of_each_camera(server: _Server) -> None:
    yard, door = CameraState("yard", ""), CameraState("door", "")
    yard.frames, yard.windows, yard.dropped, yard.events, yard.state = 250, 10, 2, 1, "live"
    yard.sparse, yard.reconnections = 4, 3
    yard.judged(0.75, 1.5)
    output = WebhookOutput("http://127.0.0.1:1/x", 0.1)
    figures = MetricsServer("127.0.0.1", 0, [yard, door], [output])
    port = figures._server.server_port
    try:
        with pytest.raises(UserError, match="Choose another port"):
            MetricsServer("127.0.0.1", port, [], [])
        # no machine has these addresses, which are invalid or reserved
        for address in ("my..host", "192.0.2.1", "host.invalid"):
            with pytest.raises(
                UserError, match=rf"cannot listen on {address}:{port} .*Give --metrics-address one of"
            ):
                MetricsServer(address, port, [], [])
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        yard.frames = 251
        later = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    finally:
        figures.close()
        output.close(1)
    for line in (
        'violence_frames_total{camera="yard"} 250.0',
        'violence_windows_total{camera="yard"} 11.0',
        'violence_windows_dropped_total{camera="yard"} 2.0',
        'violence_windows_sparse_total{camera="yard"} 4.0',
        'violence_reconnections_total{camera="yard"} 3.0',
        'violence_events_total{camera="yard"} 1.0',
        'violence_delay_seconds{camera="yard"} 1.5',
        'violence_probability{camera="yard"} 0.75',
        'violence_camera_state{camera="yard",state="live"} 1.0',
        'violence_camera_state{camera="door",state="live"} 0.0',
        'violence_messages_failed_total{output="webhook http://127.0.0.1:1"} 0.0',
    ):
        assert line in text.splitlines()
    assert 'violence_frames_total{camera="yard"} 251.0' in later


@pytest.mark.parametrize("url", ["http://me:gehe[im@127.0.0.1:1/x", "mqtt://me:gehe]im@127.0.0.1:1"])
def test_an_address_whose_password_has_a_bracket_is_refused_without_it(url: str) -> None:
    live = LiveConfig(webhook=(url,)) if url.startswith("http") else LiveConfig(mqtt=url)
    said = r"127\.0\.0\.1:1.* cannot be read.*percent-encoded"
    with pytest.raises(UserError, match=said) as e, ways.opened(live, []):
        pass
    assert "gehe" not in str(e.value)
    with pytest.raises(UserError, match=said):
        watch.check(live, OutputConfig())
