"""Where news go: a real command, a real HTTP server, and figures that are scraped."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import live_parts
import mqtt_broker
import pytest
import requests
from requests.adapters import HTTPAdapter

from violence_detection.errors import UserError
from violence_detection.prediction.event_follower import EventNews
from violence_detection.prediction.events import Event
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs import mqtt, outbox, ways
from violence_detection.prediction.live.outputs.command import CommandOutput
from violence_detection.prediction.live.outputs.metrics import MetricsServer
from violence_detection.prediction.live.outputs.mqtt import MqttOutput
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.prediction.live.outputs.webhook import WebhookOutput


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
        "snapshot": "/a/yard-1.jpg", "clip": None,
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


def test_a_slow_or_failing_command_keeps_nobody_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = CommandOutput("sh -c 'sleep 60 & sleep 60'", 0.3)
    began_s = time.monotonic()
    output.send(_message())
    assert time.monotonic() - began_s < 0.1
    output.close(5)
    assert time.monotonic() - began_s < 2
    assert "took more than 0.3 s and was killed" in caplog.text
    for command, said in (("false", "ended with exit code 1"), ("/no/such/command", "No such file")):
        output = CommandOutput(command, 5)
        output.send(_message())
        output.close(5)
        assert output.failed == 1
        assert said in caplog.text
    with pytest.raises(UserError, match="on_event"):
        CommandOutput("a 'b", 5)


class _Server(ThreadingHTTPServer):
    """Answers with `answers` in turn, and then with 200; keeps what it was sent."""

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
    """The first answer is an error, the second comes too late, the third is taken."""
    caplog.set_level(logging.DEBUG, logger="violence_detection")
    output = WebhookOutput(f"http://me:geheim@127.0.0.1:{server.server_port}/hook", 0.4, 0.05)
    output.send(_message())
    output.close(8)
    assert (output.sent, output.failed) == (1, 0)
    assert json.loads(server.got[-1][0])["camera"] == "yard"
    assert server.got[0][1].startswith("Basic ")
    gone = WebhookOutput(f"http://me:geheim@127.0.0.1:{live_parts.free_port()}/hook", 0.2, 0.05)
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


class _Held(Outbox):
    """Holds each message until it is told to go on; keeps what it was given."""

    name = "held"

    def __init__(self) -> None:
        self.has_one, self.go_on = threading.Event(), threading.Event()
        self.got: list[EventMessage] = []
        super().__init__()

    def deliver(self, message: EventMessage) -> None:
        self.got.append(message)
        self.has_one.set()
        self.go_on.wait(5)


def _news(camera: str, kind: str, p_violent: float = 0.9) -> EventMessage:
    event = Event(1, 2, p_violent, 1.5)
    return replace(_message(), camera=camera, news=EventNews(kind, f"{camera}-1", event))


def _held_with(news: list[EventMessage]) -> _Held:
    """An outbox that has sent these, after one of the camera `first` had kept it from sending them."""
    held = _Held()
    held.send(_news("first", "new"))
    assert held.has_one.wait(5)
    for one in news:
        held.send(one)
    held.go_on.set()
    held.close(5)
    return held


def _told(held: _Held) -> list[tuple[str, str, float]]:
    return [(m.camera, m.news.kind, m.news.event.p_violent) for m in held.got[1:]]


def test_what_is_newer_of_an_event_stands_for_an_update_that_waits(caplog: pytest.LogCaptureFixture) -> None:
    updates = [_news("front", "update", float(number)) for number in range(300)]
    held = _held_with(
        [
            _news("yard", "new"),
            _news("front", "new", 0.5),
            *updates,
            _news("yard", "update", 0.91),
            _news("gate", "new"),
            _news("yard", "end", 0.92),
            _news("gate", "end"),
        ]
    )
    assert _told(held) == [
        ("yard", "new", 0.9),
        ("front", "new", 0.5),
        ("front", "update", 299),
        ("yard", "end", 0.92),
        ("gate", "new", 0.9),
        ("gate", "end", 0.9),
    ]
    assert (held.sent, held.failed) == (7, 0), "what was replaced is no message that did not arrive"
    assert not caplog.text


def test_where_too_many_wait_updates_are_given_up_before_beginnings_and_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "_MOST", 3)
    held = _held_with(
        [
            _news("yard", "new"),
            _news("front", "update", 0.6),
            _news("gate", "update"),
            _news("front", "update", 0.7),
            _news("yard", "end"),  # front's update goes
            _news("door", "new"),  # gate's
            _news("front", "update", 0.8),  # this itself: nothing else is an update
            _news("door", "end"),  # yard's beginning, the oldest
        ]
    )
    assert _told(held) == [("yard", "end", 0.9), ("door", "new", 0.9), ("door", "end", 0.9)]
    assert (held.sent, held.failed) == (4, 4)
    said = ["update of front-1", "update of gate-1", "update of front-1", "new of yard-1"]
    assert [r.getMessage() for r in caplog.records] == [
        f"held: too slow, {lost} is given up" for lost in said
    ]


class _SlowCount(int):
    """A number that lets other threads go on while it is added to, as any may between reading and writing."""

    def __add__(self, other: int) -> _SlowCount:
        time.sleep(1e-4)
        return _SlowCount(int(self) + other)


def test_every_message_that_is_given_up_counts_whichever_thread_had_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """News come of the thread that judges, and those that wait for a clip of the one that writes clips."""
    monkeypatch.setattr(outbox, "_MOST", 1)
    held = _Held()
    held.send(_message())
    assert held.has_one.wait(5)
    held.failed = _SlowCount(0)

    def send() -> None:
        for _ in range(50):
            held.send(_message())

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    given_up = held.failed
    held.go_on.set()
    held.close(5)
    assert given_up == 99, "one waits"


def test_at_the_end_a_webhook_lets_go_of_its_connection(server: _Server) -> None:
    server.answers[:] = []
    output = WebhookOutput(f"http://127.0.0.1:{server.server_port}/hook", 2)
    output.send(_message())
    output.close(5)
    assert output.sent == 1
    adapter = output._session.get_adapter("http://")
    assert isinstance(adapter, HTTPAdapter)
    assert not len(adapter.poolmanager.pools), "no pool keeps a connection"


def test_ways_that_are_open_already_are_closed_where_a_later_one_is_refused() -> None:
    before = set(threading.enumerate())
    live = LiveConfig(webhook=("http://127.0.0.1:1/x", "ftp://host/x"))
    with pytest.raises(UserError, match="http"), ways.opened(live, []):
        pass
    assert set(threading.enumerate()) == before


def test_prometheus_reads_the_figures_of_each_camera(server: _Server) -> None:
    yard, door = CameraState("yard", ""), CameraState("door", "")
    yard.frames, yard.windows, yard.dropped, yard.events, yard.state = 250, 10, 2, 1, "live"
    yard.judged(0.75, 1.5)
    output = WebhookOutput("http://127.0.0.1:1/x", 0.1)
    port = live_parts.free_port()
    figures = MetricsServer("127.0.0.1", port, [yard, door], [output])
    try:
        with pytest.raises(UserError, match="Name another port"):
            MetricsServer("127.0.0.1", port, [], [])
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
        yard.frames = 251
        later = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    finally:
        figures.close()
        output.close(1)
    for line in (
        'violence_frames_total{camera="yard"} 250.0',
        'violence_windows_dropped_total{camera="yard"} 2.0',
        'violence_events_total{camera="yard"} 1.0',
        'violence_delay_seconds{camera="yard"} 1.5',
        'violence_probability{camera="yard"} 0.75',
        'violence_camera_state{camera="yard",state="live"} 1.0',
        'violence_camera_state{camera="door",state="live"} 0.0',
        'violence_messages_failed_total{output="webhook http://127.0.0.1:1"} 0.0',
    ):
        assert line in text.splitlines()
    assert 'violence_frames_total{camera="yard"} 251.0' in later


@pytest.mark.parametrize("url", ["localhost", "http://host", "mqtt://", "mqtt://host:0", "mqtt://host:x"])
def test_a_broker_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="mqtt must be mqtt://"):
        MqttOutput(url, "violence")


@pytest.mark.parametrize("url", ["http://me:gehe[im@127.0.0.1:1/x", "mqtt://me:gehe]im@127.0.0.1:1"])
def test_an_address_whose_password_has_a_bracket_is_refused_without_it(url: str) -> None:
    live = LiveConfig(webhook=(url,)) if url.startswith("http") else LiveConfig(mqtt=url)
    said = r"127\.0\.0\.1:1.* cannot be read.*percent-encoded"
    with pytest.raises(UserError, match=said) as e, ways.opened(live, []):
        pass
    assert "gehe" not in str(e.value)


def test_a_camera_is_violent_until_the_last_of_its_events_has_ended() -> None:
    """The end of one waits for its clip, and may come behind the beginning of the next. There is no broker here."""
    output = MqttOutput(f"mqtt://me:geheim@127.0.0.1:{live_parts.free_port()}", "violence")
    said = []
    for kind, event_id in (("new", "1"), ("new", "2"), ("end", "1"), ("end", "2")):
        output.send(replace(_message(), news=replace(_message().news, kind=kind, event_id=event_id)))
        said.append(output._retained["yard/violence"])
    began_s = time.monotonic()
    output.close(1)
    assert said == ["ON", "ON", "ON", "OFF"]
    assert time.monotonic() - began_s < 5, "a broker that is away keeps nobody from ending"


def _wait_until(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20
    while not is_so() and time.monotonic() < until_s:
        time.sleep(0.02)


def test_a_broker_that_comes_late_gets_what_holds_now_and_no_outdated_update() -> None:
    """Messages wait as for anybody who is slow; of states it is told the last, or automations would run for each."""
    port, broker = live_parts.free_port(), live_parts.free_port()
    output, camera = MqttOutput(f"mqtt://127.0.0.1:{port}", "watch"), CameraState("yard", "rtsp://host/s")
    try:
        output.tell_state(camera)
        for kind in ("new", *(["update"] * 600), "end"):
            output.send(_news("yard", kind))
        for kind in ("new", "update", "update"):
            output.send(_news("gate", kind))
        camera.be("live")
        output.tell_state(camera)
        assert (output.sent, output.failed) == (0, 0)
        with (
            mqtt_broker.started(broker),
            mqtt_broker.subscribed(broker, "watch/#") as heard,
            mqtt_broker.reachable_at(port, broker),
        ):
            _wait_until(lambda: output.sent == 4 and len(heard) >= 8)
            output.close(5)
            _wait_until(lambda: ("watch/status", b"offline") in heard)
        events = [json.loads(text) for topic, text in heard if topic == "watch/events"]
        assert [(e["camera"], e["type"]) for e in events] == [
            ("yard", "new"), ("yard", "end"), ("gate", "new"), ("gate", "update"),
        ]  # fmt: skip
        assert sorted((topic, text) for topic, text in heard if topic != "watch/events") == [
            ("watch/gate/violence", b"ON"),
            ("watch/status", b"offline"),
            ("watch/status", b"online"),
            ("watch/yard/state", b"live"),
            ("watch/yard/violence", b"OFF"),
        ]
        assert (output.sent, output.failed) == (4, 0)
    finally:
        output.close(0)


def test_what_a_broker_that_never_comes_has_not_got_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    output = MqttOutput(f"mqtt://127.0.0.1:{live_parts.free_port()}", "watch")
    for kind in ("new", "end"):
        output.send(_news("yard", kind))
    output.close(0.2)
    assert (output.sent, output.failed) == (0, 2)
    assert "mqtt: 2 messages were not sent in time" in caplog.text


def test_a_broker_that_answers_nothing_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client takes four messages before an answer comes."""
    monkeypatch.setattr(mqtt, "_MOST_WAITING", 4)
    with mqtt_broker.silent() as port:
        output = MqttOutput(f"mqtt://127.0.0.1:{port}", "watch")
        _wait_until(output.is_ready)
        for kind in ("new", "end"):  # with online, ON and OFF there are five
            output.send(_news("yard", kind))
        _wait_until(lambda: output.sent + output.failed == 2)
        output.close(0)
    assert (output.sent, output.failed) == (1, 1)
    assert "end of yard-1 did not arrive: 4 messages wait for the broker already" in caplog.text


def test_a_broker_that_is_back_is_not_told_that_all_is_quiet_when_an_event_has_just_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client's thread tells all once more; meanwhile another says ON."""
    output = MqttOutput(f"mqtt://127.0.0.1:{live_parts.free_port()}", "watch")
    output._keep("yard/violence", "OFF")
    output._was_connected = True
    told: list[tuple[str, str | bytes]] = []
    has_one, go_on = threading.Event(), threading.Event()
    publish = output._client.publish

    def slow(topic: str, payload: str | bytes, *how: Any) -> Any:
        if payload == "OFF":
            has_one.set()
            go_on.wait(0.2)
        told.append((topic, payload))
        return publish(topic, payload, *how)

    monkeypatch.setattr(output._client, "publish", slow)
    again = threading.Thread(
        target=output._connected, args=(None, None, None, SimpleNamespace(is_failure=False), None)
    )
    again.start()
    assert has_one.wait(5)
    output._keep("yard/violence", "ON")
    go_on.set()
    again.join()
    output.close(1)
    assert [payload for topic, payload in told if topic == "watch/yard/violence"][-1] == "ON"
