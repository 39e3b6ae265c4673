"""Adapt a model to one place by unlabelled footage of it: `--adapt FOOTAGE --save-model DIR`.

models/adapted_head.py does the learning. The result is a model folder that is used like any other.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.models import adapted_head, adapted_model, model_files, shipped
from violence_detection.models.adapted_head import FIGHT, QUIET, Adapted
from violence_detection.models.adapted_model import FootagePart, KernelMember
from violence_detection.models.light_heads import KernelHead
from violence_detection.prediction import batch
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.detector import Detector
from violence_detection.system import storage

log = logging.getLogger(__name__)
#: Maps a video to the fingerprints along it, each with the frame at which it begins: see combine.fingerprint.along.
Prints: TypeAlias = Callable[[Path], Sequence[tuple[int, str]]]
#: Footage with fewer judged windows than this is refused.
FEWEST_WINDOWS = 20
NOT_CHECKED = (
    "not checked: whether the adapted model is better at this place. Footage without labels cannot show that. Mark "
    "events (--timeline, --learn), or measure on labelled clips of the place"
)


def run(config: PredictConfig, footage: Path, to: Path, prints: Prints) -> dict[str, Any]:
    """Adapt the model to the footage, write it to the folder `to` and return the summary for the JSON line.

    `prints`: fingerprints of a video, which are stored so that a later evaluation recognises the footage.

    Raises UserError if the model does not have exactly one kernel head, the footage has fewer than FEWEST_WINDOWS
    windows or none that the model is sure of, `to` exists or another run is writing it, a camera profile is given (it
    belongs to the model before adapting), or still windows are to be skipped.
    """
    if config.profile:
        raise UserError(
            "--profile cannot be used with --adapt: a camera profile does not apply to the adapted model. Make the "
            "profile afterwards"
        )
    if config.skip_still:
        raise UserError("--adapt learns from still windows too: leave out --skip-still")
    source = shipped.find(config.model)
    # both may refuse, so they come before anything is created beside `to`
    member, found = adapted_model.kernel_of(source), batch.find_videos([footage])
    with adapted_model.place(source, to):
        return _run(config, source, member, footage, found, to, prints)


def _run(
    config: PredictConfig,
    source: Path,
    member: KernelMember,
    footage: Path,
    found: batch.FoundVideos,
    to: Path,
    prints: Prints,
) -> dict[str, Any]:
    failures = list(found.failures)
    seen = _looked_at(Detector(config), member.head, found.videos, prints, failures)
    partly = [{"path": str(video.path), "reason": video.warning} for video in seen if video.warning]
    p = np.concatenate([[], *(video.p for video in seen)])
    if len(p) < FEWEST_WINDOWS:
        raise UserError(
            f"{footage}: only {len(p)} windows could be judged, but adapting to a place needs at least "
            f"{FEWEST_WINDOWS}. Give more footage{_first(failures)}"
        )
    units = {n: np.concatenate([video.units[n] for video in seen]) for n in member.head.vectors}
    adapted = adapted_head.adapt(member.head, units, p)
    figures = _figures(adapted, p, [str(video.path) for video in seen])
    if not figures["labelled_quiet"] + figures["labelled_fight"]:
        raise UserError(
            f"{footage}: the model is not sure of any of the {len(p)} windows, so it has nothing to learn from"
        )
    made_from = {**figures, "adapted_from": model_files.identity(source)}
    parts = [part for video in seen for part in video.parts]
    adapted_model.write(source, member, adapted.head, to, made_from, parts)
    _say(figures, to)
    named = [*(f.failure() for f in failures), *partly]
    return {"model": str(to), **figures, "failures": named}


@dataclass(frozen=True)
class _Seen:
    """A judged video of the footage, with its N windows in order.

    `units`: by input name, the means over time that the head compares, (N, C). `p`: P(violent) (N,). `parts`: the
    records by which a later evaluation recognises the video and clips cut from it. `warning`: which part of the video
    was not judged and why; empty if all of it was.
    """

    path: Path
    units: Mapping[str, np.ndarray]
    p: np.ndarray
    parts: Sequence[FootagePart]
    warning: str


def _looked_at(
    detector: Detector,
    head: KernelHead,
    videos: Sequence[Path],
    prints: Prints,
    failures: list[UnreadableVideo],
) -> list[_Seen]:
    """Judge the videos and return those that could be judged, in order; the others are added to `failures`.

    A byte-for-byte copy of a video judged before is left out. Counted twice, a video would be on both sides where
    pieces of the footage are held out.
    """
    seen: list[_Seen] = []
    known: dict[str, Path] = {}
    for path in videos:
        try:
            sha256 = storage.sha256_file(path)
            if sha256 in known:
                log.info("%s: left out, because it is the same file as %s", path, known[sha256])
                continue
            parts = _parts(path, sha256, prints)
            found, warning = detector.windows_of(path, lambda given, p: (head.units(_plain(given, head)), p))
        except UnreadableVideo as e:
            log.warning("%s: %s", e.path, e.reason)
            failures.append(e)
            continue
        except OSError as e:  # a fault of one file or its disk must not stop the others
            failures.append(UnreadableVideo(path, f"cannot be read: {e.strerror or e}"))
            log.warning("%s: %s", path, failures[-1].reason)
            continue
        known[sha256] = path
        units = {n: np.concatenate([some[n] for some, _ in found]) for n in head.vectors}
        seen.append(_Seen(path, units, np.concatenate([p for _, p in found]), parts, warning))
        log.info("%s: judged", path)
        if warning:
            log.warning("%s: %s", path, warning)
    return seen


def _plain(given: Mapping[str, np.ndarray], head: KernelHead) -> dict[str, np.ndarray]:
    """Take the head's inputs from features (N, V, T, C), the plain view alone: name -> (N, T, C)."""
    return {name: given[name][:, 0] for name in head.vectors}


def _parts(path: Path, sha256: str, prints: Prints) -> list[FootagePart]:
    """Make the records by which an evaluation recognises the video and clips cut from it.

    The one that begins at frame 0 has the clip id that the whole file would have as a clip.
    """
    video = sha256[:16]
    return [
        FootagePart(storage.stable_hash([sha256, frame], digits=16) if frame else video, video, text)
        for frame, text in prints(path)
    ]


def _first(failures: Sequence[UnreadableVideo]) -> str:
    if not failures:
        return ""
    first = failures[0]
    return f". Videos that could not be judged: {len(failures)}; the first is {first.path}: {first.reason}"


def _figures(adapted: Adapted, p: np.ndarray, videos: Sequence[str]) -> dict[str, Any]:
    return {
        "videos": list(videos),
        "windows": len(p),
        "labelled_quiet": int((adapted.labels == QUIET).sum()),
        "labelled_fight": int((adapted.labels == FIGHT).sum()),
        "offset_set_back": round(adapted.moved, 4),
        "gain": NOT_CHECKED,
    }


def _say(figures: Mapping[str, Any], to: Path) -> None:
    log.info(
        "%d windows: %d labelled quiet, %d labelled fight, the rest not used; the head's offset is set back by %.3f",
        figures["windows"], figures["labelled_quiet"], figures["labelled_fight"], figures["offset_set_back"],
    )  # fmt: skip
    log.info("%s", figures["gain"])
    log.info("%s: use it with --model %s", to, shlex.quote(str(to)))
