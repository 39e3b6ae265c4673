"""Judge new videos with a trained model and the model's own preprocessing.

A video no longer than one window is judged as a training clip is. A longer one is judged in overlapping windows, from
which events.find_events makes events. The video's probability is that of its most violent window.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from violence_detection.backbones import engines
from violence_detection.errors import SourceError, UnreadableVideo, UserError
from violence_detection.models import trained_model
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.events import JudgedWindow, JudgingNews, Verdict
from violence_detection.system import processes, storage
from violence_detection.system.settings import check_keywords, expanded
from violence_detection.video import augment, decode, sampling, window_pictures
from violence_detection.video.window_pictures import SeenWindow, Viewer

if TYPE_CHECKING:
    from violence_detection.models.trained_model import Inputs
    from violence_detection.prediction.camera_profile import CameraProfile
    from violence_detection.video.sources import Source

T = TypeVar("T")
log = logging.getLogger(__name__)
#: Windows of a file that the heads judge together, as one batch.
_WINDOWS_AT_ONCE = 16
#: Windows, at most, that the first runs of backbones have been given and the others have not.
_AHEAD = 2


@dataclass(frozen=True)
class _PendingWindow:
    """A window whose features are being made.

    `jobs`: the features by run of backbones (its index), view and stream. `seen`: the window's frames, until all runs
    of backbones have been given it; then None. `sure`: the member that judges first was sure, so it judges alone and
    the other runs of backbones do not see the window. `still`: nothing moves in it, so no run sees it.
    """

    window: sampling.Window
    seen: SeenWindow | None
    jobs: Mapping[tuple[int, str, str], Future[Any]]
    sure: bool = False
    still: bool = False


class Detector:
    """A trained model with its backbones running, which judges video files and streams.

    `model`: the TrainedModel with its members, their records, and the threshold of the operating point.
    """

    def __init__(self, config: PredictConfig):
        """Load the model and start its backbones.

        Raises UserError if there is no such model, it lacks the operating point, the weights of its backbones cannot be
        obtained, the requested stride is longer than its windows, or the camera profile is for another model.
        """
        from violence_detection.models import shipped, whole_networks  # needed only while loading

        self.config = config
        loaded = trained_model.load(shipped.find(config.model), config.backbone_weights)
        if loaded.trained_on_samples:
            log.warning(
                "this model was trained on generated sample clips: its verdicts say nothing about real videos"
            )
        loaded, whole = whole_networks.taken_out(loaded)
        self.model = loaded.at(config.operating_point, config.threshold)
        self.profile: CameraProfile | None = None
        if config.profile:
            from violence_detection.prediction import camera_profile  # most runs use no profile

            self.profile = camera_profile.read_for(config.profile, shipped.find(config.model), config)
            if not self.profile.early_exit:
                self.model = self.model.by_all_members()
        self.events_by = self.profile.settings(config) if self.profile else config.at(self.model.threshold)
        if self.model.by_all:
            log.info("all members judge every window: at this threshold the first member alone would decide")
        found = self.model.calibration
        if found and not config.profile and (other := found.other_views(config.tta)):
            log.warning("the model is %s. Use --tta %d to judge as it was calibrated", other, found.views)
        self.views = augment.views(config.tta, self.model.closer_look)
        self.stride_s = stride_s(config, self.model.features.window_s)
        if self.profile and config.profile:
            judging = {"stride_s": self.stride_s, "tta": config.tta, "skip_still": config.skip_still}
            self.profile.warn_of_other(judging, config.profile)
        self.runs = [*self.model.backbone_runs(config.backbone_weights), *whole]
        self.viewers = tuple(
            Viewer(
                run.backbone.input_size, run.config, self.model.closer_look, run.backbone.sampling.one_shot
            )
            for run in self.runs
        )
        self._engines = [
            engines.to_judge(
                config.engine,
                run.backbone,
                run.weights,
                run.config.frames,
                trained_with=self.model.trained_with([b.name for b in run.backbones]),
                precision=config.precision,
            )
            for run in self.runs
        ]
        self._first_runs, self._other_runs = self._runs_in_turn()
        self._heads_lock = threading.Lock()

    def _runs_in_turn(self) -> tuple[list[int], list[int]]:
        """Indices of the runs of backbones that see every window, and of those for windows that the early exit leaves.

        Without an early exit the second list is empty.
        """
        first_inputs = {name for member in self.model.first for name in self.model.inputs_of(member)}
        every = list(range(len(self.runs)))
        first = [
            n
            for n in every
            if first_inputs & {i for s in self.runs[n].config.streams for i in self.runs[n].inputs(s)}
        ]
        return (first, [n for n in every if n not in first]) if first else (every, [])

    def judge(self, path: Path | str, begun: Sequence[JudgedWindow] = ()) -> Verdict:
        """Judge one video file. Raises UnreadableVideo naming it, and UserError for an address.

        `begun`: its first windows, if an earlier run with the same settings has judged them. They are not judged again,
        unless the file turns out to decode differently from what its packets say: then their times may be wrong.
        """
        path = _file(path)
        try:
            return self._judge(path, decode.packet_timing(path), begun)
        except decode.DecodesOtherwise:
            return self._judge(path, decode.probe(path), ())

    def windows_of(self, path: Path | str, keep: Callable[[Inputs, np.ndarray], T]) -> tuple[list[T], str]:
        """Call `keep` with the windows of a video file, a batch at a time in order; return its results and a warning.

        `keep` gets the features of all backbones, input name -> (N, V, T, C), even where judging would take the early
        exit, and the model's P(violent) (N,), without a camera profile. Only its results are kept, so that memory does
        not grow with the features. They are returned together rather than yielded, because a file may turn out to
        decode differently from what its packets say, and is then judged again from its beginning. The warning is that
        of a verdict: which part of the file was not judged and why, or empty. Raises UnreadableVideo naming the file.
        """
        path = _file(path)
        try:
            return self._windows_of(path, decode.packet_timing(path), keep)
        except decode.DecodesOtherwise:
            return self._windows_of(path, decode.probe(path), keep)

    def _windows_of(
        self,
        path: Path,
        found: decode.VideoInfo | decode.PacketTiming,
        keep: Callable[[Inputs, np.ndarray], T],
    ) -> tuple[list[T], str]:
        info = decode.info_of(found)
        every, windows = self._place_windows(path, found)
        kept: list[T] = []
        seen = iter(self._seen(path, found, windows))
        while batch := list(itertools.islice(seen, _WINDOWS_AT_ONCE)):
            inputs = self.features(batch)
            _check_finite(str(path), inputs)
            with self._heads_lock:
                p = self.model.average(self.model.average_views(inputs))
            _check_finite(str(path), {"P(violent)": p})
            kept.append(keep(inputs, p))
        return kept, self._warning(info, every, windows)

    def _place_windows(
        self, path: Path, found: decode.VideoInfo | decode.PacketTiming
    ) -> tuple[list[sampling.Window], list[sampling.Window]]:
        """Return all windows of a file, and those with enough different frames to judge.

        Raises UnreadableVideo if there are none of the latter.
        """
        info = decode.info_of(found)
        every = sampling.sliding_windows(info, self.model.features.window_s, self.stride_s)
        windows = [window for window in every if sampling.shows_movement(info, window)]
        if not windows:
            raise UnreadableVideo(path, sampling.too_still(info, self.model.features.window_s))
        return every, windows

    def _warning(
        self,
        info: decode.VideoInfo,
        every: Sequence[sampling.Window],
        windows: Sequence[sampling.Window],
    ) -> str:
        """Say what part of a file does not decode, or has too few frames to judge; empty if all of it is judged."""
        too_still = len(windows) < len(every)
        return info.shortfall() or (
            sampling.too_still(info, self.model.features.window_s) if too_still else ""
        )

    def _seen(
        self,
        path: Path,
        found: decode.VideoInfo | decode.PacketTiming,
        windows: Sequence[sampling.Window],
    ) -> Iterable[SeenWindow]:
        # only test-time views depend on the clip id, so the file is hashed only for them
        clip_id = storage.sha256_file(path)[:16] if self.config.tta > 1 else ""
        return window_pictures.of_file(path, found, windows, self.viewers, clip_id, self.views)

    def _judge(
        self, path: Path, found: decode.VideoInfo | decode.PacketTiming, begun: Sequence[JudgedWindow]
    ) -> Verdict:
        info = decode.info_of(found)
        every, windows = self._place_windows(path, found)
        judged = [self.profiled(window) for window in _judged_before(info, windows, begun)]
        if judged:
            processes.tell(JudgingNews(tuple(judged), judged[-1].end_s, info.duration_s, before=True))
        for batch in self._batches(self._seen(path, found, windows[len(judged) :])):
            probabilities = self._probabilities(str(path), batch)
            new = [
                self.profiled(_judged(info, pending.window, p))
                for pending, p in zip(batch, probabilities, strict=True)
            ]
            judged += new
            processes.tell(JudgingNews(tuple(new), new[-1].end_s, info.duration_s))
        last = windows[-1]
        whole = len(windows) == len(every) and last.start + last.length > info.n_frames - 1
        return Verdict(
            str(path),
            tuple(judged),
            self.events_by,
            duration_s=round(info.duration_s, 2),
            judged_s=round(info.read_s if whole else _judged_s(info, windows), 2),
            warning=self._warning(info, every, windows),
            calibrated=self.model.calibrated,
            fps=info.fps,
            profile=self.profile.name if self.profile else "",
            judged_with=", ".join(sorted({engine.name for engine in self._engines})),
            early_exit=not self.model.by_all,
        )

    def watch(self, source: Source | Path | str | int) -> Iterator[JudgedWindow]:
        """Judge a source while its frames arrive: each window as soon as it is complete, the last ones at the end.

        The windows are the same as those of the footage in a file. `source`: an open source, a path or text for
        sources.open_source, or the number of a camera of this machine. Raises UnreadableVideo; SourceError if the
        source cannot be opened, breaks off, or ends before anything could be judged; and UserError for a text that is
        not a source.
        """
        from violence_detection.prediction.window_stream import StreamJudge  # not needed for files
        from violence_detection.video.sources import CameraSource, FileSource, open_source

        if isinstance(source, int):
            source = CameraSource(source)
        elif isinstance(source, str | Path):
            source = open_source(str(expanded(source)) if isinstance(source, Path) else source)
        stream: StreamJudge | None = None
        judged = 0
        for frame in source.frames():
            if stream is None:
                stream = StreamJudge(self, source.name, source.fps, exact_rate=isinstance(source, FileSource))
            new = stream.push(frame)
            judged += len(new)
            yield from new
        last = stream.finish() if stream else []
        yield from last
        if not judged + len(last):
            seen = stream.frames_seen if stream else 0
            raise SourceError(
                source.name, f"ended after {seen} frames, and no part of it has enough frames to judge"
            )

    def judged(self, name: str, seen: Iterable[SeenWindow]) -> Iterator[tuple[sampling.Window, float | None]]:
        """Judge the windows of a stream one by one; yield each with P(violent), or None if it is still. Thread-safe.

        Raises UnreadableVideo, naming `name`, if a feature or P(violent) is not a finite number.
        """
        for window in seen:
            (p,) = self._probabilities(name, [self._submit_others(self._begin(window))])
            yield window.window, p

    def profiled(self, window: JudgedWindow) -> JudgedWindow:
        """Return the window with the camera profile applied, if there is a profile."""
        return self.profile.window(window) if self.profile else window

    def features(self, seen: Sequence[SeenWindow]) -> Inputs:
        """Return the features of windows by all backbones, input name -> (N, V, T, C), with dtypes as in `_features`.

        The windows may have been changed, as for an explanation.
        """
        return self._features([self._submit_first(window, self._other_runs) for window in seen])

    def _probabilities(self, name: str, windows: Sequence[_PendingWindow]) -> list[float | None]:
        """Return P(violent) of each window, None for still ones, without the camera profile.

        Raises UnreadableVideo, naming `name`, if a feature or P(violent) is not a finite number.
        """
        p = np.full(len(windows), np.nan)
        for sure in (True, False):
            rows = [row for row, window in enumerate(windows) if window.sure == sure and not window.still]
            if not rows:
                continue
            inputs = self._features([windows[row] for row in rows])
            _check_finite(name, inputs)
            with self._heads_lock:
                if sure:
                    (p[rows],) = self.model.average_views(inputs, self.model.first).values()
                else:
                    p[rows] = self.model.average(self.model.average_views(inputs))
        moves = [not window.still for window in windows]
        _check_finite(name, {"P(violent)": p[moves]})
        return [float(value) if moved else None for value, moved in zip(p, moves, strict=True)]

    def _batches(self, seen: Iterable[SeenWindow]) -> Iterator[Sequence[_PendingWindow]]:
        """Yield batches of windows that all their backbones have been given, and start on the next ones meanwhile."""
        begun: deque[_PendingWindow] = deque()
        ready: deque[_PendingWindow] = deque()
        for window in seen:
            begun.append(self._begin(window))
            if len(begun) > _AHEAD:
                ready.append(self._submit_others(begun.popleft()))
            if len(ready) == _WINDOWS_AT_ONCE:
                yield [ready.popleft() for _ in range(_WINDOWS_AT_ONCE)]
        ready.extend(map(self._submit_others, begun))
        while ready:
            yield [ready.popleft() for _ in range(min(_WINDOWS_AT_ONCE, len(ready)))]

    def _begin(self, seen: SeenWindow) -> _PendingWindow:
        """Give a window to the runs of backbones that see every window, unless it is still and skip_still is set."""
        if self.config.skip_still:
            from violence_detection.video import stillness  # most runs skip no windows

            if stillness.is_still(seen.whole_frames()):
                processes.beat()
                return _PendingWindow(seen.window, None, {}, still=True)
        return self._submit_first(seen)

    def _submit_first(self, seen: SeenWindow, further_runs: Sequence[int] = ()) -> _PendingWindow:
        """Give a window to the runs of backbones that see every window, and to the runs `further_runs`."""
        return _PendingWindow(seen.window, seen, self._submit(seen, [*self._first_runs, *further_runs]))

    def _submit_others(self, begun: _PendingWindow) -> _PendingWindow:
        """Give the window to the other runs of backbones as well, unless the first member is sure or it is still."""
        seen, exits = begun.seen, self.model.exits
        if not self._other_runs or begun.still:
            return replace(begun, seen=None)
        assert exits
        assert seen
        with self._heads_lock:
            (p,) = self.model.average_views(self._features([begun]), self.model.first).values()
        if exits.is_sure(p)[0]:
            return replace(begun, seen=None, sure=True)
        return replace(begun, seen=None, jobs={**begun.jobs, **self._submit(seen, self._other_runs)})

    def _submit(self, seen: SeenWindow, runs: Sequence[int]) -> dict[tuple[int, str, str], Future[Any]]:
        """Give a window to runs of backbones, one view after another, so that few pictures are in memory at a time."""
        jobs: dict[tuple[int, str, str], Future[Any]] = {}
        for run in runs:
            for view in self.views:
                # without a closer look at this window the plain view takes its place
                if view == augment.CLOSER and seen.closer(run) is None:
                    plain = {
                        stream: jobs[run, augment.PLAIN, stream] for stream in self.runs[run].config.streams
                    }
                    jobs.update({(run, view, stream): job for stream, job in plain.items()})
                    continue
                for stream, images in seen.pictures(run, view).items():
                    jobs[run, view, stream] = self._engines[run].submit(images)
                    processes.beat()
        return jobs

    def _features(self, windows: Sequence[_PendingWindow]) -> Inputs:
        """Return the features of windows that the same runs of backbones see, input name -> (N, V, T, C).

        float16 as in the feature cache; float32 from a run that gives P(fight) itself, a network used whole.
        """
        out: Inputs = {}
        seen_by = {run for run, *_ in windows[0].jobs}
        for number, run in enumerate(self.runs):
            for stream in run.config.streams if number in seen_by else ():
                made: list[list[Mapping[str, np.ndarray]]] = [[] for _ in windows]
                for row, view in itertools.product(range(len(windows)), self.views):
                    made[row].append(run.by_input(stream, windows[row].jobs[number, view, stream].result()))
                    processes.beat()
                for name in run.inputs(stream):
                    with np.errstate(over="ignore"):  # an overflow becomes infinite; callers check that
                        out[name] = np.array(
                            [[by_name[name] for by_name in row] for row in made],
                            np.float32 if run.judges else np.float16,
                        )
        return out


def _judged(info: decode.VideoInfo, window: sampling.Window, p: float | None) -> JudgedWindow:
    start_s = info.start_s + window.start / info.fps
    return JudgedWindow.of((start_s, start_s + window.length / info.fps), p)


def _judged_before(
    info: decode.VideoInfo, windows: Sequence[sampling.Window], begun: Sequence[JudgedWindow]
) -> list[JudgedWindow]:
    """Return the first windows of `begun` that need not be judged again: those with the times of the file's `windows`.

    Only whole batches are taken, so that the remaining windows are judged in the same batches as in an uninterrupted
    run. The last window is always judged: only the end of a file shows whether it decodes as its packets say.
    """
    alike = 0
    for window, before in zip(windows, begun, strict=False):
        now = _judged(info, window, None)
        if (now.start_s, now.end_s) != (before.start_s, before.end_s):
            break
        alike += 1
    taken = min(alike, len(windows) - 1) // _WINDOWS_AT_ONCE * _WINDOWS_AT_ONCE
    return [window.as_judged() for window in begun[:taken]]


def _judged_s(info: decode.VideoInfo, windows: Sequence[sampling.Window]) -> float:
    """Seconds of the video that are in at least one of the windows and decode."""
    starts = [info.start_s + window.start / info.fps for window in windows]
    spans = [(s, s + w.length / info.fps) for s, w in zip(starts, windows, strict=True)]
    return sampling.overlap_s(spans, [(0.0, info.duration_s)]) - sampling.overlap_s(spans, info.lost)


def _check_finite(path: str, values: Mapping[str, np.ndarray]) -> None:
    """Raise UnreadableVideo for the first array with NaN or infinity, which would else become part of a verdict."""
    for name, array in values.items():
        if not np.isfinite(array).all():
            raise UnreadableVideo(
                path,
                f"{name} is not a finite number (NaN or infinite), so there is no verdict. Please report this video",
            )


def load(name_or_path: Path | str, **settings: Any) -> Detector:
    """Load a model and return a Detector that judges with it.

    `name_or_path`: a model or ensemble folder, a model file, or the name of a shipped model (see `list_models`).
    `settings`: fields of PredictConfig, such as threshold, operating_point, stride_s, tta, engine, backbone_weights.
    Raises UserError if there is no such model or a setting cannot work, and TypeError for an unknown setting.
    """
    check_keywords("violence_detection.load", PredictConfig, settings, {"name_or_path": "model"})
    if not isinstance(name_or_path, str | Path) or not str(name_or_path):
        raise UserError("no model is named. Give a model folder, a model file, or a name from list_models()")
    return Detector(PredictConfig(model=Path(name_or_path), **settings))


def _file(path: Path | str) -> Path:
    """Return the path that is meant, with `~` expanded. Raises UserError, without the password, for an address."""
    if isinstance(path, Path) and os.path.exists(path):  # noqa: PTH110 - never an error
        return path  # perhaps found in a folder that is really called `~`
    file = expanded(path)
    if isinstance(path, str) and not os.path.exists(file):  # noqa: PTH110
        from violence_detection.system import redaction  # not needed for files
        from violence_detection.video import sources

        shown = redaction.mistyped(path)
        if sources.is_stream(path):
            raise UserError(
                f"{shown} is a camera or a stream, but judge takes a video file: use watch(ADDRESS) instead"
            )
        if sources.is_mistyped(path):
            raise UserError(f"{shown} is not the path of a file: give a plain path, not an address")
    return file


def stride_s(config: PredictConfig, window_s: float) -> float:
    """Return the stride that is used, in seconds: the configured one, or `window_s` if windows are shorter than that.

    Raises UserError if the configured stride is longer than both the window and the default stride: then footage
    between windows would not be judged.
    """
    default = PredictConfig.stride_s
    if config.stride_s > max(window_s, default):
        raise UserError(
            f"stride_s (--stride-s) must be at most the model's window, {window_s:g} s: footage between windows would "
            f"not be judged. Received: {config.stride_s:g}"
        )
    return min(config.stride_s, window_s)
