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
from violence_detection.prediction.live.recent_footage import RecentFootage
from violence_detection.system import redaction
from violence_detection.video.sources import Source, TimedFrame

log = logging.getLogger(__name__)
W_co = TypeVar("W_co", covariant=True)
W = TypeVar("W")
#: Waits between attempts begin with this, double, and vary by half, so that cameras behind one switch do not all
#: come at once ("full jitter" of M. Brooker, 2015, with a floor).
_FIRST_WAIT_S = 0.5


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
    live sources are seconds since 1970 by this machine's clock at the first frame of a connection, and go on by the
    source's own; windows are told relative to `base_s(connection)`, a multiple of `step_s`.
    """

    def __init__(
        self,
        state: CameraState,
        open_source: Callable[[], Source],
        make_windows: Callable[[Source], WindowMaker[W]],
        handover: Handover[W],
        recent: RecentFootage | None,
        *,
        step_s: float,
        max_delay_s: float,
        stall_s: float,
        retry_max_s: float,
        bridge_cut_s: float,
        clock: Callable[[], float] = time.time,
    ):
        self.state, self.recent = state, recent
        self._open_source, self._make_windows, self._handover = open_source, make_windows, handover
        self._step_s, self._max_delay_s, self._stall_s = step_s, max_delay_s, stall_s
        self._retry_max_s, self._bridge_cut_s, self._clock = retry_max_s, bridge_cut_s, clock
        self._stop = threading.Event()
        self._source: Source | None = None
        #: Of each connection that a window may still be of: what its windows' times begin at, and the footage that is
        #: lost before it and is to be no gap.
        self._connections: dict[int, tuple[float, float]] = {}
        self._connection = 0
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

    def base_s(self, connection: int) -> float:
        """What the times of a connection's windows begin at."""
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
            self.state.be(camera_state.STALLED, f"no frame for {self._stall_s:g} s")

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
            wait_s = min(_FIRST_WAIT_S * 2**attempts, self._retry_max_s) * random.uniform(0.5, 1.0)
            self.state.be(camera_state.LOST, f"{reason or 'the stream ended'}; next attempt in {wait_s:.1f} s")
            self._stop.wait(wait_s)
            self.state.reconnections += 1
        self.state.be(camera_state.ENDED, self.state.failure)

    def _connect(self) -> tuple[str, bool]:
        """One connection, from its beginning to its end: why it ended, empty for no error, and whether it may be back."""
        source: Source | None = None
        try:
            source = self._source = self._open_source()
            self._read(source)
        except UnreadableVideo as e:
            return redaction.without_secrets(e.reason), source is None or source.live
        except _TooFarBehind:
            return f"frames came more than {self._max_delay_s:g} s late", True
        except Exception as e:  # noqa: BLE001 - one camera must not cost the others theirs
            log.exception("%s: a fault of these scripts", self.state.name)
            return redaction.redact(f"{type(e).__name__}: {e}"), True
        finally:
            if source is not None:
                source.close()
        return "", source.live

    def _read(self, source: Source) -> None:
        maker: WindowMaker[W] | None = None
        offset_s = base_s = 0.0
        try:
            for frame in source.frames():
                if self._stop.is_set():
                    break
                if maker is None:
                    offset_s, base_s = self._begin(frame, source)
                    maker = self._make_windows(source)
                    self.state.be(camera_state.LIVE)
                elif self.state.state == camera_state.STALLED:
                    self.state.be(camera_state.LIVE)
                time_s = frame.time_s + offset_s
                late_s = self._seen(time_s, source.live)
                if self.recent is not None:
                    self.recent.add(time_s, frame.picture)
                self._hand_over(maker.push(TimedFrame(time_s - base_s, frame.picture)), late_s, source.live)
        finally:
            if maker is not None and not self._stop.is_set():
                self._hand_over(maker.finish(), 0.0, source.live)

    def _begin(self, frame: TimedFrame, source: Source) -> tuple[float, float]:
        """Place a connection on the clock: what to add to its times, and what its windows' times begin at."""
        offset_s, base_s, bridged_s = 0.0, 0.0, 0.0
        if source.live:
            now_s = self._clock()
            if self._last_s is not None:
                now_s = max(now_s, self._last_s + 1e-3)
                lost_s = now_s - self._last_s
                bridged_s = lost_s if lost_s <= self._bridge_cut_s else 0.0
            offset_s = now_s - frame.time_s
            base_s = now_s // self._step_s * self._step_s
        self._connection += 1
        self._connections[self._connection] = base_s, bridged_s
        return offset_s, base_s

    def _seen(self, time_s: float, live: bool) -> float:
        """Count a frame; returns by how many seconds it is late. Raises _TooFarBehind where it stays so."""
        self.state.frames += 1
        self._last_s = time_s
        now_s = self.state.last_frame_s = time.monotonic()
        late_s = max(self._clock() - time_s, 0.0) if live else 0.0
        if late_s <= self._max_delay_s:
            self._late_since_s = None
        elif self._late_since_s is None:
            self._late_since_s = now_s
        elif now_s - self._late_since_s > self._stall_s:
            self._late_since_s = None
            raise _TooFarBehind
        return late_s

    def _hand_over(self, windows: Sequence[W], late_s: float, live: bool) -> None:
        for window in windows:
            item = WaitingWindow(self.state, window, self._connection, time.monotonic(), late_s, live)
            self._handover.put(item)
