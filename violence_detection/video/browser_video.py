"""Tell which video files browsers play as they are, and write a small copy of one that they do not."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from violence_detection.errors import UnreadableVideo
from violence_detection.video import decode, writer
from violence_detection.video.shown import fitted, square

#: By suffix: how FFmpeg's name of the container begins, and the codecs that all of today's browsers play in it.
_PLAYED = {
    ".mp4": ("mov,mp4", {"h264"}),
    ".m4v": ("mov,mp4", {"h264"}),
    ".webm": ("matroska,webm", {"vp8", "vp9", "av1", "libdav1d"}),
}
#: The pixel formats that they play.
_LAYOUTS = {"yuv420p", "yuvj420p"}
#: If a file's times differ from its header by more seconds than this, a browser would seek to the wrong moments.
_SAME_TIME_S = 0.5
#: The most lines, and frames a second, of a copy.
_COPY_HEIGHT, _COPY_FPS = 480, 30.0


def plays(path: Path) -> bool:
    """Whether browsers play the file as it is, show the track that is judged, and time it as this package does.

    Nothing is decoded. Raises UnreadableVideo for a file that is not a video.
    """
    wanted = _PLAYED.get(path.suffix.lower())
    if wanted is None:
        return False
    try:
        # with "file:", since FFmpeg would take a name with a colon for a protocol
        with av.open(f"file:{path}", metadata_errors="ignore") as container:
            streams = container.streams.video
            codecs = {(s.codec_context.codec.canonical_name, s.codec_context.pix_fmt) for s in streams}
            # browsers show the first track
            is_first = decode.video_track(path, container).index == streams[0].index
            name, begins_s = container.format.name, (container.start_time or 0) / av.time_base
    except (av.FFmpegError, OSError, AttributeError) as e:
        raise UnreadableVideo(path, f"not a video that FFmpeg can open ({e})") from e
    if len(codecs) != 1 or not is_first or not name.startswith(wanted[0]) or begins_s > _SAME_TIME_S:
        return False
    ((codec, layout),) = codecs
    if codec not in wanted[1] or layout not in _LAYOUTS:
        return False
    info = decode.timing(path)
    return not info.lost and abs(info.duration_s - info.stated_s) <= _SAME_TIME_S


def write_copy(video: Path, path: Path, comment: str = "") -> None:
    """Write an H.264 copy without sound, of at most 480 lines and 30 frames a second, with the times of the video.

    Until the first frame of a video that begins late, the copy is black. `comment` is kept in the file (see
    writer.comment_of). `path` is written frame by frame, so pass a temporary name. Raises UnreadableVideo, or UserError
    if the copy cannot be written.
    """
    info = decode.probe(video)
    step = max(int(np.ceil(info.fps / _COPY_FPS - 1e-6)), 1)
    fps = info.fps / step
    begun = False
    with writer.h264(path, fps, comment) as put:
        for _, frame in decode.moments(video, info, range(0, info.n_frames, step)):
            picture = square(fitted(frame, _COPY_HEIGHT), info.pixel_shape)
            if not begun:
                for _ in range(round(info.start_s * fps)):
                    put(np.zeros_like(picture))
                begun = True
            put(picture)
