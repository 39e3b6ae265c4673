"""The script with a camera on the loopback, a real MQTT broker, a webhook and figures for Prometheus."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import live_parts
import mqtt_broker
import pytest
import requests
import streamed

import test_violence_model
from violence_detection.errors import UserError
from violence_detection.video import decode

TESTS = Path(__file__).resolve().parents[2]


class _Hook(ThreadingHTTPServer):
    """A web server that keeps each message, and whether its snapshot and its clip were there when it came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Hook

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message["there"] = [bool(message[k]) and Path(message[k]).is_file() for k in ("snapshot", "clip")]
        self.server.got.append(message)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _until(true: Callable[[], object], most_s: float) -> None:
    until_s = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < until_s, "it did not come to that"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_camera_is_watched_until_sigterm(tmp_path: Path) -> None:
    """Its picture becomes bright after 2 s and stays so; in between, the stream is cut for half a second."""
    metrics = streamed.free_port()
    camera = live_parts.LoopbackCamera(lambda s: live_parts.BRIGHT if s > 2 else live_parts.DARK)
    hook = _Hook()
    threading.Thread(target=hook.serve_forever, args=(0.05,), daemon=True).start()
    script = tmp_path / "on_event.py"
    script.write_text(f"import sys; open({str(tmp_path / 'lines')!r}, 'a').write(sys.stdin.read())")
    with mqtt_broker.started() as mqtt, mqtt_broker.subscribed(mqtt, "watch/#") as heard:
        command = [
            sys.executable, str(TESTS / "live_stand_in.py"), f"yard={camera.url.replace('//', '//me:geheim@')}",
            "--clips", str(tmp_path / "clips"), "--clip-margin-s", "1.0", "--retry-min-s", "0.1",
            "--webhook", f"http://me:geheim@127.0.0.1:{hook.server_port}/", "--metrics-port", str(metrics),
            "--mqtt", f"mqtt://me:geheim@127.0.0.1:{mqtt}", "--mqtt-prefix", "watch",
            "--on-event", f"{sys.executable} {script}",
        ]  # fmt: skip
        path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
        process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _until(lambda: camera.connections, 20)
            camera.began_s = time.time()
            _until(lambda: hook.got, 10)
            time.sleep(0.2)
            camera.cut(0.5)
            _until(lambda: camera.connections == 2, 5)
            seen = len(hook.got)
            _until(lambda: len(hook.got) > seen + 1, 8)
            figures = requests.get(f"http://127.0.0.1:{metrics}/metrics", timeout=5).text
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
            camera.close()
            hook.shutdown()
            hook.server_close()
        _until(lambda: ("watch/status", b"offline") in heard, 5)
    assert process.returncode == 0, err
    (state,) = json.loads(out)["cameras"]
    assert (state["name"], state["state"], state["events"], state["reconnections"]) == ("yard", "ended", 1, 1)
    assert state["windows_dropped"] == 0
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    published = [json.loads(text) for topic, text in heard if topic == "watch/events"]
    # the updates may differ, since one that waits is replaced by newer news
    for told in (hook.got, lines, published):
        kinds = [message["type"] for message in told]
        assert (kinds[0], kinds[-1], set(kinds[1:-1]) - {"update"}) == ("new", "end", set())
        last = {key: value for key, value in told[-1].items() if key != "there"}
        assert last == lines[-1]
    assert len({message["id"] for message in hook.got}) == 1, "one event across the cut"
    assert all(message["there"][0] for message in hook.got), "the snapshot is there first"
    assert hook.got[-1]["there"][1], "so is the clip before the end is told"
    _check_clip(Path(hook.got[-1]["clip"]), hook.got[-1])
    _check_told(heard)
    assert 'violence_camera_state{camera="yard",state="live"} 1.0' in figures
    assert "geheim" not in out + err + str(heard) + str(hook.got) + str(lines) + figures
    assert "yard: lost (" in err


def _check_told(heard: list[tuple[str, bytes]]) -> None:
    """Check what the broker has heard besides the news: the states of the camera and of the script."""
    told = [(topic, text) for topic, text in heard if not topic.endswith(("snapshot", "events"))]
    assert told[0] == ("watch/status", b"online")
    assert told[-1] == ("watch/status", b"offline")
    assert [text for topic, text in told if topic == "watch/yard/violence"] == [b"OFF", b"ON", b"OFF"]
    states = [text.decode() for topic, text in told if topic == "watch/yard/state"]
    assert states[-1] == "ended"
    assert "live" in states
    assert any(topic == "watch/yard/snapshot" and text[:2] == b"\xff\xd8" for topic, text in heard)


def _check_clip(path: Path, end: dict[str, Any]) -> None:
    """Check that the clip begins before the event, in the dark, and lasts until its end."""
    info, frames = decode.read(path, lambda info: range(info.n_frames))
    bright = [float(frames[i].mean()) > 120 for i in range(info.n_frames)]
    onset_s = bright.index(True) / info.fps
    assert onset_s >= 1.0
    assert all(bright[bright.index(True) :])
    assert info.duration_s == pytest.approx(1.5 + end["end_s"] - end["start_s"], abs=1.0)


@pytest.mark.parametrize(
    "told",
    [
        ("--on-event", "./alarm.sh"),
        ("--webhook", "http://127.0.0.1/"),
        ("--mqtt", "mqtt://127.0.0.1"),
        ("--metrics-port", "9100"),
    ],
)
def test_nobody_is_told_of_events_in_files_and_that_is_said(tmp_path: Path, told: tuple[str, str]) -> None:
    video = tmp_path / "night.mp4"
    video.touch()
    with pytest.raises(UserError, match=f"{told[0]} would do nothing: this run judges files, not cameras"):
        test_violence_model.main([str(video), *told])
    with pytest.raises(UserError, match=f"{told[0]} would do nothing: --adapt"):
        test_violence_model.main(["--adapt", str(video), "--save-model", str(tmp_path / "to"), *told])


def test_a_profile_that_nothing_makes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        test_violence_model.main(["night.mp4", "--save-profile", str(tmp_path / "door.json")])
