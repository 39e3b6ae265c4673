"""The model that all cameras share, and the windows that it judges."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from violence_detection.prediction import window_stream
from violence_detection.prediction.config import EventConfig, PredictConfig
from violence_detection.prediction.events import JudgedWindow
from violence_detection.prediction.live.camera_reader import WindowMaker
from violence_detection.prediction.window_stream import WindowStream
from violence_detection.video.sources import Source, TimedFrame
from violence_detection.video.window_pictures import SeenWindow

if TYPE_CHECKING:
    from violence_detection.prediction.detector import Detector

log = logging.getLogger(__name__)
W = TypeVar("W")


class LiveModel(Protocol[W]):
    """What cameras need from a model. window_s: length of a window; step_s: seconds from one start to the next."""

    window_s: float
    step_s: float
    events_by: EventConfig

    def make_windows(self, source: Source) -> WindowMaker[W]:
        """Return what turns a connection's frames into windows. Called in the camera's thread, at the first frame."""
        ...

    def judge(self, camera: str, window: W) -> JudgedWindow:
        """Judge a window; times are those of its frames. Raises UnreadableVideo if the output is not a number."""
        ...


@dataclass(frozen=True)
class PlacedWindow:
    """A window with the frames that it needs; start_s, end_s: its place in the stream, in seconds."""

    start_s: float
    end_s: float
    seen: SeenWindow


class DetectorModel:
    """A detector, shared by all cameras."""

    def __init__(self, detector: Detector):
        self._detector = detector
        self.window_s = detector.model.features.window_s
        self.step_s = detector.stride_s
        self.events_by = detector.events_by

    def make_windows(self, source: Source) -> WindowMaker[PlacedWindow]:
        """Return what makes windows with the frames that this model looks at."""
        return WindowsOfStream(window_stream.of_detector(self._detector, source.fps))

    def judge(self, camera: str, window: PlacedWindow) -> JudgedWindow:
        """Judge a window. Raises UnreadableVideo if the network's output is not a number."""
        ((_, p),) = self._detector.judged(camera, [window.seen])
        judged = JudgedWindow.of((window.start_s, window.end_s), p)
        return self._detector.profiled(replace(judged, start_s=window.start_s, end_s=window.end_s))


class WindowsOfStream:
    """Windows of a stream, with their start and end in seconds of the stream."""

    def __init__(self, stream: WindowStream):
        self._stream = stream

    @property
    def sparse(self) -> int:
        """Number of windows left out because they had too few frames to judge movement."""
        return self._stream.still

    def push(self, frame: TimedFrame) -> Sequence[PlacedWindow]:
        return self._placed(self._stream.push(frame))

    def finish(self) -> Sequence[PlacedWindow]:
        return self._placed(self._stream.finish())

    def _placed(self, seen: Iterable[SeenWindow]) -> list[PlacedWindow]:
        return [PlacedWindow(*self._stream.span_s(window.window), window) for window in seen]


def load(config: PredictConfig) -> DetectorModel:
    """Load the model for cameras, by default a shipped one. Raises UserError if it cannot be loaded."""
    from violence_detection.models import shipped  # slow to import, like the next line
    from violence_detection.prediction.detector import Detector

    if config.model is None:
        model, why = shipped.default()
        log.info("%s", why)
        config = replace(config, model=model)
    return DetectorModel(Detector(config))
