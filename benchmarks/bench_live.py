"""Watch cameras for minutes and measure windows judged and dropped, delay, events, and whether memory stays flat.

    python benchmarks/bench_live.py --video night.mp4 --model fast --cameras 4 --minutes 15
    python benchmarks/bench_live.py --video night.mp4 --cameras 2 --minutes 5 --cuts 10
    python benchmarks/bench_live.py --video night.mp4 --cameras 4 --minutes 3 --slow-s 1.5

Each camera is a process that sends the first minute of the video over and over in real time, over TCP on the loopback
(benchmarks/loopback_camera.py). Memory is that of this process, without the senders; it is flat if its median over the
last quarter is within 5 % of its median over the second quarter. `delay_s` is the time from a window's last frame to
its judgement, plus how late that frame arrived. `--slow-s` slows the model down by this many seconds per window.

`--cuts` breaks the connection of every camera but the first this many times, for `--away-s` seconds, two of them in the
middle of an event. The first camera's events are then looked up among those of each other camera. Counted are those
found once, more than once and not at all, and events of the other cameras that match none of the first camera's. After
a cut, windows begin at other moments of the footage, so that P(violent) near the threshold may fall on its other side.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import psutil

from benchmarks import loopback_camera
from violence_detection import cli
from violence_detection.prediction.config import OutputConfig, PredictConfig
from violence_detection.prediction.detector import Detector
from violence_detection.prediction.event_follower import END
from violence_detection.prediction.events import Event, JudgedWindow, Verdict
from violence_detection.prediction.live import camera_names, live_model, watch
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.system import stopping

#: Seconds between measurements of memory.
_EVERY_S = 2.0
#: Seconds of the video that the cameras send over and over.
_ROUND_S = 60.0


class _Measured(live_model.DetectorModel):
    """The model, slowed down, with a record of how long each window took."""

    def __init__(self, detector: Detector, slow_s: float):
        super().__init__(detector)
        self._slow_s = slow_s
        self.took_s: list[float] = []

    def judge(self, camera: str, window: live_model.PlacedWindow) -> JudgedWindow:
        began_s = time.perf_counter()
        time.sleep(self._slow_s)
        judged = super().judge(camera, window)
        self.took_s.append(time.perf_counter() - began_s)
        return judged


class _Watched(threading.Thread):
    """Records memory and delays for `seconds`, or until `stop` is set; sets `stop` at the end."""

    def __init__(self, seconds: float, stop: threading.Event):
        super().__init__(daemon=True)
        self._seconds, self._stop = seconds, stop
        self.rss_mb: list[float] = []
        self.states: Sequence[Any] = ()
        self.delays_s: list[float] = []

    def run(self) -> None:
        process, until_s = psutil.Process(), time.monotonic() + self._seconds
        seen: dict[str, int] = {}
        while time.monotonic() < until_s and not self._stop.wait(0.1):
            if time.monotonic() >= until_s - self._seconds + len(self.rss_mb) * _EVERY_S:
                self.rss_mb.append(process.memory_info().rss / 1e6)
            for state in self.states:
                if state.windows != seen.get(state.name, 0):
                    seen[state.name] = state.windows
                    self.delays_s.append(state.delay_s)
        self._stop.set()

    def memory(self) -> dict[str, Any]:
        """Medians of the memory over the second and the last quarter, its growth between them, and its peak."""
        quarter = max(len(self.rss_mb) // 4, 1)
        early, late = (
            statistics.median(q) for q in (self.rss_mb[quarter : 2 * quarter + 1], self.rss_mb[-quarter:])
        )
        return {
            "early_mb": round(early), "late_mb": round(late), "peak_mb": round(max(self.rss_mb)),
            "growth_percent": round(100 * (late / early - 1), 2),
        }  # fmt: skip


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class _EndedEvents(Outbox):
    """Collects the events that have ended, by camera."""

    name = "bench"

    def __init__(self) -> None:
        self.ended: dict[str, list[Event]] = {}
        super().__init__()

    def deliver(self, message: EventMessage) -> None:
        if message.news.kind == END:
            self.ended.setdefault(message.camera, []).append(message.news.event)


def _cut_at(verdict: Verdict, count: int, seconds: float) -> list[float]:
    """Times of the cuts: evenly spaced, except for two that are moved into the middle of the nearest event."""
    even = [seconds * (i + 1) / (count + 1) for i in range(count)]
    rounds = range(int(seconds // verdict.duration_s) + 1)
    middles = [(e.start_s + e.end_s) / 2 + verdict.duration_s * n for n in rounds for e in verdict.events]
    for i in {count // 3, 2 * count // 3} if count and middles else ():
        even[i] = min(middles, key=lambda middle: abs(middle - even[i]))
    return sorted(even)


def _compared(ended: Mapping[str, Sequence[Event]], names: Sequence[str]) -> dict[str, int]:
    """Count how the first camera's events are found among those of each other camera."""
    counts = {"events": 0, "once": 0, "more_than_once": 0, "not_at_all": 0, "of_no_event": 0}
    whole = ended.get(names[0], [])
    for name in names[1:]:
        cut = ended.get(name, [])
        for event in whole:
            found = sum(_overlap(event, other) for other in cut)
            counts["events"] += 1
            counts["not_at_all" if not found else "once" if found == 1 else "more_than_once"] += 1
        counts["of_no_event"] += sum(not any(_overlap(e, other) for e in whole) for other in cut)
    return counts


def _overlap(a: Event, b: Event) -> bool:
    return min(a.end_s, b.end_s) > max(a.start_s, b.start_s)


@contextmanager
def _camera(video: Path, cut_at_s: Sequence[float], away_s: float) -> Iterator[str]:
    port = _free_port()
    command = [sys.executable, loopback_camera.__file__, str(video), str(port), "--away-s", str(away_s)]
    command += ["--cut-at", ",".join(f"{s:.1f}" for s in cut_at_s)]
    process = subprocess.Popen(command)
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--video", type=Path, required=True, help="any video; the cameras send its first minute")
    p.add_argument("--cameras", type=int, default=4)
    p.add_argument("--minutes", type=float, default=15.0)
    p.add_argument("--height", type=int, default=360)
    p.add_argument("--cuts", type=int, default=0)
    p.add_argument("--away-s", type=float, default=2.0)
    p.add_argument("--slow-s", type=float, default=0.0)
    cli.add_config(p, PredictConfig)
    cli.add_config(p, OutputConfig, skip=("format", "annotate"))
    cli.add_config(p, LiveConfig)
    args = cli.parse(p)
    args.format, args.annotate = (), None
    seconds = 60 * args.minutes
    detector = Detector(cli.build(PredictConfig, args))
    model, ended_events = _Measured(detector, args.slow_s), _EndedEvents()
    with ExitStack() as stack, stopping.asked_to_stop() as stop:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        video = loopback_camera.prepared(args.video, folder / "camera.mp4", _ROUND_S, args.height)
        cut_at_s = _cut_at(detector.judge(video), args.cuts, seconds) if args.cuts else []
        urls = [
            stack.enter_context(_camera(video, cut_at_s if i else (), args.away_s))
            for i in range(args.cameras)
        ]
        time.sleep(1.0)
        watched = _Watched(seconds, stop)
        cameras = camera_names.named([f"camera{i}={url}" for i, url in enumerate(urls)])
        watched.start()
        summary = watch.run(
            cameras, model, cli.build(LiveConfig, args), cli.build(OutputConfig, args), stop,
            on_states=lambda states: setattr(watched, "states", states), others=[ended_events],
        )  # fmt: skip
        watched.join()
    found = summary["cameras"]
    measured = {
        "cameras": args.cameras, "minutes": args.minutes, "height": args.height, "cuts": args.cuts,
        "model": str(args.model), "slow_s": args.slow_s,
        "window_takes_s": _spread(model.took_s), "delay_s": _spread(watched.delays_s),
        "max_delay_s": max(c["max_delay_s"] for c in found), "events": [c["events"] for c in found],
        **{name: sum(c[name] for c in found) for name in ("frames", "windows", "windows_dropped", "reconnections")},
        "memory": watched.memory(),
        **({"cut": _compared(ended_events.ended, [c.name for c in cameras])} if args.cuts else {}),
    }  # fmt: skip
    cli.print_summary(measured)
    return 0


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile; empty without values."""
    if not values:
        return {}
    return {"median": round(float(np.median(values)), 3), "p95": round(float(np.quantile(values, 0.95)), 3)}


if __name__ == "__main__":
    cli.run_main(main)
