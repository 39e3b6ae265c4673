"""What people's poses add to a kernel head, on a data set that nobody trained on and on unseen sources of one that was.

    python benchmarks/probe_pose.py --data-root DATA --backbone i3d_actions,dinov2_spread --streams rgb,moving \
        --movenet package/models/movenet-multipose.json --poses poses

As probe_features.py, with poses as one more kernel (a Gaussian one of standardised numbers, see pose_statistics.py),
which counts as much as both clips' people are seen: `seen`; `everywhere`: alike for all. `shuffled`: frames in another
order, a control. Poses are looked at in 25 frames of the middle 2.4 s and kept in --poses (0.8 processor seconds a
clip). The gain over the features alone has an interval by source. One JSON line. `--beside` as there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from sklearn.svm import SVC

from benchmarks import movenet, pose_statistics, probe_features
from benchmarks.held_out import Parts
from benchmarks.probe_features import Probe
from violence_detection import cli
from violence_detection.errors import UnreadableVideo
from violence_detection.system import console, storage
from violence_detection.system.console import log
from violence_detection.training import kernel_fit
from violence_detection.video import decode

FRAMES, STEP_S = 25, 0.1
#: Standardised numbers are cut off there: a person who is seen in one frame of 25 may be anything.
_OUTLIER = 3.0


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="cuts into folds by source (default: 3)")
    parser.add_argument(
        "--movenet", type=Path, required=True, help="movenet-multipose.json, the .bin beside it"
    )
    parser.add_argument("--poses", type=Path, required=True, help="folder where poses are kept")
    parser.add_argument("--output", type=Path, help="a table to read, .md")
    args, probe, failures = probe_features.opened(parser)
    looked = list(look(probe, args.movenet, args.poses))
    posed = PosedProbe(probe, args.seeds, looked)
    alone, *others = [posed.row_with(name, how) for name, how in posed.choices().items()]
    probe_features.note_look(probe, [alone, *others])
    compared = [
        probe_features.shown(alone),
        *(probe_features.gain(row, alone, posed.groups) for row in others),
    ]
    if args.output:
        storage.write_text(args.output, probe_features.table(compared))
    log.info("\n%s", probe_features.table(compared))
    cli.print_summary({"rows": compared, "n": len(looked), "n_groups": len(set(posed.groups))})
    return cli.exit_code(failures)


def look(probe: Probe, file: Path, to: Path) -> Iterator[tuple[np.ndarray, float]]:
    """People in each clip, (T, 6, 56) as MoveNet gives them, and the seconds between frames. What is kept is taken."""
    network = movenet.MoveNet(file)
    to.mkdir(parents=True, exist_ok=True)
    rows = probe.samples.rows
    for clip_id, path in console.progress(
        list(zip(rows.clip_id, rows.path, strict=True)), unit="clip", desc="poses"
    ):
        kept = to / f"{clip_id}.npz"
        if not kept.is_file():
            people, step_s = _people(network, probe.combined / path)
            with storage.atomic_path(kept) as temporary, temporary.open("wb") as stream:
                np.savez(stream, people=people, step_s=step_s)
        stored = np.load(kept)
        yield stored["people"], float(stored["step_s"])


def _people(network: movenet.MoveNet, path: Path) -> tuple[np.ndarray, float]:
    """Of frames evenly spread over the middle of a clip. Raises UnreadableVideo."""
    found = decode.packet_timing(path)
    info = found.info
    span_s = min((FRAMES - 1) * STEP_S, (info.n_frames - 1) / info.fps)
    moments = info.n_frames / 2 + np.linspace(-span_s / 2, span_s / 2, FRAMES) * info.fps
    numbers = np.clip(moments.round(), 0, info.n_frames - 1).astype(int).tolist()
    people = {
        number: network.people(frame) for number, frame in decode.moments(path, info, sorted(set(numbers)))
    }
    if not people:
        raise UnreadableVideo(path, "no frame of it decodes")
    return np.array([people[number] for number in numbers], np.float32), span_s / (FRAMES - 1)


class PosedProbe(Probe):
    """The probe with poses as one more kernel. `looked`: of each clip, what `look` gives."""

    def __init__(self, probe: Probe, seeds: int, looked: Sequence[tuple[np.ndarray, float]]):
        super().__init__(probe.combined, probe.samples, probe.head, seeds, probe.beside)
        rng = np.random.default_rng(0)
        self._in_order = _numbers(looked)
        self._shuffled = _numbers(
            [(people[rng.permutation(len(people))], step_s) for people, step_s in looked]
        )
        self._seen = np.array([pose_statistics.visibility(people) for people, _ in looked])
        self._how: tuple[np.ndarray, np.ndarray] | None = None

    def choices(self) -> dict[str, tuple[np.ndarray, np.ndarray] | None]:  # type: ignore[override]
        """By name the numbers (N, D), and how much they count (N,); None: features alone."""
        everywhere = np.ones(len(self._seen))
        return {
            "features": None,
            "with poses, everywhere": (self._in_order, everywhere),
            "with poses, seen": (self._in_order, self._seen),
            "with poses, seen, shuffled": (self._shuffled, self._seen),
        }

    def row_with(self, name: str, how: tuple[np.ndarray, np.ndarray] | None) -> dict[str, Any]:
        """The figures with these poses."""
        self._how = how
        return self.row(name, tuple(self.points))

    def margins(self, inputs: Sequence[str], parts: Parts) -> np.ndarray:
        """As of the probe, with the kernel of poses."""
        if self._how is None:
            return super().margins(inputs, parts)
        margins = np.empty(len(self.labels))
        for fitted, judged in parts:
            alike = _alike(*self._how, fitted)
            for name in inputs:
                gamma = kernel_fit.sharpness(self.points[name][fitted], self.head.kernel_width)
                alike = alike + np.exp(2 * gamma * (self.products[name][:, fitted] - 1))
            machine = SVC(C=self.head.kernel_c, kernel="precomputed")
            weights = kernel_fit.clip_weights(self.samples.take(fitted))
            machine.fit(alike[fitted] / len(inputs), self.labels[fitted], sample_weight=weights)
            margins[judged] = machine.decision_function(alike[judged] / len(inputs))
        return margins


def _numbers(looked: Sequence[tuple[np.ndarray, float]]) -> np.ndarray:
    return np.array([list(pose_statistics.of_clip(people, step_s).values()) for people, step_s in looked])


def _alike(numbers: np.ndarray, counts: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """(N, len(fitted)) of the numbers standardised by the clips that are fitted to."""
    mean, spread = numbers[fitted].mean(0), numbers[fitted].std(0) + 1e-6
    points = np.clip((numbers - mean) / spread, -_OUTLIER, _OUTLIER)
    squares = (points**2).sum(1)
    apart = (squares[:, None] + squares[fitted] - 2 * points @ points[fitted].T).clip(0)
    alike: np.ndarray = np.exp(-kernel_fit.sharpness(points[fitted], 1.0) * apart)
    return alike * counts[:, None] * counts[fitted]


if __name__ == "__main__":
    cli.run_main(main)
