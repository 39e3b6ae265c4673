"""The README's picture: what a trained model says of a video with a fight in the middle.

    python benchmarks/readme_picture.py --model demo/models_ensemble --output docs/verdict.png

`make demo` trains that model. The video is about 40 s of generated scenes of one source that the demo's data do not
hold: peaceful, then fights, then peaceful again. It is written to a temporary folder and judged as any other file.
Nothing of a real video is in the picture, and it says nothing about real videos. Prints one JSON line.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import violence_detection as vd
from violence_detection import cli
from violence_detection.datasets.generated import scenes
from violence_detection.system.storage import stable_seed
from violence_detection.video import writer

#: Scenes of about 2 s before, in and after the fight.
_SCENES = (("nonfight", 7), ("fight", 6), ("nonfight", 7))
_FRAMES_SHOWN = 6
_SIZE_INCHES = (9.6, 4.3)
_INK, _FAINT, _GRID, _CALM, _VIOLENT = "#1d2430", "#6a7482", "#d5dae2", "#2f6fbf", "#b3261e"


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--model", type=Path, required=True, help="a trained ensemble or model folder")
    p.add_argument("--output", type=Path, required=True, help="the picture, .png")
    p.add_argument("--seed", type=int, default=0, help="seed of place and people (default: 0)")
    args = cli.parse(p)
    frames, fps, fight = make_frames(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "video.mp4"
        writer.write(video, fps, frames, "mp4v")
        verdict = vd.load(args.model).judge(video)
    middles = [round((i + 0.5) * len(frames) / _FRAMES_SHOWN) for i in range(_FRAMES_SHOWN)]
    draw(args.output, verdict, fight, [cv2.cvtColor(frames[i], cv2.COLOR_BGR2RGB) for i in middles])
    cli.print_summary(
        {**verdict.summary(), "path": "generated", "true_fight": fight, "picture": str(args.output)}
    )
    return cli.EXIT_DONE


def make_frames(seed: int) -> tuple[list[np.ndarray], float, tuple[float, float]]:
    """Scenes of one source, joined: frames (H, W, 3) uint8 BGR, their rate, and the fight's start and end in s."""
    source = scenes.make_source("street", stable_seed("readme picture", seed))
    frames: list[np.ndarray] = []
    borders = [0]
    for label, count in _SCENES:
        for i in range(count):
            scene_seed = stable_seed("readme picture", seed, len(borders), i)
            frames += list(scenes.render_scene(source, label, i, scene_seed))
        borders.append(len(frames))
    return frames, source.fps, (borders[1] / source.fps, borders[2] / source.fps)


def draw(path: Path, verdict: vd.Verdict, fight: tuple[float, float], shown: list[np.ndarray]) -> None:
    """A film strip, P(violent) over time, the events found and the fight that there is."""
    end_s = verdict.windows[-1].end_s
    figure = Figure(figsize=_SIZE_INCHES, dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    height, width = shown[0].shape[:2]
    left, span = 0.11, 0.87
    strip = span / len(shown) * _SIZE_INCHES[0] / _SIZE_INCHES[1] * height / width
    for i, frame in enumerate(shown):
        part = figure.add_axes((left + span * i / len(shown), 0.97 - strip, span / len(shown), strip))
        part.imshow(frame, aspect="auto")
        part.axis("off")
    figure.text(left + 0.006, 0.975 - strip, "generated scenes", color="white", fontsize=8, va="bottom")
    axes = figure.add_axes((left, 0.3, span, 0.63 - strip))
    curve(axes, verdict)
    bars = figure.add_axes((left, 0.125, span, 0.15))
    for row, (stretches, colour) in enumerate([
        ([fight], _FAINT),
        ([(e.start_s, e.end_s) for e in verdict.events], _VIOLENT),
    ]):  # fmt: skip
        bars.broken_barh([(a, b - a) for a, b in stretches], (row + 0.15, 0.7), color=colour)
    for event in verdict.events:
        bars.text((event.start_s + event.end_s) / 2, 1.5, f"{event.start_s:.1f}-{event.end_s:.1f} s",
                  color="white", ha="center", va="center", fontsize=9)  # fmt: skip
    bars.set(yticks=[0.5, 1.5], yticklabels=["true fight", "event found"], ylim=(0, 2), xlabel="seconds")
    for ax in (axes, bars):
        ax.set_xlim(0, end_s)
        ax.tick_params(colors=_INK, labelsize=9, length=0)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.spines["bottom"].set_color(_GRID)
    axes.tick_params(labelbottom=False)
    bars.xaxis.label.set(color=_INK, size=9)
    figure.savefig(path, facecolor=figure.get_facecolor())


def curve(axes: Axes, verdict: vd.Verdict) -> None:
    """A bar a window from its start to its end, at its probability, and the threshold."""
    for window in verdict.windows:
        violent = window.p_violent >= verdict.threshold
        axes.plot([window.start_s, window.end_s], [window.p_violent] * 2, lw=3, solid_capstyle="butt",
                  color=_VIOLENT if violent else _CALM)  # fmt: skip
    middles = [(w.start_s + w.end_s) / 2 for w in verdict.windows]
    axes.plot(middles, [w.p_violent for w in verdict.windows], color=_FAINT, lw=1, zorder=0)
    axes.axhline(verdict.threshold, color=_FAINT, lw=1, ls=(0, (4, 3)))
    axes.text(0.2, verdict.threshold + 0.03, "threshold", color=_FAINT, fontsize=8)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("P(violent)\nof each window", color=_INK, fontsize=9)


if __name__ == "__main__":
    cli.run_main(main)
