"""A loopback camera that can be cut off, and a model that judges by brightness, for tests of the code between them.

The stream is real (H.264 in MPEG-TS over TCP, made by FFmpeg), and so are windows, threads and files. P(violent) of a
window is the mean brightness of the pictures that a real model would see.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import streamed

from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.event_follower import EventNews
from violence_detection.prediction.events import Event, JudgedWindow
from violence_detection.prediction.live.live_model import PlacedWindow, WindowsOfStream
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.window_stream import WindowStream
from violence_detection.video.config import ClipConfig
from violence_detection.video.sources import Source
from violence_detection.video.window_pictures import Viewer

FPS = 20
BRIGHT, DARK = 235, 25


def news(camera: str, kind: str, p_violent: float = 0.9, event_id: str = "") -> EventMessage:
    """Return a message about an event of a camera; about its first event, if `event_id` is not given."""
    told = EventNews(kind, event_id or f"{camera}-1", Event(1.0, 2.0, p_violent, 1.5))
    return EventMessage(camera, "rtsp://host/s", told, 0.5, True, Path("/a/picture.jpg"))


def picture(brightness: int, width: int = 96, height: int = 64) -> np.ndarray:
    """Return a picture (H, W, 3), uint8, of uniform brightness."""
    return np.full((height, width, 3), brightness, np.uint8)


class LoopbackCamera:
    """Sends pictures at FPS to one viewer at a time. `brightness`: of a picture, by the seconds since the beginning."""

    def __init__(self, brightness: Callable[[float], int], speed: float = 1.0):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.1)
        self.port = int(self._listening.getsockname()[1])
        self.url = f"tcp://127.0.0.1:{self.port}"
        self.brightness, self._speed = brightness, speed
        self.began_s = time.time()
        self.connections = 0
        self._on, self._ending = threading.Event(), threading.Event()
        self._on.set()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def cut(self, away_s: float) -> None:
        """Break the connection, and accept none for `away_s` seconds."""
        self._on.clear()
        time.sleep(away_s)
        self._on.set()

    def close(self) -> None:
        """Stop the camera for good."""
        self._ending.set()
        self._on.clear()
        self._thread.join(3)
        self._listening.close()

    def _serve(self) -> None:
        while not self._ending.is_set():
            try:
                viewer, _ = self._listening.accept()
            except TimeoutError:
                continue
            with viewer, contextlib.suppress(av.FFmpegError, OSError):
                if self._on.is_set():
                    self._send(viewer)

    def _send(self, viewer: socket.socket) -> None:
        with av.open(streamed.Sending(viewer), "w", format="mpegts", options={"flush_packets": "1"}) as out:
            stream = out.add_stream(
                "libx264", rate=FPS, options={"tune": "zerolatency", "preset": "ultrafast", "g": "10"}
            )
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            began_s = time.time()
            self.connections += 1
            number = 0
            while self._on.is_set() and not self._ending.is_set():
                due_s = began_s + number / FPS / self._speed
                time.sleep(max(due_s - time.time(), 0))
                bright = picture(self.brightness(due_s - self.began_s))
                frame = av.VideoFrame.from_ndarray(bright, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                for packet in stream.encode(frame):
                    out.mux(packet)
                number += 1


class BrightnessModel:
    """A model whose P(violent) is the brightness. `takes_s`: the time it takes to judge a window."""

    def __init__(self, window_s: float = 1.0, step_s: float = 0.5, takes_s: float = 0.0):
        self.window_s, self.step_s, self._takes_s = window_s, step_s, takes_s
        self.events_by = EventConfig(0.6, 0.5, merge_gap_s=0.5)
        self.judged: list[tuple[str, JudgedWindow]] = []
        self.views: Sequence[str] = ("v0",)

    def make_windows(self, source: Source) -> WindowsOfStream:
        viewer = Viewer(32, ClipConfig(frames=8, streams=("rgb",)))
        return WindowsOfStream(WindowStream([viewer], self.window_s, self.step_s, stated_fps=source.fps))

    def judge(self, camera: str, window: PlacedWindow) -> JudgedWindow:
        time.sleep(self._takes_s)
        (images,) = window.seen.pictures(0, "v0").values()
        judged = JudgedWindow(window.start_s, window.end_s, round(float(np.mean(images)) / 255, 4))
        self.judged.append((camera, judged))
        return judged
