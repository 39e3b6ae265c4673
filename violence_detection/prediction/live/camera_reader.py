"""One camera: read in a thread of its own, found again when it is lost, its frames put on the clock of this machine."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from violence_detection.errors import LoginRefused, SourceError, UnreadableVideo
from violence_detection.prediction.live import camera_state
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.handover import Handover, WaitingWindow
from violence_detection.prediction.live.recent_footage import KeptPicture, RecentFootage
from violence_detection.system import redaction
from violence_detection.video.sources import Source, TimedFrame

log = logging.getLogger(__name__)
W_co = TypeVar("W_co", covariant=True)
W = TypeVar("W")
#: Frames of a connection come in a burst until in so much footage none has come earlier by so much, for its time, than
#: those before: the next of its segments may be waited for meanwhile. The longest burst: three segments of HLS of 10 s.
_BURST_IS_OVER_S, _EARLIER_S, _LONGEST_BURST_S = 2.0, 0.16, 30.0
#: Times that are ahead of this machine's clock by more are wrong: the camera's clock was set, or this machine's.
_AHEAD_S = 2.0
#: A connection whose first frames are by up to so much older than the last of the one before is put behind that.
_OVERLAP_S = 1.0
#: A connection that lasts for so long has succeeded.
_STEADY_S = 2.0
#: So many attempts wait the longest.
_LONGEST = 30


class WindowMaker(Protocol[W_co]):
    """Makes windows of the frames of one connection, as they come. sparse: how many had too few frames to be any."""

    @property
    def sparse(self) -> int: ...

    def push(self, frame: TimedFrame) -> Sequence[W_co]:
        """The windows that are complete with this frame."""
        ...

    def finish(self) -> Sequence[W_co]:
        """What is left, at the end of the connection."""
        ...


class _OutOfTime(Exception):
    """Frames are so late, or so far ahead, that the camera is better begun anew."""


@dataclass(frozen=True)
class _Placed:
    """Where a connection lies on the clock: its offset, and what is lost before it and is to be no gap, in seconds.

    begins_anew: whether the times before it were ahead of the clock, so that its own go back.
    """

    offset_s: float
    bridged_s: float
    begins_anew: bool


class CameraReader(Generic[W]):
    """Reads a camera until it is stopped, and hands complete windows over.

    `open_source` gives the source anew for each connection, `make_windows` what makes windows of its frames. Times of
    live sources are seconds since 1970: the source's own, placed on this machine's clock anew with each connection.
    Windows have the source's own, which `offset_s(connection)` places. `window_s`: how long the longest is.
    """

    def __init__(
        self,
        state: CameraState,
        open_source: Callable[[], Source],
        make_windows: Callable[[Source], WindowMaker[W]],
        handover: Handover[W],
        recent: RecentFootage | None,
        *,
        window_s: float,
        max_delay_s: float,
        stall_s: float,
        retry_min_s: float,
        retry_max_s: float,
        bridge_cut_s: float,
        clock: Callable[[], float] = time.time,
    ):
        self.state, self.recent = state, recent
        self._open_source, self._make_windows, self._handover = open_source, make_windows, handover
        self._window_s, self._max_delay_s, self._stall_s = window_s, max_delay_s, stall_s
        self._retry_min_s, self._retry_max_s = retry_min_s, retry_max_s
        self._bridge_cut_s, self._clock = bridge_cut_s, clock
        self._stop = threading.Event()
        self._source: Source | None = None
        #: Each connection that a window may still be of, and the last one.
        self._connections: dict[int, _Placed] = {}
        #: How many connections there were, and the last of which a window was given on.
        self._count = self._given = 0
        #: The time of the last frame that was passed on, with all windows before, and when it came, on the monotonic
        #: clock.
        self._passed: tuple[float, float] | None = None
        self._was_steady = self._was_live = self._is_shut_out = False
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
        return self._connections[connection].offset_s

    def bridged_s(self, after: int, connection: int) -> float | None:
        """Seconds lost between two connections that are to be no gap; None: the times of the second go back.

        Connections before the second are forgotten.
        """
        between = [placed for n, placed in sorted(self._connections.items()) if after < n <= connection]
        for n in sorted(self._connections):
            if n < connection:
                self._connections.pop(n, None)
        return None if any(p.begins_anew for p in between) else sum(p.bridged_s for p in between)

    def gone_until_s(self, after: int) -> float | None:
        """No window comes that begins before this, but those that wait to be judged by now. None: nobody knows.

        Of a camera that sends frames, but too few for windows, interruptions since the connection `after` that are to
        be no gap are left out. One that is away is so for so long that an event does not go on across: by the
        monotonic clock since the last frame, since the other one may be set meanwhile.
        """
        state, passed = self.state.state, self._passed
        if passed is None:
            return None
        last_s, passed_s = passed
        if state == camera_state.LIVE:
            placed = list(self._connections.items())  # at once: the camera's thread adds to them
            return last_s - self._window_s - sum(p.bridged_s for n, p in placed if n > after)
        if state not in (camera_state.LOST, camera_state.CONNECTING, camera_state.STALLED):
            return None
        away_s = time.monotonic() - passed_s
        return last_s + away_s if away_s > self._bridge_cut_s + 2.0 else None

    def look(self) -> None:
        """Notice that nothing comes, and that something comes again. To be called about once a second.

        Not with the frame itself: the last of a stream come when it ends. A recording does not stand still: it has
        ended, or waits for judging.
        """
        is_still = time.monotonic() - self.state.last_frame_s > self._stall_s
        if is_still and self._was_live and self.state.state == camera_state.LIVE:
            self.state.be(camera_state.STALLED, f"no frame for {self._stall_s:g} s", camera_state.LIVE)
        elif not is_still and self.state.state == camera_state.STALLED:
            self.state.be(camera_state.LIVE, only_from=camera_state.STALLED)

    def _run(self) -> None:
        attempts = 0
        while not self._stop.is_set():
            self.state.be(camera_state.CONNECTING)
            frames, self._was_steady, self._is_shut_out = self.state.frames, False, False
            reason, may_be_back = self._connect()
            if self._stop.is_set() or not may_be_back:
                self.state.failure = "" if self._stop.is_set() else reason
                break
            attempts = 0 if self._was_steady else attempts + 1
            wait_s = self._wait_s(_LONGEST if self._is_shut_out else attempts)
            if not reason:
                is_picture = self.state.frames - frames == 1
                reason = "the stream ended" + (
                    " after 1 frame: is this the address of a single picture?" if is_picture else ""
                )
            self.state.be(camera_state.LOST, f"{reason}; next attempt in {wait_s:.1f} s")
            self._stop.wait(wait_s)
        self.state.be(camera_state.ENDED, self.state.failure)

    def _wait_s(self, attempts: int) -> float:
        """How long to wait: it doubles, and varies by half, so that cameras behind one switch do not all come at once.

        "Equal jitter" of M. Brooker, Exponential Backoff and Jitter, 2015.
        """
        doubled_s = self._retry_min_s * 2 ** min(attempts, _LONGEST)
        return min(doubled_s, self._retry_max_s) * random.uniform(0.5, 1.0)

    def _connect(self) -> tuple[str, bool]:
        """One connection, to its end: why it ended, empty for no error, and whether the camera may be back."""
        source: Source | None = None
        try:
            source = self._source = self._open_source()
            self._read(source)
        except UnreadableVideo as e:
            self._is_shut_out = isinstance(e, LoginRefused)
            return redaction.without_secrets(e.reason), self._may_be_back(source)
        except _OutOfTime as e:
            return str(e), True
        except Exception as e:  # one camera must not cost the others theirs
            log.exception("%s: internal error, please report it", self.state.name)
            return redaction.redact(f"{type(e).__name__}: {e}"), self._may_be_back(source)
        finally:
            if source is not None:
                source.close()
        return "", self._may_be_back(source)

    def _may_be_back(self, source: Source | None) -> bool:
        """Whether there may be another connection: not to a recording, which is read once."""
        return self._was_live or source is None or source.live

    def _read(self, source: Source) -> None:
        connection: _Connection[W] | None = None
        try:
            for frame in source.frames():
                if self._stop.is_set():
                    break
                if self._was_live and not source.live:  # a playlist that its server has ended, say
                    raise SourceError(source.name, "what is there now is a recording of what was live")
                self._was_live = source.live
                self.state.last_frame_s = time.monotonic()  # before it is live, or it would count as stalled
                if connection is None:
                    connection = _Connection(
                        self._make_windows(source), frame.time_s, source.live, self._clock()
                    )
                    self.state.be(camera_state.LIVE)
                self.state.frames += 1
                if self.recent is not None and (
                    kept := self.recent.kept(frame.time_s, frame.picture, frame.pixel_shape)
                ):
                    connection.pictures.append(kept)
                windows = connection.maker.push(frame)
                connection.windows += windows
                self._count_sparse(connection)
                self._was_steady |= bool(windows) or connection.lasts_s() > _STEADY_S
                if connection.is_placed(frame.time_s, self._clock()):
                    self._pass_on(connection, self._lateness_s(connection, frame.time_s))
                else:
                    self._forget_older(connection.windows)
        finally:
            if connection is not None and not self._stop.is_set():
                connection.windows += connection.maker.finish()
                self._count_sparse(connection)
                self._pass_on(connection, 0.0)

    def _count_sparse(self, connection: _Connection[W]) -> None:
        self.state.sparse += connection.maker.sparse - connection.sparse
        connection.sparse = connection.maker.sparse

    def _forget_older(self, windows: list[W]) -> None:
        """Of windows that wait for the end of a burst, keep as many as may then wait to be judged."""
        while len(windows) > self._handover.most_live:
            del windows[0]
            self.state.drop()

    def _pass_on(self, connection: _Connection[W], late_s: float) -> None:
        """Give on what has come of a connection whose place on the clock is known."""
        if not connection.number:
            self._place(connection)
        for kept in connection.pictures:
            assert self.recent is not None
            if (time_s := kept.time_s + connection.offset_s) > connection.after_s:
                self.recent.keep(KeptPicture(time_s, kept.jpeg))
        for window in connection.windows:
            self._given = connection.number
            self._handover.put(
                WaitingWindow(
                    self.state, window, connection.number, time.monotonic(), late_s, connection.is_live
                )
            )
        connection.pictures.clear()
        connection.windows.clear()
        self._passed = connection.offset_s + connection.last_s, self.state.last_frame_s

    def _place(self, connection: _Connection[W]) -> None:
        """Number a connection, put it behind the one before, and see how much footage is lost between.

        One that repeats more than a little of what came before keeps its times: those windows come a second time. So
        does one behind times that were ahead of the clock.
        """
        bridged_s, begins_anew = 0.0, False
        if connection.is_live and self._passed is not None:
            last_s = self._passed[0]
            lost_s = connection.offset_s + connection.first_s - last_s
            begins_anew = last_s > self._clock() + _AHEAD_S
            if not begins_anew and -_OVERLAP_S <= lost_s < 1e-3:
                connection.offset_s += 1e-3 - lost_s
                lost_s = 1e-3
            bridged_s = lost_s if 0 < lost_s <= self._bridge_cut_s else 0.0
            connection.after_s = -math.inf if begins_anew else last_s
            if self.recent is not None and begins_anew:
                before, self.recent = self.recent, self.recent.anew()
                before.end()
        last = self._count
        connection.number = self._count = last + 1
        self.state.reconnections = last
        # nobody asks for one that no window is of: what it lost is lost before the next one
        windowless = self._connections.get(last) if last > self._given else None
        if windowless is not None:
            bridged_s += windowless.bridged_s
            begins_anew |= windowless.begins_anew
        self._connections[connection.number] = _Placed(connection.offset_s, bridged_s, begins_anew)
        if windowless is not None:
            self._connections.pop(last, None)

    def _lateness_s(self, connection: _Connection[W], time_s: float) -> float:
        """By how much a frame is late. Raises _OutOfTime where frames stay so, or ahead of the clock."""
        if not connection.is_live:
            return 0.0
        late_s, now_s = self._clock() - connection.offset_s - time_s, time.monotonic()
        if -_AHEAD_S <= late_s <= self._max_delay_s:
            connection.out_since_s = None
        elif connection.out_since_s is None:
            connection.out_since_s = now_s
        elif now_s - connection.out_since_s > self._stall_s:
            much = (
                f"{self._max_delay_s:g} s late"
                if late_s > 0
                else f"{_AHEAD_S:g} s ahead of this machine's clock"
            )
            raise _OutOfTime(f"frames came more than {much}")
        return max(late_s, 0.0)


class _Connection(Generic[W]):
    """One connection to a camera: what has come and is not passed on, and where its times lie on the clock.

    What was under way or kept back comes in a burst at the beginning: its first frames are older than they look.
    Of all frames so far the one that came earliest for its time places it: offset_s is what its times are then behind.
    """

    def __init__(self, maker: WindowMaker[W], first_s: float, is_live: bool, clock_s: float):
        self.maker, self.first_s, self.is_live = maker, first_s, is_live
        self.number, self.last_s, self.sparse = 0, first_s, 0
        self.offset_s = clock_s - first_s if is_live else 0.0
        self.pictures: list[KeptPicture] = []
        self.windows: list[W] = []
        self.after_s = -math.inf  # pictures of up to here are there already
        self.out_since_s: float | None = None
        self._began_s = clock_s
        self._earlier_s, self._noted_s = first_s, self.offset_s  # the last frame that was so, and its offset
        self._since_s = time.monotonic()

    def lasts_s(self) -> float:
        """How long ago its first frame came."""
        return time.monotonic() - self._since_s

    def is_placed(self, time_s: float, clock_s: float) -> bool:
        """Take note of when a frame has come; returns whether the burst is over."""
        self.last_s = time_s
        if self.number or not self.is_live:
            return True
        if clock_s - time_s < self._noted_s - _EARLIER_S:
            self._earlier_s, self._noted_s = time_s, clock_s - time_s
        self.offset_s = min(self.offset_s, clock_s - time_s)
        quiet_s, whole_s = time_s - self._earlier_s, clock_s - self._began_s
        return quiet_s > _BURST_IS_OVER_S or not 0 <= whole_s <= _LONGEST_BURST_S
