"""The review page of a run: each video with its player, P(violent) over time, its events, and the marks on them.

It needs neither network nor server: pictures are in a folder beside it, and videos are linked where they are. The
browser keeps the marks and saves them to the file that marks.py reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import markupsafe

from violence_detection.errors import UnreadableVideo
from violence_detection.prediction.clock import minutes
from violence_detection.prediction.events import Verdict, stretches
from violence_detection.prediction.review import marks, probability_curve, review_media
from violence_detection.prediction.review.review_media import ReviewMedia
from violence_detection.system import own_files, pages, storage
from violence_detection.system.figures import number

PAGE_NAME = "index.html"
_TEMPLATES = Path(__file__).with_name("templates")
_TICKS = 5


def check(folder: Path, flag: str) -> None:
    """Raise UserError if the page would replace a file that is not a review page. `flag`: what names `folder`."""
    own_files.check_file(
        folder / PAGE_NAME,
        f"{flag}:",
        "a review page of a run",
        lambda page: marks.FORMAT in page.read_text(encoding="utf-8", errors="replace"),
        "Name another folder, or move it away",
    )


def write(
    folder: Path,
    verdicts: Sequence[Verdict],
    media: Mapping[str, ReviewMedia],
    failures: Sequence[UnreadableVideo] = (),
    model: str = "",
) -> Path:
    """Write the page and return its path. `media`: the media of each video, by the path of its verdict.

    `failures`: videos without a verdict, and why. `model`: identity of the model that judged, which is stored with the
    marks; empty: the one that all verdicts name, if they name the same.
    """
    page = folder / PAGE_NAME
    storage.write_text(page, _render(verdicts, media, failures, model or _model_of(verdicts)))
    return page


def _model_of(verdicts: Sequence[Verdict]) -> str:
    """The identity of the model that judged all of them; empty if they name several, or none."""
    models = {verdict.model for verdict in verdicts}
    return models.pop() if len(models) == 1 else ""


def _render(
    verdicts: Sequence[Verdict],
    media: Mapping[str, ReviewMedia],
    failures: Sequence[UnreadableVideo],
    model: str,
) -> str:
    environment = pages.environment(_TEMPLATES, {"minutes": minutes, "number": number, "shown": _shown})
    script = environment.get_template("review.js.j2").render()
    return environment.get_template("review.html.j2").render(
        videos=[_video(verdict, media[verdict.path]) for verdict in verdicts],
        violent=sum(bool(v.events) for v in verdicts),
        events=sum(len(v.events) for v in verdicts),
        failures=failures,
        unjudged=len({f.path for f in failures} - {v.path for v in verdicts}),
        curve=probability_curve,
        data=pages.json_in_page(_data(verdicts, model)),
        script=markupsafe.Markup(script),  # safe: our own text
        script_hash=pages.script_hash(script),
    )


def _video(verdict: Verdict, media: ReviewMedia) -> dict[str, Any]:
    """The template's variables for one video."""
    long_s = verdict.duration_s

    def band(start_s: float, end_s: float) -> dict[str, float]:
        left, right = (probability_curve.x_of(t, long_s) for t in (start_s, end_s))
        return {"x": left, "width": max(right - left, 1.0)}

    return {
        "verdict": verdict,
        "name": Path(verdict.path).name,
        "media": media,
        "curve": probability_curve.path(verdict.windows, long_s),
        "threshold_y": probability_curve.HEIGHT * (1 - verdict.threshold),
        "bands": [band(e.start_s, e.end_s) for e in verdict.events],
        "ticks": [long_s * i / (_TICKS - 1) for i in range(_TICKS)],
    }


def _data(verdicts: Sequence[Verdict], model: str) -> dict[str, Any]:
    """The data for the page's script.

    `run`: the name under which the browser keeps the marks of this page, one for each set of videos. By `real_path`,
    `content` and `duration_s` the script tells recordings with the same name apart, and finds marks that it kept on
    pages of other sets.
    """
    return {
        "format": marks.FORMAT,
        "version": marks.VERSION,
        "run": storage.stable_hash(sorted(map(_real_path, verdicts)), digits=16),
        "model": model,
        "needed": {"marks": marks.LEAST_MARKS, "videos": marks.LEAST_VIDEOS},
        "videos": [
            {
                "path": v.path,
                "real_path": _real_path(v),
                "content": review_media.content_of(Path(v.path)),
                "duration_s": v.duration_s,
                "events": [asdict(event) for event in v.events],
                "steps": _steps(v),
            }
            for v in verdicts
        ],
    }


def _real_path(verdict: Verdict) -> str:
    return verdict.real_path or os.path.realpath(verdict.path)


def _steps(verdict: Verdict) -> list[tuple[float, float, str]]:
    """(start_s, end_s, P) of each window's stretch; P is text, since a browser would round it differently."""
    each = zip(verdict.windows, stretches(verdict.windows), strict=True)
    return [(round(start_s, 4), round(end_s, 4), number(w.p_violent, 2)) for w, (start_s, end_s) in each]


def _shown(name: object) -> str:
    """A name as it can be shown on a page: with `_` for each byte that is not UTF-8."""
    return storage.utf8_name(str(name))
