"""Many videos: which files are meant, and a verdict for each or the reason why there is none.

Videos are judged in a process of its own, which keeps the model and is started again where a video takes it down.
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

#: A video whose judging makes no progress for so long, not one frame, is given up. How long it takes does not count.
SILENCE_LIMIT_S = 120.0

_SHOWN = 3
#: The file with all verdicts, in a folder of outputs.
OUTPUT_NAME = "verdicts.json"
#: Of the failures file of a run, behind the name of that file.
_FAILURES_ENDING = "_failures.csv"
_OUTPUT_TAKES = "--output takes a folder or a .json file; for the annotated video use --annotate FOLDER"

#: Judges a file, of which an earlier run may have judged the first windows.
Judge = Callable[[Path, Sequence[JudgedWindow]], Verdict]
_Asked = tuple[Path, tuple[JudgedWindow, ...]]


@dataclass(frozen=True)
class FoundVideos:
    """The videos that are meant, in the order given, those of a folder sorted.

    failures: folders that cannot be listed.
    """

    videos: tuple[Path, ...]
    failures: tuple[UnreadableVideo, ...]


def find_videos(given: Sequence[Path | str]) -> FoundVideos:
    """Files as given, whatever they are, those of patterns and lists, and the videos below folders.

    A file that is meant by several paths is one video, by the first of them. That is logged, and what is skipped below
    folders, and what was made of other videos there. Raises UserError for a path that is not there, and for a folder
    without videos.
    """
    found: dict[Path, None] = {}
    failures: dict[str, UnreadableVideo] = {}
    for text in video_lists.expanded([str(item) for item in given]):
        path = Path(text)
        if sources.is_stream(sources.named(text)[1]) and not video_lists.is_there(path):
            raise UserError(f"{redaction.mistyped(text)} is a camera or stream, and here videos are judged")
        if path.is_dir():
            search = VideoSearch(everywhere=True)
            inside = sorted(search.below(path))
            if made := _made_of_others(inside):
                log.info("skipped below %s: %d that such a run made of videos there", path, len(made))
                inside = [video for video in inside if video not in made]
            skipped = search.skipped_text()
            if skipped:
                log.info("skipped below %s: %s (no videos)", path, skipped)
            if not inside and not search.unlisted:
                raise UserError(
                    f"no video files below {path} ({f'skipped: {skipped}' if skipped else 'it holds no files'}). "
                    "Unpack archives first; a file that is given by its own path is always tried"
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
    """Each file by the first path that leads to it."""
    first: dict[str, Path] = {}
    again = [
        f"{path} is {other}"
        for path in found
        if (other := first.setdefault(os.path.realpath(path), path)) != path
    ]
    if again:
        log.info(
            "%s left out, as another leads to the same video: %s%s",
            plural(len(again), "path"), ", ".join(again[:_SHOWN]), " ..." if again[_SHOWN:] else "",
        )  # fmt: skip
    return tuple(first.values())


def _made_of_others(inside: Sequence[Path]) -> set[Path]:
    """Those that such a run has made of others of them: annotated videos, clips of events, copies for the page."""
    real = {os.path.realpath(path) for path in inside}
    written = {folder: WrittenFiles(folder) for folder in {path.parent for path in inside}}
    return {path for path in inside if written[path.parent].source_of(path) in real}


def load_judge(config: PredictConfig) -> Judge:
    """Load the model, in the process that is to judge."""
    # heavy, and the caller's process needs none of it
    from violence_detection.prediction.detector import Detector

    return Detector(config).judge


def judge_all(
    paths: Sequence[Path],
    config: PredictConfig,
    journal: Path | None = None,
) -> Iterator[Verdict | UnreadableVideo]:
    """A verdict for each video, or the reason why there is none, in order. Each is logged as it comes.

    `journal`: a file in which verdicts are kept as they come; what it has is not judged again. Beside it are the
    windows of the video in hand, so that a long one goes on where it was (see begun_videos). A process of its own
    judges (load_judge). A video that takes it down, or makes no progress for SILENCE_LIMIT_S, is a failure of its own.
    Raises UserError where there is no such model or it cannot be loaded, and OSError where the journal cannot be
    written.
    """
    # told before anything is loaded
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
            finally:  # on a full disk, too
                yield judged


def events_by(config: PredictConfig) -> EventConfig:
    """The settings of events, with the threshold of the operating point or of the camera profile.

    Raises UserError where the model has none, where the point is a model's own and there is no such model, or where the
    profile is of another model.
    """
    if profile := profile_of(config):
        return profile.settings(config)
    if config.operating_point == BALANCED:
        return config.at(config.threshold)
    of_model = calibration.read(shipped.find(config.model))
    return config.at(of_model.threshold(config.operating_point, config.threshold))


def kept(given: Path, config: PredictConfig) -> list[Verdict]:
    """Verdicts of windows that were kept, see kept_windows.read, with the thresholds of these settings.

    Raises UserError, too, where another model than the one that is named judged, and where a profile or an operating
    point of the model is of other probabilities than these: with its early exit, or without. A threshold that was given
    is taken for what is there, and that is logged, and where a profile is of windows that were made otherwise.
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
                f"{other.path} was judged {was} the model's early exit, and {known} is for probabilities {wanted} it: "
                "judge the video itself"
            )
        log.warning(
            "%s was judged %s the model's early exit, and stays so; with the threshold %g the video itself would be "
            "judged %s it",
            other.path, was, config.threshold, wanted,
        )  # fmt: skip
    return verdicts


def unjudged(given: Path, verdicts: Sequence[Verdict]) -> list[UnreadableVideo]:
    """What is named in the failures files beside kept windows, and has no verdict among these. Each is logged.

    `given`: as of `kept`; of a journal its own run's file counts, of another file of windows, which are one video's,
    none. Sorted by path.
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
    """The camera profile that is asked for, if any. Raises UserError where it is none, or of another model."""
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
    """Have the model loaded; a process that dies of it is tried once more, since memory may have been short."""
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
            f"made no progress for {SILENCE_LIMIT_S:.0f} s and was given up. Copy it to a faster disk if that is why, "
            "else convert it (ffmpeg -i OLD NEW.mp4), and run the same command again"
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
    """The field of the JSON line that says that the model was trained on generated sample clips; none where it was not.

    `config`: None where no model is named. Raises UserError where there is no such model.
    """
    found = config is not None and model_files.trained_on_samples(shipped.find(config.model))
    return {"generated_samples": True} if found else {}


def summary(judged: Iterable[Verdict | UnreadableVideo]) -> dict[str, Any]:
    """The fields of the JSON line: `{videos: [...], failures: [...]}`."""
    videos: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for item in judged:
        if isinstance(item, UnreadableVideo):
            failures.append(item.failure())
        else:
            videos.append(item.summary())
    return {"videos": videos, "failures": failures}


def output_file(output: Path) -> Path:
    """The JSON file that `--output` means: the one named, or verdicts.json in a folder.

    A folder is what is one, and what is not there and has no name that ends in .json, or in that of a video.
    """
    is_file = output.suffix.lower() in (".json", *video_files.VIDEO_SUFFIXES)
    is_folder = output.is_dir() or (not is_file and not output.exists())
    return output / OUTPUT_NAME if is_folder else output


def check_output(output: Path, given: Sequence[str] = ()) -> None:
    """Raise UserError where the summary could not be written, or would replace what is no summary of such a run.

    `given`: the videos, and what else the run reads. To be asked before videos are judged for hours.
    """
    if output.is_dir():
        raise UserError(f"--output {output} is a folder. Name a file in it: {output / OUTPUT_NAME}")
    real = os.path.realpath(output)
    if any(os.path.realpath(path) == real for path in given):
        raise UserError(f"--output {output} is what the run reads, and would be replaced. {_OUTPUT_TAKES}")
    if output.suffix.lower() in video_files.VIDEO_SUFFIXES:
        raise UserError(f"--output {output} has the name of a video. {_OUTPUT_TAKES}")
    own_files.check_file(output, "--output", "the JSON of such a run", _is_summary, _OUTPUT_TAKES)
    if output.name.endswith(kept_windows.ENDINGS):
        raise UserError(
            f"--output {output} is called as the files are that keep a video's windows. Give it another name, as "
            f"{output.with_name(OUTPUT_NAME)}"
        )
    own_files.check_file(
        failures_path(output),
        "--output: the failures file",
        "one of such a run",
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
    """Where the failures of the run that writes `output` are listed."""
    return output.with_name(f"{output.stem}{_FAILURES_ENDING}")


def write(output: Path, found: dict[str, Any]) -> None:
    """Write the summary and the failures file, which names what was judged in part, too."""
    in_part = [{"path": v["path"], "reason": v["warning"]} for v in found["videos"] if v.get("warning")]
    storage.write_json(output, found)
    storage.write_failures(failures_path(output), [*found["failures"], *in_part])
