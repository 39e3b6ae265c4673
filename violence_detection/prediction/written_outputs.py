"""What is made of verdicts as they come: files in any format, annotated videos, clips of events.

Pictures are decoded again for that, in a process of its own: a video that takes its decoder down costs no verdict.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction import formats
from violence_detection.prediction.config import OutputConfig
from violence_detection.prediction.events import Verdict
from violence_detection.system import storage
from violence_detection.system.supervised import SupervisedWorker, WorkerLost

log = logging.getLogger(__name__)

#: Drawing and encoding a frame is quick; so long without one is the end of the video.
_SILENCE_LIMIT_S = 120.0
#: To be given another value whenever annotated videos or clips look different, so that old ones are made anew.
_VERSION = 1
_TABLE = "table"


def check(config: OutputConfig, output: Path | None) -> None:
    """Raise UserError where something could not be written. To be asked before videos are judged for hours."""
    for chosen in formats.chosen(config.format):
        if output is None and chosen.name != _TABLE:
            raise UserError(
                f"--format {chosen.name} needs a place to be written to. Give --output FOLDER, or --output FILE.json"
            )
    for flag, folder in (("--annotate", config.annotate), ("--clips", config.clips)):
        if folder is not None:
            if folder.exists() and not folder.is_dir():
                raise UserError(f"{flag} {folder} is a file. Name a folder")
            storage.check_writable(folder, flag)


class Outputs:
    """Takes verdicts as they come. `names`: video -> what its files are called."""

    def __init__(
        self,
        config: OutputConfig,
        output: Path | None,
        names: Mapping[str, str],
        pictured: SupervisedWorker[Verdict, list[str]],
    ):
        self._formats, self._output = formats.chosen(config.format), output
        self._names = names
        self._shown = pictured if config.annotate or config.clips else None

    def add(self, verdict: Verdict) -> list[UnreadableVideo]:
        """Write what a video has of its own; the reasons of what could not be."""
        name = self._names[verdict.path]
        for chosen in self._formats:
            if chosen.of_video and self._output:
                formats.write(self._output.parent, name, chosen.of_video(verdict))
        if self._shown is None:
            return []
        try:
            for path in self._shown(verdict):
                log.info("wrote %s", path)
        except UnreadableVideo as e:
            return [UnreadableVideo(verdict.path, f"was judged, but cannot be shown: {e.reason}")]
        except WorkerLost as e:
            return [UnreadableVideo(verdict.path, f"was judged, but cannot be shown: the process {e}")]
        return []

    def finish(self, verdicts: Sequence[Verdict]) -> None:
        """Write what all videos have together; a table is logged, too."""
        for chosen in self._formats:
            if chosen.of_run is None:
                continue
            texts = chosen.of_run(verdicts)
            if self._output:
                formats.write(self._output.parent, self._output.stem, texts)
            if chosen.name == _TABLE:
                log.info("verdicts:\n%s", "".join(texts.values()).rstrip())


@contextmanager
def outputs(config: OutputConfig, output: Path | None, videos: Sequence[str]) -> Iterator[Outputs]:
    """The outputs of a run. Raises UserError where something could not be written."""
    check(config, output)
    names = formats.names_of(videos, output.stem if output else "")
    with contextlib.ExitStack() as stack:
        load = functools.partial(load_shower, config, names)
        worker = stack.enter_context(SupervisedWorker[Verdict, list[str]](load, _SILENCE_LIMIT_S))
        yield Outputs(config, output, names, worker)


def load_shower(config: OutputConfig, names: Mapping[str, str]) -> Callable[[Verdict], list[str]]:
    """The function that writes a verdict's annotated video and clips, and says which files it wrote.

    What is there already, made of the same, is left as it is.
    """
    from violence_detection.prediction import annotated_video, event_clips  # heavy, for this process alone
    from violence_detection.video import writer

    def show(verdict: Verdict) -> list[str]:
        name, made_of = names[verdict.path], _made_of(verdict, config)
        wrote: list[Path] = []
        if config.annotate:
            path = config.annotate / f"{name}.annotated.mp4"
            if writer.comment_of(path) != made_of:
                annotated_video.write(verdict, path, made_of)
                wrote.append(path)
        if config.clips:
            last = config.clips / f"{name}.event{len(verdict.events):03d}.mp4"
            if not verdict.events or writer.comment_of(last) != made_of:
                wrote += event_clips.write(verdict, config.clips, name, config.clip_margin_s, made_of)
        return [str(path) for path in wrote]

    return show


def _made_of(verdict: Verdict, config: OutputConfig) -> str:
    """What tells whether a file was made of this verdict, of the video as it is now."""
    try:
        stat = Path(verdict.path).stat()
    except OSError as e:
        raise UnreadableVideo(verdict.path, e.strerror or str(e)) from e
    of_file = [stat.st_size, stat.st_mtime_ns]
    return storage.stable_hash([_VERSION, asdict(verdict), config.clip_margin_s, of_file], digits=32)
