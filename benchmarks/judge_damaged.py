"""Judge damaged videos with a real model: does one crash or hang the process, and is the judged length right?

    python benchmarks/judge_damaged.py --clips CLIPS --model MODEL --count 300

Real clips are converted to MP4, AVI, MKV, TS and WebM and damaged (damaged_videos.py): cut off after some twentieths,
bits flipped, a stretch zeroed, a wrong suffix, a wrong length in the header. They are judged as the scripts judge
videos. The seconds judged are compared with what the ffmpeg program decodes: its number of frames times the usual step
between their time stamps.

Prints one JSON line:
    judged           files with a verdict
    failures         files without one
    with_warning     verdicts with a warning
    crashed, hung    failures because the process died, or made no progress for 20 s
    without_seconds  verdicts on 0 s
    apart            the files whose seconds differ by more than 10 % plus 0.06 s, and the failures of which ffmpeg
                     decodes more than 0.5 s
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import damaged_videos
from violence_detection import cli
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction import batch
from violence_detection.prediction.config import PredictConfig
from violence_detection.video import video_files
from violence_detection.video.video_files import VideoSearch

#: Allowed difference of the judged length, as a share of the length that ffmpeg decodes.
_ALLOWED = 0.1
#: Allowed difference beyond that share: a frame or two at the end of a file.
_STEP_S = 0.06


def by_ffmpeg(path: Path, step_s: float) -> float:
    """Seconds of the first video track that the ffmpeg program decodes: number of frames times `step_s`."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", f"file:{path}", "-map", "0:v:0", "-fps_mode", "passthrough",
               "-f", "null", "-", "-progress", "pipe:1"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, errors="replace")
    counts = [line.removeprefix("frame=") for line in done.stdout.splitlines() if line.startswith("frame=")]
    return int(counts[-1]) * step_s if counts else 0.0


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--clips", type=Path, required=True, help="folder with videos, searched below")
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--count", type=int, default=300)
    p.add_argument("--sources", type=int, default=12, help="real clips to damage (default: 12)")
    p.add_argument("--seed", type=int, default=0)
    args = cli.parse(p)
    if not shutil.which("ffmpeg"):
        raise UserError(
            "the ffmpeg program is not installed; lengths are compared with it. Install the package ffmpeg"
        )
    found = sorted(VideoSearch().below(args.clips))
    sources = found[:: max(1, len(found) // args.sources)][: args.sources]
    batch.SILENCE_LIMIT_S = 20.0
    counts: Counter[str] = Counter()
    apart = []
    with tempfile.TemporaryDirectory() as folder:
        made = list(damaged_videos.make(sources, Path(folder), args.count, args.seed))
        judged = batch.judge_all([item.path for item in made], PredictConfig(model=args.model))
        for item, verdict in zip(made, judged, strict=True):
            there_s = by_ffmpeg(item.path, damaged_videos.usual_step_s(item.path))
            if isinstance(verdict, UnreadableVideo):
                counts["failures"] += 1
                counts["crashed"] += verdict.reason.startswith(video_files.CRASHED)
                counts["hung"] += "no progress" in verdict.reason
                if there_s > 0.5:
                    apart.append([item.path.name, verdict.reason, round(there_s, 2)])
                continue
            counts["judged"] += 1
            counts["with_warning"] += bool(verdict.warning)
            counts["without_seconds"] += not verdict.judged_s > 0
            if abs(verdict.judged_s - there_s) > _ALLOWED * there_s + _STEP_S:
                apart.append([item.path.name, verdict.judged_s, round(there_s, 2)])
    keys = ("judged", "failures", "with_warning", "crashed", "hung", "without_seconds")
    cli.print_summary({"files": len(made), **{k: counts[k] for k in keys}, "apart": apart})
    return 0


if __name__ == "__main__":
    cli.run_main(main)
