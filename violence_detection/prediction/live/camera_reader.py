"""Reads one camera in its own thread, reconnects when it is lost, and puts its frames on this machine's clock."""

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
#: A connection begins with a burst of frames that were held up on the way. The burst is over once this many seconds of
#: footage bring no frame that arrived noticeably earlier, relative to its time stamp, than the last one that did. It is
#: footage that counts and not time, because the next segment of HLS may be waited for meanwhile.
_BURST_IS_OVER_S = 2.0
#: How much earlier is noticeable.
_EARLIER_S = 0.16
#: Longest burst by this machine's clock: three segments of HLS of 10 s.
_LONGEST_BURST_S = 30.0
#: A time stamp further ahead of this machine's clock than this is wrong: one of the two clocks was changed.
_AHEAD_S = 2.0
#: A connection that begins at most this long before the last frame of the one before is shifted to follow that frame.
_OVERLAP_S = 1.0
#: A connection that has lasted this long counts as established.
_STEADY_S = 2.0
#: Attempts after which the delay between retries no longer grows.
_ATTEMPTS_TO_LONGEST_DELAY = 30


class WindowMaker(Protocol[W_co]):
    """Turns the frames of one connection into windows as they come. sparse: windows left out for too few frames."""

    @property
    def sparse(self) -> int: ...

    def push(self, frame: TimedFrame) -> Sequence[W_co]:
        """Return the windows that this frame completes."""
        ...

    def finish(self) -> Sequence[W_co]:
        """Return the windows that are left at the end of the connection."""
        ...


class _OutOfTime(Exception):
    """Frames stay so late, or so far ahead of the clock, that it is better to reconnect."""


@dataclass(frozen=True)
class _Placed:
    """A connection's place on this machine's clock.

    offset_s: what is added to its times; bridged_s: seconds of footage lost just before it that do not count as a gap
    between windows; begins_anew: whether times before it were ahead of the clock, so that its own go back.
    """

    offset_s: float
    bridged_s: float
    begins_anew: bool


class CameraReader(Generic[W]):
    """Reads a camera until it is stopped, and hands over complete windows.

    `open_source` returns a new source for each connection, `make_windows` an object that turns its frames into windows.
    `window_s`: length of the longest window.

    Windows have the source's own times; adding `offset_s(connection)` puts them on this machine's clock, in seconds
    since 1970. Each connection has its own offset; it is 0 for a source that is not live.
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
        #: By number: connections of which a window may still be judged, and the latest one.
        self._connections: dict[int, _Placed] = {}
        #: Number of connections so far, and the last of them that a window was handed over from.
        self._count = self._given = 0
        #: The last frame up to which all windows were handed over: its time, and its arrival on the monotonic clock.
        self._passed: tuple[float, float] | None = None
        self._was_steady = self._was_live = self._is_shut_out = False
        self._thread = threading.Thread(target=self._run, name=f"camera {state.name}", daemon=True)

    def start(self) -> None:
        """Start the reading thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the reading thread to stop. Returns at once; `join` waits for it."""
        self._stop.set()
        if self._source is not None:
            self._source.close()

    def join(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for the thread to end; return whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def offset_s(self, connection: int) -> float:
        """Seconds to add to the times of a connection's windows to put them on this machine's clock."""
        return self._connections[connection].offset_s

    def bridged_s(self, after: int, connection: int) -> float | None:
        """Seconds lost between two connections that do not count as a gap; None if times have gone back since `after`.

        Forgets the connections before `connection`.
        """
        between = [placed for n, placed in sorted(self._connections.items()) if after < n <= connection]
        for n in sorted(self._connections):
            if n < connection:
                self._connections.pop(n, None)
        return None if any(p.begins_anew for p in between) else sum(p.bridged_s for p in between)

    def gone_until_s(self, after: int) -> float | None:
        """Time before which no further window begins, apart from those already waiting to be judged; None if unknown.

        For a live camera, whose frames may be too few for windows: a window's length before its last frame, less the
        interruptions since the connection `after` that do not count as gaps.

        For a camera that is away: its last frame plus the time since then, once that is too long for an event to go on
        across it. That time is measured by the monotonic clock, because the other one may be set meanwhile.
        """
        state, passed = self.state.state, self._passed
        if passed is None:
            return None
        last_s, passed_s = passed
        if state == camera_state.LIVE:
            placed = list(self._connections.items())  # a copy: the camera's thread adds to them
            return last_s - self._window_s - sum(p.bridged_s for n, p in placed if n > after)
        if state not in (camera_state.LOST, camera_state.CONNECTING, camera_state.STALLED):
            return None
        away_s = time.monotonic() - passed_s
        return last_s + away_s if away_s > self._bridge_cut_s + 2.0 else None

    def look(self) -> None:
        """Mark the camera as stalled when no frames come, and as live when they come again. Call about once a second.

        A frame does not do so itself when it comes, because the last frames of a stream only come when it ends. A
        recording never stalls: without frames it has ended, or waits for windows to be judged.
        """
        is_still = time.monotonic() - self.state.last_frame_s > self._stall_s
        if is_still and self._was_live and self.state.state == camera_state.LIVE:
            self.state.set_state(camera_state.STALLED, f"no frame for {self._stall_s:g} s", camera_state.LIVE)
        elif not is_still and self.state.state == camera_state.STALLED:
            self.state.set_state(camera_state.LIVE, only_from=camera_state.STALLED)

    def _run(self) -> None:
        attempts = 0
        while not self._stop.is_set():
            self.state.set_state(camera_state.CONNECTING)
            frames, self._was_steady, self._is_shut_out = self.state.frames, False, False
            reason, may_be_back = self._connect()
            if self._stop.is_set() or not may_be_back:
                self.state.failure = "" if self._stop.is_set() else reason
                break
            attempts = 0 if self._was_steady else attempts + 1
            wait_s = self._wait_s(_ATTEMPTS_TO_LONGEST_DELAY if self._is_shut_out else attempts)
            if not reason:
                is_picture = self.state.frames - frames == 1
                reason = "the stream ended" + (
                    " after 1 frame: is this the address of a single picture?" if is_picture else ""
                )
            self.state.set_state(camera_state.LOST, f"{reason}; next attempt in {wait_s:.1f} s")
            self._stop.wait(wait_s)
        self.state.set_state(camera_state.ENDED, self.state.failure)

    def _wait_s(self, attempts: int) -> float:
        """Seconds to wait after this many failed attempts: doubled with each up to a limit, times a random 0.5 to 1.

        The random factor keeps the cameras behind one switch from reconnecting all at once. "Equal jitter" of
        M. Brooker, Exponential Backoff and Jitter, 2015.
        """
        doubled_s = self._retry_min_s * 2 ** min(attempts, _ATTEMPTS_TO_LONGEST_DELAY)
        return min(doubled_s, self._retry_max_s) * random.uniform(0.5, 1.0)

    def _connect(self) -> tuple[str, bool]:
        """Connect and read to the end; return why it ended ("" without an error) and whether to connect again."""
        source: Source | None = None
        try:
            source = self._source = self._open_source()
            if self._stop.is_set():  # `stop` may have looked for a source before there was one
                return "", False
            self._read(source)
        except UnreadableVideo as e:
            self._is_shut_out = isinstance(e, LoginRefused)
            return redaction.without_secrets(e.reason), self._may_be_back(source)
        except _OutOfTime as e:
            return str(e), True
        except Exception as e:  # an error in one camera must not end the run for the others
            log.exception("%s: internal error, please report it", self.state.name)
            return redaction.redact(f"{type(e).__name__}: {e}"), self._may_be_back(source)
        finally:
            if source is not None:
                source.close()
        return "", self._may_be_back(source)

    def _may_be_back(self, source: Source | None) -> bool:
        """Whether to connect again: always, except to a recording, which is read once."""
        return self._was_live or source is None or source.live

    def _read(self, source: Source) -> None:
        connection: _Connection[W] | None = None
        try:
            for frame in source.frames():
                if self._stop.is_set():
                    break
                if self._was_live and not source.live:  # such as an HLS playlist that its server has ended
                    raise SourceError(source.name, "this address was live and is now a recording")
                self._was_live = source.live
                # set before the state is live, or `look` could call it stalled
                self.state.last_frame_s = time.monotonic()
                if connection is None:
                    connection = _Connection(
                        self._make_windows(source), frame.time_s, source.live, self._clock()
                    )
                    self.state.set_state(camera_state.LIVE)
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
        """Drop the oldest windows held back during a burst: no more are kept than may then wait to be judged."""
        while len(windows) > self._handover.most_live:
            del windows[0]
            self.state.drop()

    def _pass_on(self, connection: _Connection[W], late_s: float) -> None:
        """Keep the pictures and hand over the windows held back so far, once the connection's offset is known."""
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
        """Number a connection, make its times follow those of the one before, and note the footage lost in between.

        A connection that repeats more than _OVERLAP_S seconds keeps its times, and its windows of them come a second
        time. One that follows times that were ahead of the clock keeps its times, too.
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
                before, self.recent = self.recent, self.recent.empty_copy()
                before.end()
        last = self._count
        connection.number = self._count = last + 1
        self.state.reconnections = last
        # no window refers to a connection that had none, so its lost footage is added to that of the next one
        windowless = self._connections.get(last) if last > self._given else None
        if windowless is not None:
            bridged_s += windowless.bridged_s
            begins_anew |= windowless.begins_anew
        self._connections[connection.number] = _Placed(connection.offset_s, bridged_s, begins_anew)
        if windowless is not None:
            self._connections.pop(last, None)

    def _lateness_s(self, connection: _Connection[W], time_s: float) -> float:
        """Seconds by which a frame is late. Raises _OutOfTime if frames stay too late or too far ahead of the clock."""
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
    """One connection to a camera: pictures and windows that are not passed on yet, and its offset to the clock.

    It begins with a burst of frames that were held up on the way, so the first ones are older than they look. The frame
    that came earliest relative to its time stamp counts as on time: it sets offset_s, the clock less the time stamp.
    """

    def __init__(self, maker: WindowMaker[W], first_s: float, is_live: bool, clock_s: float):
        self.maker, self.first_s, self.is_live = maker, first_s, is_live
        self.number, self.last_s, self.sparse = 0, first_s, 0
        self.offset_s = clock_s - first_s if is_live else 0.0
        self.pictures: list[KeptPicture] = []
        self.windows: list[W] = []
        self.after_s = -math.inf  # pictures up to this time are kept already
        self.out_since_s: float | None = None
        self._began_s = clock_s
        # time and offset of the last frame that came noticeably earlier than those before it
        self._earlier_s, self._noted_s = first_s, self.offset_s
        self._since_s = time.monotonic()

    def lasts_s(self) -> float:
        """Seconds since its first frame came."""
        return time.monotonic() - self._since_s

    def is_placed(self, time_s: float, clock_s: float) -> bool:
        """Take note of when a frame came; return whether the burst is over, so that the offset is final."""
        self.last_s = time_s
        if self.number or not self.is_live:
            return True
        if clock_s - time_s < self._noted_s - _EARLIER_S:
            self._earlier_s, self._noted_s = time_s, clock_s - time_s
        self.offset_s = min(self.offset_s, clock_s - time_s)
        quiet_s, whole_s = time_s - self._earlier_s, clock_s - self._began_s
        return quiet_s > _BURST_IS_OVER_S or not 0 <= whole_s <= _LONGEST_BURST_S
