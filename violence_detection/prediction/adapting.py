"""A model adapted to a place by its footage, without labels: `--adapt FOOTAGE --save-model DIR`.

What is learnt, and how: models/adapted_head.py. Written is a model folder, used as any other.
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
#: Of a video the fingerprints along it, each with the frame that it begins at: combine.fingerprint.along.
Prints: TypeAlias = Callable[[Path], Sequence[tuple[int, str]]]
#: With fewer windows nothing is learnt.
FEWEST_WINDOWS = 20
NOT_CHECKED = (
    "not checked: whether it is better here. Footage without labels cannot tell; mark events (--timeline, --learn), or "
    "measure on clips of the place that are labelled"
)


def run(config: PredictConfig, footage: Path, to: Path, prints: Prints) -> dict[str, Any]:
    """Adapt the model to the footage, and write it to the folder `to`. Returns the summary.

    `prints`: by which an evaluation knows the footage again.

    Raises UserError where the model has no kernel head, the footage is too short, `to` is there already or another run
    makes it, a camera profile is given (it is of the model as it is), or still windows are to be skipped.
    """
    if config.profile:
        raise UserError(
            "--adapt makes another model, for which no --profile holds: make the profile afterwards"
        )
    if config.skip_still:
        raise UserError("--adapt learns from every window, the still ones too: leave out --skip-still")
    source = shipped.find(config.model)
    # before anything is made at the place
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
            f"{footage}: {len(p)} windows could be judged, and it takes {FEWEST_WINDOWS} to adapt to a place. "
            f"Give more footage{_first(failures)}"
        )
    units = {n: np.concatenate([video.units[n] for video in seen]) for n in member.head.vectors}
    adapted = adapted_head.adapt(member.head, units, p)
    figures = _figures(adapted, p, [str(video.path) for video in seen])
    if not figures["labelled_quiet"] + figures["labelled_fight"]:
        raise UserError(
            f"{footage}: the model is sure of none of the {len(p)} windows, so there is nothing to learn"
        )
    made_from = {**figures, "adapted_from": model_files.identity(source)}
    parts = [part for video in seen for part in video.parts]
    adapted_model.write(source, member, adapted.head, to, made_from, parts)
    _say(figures, to)
    named = [*(f.failure() for f in failures), *partly]
    return {"model": str(to), **figures, "failures": named}


@dataclass(frozen=True)
class _Seen:
    """A video of the footage: `units` of its windows, name -> (N, C), P(violent) (N,), and what tells it again.

    `warning`: what of it does not decode.
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
    """The videos that could be judged, in their order; the others are added to `failures`.

    A copy of one that could, or a link to it, is no other footage: counted twice, a video would vouch for itself where
    pieces of the footage are held out.
    """
    seen: list[_Seen] = []
    known: dict[str, Path] = {}
    for path in videos:
        try:
            sha256 = storage.sha256_file(path)
            if sha256 in known:
                log.info("%s: left out, it is the same file as %s", path, known[sha256])
                continue
            parts = _parts(path, sha256, prints)
            found, warning = detector.windows_of(path, lambda given, p: (head.units(_plain(given, head)), p))
        except UnreadableVideo as e:
            log.warning("%s: %s", e.path, e.reason)
            failures.append(e)
            continue
        except OSError as e:  # of the file, or its disk: it must not cost the others
            failures.append(UnreadableVideo(path, f"cannot be read: {e.strerror or e}"))
            log.warning("%s: %s", path, failures[-1].reason)
            continue
        known[sha256] = path
        units = {n: np.concatenate([some[n] for some, _ in found]) for n in head.vectors}
        seen.append(_Seen(path, units, np.concatenate([p for _, p in found]), parts, warning))
        log.info("%s: looked at", path)
        if warning:
            log.warning("%s: %s", path, warning)
    return seen


def _plain(given: Mapping[str, np.ndarray], head: KernelHead) -> dict[str, np.ndarray]:
    """What the head looks at, of the plain view alone, (N, T, C), of features (N, V, T, C)."""
    return {name: given[name][:, 0] for name in head.vectors}


def _parts(path: Path, sha256: str, prints: Prints) -> list[FootagePart]:
    """What tells a video, and clips cut from it, again. The first has the id that the file has as a clip."""
    video = sha256[:16]
    return [
        FootagePart(storage.stable_hash([sha256, frame], digits=16) if frame else video, video, text)
        for frame, text in prints(path)
    ]


def _first(failures: Sequence[UnreadableVideo]) -> str:
    if not failures:
        return ""
    first = failures[0]
    return f". {len(failures)} could not be judged, the first {first.path}: {first.reason}"


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
        "%d windows: %d were taken for quiet, %d for fights, the rest is left out; the offset is set back by %.3f",
        figures["windows"], figures["labelled_quiet"], figures["labelled_fight"], figures["offset_set_back"],
    )  # fmt: skip
    log.info("%s", figures["gain"])
    log.info("%s: give it as --model %s", to, shlex.quote(str(to)))
