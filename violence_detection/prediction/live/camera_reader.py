"""One camera: read in a thread of its own, found again when it is lost, its frames put on the clock of this machine."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from violence_detection.errors import UnreadableVideo
from violence_detection.prediction.live import camera_state
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.handover import Handover, WaitingWindow
from violence_detection.prediction.live.recent_footage import KeptPicture, RecentFootage
from violence_detection.system import redaction
from violence_detection.video.sources import Source, TimedFrame

log = logging.getLogger(__name__)
W_co = TypeVar("W_co", covariant=True)
W = TypeVar("W")
#: Frames of a connection come in a burst until for so long none has come earlier, for its time, than those before.
_BURST_IS_OVER_S, _LONGEST_BURST_S, _JITTER_S = 0.5, 5.0, 0.04


class WindowMaker(Protocol[W_co]):
    """Makes windows of the frames of one connection, as they come."""

    def push(self, frame: TimedFrame) -> Sequence[W_co]:
        """The windows that are complete with this frame."""
        ...

    def finish(self) -> Sequence[W_co]:
        """What is left, at the end of the connection."""
        ...


class _TooFarBehind(Exception):
    """Frames are so late that the camera is better begun anew."""


class CameraReader(Generic[W]):
    """Reads a camera until it is stopped, and hands complete windows over.

    `open_source` gives the source anew for each connection, `make_windows` what makes windows of its frames. Times of
    live sources are seconds since 1970: the source's own, placed on this machine's clock anew with each connection.
    Windows have the source's own, which `offset_s(connection)` places.
    """

    def __init__(
        self,
        state: CameraState,
        open_source: Callable[[], Source],
        make_windows: Callable[[Source], WindowMaker[W]],
        handover: Handover[W],
        recent: RecentFootage | None,
        *,
        max_delay_s: float,
        stall_s: float,
        retry_min_s: float,
        retry_max_s: float,
        bridge_cut_s: float,
        clock: Callable[[], float] = time.time,
    ):
        self.state, self.recent = state, recent
        self._open_source, self._make_windows, self._handover = open_source, make_windows, handover
        self._max_delay_s, self._stall_s = max_delay_s, stall_s
        self._retry_min_s, self._retry_max_s = retry_min_s, retry_max_s
        self._bridge_cut_s, self._clock = bridge_cut_s, clock
        self._stop = threading.Event()
        self._source: Source | None = None
        #: Of each connection that a window may still be of: its offset, and the footage lost before it that is to be no
        #: gap.
        self._connections: dict[int, tuple[float, float]] = {}
        self._count = 0
        self._last_s: float | None = None
        self._late_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"camera {state.name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Have it end soon."""
        self._stop.set()
        if self._source is not None:
            self._source.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; returns whether it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def offset_s(self, connection: int) -> float:
        """What to add to the times of a connection's windows."""
        return self._connections[connection][0]

    def bridged_s(self, after: int, connection: int) -> float:
        """Seconds lost between two connections that are to be no gap. Connections before the second are forgotten."""
        known = sorted(self._connections)
        bridged_s = sum(self._connections[n][1] for n in known if after < n <= connection)
        for n in known:
            if n < connection:
                del self._connections[n]
        return bridged_s

    def away_s(self) -> float:
        """How long the camera has been away so that an event does not go on across; 0: it may still."""
        if self.state.state not in (camera_state.LOST, camera_state.CONNECTING) or self._last_s is None:
            return 0.0
        away_s = self._clock() - self._last_s
        return away_s if away_s > self._bridge_cut_s + 2.0 else 0.0

    def look(self) -> None:
        """Notice that nothing comes. To be called about once a second."""
        if (
            self.state.state == camera_state.LIVE
            and time.monotonic() - self.state.last_frame_s > self._stall_s
        ):
            self.state.be(camera_state.STALLED, f"no frame for {self._stall_s:g} s", camera_state.LIVE)

    def _run(self) -> None:
        attempts = 0
        while not self._stop.is_set():
            self.state.be(camera_state.CONNECTING)
            frames = self.state.frames
            reason, is_live = self._connect()
            if self._stop.is_set() or not is_live:
                self.state.failure = "" if self._stop.is_set() else reason
                break
            attempts = 0 if self.state.frames > frames else attempts + 1
            wait_s = self._wait_s(attempts)
            self.state.be(
                camera_state.LOST, f"{reason or 'the stream ended'}; next attempt in {wait_s:.1f} s"
            )
            self._stop.wait(wait_s)
        self.state.be(camera_state.ENDED, self.state.failure)

    def _wait_s(self, attempts: int) -> float:
        """How long to wait: it doubles, and varies by half, so that cameras behind one switch do not all come at once.

        "Equal jitter" of M. Brooker, Exponential Backoff and Jitter, 2015.
        """
        doubled_s = self._retry_min_s * 2 ** min(attempts, 30)
        return min(doubled_s, self._retry_max_s) * random.uniform(0.5, 1.0)

    def _connect(self) -> tuple[str, bool]:
        """One connection, to its end: why it ended, empty for no error, and whether the camera may be back."""
        source: Source | None = None
        try:
            source = self._source = self._open_source()
            self._read(source)
        except UnreadableVideo as e:
            return redaction.without_secrets(e.reason), source is None or source.live
        except _TooFarBehind:
            return f"frames came more than {self._max_delay_s:g} s late", True
        except Exception as e:  # one camera must not cost the others theirs
            log.exception("%s: a fault of these scripts", self.state.name)
            return redaction.redact(f"{type(e).__name__}: {e}"), source is None or source.live
        finally:
            if source is not None:
                source.close()
        return "", source.live

    def _read(self, source: Source) -> None:
        connection: _Connection[W] | None = None
        try:
            for frame in source.frames():
                if self._stop.is_set():
                    break
                self.state.last_frame_s = time.monotonic()  # before it is live, or it would count as stalled
                if connection is None:
                    connection = _Connection(
                        self._make_windows(source), frame.time_s, source.live, self._clock()
                    )
                    self.state.be(camera_state.LIVE)
                elif self.state.state == camera_state.STALLED:
                    self.state.be(camera_state.LIVE)
                self.state.frames += 1
                if self.recent is not None and (kept := self.recent.kept(frame.time_s, frame.picture)):
                    connection.pictures.append(kept)
                connection.windows += connection.maker.push(frame)
                if connection.is_placed(frame.time_s, self._clock()):
                    self._pass_on(connection, self._lateness_s(connection, frame.time_s))
        finally:
            if connection is not None and not self._stop.is_set():
                connection.windows += connection.maker.finish()
                self._pass_on(connection, 0.0)

    def _pass_on(self, connection: _Connection[W], late_s: float) -> None:
        """Give on what has come of a connection whose place on the clock is known."""
        if not connection.number:
            self._place(connection)
        self._last_s = connection.offset_s + connection.last_s
        for kept in connection.pictures:
            assert self.recent is not None
            self.recent.keep(KeptPicture(kept.time_s + connection.offset_s, kept.jpeg))
        for window in connection.windows:
            self._handover.put(
                WaitingWindow(
                    self.state, window, connection.number, time.monotonic(), late_s, connection.is_live
                )
            )
        connection.pictures.clear()
        connection.windows.clear()

    def _place(self, connection: _Connection[W]) -> None:
        """Number a connection, place it behind the one before, and see how much footage is lost between."""
        bridged_s = 0.0
        if connection.is_live and self._last_s is not None:
            connection.offset_s = max(connection.offset_s, self._last_s + 1e-3 - connection.first_s)
            lost_s = connection.offset_s + connection.first_s - self._last_s
            bridged_s = lost_s if lost_s <= self._bridge_cut_s else 0.0
        connection.number = self._count = self._count + 1
        self.state.reconnections = self._count - 1
        self._connections[connection.number] = connection.offset_s, bridged_s

    def _lateness_s(self, connection: _Connection[W], time_s: float) -> float:
        """By how much a frame is late. Raises _TooFarBehind where frames stay so."""
        if not connection.is_live:
            return 0.0
        late_s, now_s = max(self._clock() - connection.offset_s - time_s, 0.0), time.monotonic()
        if late_s <= self._max_delay_s:
            self._late_since_s = None
        elif self._late_since_s is None:
            self._late_since_s = now_s
        elif now_s - self._late_since_s > self._stall_s:
            self._late_since_s = None
            raise _TooFarBehind
        return late_s


class _Connection(Generic[W]):
    """One connection to a camera: what has come and is not passed on, and where its times lie on the clock.

    What was under way or kept back comes in a burst at the beginning: its first frames are older than they look.
    Of all frames so far the one that came earliest for its time places it: offset_s is what its times are then behind.
    """

    def __init__(self, maker: WindowMaker[W], first_s: float, is_live: bool, clock_s: float):
        self.maker, self.first_s, self.is_live = maker, first_s, is_live
        self.number, self.last_s = 0, first_s
        self.offset_s = clock_s - first_s if is_live else 0.0
        self.pictures: list[KeptPicture] = []
        self.windows: list[W] = []
        self._began_s = self._earlier_s = clock_s

    def is_placed(self, time_s: float, clock_s: float) -> bool:
        """Take note of when a frame has come; returns whether the burst is over."""
        self.last_s = time_s
        if self.number or not self.is_live:
            return True
        if clock_s - time_s < self.offset_s - _JITTER_S:
            self._earlier_s = clock_s
        self.offset_s = min(self.offset_s, clock_s - time_s)
        quiet_s, whole_s = clock_s - self._earlier_s, clock_s - self._began_s
        return quiet_s > _BURST_IS_OVER_S or not 0 <= whole_s <= _LONGEST_BURST_S
