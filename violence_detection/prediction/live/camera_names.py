"""What cameras are called in topics, file names and figures: short, and without passwords."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from violence_detection.errors import UserError
from violence_detection.system import redaction
from violence_detection.video import sources, video_lists

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedCamera:
    """A camera's name, what opens it, which may hold a password, and what may be shown of that."""

    name: str
    text: str
    address: str


def among(given: Sequence[str]) -> list[NamedCamera]:
    """The cameras that arguments mean, also those of lists; none where they mean videos.

    Raises UserError where they mean both, or two cameras of one name, and for an address that cannot be read.
    """
    if not any(_is_camera(text) or video_lists.is_list(text) for text in given):
        return []
    texts = [
        each for text in given for each in ([text] if _is_camera(text) else video_lists.expanded([text]))
    ]
    cameras = [text for text in texts if _is_camera(text)]
    if cameras and len(cameras) < len(texts):
        video = next(text for text in texts if not _is_camera(text))
        raise UserError(f"{video} is no camera. Judge videos and cameras in two runs")
    return named(cameras)


def _is_camera(text: str) -> bool:
    """Whether it is one, with a name before it or without: `front=rtsp://...`. A file of that name wins."""
    return sources.is_stream(text) or (
        sources.is_stream(sources.named(text)[1]) and not video_lists.is_there(Path(text))
    )


def named(texts: Sequence[str]) -> list[NamedCamera]:
    """The cameras that arguments mean, no two of one name.

    Raises UserError where two are given the same name, and for an address that cannot be read.
    """
    out: list[NamedCamera] = []
    for text in texts:
        given, address = sources.named(text)
        taken = {camera.name for camera in out}
        if given in taken:
            raise UserError(f"two cameras are called {given}. Give each a name of its own")
        short = _short(address)
        name = given or next(n for n in (short, *(f"{short}-{i}" for i in range(2, 1000))) if n not in taken)
        if name not in (given, short):
            log.warning(
                "%s: the number is its place among the cameras called %s, and another camera's where the list changes. "
                "Give each a name of its own: NAME=ADDRESS",
                name, short,
            )  # fmt: skip
        out.append(NamedCamera(name, address, redaction.alone(address)))
    return out


def _short(address: str) -> str:
    if "://" in address:
        # one character for one that would be percent-encoded, so that the name is without its number
        parts = redaction.split(redaction.safe_url(redaction.END.sub(",", address)))
        said = f"{parts.netloc}{parts.path}"
    elif address.isdecimal():
        said = f"camera{address}"
    else:
        said = Path(address.removeprefix(sources.GROWING)).name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", said).strip("-")[:60] or "camera"
