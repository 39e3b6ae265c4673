"""Judge many videos: find the files that are meant, and give each a verdict or the reason why it has none.

Videos are judged in one separate process, which keeps the model loaded and is restarted if a video crashes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.constants import BALANCED
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.models import calibration, model_files, shipped
from violence_detection.prediction import begun_videos, camera_profile, kept_windows, verdict_journal
from violence_detection.prediction.camera_profile import CameraProfile
from violence_detection.prediction.config import EventConfig, PredictConfig
from violence_detection.prediction.events import JudgedWindow, JudgingNews, Verdict
from violence_detection.prediction.video_progress import VideoProgress
from violence_detection.system import console, disks, own_files, redaction, storage, supervised
from violence_detection.system.figures import number, plural
from violence_detection.system.own_files import WrittenFiles
from violence_detection.system.supervised import SupervisedWorker, WorkerLost
from violence_detection.video import sources, video_files, video_lists
from violence_detection.video.video_files import VideoSearch

log = logging.getLogger(__name__)

#: A video is abandoned if its judging makes no progress for this long, not even a frame. Total time is not limited.
SILENCE_LIMIT_S = 120.0

#: A log line names at most this many of the paths that are left out.
_SHOWN = 3
#: Name of the file with all verdicts, where `--output` names a folder.
OUTPUT_NAME = "verdicts.json"
#: Takes the place of the suffix of a run's output in the name of its failures file.
_FAILURES_ENDING = "_failures.csv"
#: Suffix -> --format, of files that --output does not write by itself.
_FORMAT_OF_SUFFIX = {".csv": "csv", ".edl": "edl", ".jsonl": "jsonl", ".srt": "srt", ".txt": "table"}
_OUTPUT_TAKES = "--output takes a folder or a .json file; for the annotated video use --annotate FOLDER"

#: Judges a video file, given the first windows as far as an earlier run has judged them.
Judge = Callable[[Path, Sequence[JudgedWindow]], Verdict]
_Asked = tuple[Path, tuple[JudgedWindow, ...]]


@dataclass(frozen=True)
class FoundVideos:
    """The videos that are meant, in the order given; those of a folder are sorted.

    `failures`: folders that cannot be listed.
    """

    videos: tuple[Path, ...]
    failures: tuple[UnreadableVideo, ...]


def find_videos(given: Sequence[Path | str]) -> FoundVideos:
    """Find the videos that paths, patterns, lists and folders stand for.

    A file given by its own path is taken whatever its type; below a folder only videos are. Left out, and logged, are
    further paths of a file already found, files below a folder that are not videos, and files that earlier runs made
    from videos of that folder (annotated videos, clips of events, copies for the review page).
    Raises UserError for a path that does not exist, a folder without videos, and a camera or stream.
    """
    found: dict[Path, None] = {}
    failures: dict[str, UnreadableVideo] = {}
    for text in video_lists.expanded([str(item) for item in given]):
        path = Path(text)
        if sources.is_stream(sources.named(text)[1]) and not video_lists.is_there(path):
            raise UserError(
                f"{redaction.mistyped(text)} is a camera or stream, but only video files can be judged here"
            )
        if path.is_dir():
            search = VideoSearch(everywhere=True)
            inside = sorted(search.below(path))
            if made := _made_of_others(inside):
                log.info("skipped below %s: %d made by earlier runs from videos there", path, len(made))
                inside = [video for video in inside if video not in made]
            skipped = search.skipped_text()
            if skipped:
                log.info("skipped below %s: %s (no videos)", path, skipped)
            if not inside and not search.unlisted:
                raise UserError(
                    f"no video files below {path} ({f'skipped: {skipped}' if skipped else 'it contains no files'}). "
                    "Unpack archives first, or give a file by its own path: then it is always tried"
                )
            found |= dict.fromkeys(inside)
            failures |= {f["path"]: UnreadableVideo(f["path"], f["reason"]) for f in search.unlisted}
        elif path.is_file():
            found[path] = None
        else:
            raise UserError(f"no file or folder at {redaction.mistyped(text)}")
    for failure in failures.values():
        log.warning("%s: %s", failure.path, failure.reason)
    return FoundVideos(_each_once(found), tuple(failures.values()))


def _each_once(found: Iterable[Path]) -> tuple[Path, ...]:
    """Keep the first of the paths that lead to the same file, and log the others."""
    first: dict[str, Path] = {}
    again = [
        f"{path} is {other}"
        for path in found
        if (other := first.setdefault(os.path.realpath(path), path)) != path
    ]
    if again:
        log.info(
            "%s left out, because another one leads to the same video: %s%s",
            plural(len(again), "path"), ", ".join(again[:_SHOWN]), " ..." if again[_SHOWN:] else "",
        )  # fmt: skip
    return tuple(first.values())


def _made_of_others(inside: Sequence[Path]) -> set[Path]:
    """Return the files that earlier runs made from others of `inside`: annotated videos, clips, copies for the page."""
    real = {os.path.realpath(path) for path in inside}
    written = {folder: WrittenFiles(folder) for folder in {path.parent for path in inside}}
    return {path for path in inside if written[path.parent].source_of(path) in real}


def load_judge(config: PredictConfig) -> Judge:
    """Load the model in the current process, and return its function that judges a file."""
    # a heavy import, which only the judging process needs
    from violence_detection.prediction.detector import Detector

    return Detector(config).judge


def judge_all(
    paths: Sequence[Path],
    config: PredictConfig,
    journal: Path | None = None,
) -> Iterator[Verdict | UnreadableVideo]:
    """Yield for each video, in order, its verdict or the reason why it has none. Each is logged as it comes.

    `journal`: a file in which verdicts are stored as they come; a video with a verdict in it is not judged again. The
    windows of an unfinished video are stored beside it, so that a stopped run resumes within a long video (see
    begun_videos). Judging is done in a separate process (load_judge). A video that crashes that process, or makes no
    progress for SILENCE_LIMIT_S, becomes a failure, and the others are still judged.
    Raises UserError if there is no such model or it cannot be loaded, and OSError if the journal cannot be written.
    """
    # what is wrong with the model or the profile is said before the slow loading
    if config.model is None:
        default, why = shipped.default()
        log.info("%s", why)
        config = dataclasses.replace(config, model=default)
    calibration.read(shipped.find(config.model))
    profile = profile_of(config)
    progress = VideoProgress(events_by(config))
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(verdict_journal.kept(journal, config)) if journal else None
        begun = stack.enter_context(begun_videos.kept(begun_videos.path_for(journal))) if journal else None

        def tell(news: JudgingNews) -> None:
            progress.tell(news)
            if begun:
                begun.tell(news)

        worker = stack.enter_context(
            SupervisedWorker[_Asked, Verdict](
                functools.partial(_loaded, load_judge, config), SILENCE_LIMIT_S, tell
            )
        )
        if kept and (known := sum(kept.find(kept.key(p), p) is not None for p in paths)):
            log.info("%d of %d videos were judged before: %s", known, len(paths), journal)
        for path in console.progress(paths, total=len(paths), unit="video", desc="judging"):
            key = kept.key(path) if kept else ""
            judged: Verdict | UnreadableVideo | None = kept.find(key, path) if kept else None
            if judged is None:
                with progress.of(path):
                    judged = _judge(worker, path, begun.begin(key) if begun else ())
            if profile and isinstance(judged, Verdict):
                judged = profile.verdict(judged)
            if isinstance(judged, Verdict):
                model = kept.model if kept else judged.model
                judged = dataclasses.replace(judged, model=model, real_path=os.path.realpath(path))
            _say(judged)
            try:
                if kept and begun and key and isinstance(judged, Verdict):
                    kept.keep(key, judged)
                    begun.done(key)
            finally:  # even when the disk is full, the caller gets the verdict
                yield judged


def events_by(config: PredictConfig) -> EventConfig:
    """Return the event settings, with the threshold of the operating point or of the camera profile.

    The model is read only if a profile is given or the operating point is not `balanced`. Raises UserError if that
    model does not exist or lacks the operating point, the profile was made for another model, or the given offset is
    above that threshold.
    """
    if profile := profile_of(config):
        return profile.settings(config)
    if config.operating_point == BALANCED:
        return config.at(config.threshold)
    of_model = calibration.read(shipped.find(config.model))
    return config.at(of_model.threshold(config.operating_point, config.threshold))


def kept(given: Path, config: PredictConfig) -> list[Verdict]:
    """Read stored windows (see kept_windows.read) and make verdicts of them by the thresholds of these settings.

    Raises UserError as kept_windows.read does. If a model is named, also where another model judged the windows, and
    where the profile or the operating point applies to probabilities with the early exit and these were judged without
    it, or the reverse. For a plain threshold that mismatch is only logged, and so is a profile that was measured on
    windows with another stride or with still windows skipped.
    """
    if config.model is None:
        return kept_windows.read(given, events_by(config))
    model = model_files.identity(shipped.find(config.model))
    verdicts = kept_windows.read(given, events_by(config), model)
    if config.profile:
        camera_profile.read(config.profile).warn_of_other(camera_profile.judging_of(verdicts), config.profile)
    taken = not camera_profile.leaves_out_exit(config)
    if other := next((v for v in verdicts if v.early_exit != taken), None):
        was, wanted = ("with", "without") if other.early_exit else ("without", "with")
        known = config.profile or (config.operating_point if config.operating_point != BALANCED else "")
        if known:
            raise UserError(
                f"{other.path} was judged {was} the model's early exit, but {known} is for probabilities {wanted} it. "
                "Judge the video itself"
            )
        log.warning(
            "%s was judged %s the model's early exit, and its probabilities are used as they are; with the threshold "
            "%g the video itself would be judged %s it",
            other.path, was, config.threshold, wanted,
        )  # fmt: skip
    return verdicts


def unjudged(given: Path, verdicts: Sequence[Verdict]) -> list[UnreadableVideo]:
    """Return what the failures files beside stored windows name and `verdicts` does not cover, sorted by path.

    `given`: the file or folder that `kept` read. For a folder, all failures files beside files of windows are read;
    for a journal, that of its own run; for any other file, which holds the windows of one video, none. Each failure is
    logged.
    """
    if given.is_dir():
        folders = sorted({file.parent for file in kept_windows.files_below(given)})
        files = [file for folder in folders for file in sorted(folder.glob(f"*{_FAILURES_ENDING}"))]
    else:
        run = verdict_journal.output_of(given)
        files = [failures_path(run)] if run else []
    rows = [
        row for file in files if file.is_file() and _lists_failures(file) for row in storage.read_csv(file)
    ]
    judged = {path for v in verdicts for path in (v.path, v.given_as, v.real_path)}
    found = {
        row["path"]: UnreadableVideo(row["path"], row["reason"])
        for row in rows
        if row["path"] not in judged and os.path.realpath(row["path"]) not in judged
    }
    for failure in found.values():
        log.warning("%s: %s", failure.path, failure.reason)
    return [found[path] for path in sorted(found)]


def profile_of(config: PredictConfig) -> CameraProfile | None:
    """Read the camera profile that the settings name, if any.

    Raises UserError if the file is missing, is not a camera profile, or was made for another model.
    """
    if config.profile is None:
        return None
    return camera_profile.read_for(config.profile, shipped.find(config.model), config)


def _loaded(load: Callable[[PredictConfig], Judge], config: PredictConfig) -> Callable[[_Asked], Verdict]:
    judge = load(config)
    return lambda asked: judge(*asked)


def _judge(
    worker: SupervisedWorker[_Asked, Verdict], path: Path, begun: tuple[JudgedWindow, ...]
) -> Verdict | UnreadableVideo:
    _have_ready(worker)
    try:
        return worker((path, begun))
    except UnreadableVideo as e:
        return e
    except WorkerLost as e:
        return UnreadableVideo(path, _reason(e))
    except UserError:
        raise
    except Exception as e:  # noqa: BLE001 - one bad file must not cost the others their verdicts
        return UnreadableVideo(path, supervised.fault(e, path))


def _have_ready(worker: SupervisedWorker[_Asked, Verdict]) -> None:
    """Wait until the model is loaded. If the process dies while loading, try once more: memory may have been short."""
    with contextlib.suppress(WorkerLost):
        return worker.ready()
    try:
        worker.ready()
    except WorkerLost as e:
        raise UserError(
            f"the model cannot be loaded: the process that loads it {e}{_memory(e)}. Try another --engine, or a "
            "machine with more memory"
        ) from e


def _reason(lost: WorkerLost) -> str:
    if lost.silent:
        return (
            f"made no progress for {SILENCE_LIMIT_S:.0f} s and was abandoned. If its disk is slow, copy the video to a "
            "faster one; otherwise convert it (ffmpeg -i OLD NEW.mp4). Then run the same command again"
        )
    return f"{video_files.CRASHED} ({lost}{_memory(lost)})"


def _memory(lost: WorkerLost) -> str:
    return ", as the system does when memory is full" if lost.signal == signal.SIGKILL else ""


def _say(judged: Verdict | UnreadableVideo) -> None:
    if isinstance(judged, UnreadableVideo):
        log.warning("cannot judge %s: %s", judged.path, judged.reason)
        return
    events = ", ".join(f"{e.start_s:.1f}-{e.end_s:.1f} s" for e in judged.events)
    log.info("%-8s %s  %s  %s", judged.label, number(judged.p_violent), judged.path, events)
    if judged.warning:
        log.warning("%s: %s", judged.path, judged.warning)


def on_samples(config: PredictConfig | None) -> dict[str, Any]:
    """Return the JSON line's field which says that the model was trained on generated sample clips, else no field.

    `config`: None if no model is named; then there is no field. Raises UserError if there is no such model.
    """
    found = config is not None and model_files.trained_on_samples(shipped.find(config.model))
    return {"generated_samples": True} if found else {}


def summary(judged: Iterable[Verdict | UnreadableVideo]) -> dict[str, Any]:
    """Return the fields of the JSON line, `{videos: [...], failures: [...]}`."""
    videos: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for item in judged:
        if isinstance(item, UnreadableVideo):
            failures.append(item.failure())
        else:
            videos.append(item.summary())
    return {"videos": videos, "failures": failures}


def output_file(output: Path) -> Path:
    """Return the JSON file that `--output` means: the one named, or OUTPUT_NAME in the folder named.

    A path that does not exist means a folder unless it ends in .json or in the suffix of a video. Raises UserError if
    it ends in the suffix of another output format.
    """
    if not output.exists() and (name := _FORMAT_OF_SUFFIX.get(output.suffix.lower())):
        raise UserError(
            f"--output {output}: name a folder, or a file that ends in .json. For {output.suffix} files, judge "
            f"with --output FOLDER --format {name}"
        )
    is_file = output.suffix.lower() in (".json", *video_files.VIDEO_SUFFIXES)
    is_folder = output.is_dir() or (not is_file and not output.exists())
    return output / OUTPUT_NAME if is_folder else output


def check_output(output: Path, given: Sequence[str] = ()) -> None:
    """Raise UserError if the summary could not be written, or would replace a file that is not such a summary.

    Checks the failures file in the same way. `given`: the videos and whatever else the run reads. Meant to be called
    before videos are judged for hours.
    """
    if output.is_dir():
        raise UserError(f"--output {output} is a folder. Name a file in it: {output / OUTPUT_NAME}")
    real = os.path.realpath(output)
    if any(os.path.realpath(path) == real for path in given):
        raise UserError(
            f"--output {output} is a file that this run reads, and would be replaced. {_OUTPUT_TAKES}"
        )
    if output.suffix.lower() in video_files.VIDEO_SUFFIXES:
        raise UserError(f"--output {output} has the name of a video. {_OUTPUT_TAKES}")
    own_files.check_file(output, "--output", "the JSON summary of an earlier run", _is_summary, _OUTPUT_TAKES)
    if output.name.endswith(kept_windows.ENDINGS):
        raise UserError(
            f"--output {output} ends like the files that store a video's windows. Give it another name, such as "
            f"{output.with_name(OUTPUT_NAME)}"
        )
    own_files.check_file(
        failures_path(output),
        "--output: the failures file",
        "that of an earlier run",
        _lists_failures,
        "Give another --output, or move it away",
    )
    disks.check_can_write(output.parent, "--output")
    disks.check_takes_names(output.parent, [output.name], "--output", "give it another name")


def _lists_failures(path: Path) -> bool:
    return own_files.first_line(path) == ",".join(storage.FAILURES_COLUMNS)


def _is_summary(path: Path) -> bool:
    found = own_files.json_object(path)
    return all(isinstance(found.get(name), list) for name in ("videos", "failures"))


def failures_path(output: Path) -> Path:
    """Path of the failures file of the run that writes `output`."""
    return output.with_name(f"{output.stem}{_FAILURES_ENDING}")


def write(output: Path, found: dict[str, Any]) -> None:
    """Write the summary and the failures file, which also names videos of which only a part was judged."""
    in_part = [{"path": v["path"], "reason": v["warning"]} for v in found["videos"] if v.get("warning")]
    storage.write_json(output, found)
    storage.write_failures(failures_path(output), [*found["failures"], *in_part])
