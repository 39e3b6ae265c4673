"""Names of cameras in topics, file names and figures: short, and without passwords."""

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
    """A camera. text: what opens it, which may contain a password; address: the same as it may be shown."""

    name: str
    text: str
    address: str


def among(given: Sequence[str]) -> list[NamedCamera]:
    """The cameras among the given arguments and in the lists among them; none if all are videos.

    Raises UserError if there are both cameras and videos, if two cameras are given the same name, or if an address
    cannot be parsed.
    """
    if not any(_is_camera(text) or video_lists.is_list(text) for text in given):
        return []
    texts = [
        each for text in given for each in ([text] if _is_camera(text) else video_lists.expanded([text]))
    ]
    cameras = [text for text in texts if _is_camera(text)]
    if cameras and len(cameras) < len(texts):
        video = next(text for text in texts if not _is_camera(text))
        raise UserError(f"{video} is not a camera. Judge videos and cameras in separate runs")
    return named(cameras)


def _is_camera(text: str) -> bool:
    """Whether an argument is a camera, with or without a name (`front=rtsp://...`). A file with that path wins."""
    return sources.is_stream(text) or (
        sources.is_stream(sources.named(text)[1]) and not video_lists.is_there(Path(text))
    )


def named(texts: Sequence[str]) -> list[NamedCamera]:
    """The cameras that the arguments stand for, each under a different name.

    A camera without a given name is named after its address, with a number added if that name is taken. Raises
    UserError if two are given the same name, or if an address cannot be parsed.
    """
    out: list[NamedCamera] = []
    for text in texts:
        given, address = sources.named(text)
        taken = {camera.name for camera in out}
        if given in taken:
            raise UserError(f"two cameras are named {given}. Give each camera its own name")
        short = _short(address)
        name = given or next(n for n in (short, *(f"{short}-{i}" for i in range(2, 1000))) if n not in taken)
        if name not in (given, short):
            log.warning(
                "%s: the number is the camera's position among those named %s, so it may change when the list does. "
                "Give each camera its own name: NAME=ADDRESS",
                name, short,
            )  # fmt: skip
        out.append(NamedCamera(name, address, redaction.alone(address)))
    return out


def _short(address: str) -> str:
    if "://" in address:
        # safe_url would percent-encode these characters, and their codes would become part of the name
        parts = redaction.split(redaction.safe_url(redaction.END.sub(",", address)))
        said = f"{parts.netloc}{parts.path}"
    elif address.isdecimal():
        said = f"camera{address}"
    else:
        said = Path(address.removeprefix(sources.GROWING)).name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", said).strip("-")[:60] or "camera"
