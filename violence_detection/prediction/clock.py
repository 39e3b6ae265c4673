"""Format seconds of a video for people, for subtitles and for video editors."""

from __future__ import annotations


def minutes(seconds: float) -> str:
    """Format seconds with tenths, as `0:07.5` or `1:02:03.0`; hours only if there are any."""
    tenths = round(seconds * 10)
    whole, tenth = divmod(tenths, 10)
    left, second = divmod(whole, 60)
    hour, minute = divmod(left, 60)
    return f"{hour}:{minute:02d}:{second:02d}.{tenth}" if hour else f"{minute}:{second:02d}.{tenth}"


def subtitle_time(seconds: float) -> str:
    """Format seconds as a SubRip time, `01:02:03,450`."""
    left, thousandth = divmod(round(seconds * 1000), 1000)
    left, second = divmod(left, 60)
    hour, minute = divmod(left, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d},{thousandth:03d}"


def timecode(frame: int, fps: float) -> str:
    """Format a frame number as a non-drop-frame timecode, `01:02:03:12`.

    `fps` is rounded to whole frames a second: at 29.97, a second of timecode has 30 frames.
    """
    whole_fps = max(round(fps), 1)
    left, number = divmod(frame, whole_fps)
    left, second = divmod(left, 60)
    hour, minute = divmod(left, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}:{number:02d}"
