"""Explain why a window was judged as it was: how much P(violent) falls without each place and each moment of it.

The method is occlusion (video/occlusion.py), which needs nothing from a model but its probability: the window is judged
once unchanged, once without each of 4 x 4 places, and once without each of 8 stretches of time, which makes 25 times
the cost of judging. For heads that pool by attention, the explanation also tells how much each of their steps counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.detector import Detector
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.video import decode, occlusion, sampling, window_pictures
from violence_detection.video.shown import fitted, square
from violence_detection.video.window_pictures import SeenWindow

if TYPE_CHECKING:
    from violence_detection.models.trained_model import Inputs

#: Rows, and columns, of the grid of places.
PLACES = 4
#: Equal stretches of time into which a window is divided.
MOMENTS = 8
#: Versions of a window, such as one without a place, that are judged together and so in memory at the same time.
_AT_ONCE = 6
#: Height, in pixels, to which the frames of the picture are shrunk.
_SHOWN_HEIGHT = 240
#: Probabilities are kept this far from 0 and 1, where log-odds are infinite.
_TINY = 1e-6


@dataclass(frozen=True)
class Explanation:
    """The explanation of one window.

    `p`: P(violent) of the unchanged window. `p_without_places` (PLACES, PLACES), as rows and columns, and
    `p_without_moments` (MOMENTS,): P(violent) without each. `attention`: by member, the share (T,) of each of its time
    steps; empty if no head pools by attention. `frames`: the frame in the middle of each moment, (H, W, 3) uint8 RGB.
    `times_s`: their times in seconds of the video.
    """

    window: JudgedWindow
    p: float
    p_without_places: np.ndarray
    p_without_moments: np.ndarray
    attention: Mapping[str, np.ndarray]
    times_s: tuple[float, ...]
    frames: tuple[np.ndarray, ...]

    @property
    def places(self) -> np.ndarray:
        """How much the log-odds of P(violent) fall without each place, (rows, columns); negative where they rise.

        Log-odds, because where P is near 1 the difference of probabilities hardly shows a fall.
        """
        return _log_odds(self.p) - _log_odds(self.p_without_places)

    @property
    def moments(self) -> np.ndarray:
        """How much the log-odds of P(violent) fall without each moment, (MOMENTS,); negative where they rise."""
        return _log_odds(self.p) - _log_odds(self.p_without_moments)

    def record(self) -> dict[str, Any]:
        """Return the explanation as JSON values, without the frames."""
        return {
            "start_s": self.window.start_s,
            "end_s": self.window.end_s,
            "p_violent": round(self.p, 4),
            "p_without_place": self.p_without_places.round(4).tolist(),
            "p_without_moment": self.p_without_moments.round(4).tolist(),
            "moments_s": [round(t, 2) for t in self.times_s],
            "attention": {name: share.round(4).tolist() for name, share in self.attention.items()},
        }


class Explainer:
    """Explains the judgement of windows by a model. Test-time views are not averaged: `tta` is set to 1."""

    def __init__(self, config: PredictConfig):
        """Load the model. Raises UserError in the same cases as Detector."""
        self._detector = Detector(replace(config, tta=1))

    def explain(self, path: Path, windows: Sequence[JudgedWindow]) -> Iterator[Explanation]:
        """Yield an explanation for each window of a video, sorted by time. Raises UnreadableVideo."""
        info = decode.probe(path)
        windows = sorted(windows, key=lambda window: window.start_s)
        places = [self._place_of(info, window) for window in windows]
        for window, seen, shown in zip(
            windows, self._seen(path, info, places), _shown(path, info, places), strict=True
        ):
            yield self._explained(window, seen, shown, info.width / info.height)

    def without_places(
        self, path: Path, window: JudgedWindow, chosen: Sequence[Sequence[occlusion.Place]]
    ) -> list[float]:
        """Return P(violent) of a window for each item of `chosen`, a set of places that are covered together.

        Raises UnreadableVideo.
        """
        info = decode.probe(path)
        (seen,) = self._seen(path, info, [self._place_of(info, window)])
        changed = (_without_places(seen, places, info.width / info.height) for places in chosen)
        return self._judged(changed)[0].tolist()

    def _place_of(self, info: decode.VideoInfo, window: JudgedWindow) -> sampling.Window:
        """Return the window in frames: exactly the window of the grid that was judged, if one begins where it does.

        The times of a JudgedWindow are rounded, so its frames cannot simply be computed from them.
        """
        length_s = self._detector.model.features.window_s
        grid = sampling.sliding_windows(info, length_s, self._detector.stride_s)
        start = (window.start_s - info.start_s) * info.fps
        nearest = min(grid, key=lambda w: abs(w.start - start))
        if abs(nearest.start - start) <= 0.01 * info.fps:
            return nearest
        return sampling.Window(start, (window.end_s - window.start_s) * info.fps)

    def _seen(
        self, path: Path, info: decode.VideoInfo, places: Sequence[sampling.Window]
    ) -> Iterator[SeenWindow]:
        # without test-time views the clip id does not matter
        viewers, views = self._detector.viewers, self._detector.views
        return window_pictures.of_file(path, info, places, viewers, "", views, to_change=True)

    def _explained(
        self,
        window: JudgedWindow,
        seen: SeenWindow,
        shown: Sequence[tuple[float, np.ndarray]],
        aspect: float,
    ) -> Explanation:
        step = seen.window.length / MOMENTS
        starts = [seen.window.start + i * step for i in range(MOMENTS)]
        parts = occlusion.grid(PLACES, PLACES)
        looks = itertools.chain(
            [seen],
            (_without_places(seen, [part], aspect) for part in parts),
            (_without_time(seen, start, start + step) for start in starts),
        )
        p, plain = self._judged(looks)
        without = p[1:]
        return Explanation(
            window,
            float(p[0]),
            without[: len(parts)].reshape(PLACES, PLACES),
            without[len(parts) :],
            {name: share[0] for name, share in self._detector.model.attention(plain).items()},
            tuple(time_s for time_s, _ in shown),
            tuple(frame for _, frame in shown),
        )

    def _judged(self, looks: Iterable[SeenWindow]) -> tuple[np.ndarray, Inputs]:
        """Judge versions of a window: P(violent) (N,), by the camera profile if there is one, and the first's features.

        The features are those of the plain view, input name -> (1, T, C) float32.
        """
        model, profile = self._detector.model, self._detector.profile
        found: list[np.ndarray] = []
        plain: Inputs = {}
        waiting = iter(looks)
        while some := list(itertools.islice(waiting, _AT_ONCE)):
            inputs = self._detector.features(some)
            plain = plain or {name: values[:1, 0].astype(np.float32) for name, values in inputs.items()}
            found.append(model.average(model.average_views(inputs)))
        p = np.concatenate(found)
        return (p if profile is None else np.array([profile.probability(float(v)) for v in p])), plain


def _without_places(seen: SeenWindow, places: Sequence[occlusion.Place], aspect: float) -> SeenWindow:
    return seen.changed(lambda frames: occlusion.without_places(frames, places, aspect))


def _without_time(seen: SeenWindow, first: float, end: float) -> SeenWindow:
    return seen.changed(lambda frames: occlusion.without_time(frames, first, end))


def _log_odds(p: float | np.ndarray) -> np.ndarray:
    bounded = np.clip(np.asarray(p, np.float64), _TINY, 1 - _TINY)
    return np.log(bounded) - np.log1p(-bounded)


def _shown(
    path: Path, info: decode.VideoInfo, windows: Sequence[sampling.Window]
) -> Iterator[list[tuple[float, np.ndarray]]]:
    """Yield for each window the frames in the middle of its moments, each as (time in seconds, frame to be shown)."""
    numbers = [sampling.sample_indices(info.n_frames, MOMENTS, w.start, w.length).tolist() for w in windows]
    groups = [frozenset(found) for found in numbers]
    decoded = decode.read_groups(path, info, groups, lambda frame, _: fitted(frame, _SHOWN_HEIGHT))
    for found, frames in zip(numbers, decoded, strict=True):
        yield [(info.start_s + n / info.fps, square(frames[n], info.pixel_shape)) for n in found]


def explained_windows(verdict: Verdict, most: int) -> list[tuple[str, JudgedWindow]]:
    """Choose the windows of a verdict to explain; return (name, window) pairs, where the name is part of file names.

    These are the most violent window of each of the `most` most violent events, named `event001` and so on by the
    event's number; without events, the most violent window of the video, named `highest`.
    """
    events = list(enumerate(verdict.events, 1))
    if not events:
        return [("highest", max(verdict.windows, key=lambda w: w.p_violent))]
    chosen = sorted(events, key=lambda numbered: -numbered[1].p_violent)[:most]
    return [
        (f"event{n:03d}", min(verdict.windows, key=lambda w: abs(w.middle_s - event.peak_s)))
        for n, event in sorted(chosen)
    ]
