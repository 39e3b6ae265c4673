"""Write the outputs of a run as verdicts come: files of each format, annotated videos, clips, page, explanations.

Whatever shows pictures decodes the video again, in a process of its own, so that a video that crashes the decoder costs
no verdict.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction import file_names, formats
from violence_detection.prediction.config import OutputConfig, PredictConfig
from violence_detection.prediction.events import Verdict
from violence_detection.prediction.file_names import FilePlace
from violence_detection.prediction.formats import OutputFormat
from violence_detection.system import disks, own_files, storage, supervised
from violence_detection.system.figures import plural
from violence_detection.system.own_files import WrittenFiles
from violence_detection.system.supervised import SupervisedWorker, WorkerLost

log = logging.getLogger(__name__)

#: A video whose process gives no sign of life for this long is given up. The limit is generous because closing a file
#: is silent: FFmpeg moves all of it to make room for the index at its start, which lets browsers begin to play, in one
#: call during which no other thread runs. A video that hangs the decoder for ever has failed in judging before
#: (batch.SILENCE_LIMIT_S).
_SILENCE_LIMIT_S = 1800.0
#: To be changed whenever annotated videos or clips look different, so that old ones are made again.
_VERSION = 2
_TABLE = "table"
#: Browsers are slow with pages larger than this.
_LARGE_PAGE_BYTES = 5_000_000
_PARTS = (
    "--rejudge FILE --timeline DIR makes a page of the one video whose windows are in FILE (written with --format csv, "
    "jsonl or json), --rejudge FOLDER --timeline DIR a page of the videos whose windows are in FOLDER"
)
_PARTS_OF_ONE = (
    "Judge the recording in parts (ffmpeg -i OLD -c copy -f segment -segment_time 43200 %03d.mkv), each with a "
    "--timeline DIR of its own"
)
#: Fields of a verdict that change nothing in the pictures made of it.
_NOT_SHOWN = frozenset({"path", "model", "real_path", "given_as"})
_SHOWN = 3
#: For each flag that writes files per video: video -> the name of its files in that place.
Names = Mapping[str, Mapping[str, str]]


def check(config: OutputConfig, output: Path | None, judged_by: PredictConfig | None = None) -> None:
    """Raise UserError if an output cannot be written. To be called before hours of judging.

    `judged_by`: the settings of the model that judges; None if it is not known.
    """
    for chosen in formats.chosen(config.format):
        if output is None and chosen.name != _TABLE:
            raise UserError(
                f"--format {chosen.name} needs a place to write to. Give --output FOLDER, or --output FILE.json"
            )
        if output:
            formats.check_run_file(chosen, output)
    for flag, folder in (
        ("--annotate", config.annotate),
        ("--clips", config.clips),
        ("--timeline", config.timeline),
        ("--explain", config.explain),
    ):
        if folder is not None:
            if folder.exists() and not folder.is_dir():
                raise UserError(f"{flag} {folder} is a file. Name a folder")
            disks.check_can_write(folder, flag)
    if config.timeline:
        from violence_detection.prediction.review import review_page  # needed only for a page

        review_page.check(config.timeline, "--timeline")
    if config.explain and judged_by is None:
        raise UserError("--explain runs the model again. Name the --model that judged the windows")


class Outputs:
    """The outputs of one run, written as verdicts come.

    `names`: see names_of. `makers`: the workers that write the files with pictures of a video, by the participle that
    messages use for it (`shown`, `explained`). `model`: identity of the model that judged; empty if it is not needed or
    not known.
    """

    def __init__(
        self,
        config: OutputConfig,
        output: Path | None,
        names: Names,
        makers: Mapping[str, SupervisedWorker[Verdict, list[str]]],
        model: str = "",
    ):
        self._formats, self._output = formats.chosen(config.format), output
        self._names, self._model = names, model
        self._clips, self._timeline, self._explain = config.clips, config.timeline, config.explain
        self._makers = makers
        self._written = WrittenFiles(output.parent) if output else None

    def add(self, verdict: Verdict) -> list[UnreadableVideo]:
        """Write the files of one video. Returns a failure, with its reason, for each kind that could not be made."""
        for chosen in self._formats:
            if chosen.of_video and self._output and self._written:
                name = self._names["--format"][verdict.path]
                formats.write_of_video(chosen, self._written, self._output.parent, name, verdict)
        failures: list[UnreadableVideo] = []
        for what, make in self._makers.items():
            try:
                for path in make(verdict):
                    log.info("wrote %s", path)
                continue
            except UnreadableVideo as e:
                reason = e.reason
            except WorkerLost as e:
                reason = f"the process {e}"
            except UserError:
                raise
            except Exception as e:
                if disks.disk_trouble(e):
                    raise
                reason = supervised.fault(e, verdict.path)
            failures.append(UnreadableVideo(verdict.path, f"was judged, but cannot be {what}: {reason}"))
            log.warning("%s: %s", verdict.path, failures[-1].reason)
        return failures

    def finish(self, verdicts: Sequence[Verdict], failures: Sequence[UnreadableVideo] = ()) -> None:
        """Write what covers all videos: the table, which is logged as well, and the page. `failures`: of the run."""
        for chosen in self._formats:
            if chosen.of_run is None:
                continue
            texts = chosen.of_run(verdicts, failures)
            if self._output:
                formats.write(self._output.parent, self._output.stem, texts)
            if chosen.name == _TABLE:
                log.info("verdicts:\n%s", "".join(texts.values()).rstrip())
        if self._output and self._written and self._output.parent.is_dir():
            _say_what_differs(self._formats, self._output, self._written, verdicts, failures)
        if self._clips and verdicts:
            self._clips.mkdir(parents=True, exist_ok=True)  # exists, empty, also if there was no event
        if self._timeline:
            # needed only for a page
            from violence_detection.prediction.review import review_media, review_page

            names, why = self._names["--timeline"], self._names.get("--explain", {})
            media = {
                v.path: review_media.read(
                    v, self._timeline, names[v.path], self._explain, why.get(v.path, "")
                )
                for v in verdicts
            }
            page = review_page.write(self._timeline, verdicts, media, failures, self._model)
            log.info("page to review and mark events: %s", page)
            if (size_bytes := page.stat().st_size) > _LARGE_PAGE_BYTES:
                log.warning(
                    "%s has %s for %s, which makes browsers slow. %s",
                    page, disks.gigabytes(size_bytes), plural(len(verdicts), "video"),
                    _PARTS_OF_ONE if len(verdicts) == 1 else _PARTS,
                )  # fmt: skip


def _say_what_differs(
    chosen: Sequence[OutputFormat],
    output: Path,
    written: WrittenFiles,
    verdicts: Sequence[Verdict],
    failures: Sequence[UnreadableVideo],
) -> None:
    """Warn of files of an earlier run that contradict this run, or belong to videos that this run could not judge."""
    unjudged = {os.path.realpath(f.path) for f in failures} - {os.path.realpath(v.path) for v in verdicts}
    there = sorted(path for path in output.parent.iterdir() if path.is_file()) if unjudged else []
    left = [path for path in there if written.source_of(path) in unjudged]
    if left:
        log.warning("%s: written by an earlier run, for videos that this run could not judge", _named(left))
    found: dict[Path, str] = {}
    for other in formats.all_formats().values():
        if other not in chosen:
            differing = formats.differing_files(other, output, written, verdicts, failures)
            found |= dict.fromkeys(differing, other.name)
    if found:
        names = sorted({*found.values(), *(f.name for f in chosen)})
        log.warning(
            "%s: written by an earlier run, with other results than this one. --format %s writes them again",
            _named(list(found)),
            ",".join(names),
        )


def _named(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(map(str, paths[:_SHOWN])) + more


@contextmanager
def outputs(
    config: OutputConfig, output: Path | None, videos: Sequence[str], judged_by: PredictConfig | None = None
) -> Iterator[Outputs]:
    """Open the outputs of a run. `judged_by`: the settings of the model that judges; None if it is not known.

    Raises UserError if an output cannot be written.
    """
    check(config, output, judged_by)
    names = names_of(config, output, videos)
    loads: dict[str, Callable[[], Callable[[Verdict], list[str]]]] = {}
    if config.annotate or config.clips or config.timeline:
        loads["shown"] = functools.partial(load_shower, config, names)
    if config.explain and judged_by:
        loads["explained"] = functools.partial(load_explainer, config, judged_by, names["--explain"])
    model = _identity(judged_by) if judged_by and (config.timeline or config.explain) else ""
    with contextlib.ExitStack() as stack:
        makers = {
            what: stack.enter_context(SupervisedWorker[Verdict, list[str]](load, _SILENCE_LIMIT_S))
            for what, load in loads.items()
        }
        yield Outputs(config, output, names, makers, model)


def names_of(config: OutputConfig, output: Path | None, videos: Sequence[str]) -> Names:
    """Return the name of each video's files in each place. Raises UserError as file_names.names_in does."""
    of_video = [chosen.endings for chosen in formats.chosen(config.format) if chosen.of_video]
    places = (
        [FilePlace("--format", output.parent, "|".join(of_video), refuses=True)]
        if output and of_video
        else []
    )
    for flag, folder, endings in (
        ("--annotate", config.annotate, file_names.ANNOTATED_ENDINGS),
        ("--clips", config.clips, file_names.CLIP_ENDINGS),
        (
            "--timeline",
            config.timeline and config.timeline / file_names.MEDIA_FOLDER,
            file_names.MEDIA_ENDINGS,
        ),
        ("--explain", config.explain, file_names.EXPLANATION_ENDINGS),
    ):
        if folder is not None:
            places.append(FilePlace(flag, folder, endings))
    taken = output.stem if output else ""
    return {place.flag: file_names.names_in(place, videos, taken) for place in places}


def _identity(judged_by: PredictConfig) -> str:
    from violence_detection.models import model_files, shipped  # needed only for a page or explanations

    return model_files.identity(shipped.find(judged_by.model))


def load_shower(config: OutputConfig, names: Names) -> Callable[[Verdict], list[str]]:
    """Return a function that writes annotated video, clips and the page's media of a verdict, and returns their paths.

    Files that are there already, made of the same verdict and video, are left as they are and not returned.
    """
    # heavy, and needed in this process alone
    from violence_detection.prediction import annotated_video, event_clips
    from violence_detection.prediction.review import review_media
    from violence_detection.video import writer

    media = config.timeline and config.timeline / file_names.MEDIA_FOLDER
    if media:
        storage.remove_abandoned(media)
    # read once for all videos: the record in a folder has a line for each file
    written = {folder: WrittenFiles(folder) for folder in (config.annotate, config.clips, media) if folder}

    def show(verdict: Verdict) -> list[str]:
        made_of = _made_of(verdict)
        _check_is_judged(verdict)
        wrote: list[Path] = []
        if config.annotate:
            path = config.annotate / f"{names['--annotate'][verdict.path]}.annotated.mp4"
            if writer.comment_of(path) != made_of:
                annotated_video.write(verdict, path, made_of, written[config.annotate])
                wrote.append(path)
        if config.clips:
            name = names["--clips"][verdict.path]
            clips = event_clips.paths_of(verdict, config.clips, name)
            clips_of = f"{made_of} {config.clip_margin_s}"
            if not clips or not all(
                path.with_suffix(".jpg").is_file() and writer.comment_of(path) == clips_of for path in clips
            ):
                wrote += event_clips.write(
                    verdict, config.clips, name, config.clip_margin_s, clips_of, written[config.clips]
                )
        if config.timeline and media:
            name = names["--timeline"][verdict.path]
            wrote += review_media.write(verdict, config.timeline, name, made_of, written[media])
        return [str(path) for path in wrote]

    return show


def load_explainer(
    config: OutputConfig, judged_by: PredictConfig, names: Mapping[str, str]
) -> Callable[[Verdict], list[str]]:
    """Return a function that writes pictures of what a verdict rests on, and returns their paths.

    Loads the model, so it is meant for a process of its own. Pictures that are there already, made of the same verdict,
    video and model, are left as they are and not returned.
    """
    # heavy, and needed in this process alone
    from violence_detection.prediction import explanation, explanation_picture

    folder, model = config.explain, _identity(judged_by)
    assert folder
    explainer, written = explanation.Explainer(judged_by), WrittenFiles(folder)

    def explain(verdict: Verdict) -> list[str]:
        name = names[verdict.path]
        # the picture shows the name of the video's file
        made_of = storage.stable_hash([_made_of(verdict), verdict.path, model])
        wanted, missing = explanation.explained_windows(verdict, config.explain_most), []
        _check_is_judged(verdict)
        for what, window in wanted:
            path = folder / formats.explanation_name(name, what)
            record = path.with_suffix(".json")
            is_there = path.is_file() and record.is_file()
            if not (is_there and own_files.json_object(record).get("made_of") == made_of):
                missing.append((window, path))
        windows = [window for window, _ in missing]
        found = explainer.explain(Path(verdict.path), windows) if windows else ()
        for (_, path), explained in zip(missing, found, strict=True):
            # an old record must not be read as that of the new picture
            written.remove(path.with_suffix(".json"), verdict.path)
            explanation_picture.write(explained, path, Path(verdict.path), written)
            made = {**explained.record(), "path": verdict.path, "made_of": made_of}
            written.write_json(path.with_suffix(".json"), verdict.path, made)
        _remove_other_explanations(written, folder, name, verdict.path, {what for what, _ in wanted})
        return [str(path) for _, path in missing]

    return explain


def _remove_other_explanations(
    written: WrittenFiles, folder: Path, name: str, video: str, kept: Set[str]
) -> None:
    """Remove explanations that an earlier run wrote for this video, of events other than `kept`."""
    ours = re.compile(re.escape(name) + file_names.EXPLANATION_ENDINGS)
    for known in sorted(written.names_of(os.path.realpath(video))):
        found = ours.fullmatch(known)
        if found and found[1] not in kept:
            written.remove(folder / known, video)


def _made_of(verdict: Verdict) -> str:
    """Hash of a verdict and of the video file as it is now, by which outputs made of them are recognised."""
    try:
        stat = Path(verdict.path).stat()
    except OSError as e:
        raise UnreadableVideo(verdict.path, (e.strerror or str(e)) + _where_it_was(verdict)) from e
    of_file = [stat.st_size, stat.st_mtime_ns]
    # Verdicts of earlier versions lack the fields left out here, and what was made of them looks the same.
    shown = {name: value for name, value in asdict(verdict).items() if name not in _NOT_SHOWN}
    return storage.stable_hash([_VERSION, shown, of_file], digits=32)


def _check_is_judged(verdict: Verdict) -> None:
    """Raise UnreadableVideo if the file at the verdict's path has another length or rate than the judged video.

    Kept windows belong to the video that was judged; its path may lead to another one, seen from another folder or
    because the file was replaced.
    """
    from violence_detection.video import decode  # heavy, and needed only where pictures are made

    path = Path(verdict.path)
    judged = verdict.duration_s, round(verdict.fps, 2)
    found: tuple[float, float] = (0.0, 0.0)
    for look in (lambda: decode.packet_timing(path).info, lambda: decode.probe(path)):
        info = look()
        found = round(info.duration_s, 2), round(info.fps, 2)
        near = round(info.fps, 3) or info.fps  # earlier versions computed lengths with this rate
        ways = [(info.duration_s, info.fps), (info.duration_s * info.fps / near, near)]
        if any(
            math.isclose(round(length_s, 2), judged[0], abs_tol=0.02)
            and round(fps, 2) == (judged[1] or round(fps, 2))
            for length_s, fps in ways
        ):
            return
    raise UnreadableVideo(
        path,
        f"it is not the video that was judged: that one had {judged[0]:g} s at {judged[1]:g} frames a second, and this "
        f"one has {found[0]:g} s at {found[1]:g}. Judge this one, or put the judged one back in its place",
    )


def _where_it_was(verdict: Verdict) -> str:
    """The remedy if a relative path, which depends on the folder of the run, leads to no file."""
    if Path(verdict.path).is_absolute():
        return ""
    there = f" as {verdict.real_path}" if verdict.real_path else ""
    return (
        f". Its path is relative to the folder in which it was judged{there}: run the command in that folder"
    )
