"""Measure peak memory and speed of judging a long video, compared with a short one of the same pictures.

    python benchmarks/bench_memory.py --clip CLIP --model fast --minutes 1,20 --tta 1

The clip is encoded once (H.264, 360 lines, 25 frames a second), and its packets are repeated to each length. Each video
is judged in a separate process. Figures by minutes: `peak_mb`, the peak of that process; `loaded_mb`, its peak when the
model is loaded and nothing is judged yet; `times_real_time`, without the time for loading; `windows`. `growth` is the
largest peak over the smallest.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import av

from benchmarks import peak_memory
from violence_detection import cli
from violence_detection.video import decode

LINES, FPS = 360, 25


def encoded(clip: Path, to: Path) -> Path:
    """Encode the clip with LINES lines at a constant FPS and without B-frames, so that its packets can be repeated."""
    _, frames = decode.read(clip, lambda info: range(info.n_frames))
    with av.open(str(to), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"bf": "0", "g": "50"})
        assert isinstance(stream, av.VideoStream)
        height, width, _ = frames[0].shape
        stream.height, stream.width = LINES, round(width * LINES / height / 2) * 2
        for picture in frames.values():
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(width=stream.width, height=LINES, format="yuv420p")))
        container.mux(stream.encode())
    return to


def repeated(clip: Path, minutes: float, to: Path) -> Path:
    """Write a video that repeats the clip's packets for `minutes`."""
    with av.open(str(clip)) as source, av.open(str(to), "w") as sink:
        (track,) = source.streams.video
        out = sink.add_stream_from_template(track)
        packets = [
            (bytes(p), p.pts, p.is_keyframe) for p in source.demux(track) if p.size and p.pts is not None
        ]
        assert track.time_base is not None
        step = round(1 / FPS / float(track.time_base))
        for number in range(round(minutes * 60 * FPS)):
            data, _, is_key = packets[number % len(packets)]
            packet = av.Packet(data)
            packet.pts = packet.dts = number * step
            packet.time_base, packet.is_keyframe, packet.stream = track.time_base, is_key, out
            packet.duration = step
            sink.mux(packet)
    return to


def judged(model: str, video: str, tta: int, engine: str) -> dict[str, Any]:
    """Judge one video and return its figures. Call it in a separate process, because peak memory is per process."""
    import violence_detection

    detector = violence_detection.load(model, tta=tta, engine=engine)
    loaded_mb = peak_memory.of_this_mb()
    began_s = time.perf_counter()
    verdict = detector.judge(video)
    took_s = time.perf_counter() - began_s
    return {
        "loaded_mb": loaded_mb,
        "peak_mb": peak_memory.of_this_mb(),
        "times_real_time": round(verdict.duration_s / took_s, 2),
        "windows": len(verdict.windows),
    }


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--clip", type=Path, required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--minutes", default="1,20", help="lengths, comma separated")
    p.add_argument("--tta", type=int, default=1)
    p.add_argument("--engine", default="auto")
    args = cli.parse(p)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        once = encoded(args.clip, Path(folder, "once.mp4"))
        for minutes in args.minutes.split(","):
            video = repeated(once, float(minutes), Path(folder, f"{minutes}.mp4"))
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                found[minutes] = alone.submit(judged, args.model, str(video), args.tta, args.engine).result()
    peaks = [figures["peak_mb"] for figures in found.values()]
    growth = round(max(peaks) / min(peaks), 3)
    print(json.dumps({"model": args.model, "tta": args.tta, "minutes": found, "growth": growth}))
    return 0


if __name__ == "__main__":
    cli.run_main(main)
