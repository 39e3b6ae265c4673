"""MQTT with a real broker: one that is reached late, loses the link, refuses, or has a self-signed certificate."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import live_parts
import mqtt_broker
import pytest
import streamed

from violence_detection.errors import UserError
from violence_detection.prediction.config import OutputConfig
from violence_detection.prediction.live import watch
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.prediction.live.outputs import mqtt
from violence_detection.prediction.live.outputs.mqtt import MqttOutput
from violence_detection.system import redaction


@pytest.mark.parametrize(
    "url", ["localhost", "http://host", "mqtt://", "mqtt://host:0", "mqtt://host:x", "mqtt://my..host"]
)
def test_a_broker_that_is_no_address_is_refused(url: str) -> None:
    said = r"--mqtt must be mqtt://|the port of mqtt://host:. is invalid"
    with pytest.raises(UserError, match=said):
        MqttOutput(url, "violence")
    with pytest.raises(UserError, match=said) as e:
        watch.check(LiveConfig(mqtt=url), OutputConfig())
    assert redaction.without_secrets(str(e.value)) == str(e.value), "the log leaves it whole"


def test_a_camera_is_violent_until_the_last_of_its_events_has_ended() -> None:
    """The end of an event waits for its clip and may come after the beginning of the next. There is no broker here."""
    output = MqttOutput(f"mqtt://me:geheim@127.0.0.1:{streamed.free_port()}", "violence")
    said = []
    for kind, event_id in (("new", "1"), ("new", "2"), ("end", "1"), ("end", "2")):
        output.send(live_parts.news("yard", kind, event_id=event_id))
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
    """Messages wait as for any slow receiver. Of states only the last is sent, since automations would run for each."""
    port = streamed.free_port()
    output, camera = MqttOutput(f"mqtt://127.0.0.1:{port}", "watch"), CameraState("yard", "rtsp://host/s")
    try:
        output.tell_state(camera)
        for kind in ("new", *(["update"] * 600), "end"):
            output.send(live_parts.news("yard", kind))
        for kind in ("new", "update", "update"):
            output.send(live_parts.news("gate", kind))
        camera.set_state("live")
        output.tell_state(camera)
        assert (output.sent, output.failed) == (0, 0)
        with (
            mqtt_broker.started() as broker,
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
    output = MqttOutput(f"mqtt://127.0.0.1:{streamed.free_port()}", "watch")
    for kind in ("new", "end"):
        output.send(live_parts.news("yard", kind))
    output.close(0.2)
    assert (output.sent, output.failed) == (0, 2)
    assert "mqtt: 2 messages were not sent in time" in caplog.text


def test_a_broker_that_answers_nothing_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Messages that the broker has not confirmed count as not arrived."""
    with mqtt_broker.silent() as port:
        output = MqttOutput(f"mqtt://127.0.0.1:{port}", "watch")
        _wait_until(output.is_ready)
        for kind in ("new", "end"):
            output.send(live_parts.news("yard", kind))
        output.close(0.2)
        _wait_until(lambda: output.failed == 2)
    assert (output.sent, output.failed) == (0, 2)
    assert "mqtt: 2 messages were not sent in time" in caplog.text
    assert "new of yard-1 did not arrive: the broker has not confirmed it" in caplog.text


@pytest.mark.parametrize("is_cut", [True, False])
def test_who_comes_late_finds_what_holds_and_that_the_watch_is_offline_once_it_is(is_cut: bool) -> None:
    """The broker retains states and the last picture, but no events. If the link breaks, it publishes `offline`."""
    with mqtt_broker.started() as broker:
        link = mqtt_broker.Link(broker)
        output, camera = MqttOutput(f"mqtt://127.0.0.1:{link.port}", "watch"), CameraState("yard", "a")
        try:
            with mqtt_broker.subscribed(broker, "watch/#") as early:
                camera.set_state("live")
                output.tell_state(camera)
                _wait_until(output.is_ready)
                output.send(replace(live_parts.news("yard", "new"), jpeg=b"picture"))
                # what the broker has passed on it has retained as well
                _wait_until(
                    lambda: {("watch/yard/snapshot", b"picture"), ("watch/yard/violence", b"ON")} <= {*early}
                )
            with mqtt_broker.subscribed(broker, "watch/#") as heard:
                _wait_until(lambda: len(set(heard)) >= 4)
                # a set, since this broker also sends newcomers what others have subscribed to
                found = sorted(set(heard))
                if is_cut:
                    link.cut()
                else:
                    output.close(5)
                _wait_until(lambda: len(set(heard)) > 4)
            with mqtt_broker.subscribed(broker, "watch/status") as later:
                _wait_until(lambda: "watch/status" in dict(later))
        finally:
            output.close(1)
            link.close()
    assert found == [
        ("watch/status", b"online"),
        ("watch/yard/snapshot", b"picture"),
        ("watch/yard/state", b"live"),
        ("watch/yard/violence", b"ON"),
    ]
    assert [message for message in heard if message not in found] == [("watch/status", b"offline")]
    assert {text for topic, text in later if topic == "watch/status"} == {b"offline"}


@pytest.mark.parametrize(
    ("user", "login"),
    [("me@", (b"me", b"geheim")), ("me:a%2Fb@", (b"me", b"a/b")), ("", (None, None))],
)
def test_a_broker_is_given_the_login_of_its_address_or_of_the_environment(
    user: str, login: tuple[bytes | None, bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "geheim")
    output = MqttOutput(f"mqtt://{user}127.0.0.1:{streamed.free_port()}", "watch")
    output.close(0)
    assert (output._client._username, output._client._password) == login


def test_what_was_under_way_when_the_link_broke_comes_not_behind_what_is_newer() -> None:
    """The client sends again what the broker has not confirmed, which once left ON there after all events had ended."""
    with mqtt_broker.started() as broker, mqtt_broker.subscribed(broker, "watch/#") as heard:
        link = mqtt_broker.Link(broker)
        output, camera = MqttOutput(f"mqtt://127.0.0.1:{link.port}", "watch"), CameraState("yard", "a")
        try:
            camera.set_state("live")
            output.tell_state(camera)
            _wait_until(lambda: len(heard) == 3)
            link.swallow()
            output.send(replace(live_parts.news("yard", "new"), jpeg=b"picture"))
            time.sleep(0.3)
            link.cut()
            _wait_until(lambda: not output.is_ready())
            camera.set_state("lost")
            output.tell_state(camera)
            output.send(live_parts.news("yard", "end"))
            before = len(heard)
            link.mend()
            _wait_until(lambda: output.sent == 2)
            _wait_until(lambda: [topic for topic, _ in heard[before:]].count("watch/events") >= 2)
        finally:
            output.close(2)
            link.close()
    told = heard[before:]
    assert [text for topic, text in told if topic == "watch/yard/violence"][-1] == b"OFF"
    assert [text for topic, text in told if topic == "watch/yard/state"][-1] == b"lost"
    kinds = [json.loads(text)["type"] for topic, text in told if topic == "watch/events"]
    assert (kinds[0], kinds[-1]) == ("new", "end")
    topics = [topic for topic, _ in told]
    assert topics.index("watch/yard/snapshot") < topics.index("watch/events")
    assert (output.sent, output.failed) == (2, 0)


@pytest.mark.parametrize("ends", ["killed", "closed"])
def test_another_run_that_ends_leaves_this_one_online(ends: str) -> None:
    """After a power failure, a run's last will may come when the next run is online. Two runs may share a prefix."""
    with mqtt_broker.started() as broker, mqtt_broker.subscribed(broker, "watch/status") as heard:
        link = mqtt_broker.Link(broker)
        other = MqttOutput(f"mqtt://127.0.0.1:{link.port}", "watch")
        output = MqttOutput(f"mqtt://127.0.0.1:{broker}", "watch")
        try:
            _wait_until(lambda: len(heard) == 2)
            if ends == "killed":
                link.cut()
            else:
                other.close(5)
            offline = ("watch/status", b"offline")
            _wait_until(lambda: offline in heard and heard[-1] != offline)
            assert heard == [("watch/status", says) for says in (b"online", b"online", b"offline", b"online")]
        finally:
            output.close(5)
            other.close(0)
            link.close()
        _wait_until(lambda: heard[-1] == offline)
        assert heard[4:] == [offline], "what itself says is not taken back"


def test_a_picture_that_the_broker_does_not_take_costs_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """Many brokers close the connection at a packet above their limit, such as 128 KB or 1 MB, at every attempt."""
    small, large = (replace(live_parts.news("yard", "new"), jpeg=b"x" * n) for n in (1000, 200_000))
    with mqtt_broker.started() as broker, mqtt_broker.subscribed(broker, "watch/#") as heard:
        link = mqtt_broker.Link(broker, most_bytes=131_072)
        output = MqttOutput(f"mqtt://127.0.0.1:{link.port}", "watch")
        try:
            _wait_until(output.is_ready)
            for message in (large, live_parts.news("yard", "end"), small):
                output.send(message)
            _wait_until(lambda: output.sent == 3)
            _wait_until(lambda: ("watch/yard/snapshot", small.jpeg) in heard)
        finally:
            output.close(2)
            link.close()
    kinds = [json.loads(text)["type"] for topic, text in heard if topic == "watch/events"]
    assert kinds == ["new", "end", "new"]
    assert [text for topic, text in heard if topic == "watch/yard/snapshot"] == [small.jpeg]
    assert (output.sent, output.failed) == (3, 0)
    assert "closes the connection at the picture of new of yard-1 (200 kB)" in caplog.text


@pytest.mark.parametrize(
    ("breaks_off", "why"),
    [
        (False, "refuses the connection: Not authorized"),
        (True, "closes the connection before accepting it (Unspecified error)"),
    ],
)
def test_why_a_broker_does_not_let_us_in_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, breaks_off: bool, why: str
) -> None:
    """Each attempt once logged two warnings, one of which said that the connection was lost."""
    monkeypatch.setattr(mqtt, "_WAIT_S", 0.05)
    monkeypatch.setattr(mqtt, "_LONGEST_WAIT_S", 0.05)
    attempts = [0]
    disconnected = MqttOutput._disconnected

    def counted(output: MqttOutput, *about: Any) -> None:
        attempts[0] += 1
        disconnected(output, *about)

    monkeypatch.setattr(MqttOutput, "_disconnected", counted)
    with mqtt_broker.started(lets_in=False) as broker:
        link = mqtt_broker.Link(broker)
        if breaks_off:
            link.cut()
        output = MqttOutput(f"mqtt://127.0.0.1:{link.port}", "watch")
        _wait_until(lambda: attempts[0] > 3)
        output.close(0)
        link.close()
    said = [record.message for record in caplog.records if record.name == mqtt.log.name]
    assert said == [f"mqtt: mqtt://127.0.0.1:{link.port} {why}; trying again"]


def test_a_broker_that_lets_nobody_in_for_a_while_has_refused_no_picture() -> None:
    output = MqttOutput(f"mqtt://127.0.0.1:{streamed.free_port()}", "watch")
    try:
        output._pictured = replace(live_parts.news("yard", "new"), jpeg=b"picture")
        for _ in range(5):
            output._disconnected(None, None, None, SimpleNamespace(is_failure=True), None)
        assert output._pictured is not None
    finally:
        output.close(0)


def test_a_broker_that_is_back_is_not_told_that_all_is_quiet_when_an_event_has_just_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a new connection the client's thread publishes all states again, while another thread publishes ON."""
    output = MqttOutput(f"mqtt://127.0.0.1:{streamed.free_port()}", "watch")
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


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate and its key in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    file = tmp_path / "broker.pem"
    command = [
        "openssl",
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-x509",
        "-keyout",
        str(tmp_path / "key.pem"),
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *names, "-out", str(file)], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + (tmp_path / "key.pem").read_bytes())
    return file


def test_a_broker_of_a_ca_of_ones_own_is_reached_with_its_certificate_and_else_told_why_not(
    certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with mqtt_broker.started(certificate) as port:
        trusting = MqttOutput(f"mqtts://me:geheim@localhost:{port}", "watch", certificate)
        trusting.send(live_parts.news("yard", "new"))
        strict = MqttOutput(f"mqtts://me:geheim@localhost:{port}", "watch")
        wrong_name = MqttOutput(f"mqtts://me:geheim@127.0.0.1:{port}", "watch", certificate)
        lost = MqttOutput(f"mqtt://me:geheim@localhost:{streamed.free_port()}", "watch")
        _wait_until(lambda: trusting.sent == 1 and caplog.text.count("cannot be reached") == 3)
        for output in (trusting, strict, wrong_name, lost):
            output.close(2)
    assert (trusting.sent, trusting.failed) == (1, 0)
    refused = "cannot be reached (its certificate is refused: "
    assert (
        f"mqtts://localhost:{port} {refused}self-signed certificate. To trust your own CA, give --mqtt-ca"
        in caplog.text
    )
    assert f"mqtts://127.0.0.1:{port} {refused}IP address mismatch" in caplog.text
    assert "cannot be reached (Connection refused); trying again" in caplog.text
    assert "geheim" not in caplog.text


def test_a_file_that_vouches_for_no_broker_is_refused_before_the_model_is_loaded(
    certificate: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").touch()
    for ca, said in (
        (tmp_path / "none.pem", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "empty.pem", "NO_CERTIFICATE"),
        (tmp_path / "key.pem", "NO_CERTIFICATE"),
    ):
        with pytest.raises(UserError, match=f"--mqtt-ca: cannot read a certificate from .*{said}"):
            watch.check(LiveConfig(mqtt="mqtts://host", mqtt_ca=ca), OutputConfig())
    with pytest.raises(UserError, match=r"--mqtt-ca is for mqtts://\. Received: mqtt://host$"):
        watch.check(LiveConfig(mqtt="mqtt://me:geheim@host", mqtt_ca=certificate), OutputConfig())
    watch.check(LiveConfig(mqtt="mqtts://host", mqtt_ca=certificate), OutputConfig())
