"""Seconds of a video as people, subtitles and editors write them."""

from __future__ import annotations


def minutes(seconds: float) -> str:
    """`0:07.5`, `1:02:03.0`: hours only where there are any."""
    tenths = round(seconds * 10)
    whole, tenth = divmod(tenths, 10)
    left, second = divmod(whole, 60)
    hour, minute = divmod(left, 60)
    return f"{hour}:{minute:02d}:{second:02d}.{tenth}" if hour else f"{minute}:{second:02d}.{tenth}"


def subtitle_time(seconds: float) -> str:
    """`01:02:03,450`, as SubRip has it."""
    left, thousandth = divmod(round(seconds * 1000), 1000)
    left, second = divmod(left, 60)
    hour, minute = divmod(left, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d},{thousandth:03d}"


def timecode(frame: int, fps: float) -> str:
    """`01:02:03:12` of a frame's number, counted without drop frames: of 29.97 fps, 30 make a second of it."""
    whole_fps = max(round(fps), 1)
    left, number = divmod(frame, whole_fps)
    left, second = divmod(left, 60)
    hour, minute = divmod(left, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}:{number:02d}"
