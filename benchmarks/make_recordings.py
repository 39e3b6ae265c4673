"""Make recordings with fights at known times, from clips that a model was not trained on, for bench_recordings.py.

    python benchmarks/make_recordings.py --data-root DATA --models MODEL --parts 2 --quiet QUIET --output recordings
    python benchmarks/make_recordings.py --data-root DATA --models FOLD_0 FOLD_1 --quiet QUIET --output recordings

DATA/combined_all is made by combine_all_datasets.py. A source is left out if the model was trained, selected or tuned
on one of its clips or on a copy of one (evaluation/training_overlap.py). The other sources are divided into parts; no
source is shown in two of them. With several models, each has its own part, whose sources are all new to it.

A recording shows clips of one data set: fights of 2 to 20 s among quiet scenes. Each fight and each scene is made of
clips of one source and may be mirrored. The videos below --quiet are a data set of their own, in which nobody fights;
each of its folders is a source. Recordings differ in picture size, frame rate and quality. Pictures are stretched to
the size, because networks do not keep the proportions either. The light changes abruptly now and then.

Writes to --output the MP4 files, truth.csv (file, start, end, data set and source of each fight), footage.csv (which
clip is shown when) and recordings.csv (how each was recorded). After it was killed, or with more --hours, the same
command continues where it stopped. What is shown depends only on the clips, the models, --minutes, --fights-an-hour,
--parts and --seed. Prints one JSON line.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np

from benchmarks import recording_plan
from benchmarks.recording_plan import Clip, Jump, Plan, Stock
from violence_detection import CLASS_NAMES, cli
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.system import console, disks, storage
from violence_detection.system.console import log
from violence_detection.video import decode, writer
from violence_detection.video.video_files import VideoSearch

#: Raise it whenever the same plan results in other pictures, so that existing files are made again.
VERSION = 1
TRUTH = ("file", "start_s", "end_s", "dataset", "source")
FOOTAGE = ("file", "start_s", "end_s", "label", "dataset", "source", "clip")
RECORDINGS = ("file", "style", "part", "duration_s", "fights", "width", "height", "fps", "crf", "light_jumps")


def main(argv: Sequence[str] | None = None) -> int:
    p = cli.parser(__doc__)
    p.add_argument("--data-root", type=Path, required=True, help="folder with combined_all/manifest.csv")
    p.add_argument(
        "--models",
        type=Path,
        nargs="+",
        default=[],
        help="models whose training clips are not shown (default: none)",
    )
    p.add_argument("--quiet", type=Path, help="folder of videos in which nobody fights")
    p.add_argument("--output", type=Path, required=True, help="folder for the recordings")
    p.add_argument(
        "--hours", type=float, default=10.0, help="length of all recordings together (default: 10)"
    )
    p.add_argument("--minutes", type=float, default=12.0, help="length of each recording (default: 12)")
    p.add_argument(
        "--fights-an-hour",
        type=float,
        default=30.0,
        help="fights per hour, in recordings with fights (default: 30)",
    )
    p.add_argument(
        "--parts", type=int, help="parts that the sources are divided into (default: one per model)"
    )
    p.add_argument("--seed", type=int, default=0)
    args = cli.parse(p, argv)
    count = args.parts or max(len(args.models), 1)
    if len(args.models) > 1 and count != len(args.models):
        raise UserError("--parts is given, but several models have a part each. Leave --parts out")
    clips = labelled(args.data_root)
    quiet, failures = quiet_clips(args.quiet) if args.quiet else ([], [])
    known = [known_sources(model, args.data_root) for model in args.models]
    parts = divided([*clips, *quiet], known or [set()], count, args.seed)
    stocks = [recording_plan.stocks_of(part) for part in parts]
    plans = [
        recording_plan.plans(
            stocks[i], args.minutes, args.hours / count, args.fights_an_hour,
            storage.stable_seed("recordings", args.seed, i), f"p{i}_",
        )
        for i in range(count)
    ]  # fmt: skip
    write_tables(args.output, plans)
    every = [plan for row in itertools.zip_longest(*plans) for plan in row if plan]
    for plan in console.progress(every, total=len(every), unit="recording", desc="making"):
        write_recording(plan, args.output / plan.name, args.data_root, args.quiet)
    cli.print_summary(
        {
            "recordings": len(every),
            "hours": round(sum(plan.duration_s for plan in every) / 3600, 2),
            "fights": sum(len(plan.fights) for plan in every),
            "clips_left_out": len(clips) + len(quiet) - sum(map(len, parts)),
            "shown": [{style: shown(*pair) for style, pair in of_part.items()} for of_part in stocks],
            "failures": failures,
            "output": str(args.output),
        }
    )
    return cli.exit_code(failures)


def labelled(data_root: Path) -> list[Clip]:
    """The clips of the manifest."""
    from violence_detection.combine import manifest

    rows = manifest.read(data_root / "combined_all").sort_values("clip_id")
    return [
        Clip(
            f"combined_all/{row.path}", bool(row.label == CLASS_NAMES[1]), str(row.dataset), str(row.source_group),
            float(str(row.duration_s)),
        )
        for row in rows.itertuples()
    ]  # fmt: skip


def known_sources(model: Path, data_root: Path) -> set[str]:
    """The sources with a clip that the model was trained, selected or tuned on, or with a copy of one.

    Raises UserError if the model's list of its clips is incomplete.
    """
    from violence_detection.combine import manifest
    from violence_detection.evaluation import training_overlap
    from violence_detection.models import shipped, trained_model

    combined = data_root / "combined_all"
    rows = manifest.read(combined)
    loaded = trained_model.load(shipped.find(model))
    trained_on, lost = training_overlap.known_clips(loaded)
    if lost or (trained_on.role == "").any():
        raise UserError(f"{model} does not list all clips that it was trained on. {lost}".strip())
    touched = training_overlap.compare(
        loaded, rows, storage.sha256_file(combined / manifest.FILE_NAME)
    ).by_clip
    return set(rows.source_group[rows.clip_id.isin(touched)])


def quiet_clips(folder: Path) -> tuple[list[Clip], list[dict[str, str]]]:
    """The videos below a folder, as clips of a data set with the folder's name, and those that cannot be read."""
    clips, failures = [], []
    for path in sorted(VideoSearch(everywhere=True).below(folder)):
        name = path.relative_to(folder)
        try:
            duration_s = decode.probe(path).played_s
        except UnreadableVideo as e:
            failures.append({"path": str(path), "reason": e.reason})
            continue
        source = f"{folder.name}:{name.parent.as_posix()}"
        clips.append(Clip(f"{_QUIET}/{name.as_posix()}", False, folder.name, source, duration_s))
    return clips, failures


#: First part of the path of a clip below --quiet.
_QUIET = "quiet"


def divided(
    clips: Sequence[Clip], known: Sequence[Collection[str]], parts: int, seed: int
) -> list[list[Clip]]:
    """Divide the clips into parts by source; return the clips of each part.

    `known`: for each part, the sources that it may not show; a single collection applies to all parts. A source that
    every part may show goes to any, so that each part has its share of every data set and class. A source that only one
    part may show goes there. If all such sources of a data set belong to one part, as with a data set that was left out
    of one model's training, the sources of it that every part may show go there, too. A source that several but not all
    parts may show goes to the first of these.

    A data set without quiet clips in a part is not shown there. Raises UserError if a part has no clips, or if there
    are fewer sources to divide than parts.
    """
    from violence_detection.combine import split

    may = {
        source: [i for i in range(parts) if source not in known[i % len(known)]]
        for source in sorted({c.source for c in clips})
    }
    part_of = {source: where[0] for source, where in may.items() if where}
    homes: dict[str, set[int]] = {}
    for clip in clips:
        if len(may[clip.source]) == 1:
            homes.setdefault(clip.dataset, set()).add(may[clip.source][0])
    everywhere = []
    for clip in clips:
        if parts == 1 or len(may[clip.source]) < parts:
            continue
        if len(home := homes.get(clip.dataset, set())) == 1:
            part_of[clip.source] = next(iter(home))
        else:
            everywhere.append(clip)
    if everywhere:
        strata = [(c.dataset, c.is_fight) for c in everywhere]
        try:
            folds = split.grouped_folds([c.source for c in everywhere], strata, parts, seed)
        except ValueError as e:
            raise UserError(f"--parts {parts}: {e}") from e
        part_of |= {c.source: int(i) for c, i in zip(everywhere, folds, strict=True)}
    found = [_with_quiet([c for c in clips if part_of.get(c.source) == i]) for i in range(parts)]
    if not all(found):
        raise UserError(
            "no clips are left to show in one part: the models were trained on all sources or on copies of their "
            "clips, or none of those left is quiet. Use other --models, or add clips of other sources"
        )
    return found


def _with_quiet(clips: Sequence[Clip]) -> list[Clip]:
    """The clips of the data sets that have a quiet clip among them; the others are named in a warning."""
    calm = {c.dataset for c in clips if not c.is_fight}
    if without := sorted({c.dataset for c in clips} - calm):
        log.warning(
            "no recordings of %s in one part, because no quiet clip of it is left there", ", ".join(without)
        )
    return [c for c in clips if c.dataset in calm]


def shown(quiet: Stock, fights: Stock | None) -> dict[str, Any]:
    """Figures of a data set's clips of either kind: how many, how often shown, and how often twice in a recording."""

    def of(stock: Stock) -> dict[str, Any]:
        return {
            "clips": len(stock.clips),
            "sources": len({c.source for c in stock.clips}),
            "minutes": round(sum(c.duration_s for c in stock.clips) / 60, 1),
            "times_shown": round(sum(stock.shown.values()) / len(stock.clips), 1),
            "repeats_within_a_recording": stock.repeats,
        }

    return {"quiet": of(quiet)} | ({"fights": of(fights)} if fights else {})


def write_tables(output: Path, plans: Sequence[Sequence[Plan]]) -> None:
    """Write truth.csv, footage.csv and recordings.csv to the folder `output`. `plans`: those of each part."""
    output.mkdir(parents=True, exist_ok=True)
    disks.check_writable(output, "--output")
    every = [plan for part in plans for plan in part]
    storage.write_csv(output / "truth.csv", TRUTH, (row for plan in every for row in _truth(plan)))
    storage.write_csv(output / "footage.csv", FOOTAGE, (row for plan in every for row in _footage(plan)))
    rows = (
        {
            "file": plan.name, "style": plan.style, "part": i, "duration_s": round(plan.duration_s, 2),
            "fights": len(plan.fights), "width": plan.size[0], "height": plan.size[1], "fps": plan.fps, "crf": plan.crf,
            "light_jumps": len(plan.jumps),
        }
        for i, part in enumerate(plans)
        for plan in part
    )  # fmt: skip
    storage.write_csv(output / "recordings.csv", RECORDINGS, rows)


def _truth(plan: Plan) -> Iterator[dict[str, Any]]:
    for start_s, end_s in plan.fights:
        source = next(p.clip.source for p in plan.pieces if p.start_s >= start_s - 1e-6)
        yield {
            "file": plan.name, "start_s": round(start_s, 2), "end_s": round(end_s, 2), "dataset": plan.style,
            "source": source,
        }  # fmt: skip


def _footage(plan: Plan) -> Iterator[dict[str, Any]]:
    for piece in plan.pieces:
        yield {
            "file": plan.name, "start_s": round(piece.start_s, 2), "end_s": round(piece.end_s, 2),
            "label": CLASS_NAMES[piece.clip.is_fight], "dataset": piece.clip.dataset, "source": piece.clip.source,
            "clip": piece.clip.path,
        }  # fmt: skip


def write_recording(plan: Plan, path: Path, data_root: Path, quiet: Path | None) -> None:
    """Write a recording to `path`, unless it already contains one of the same plan and VERSION."""
    made_by = storage.stable_hash([VERSION, asdict(plan)], 32)
    if writer.comment_of(path) == made_by:
        return
    # ultrafast takes a third of the time, and compresses no worse than the encoder in a camera
    with (
        storage.atomic_path(path) as temporary,
        writer.h264(temporary, plan.fps, made_by, plan.crf, "ultrafast") as put,
    ):
        for frame in pictures(plan, data_root, quiet):
            put(frame)
    log.info("made: %s, %.1f min, %d fights", path.name, plan.duration_s / 60, len(plan.fights))


def pictures(plan: Plan, data_root: Path, quiet: Path | None) -> Iterator[decode.Frame]:
    """Yield the recording's frames, (height, width, 3) uint8 RGB, `plan.fps` per second."""
    number = 0
    for piece in plan.pieces:
        is_quiet = piece.clip.path.startswith(f"{_QUIET}/")
        root = quiet if is_quiet and quiet else data_root
        path = root / piece.clip.path.removeprefix(f"{_QUIET}/") if is_quiet else root / piece.clip.path
        end = round(piece.end_s * plan.fps)
        info = decode.probe(path)
        wanted = [
            min(int((max(n / plan.fps - piece.start_s, 0.0)) * info.fps), info.n_frames - 1)
            for n in range(number, end)
        ]
        frames = decode.moments(path, info, sorted(set(wanted)))
        at = -1
        shown_now: decode.Frame = np.empty(0)
        for n, moment in zip(range(number, end), wanted, strict=True):
            while at < moment:
                at, frame = next(frames)
                shown_now = cv2.resize(frame, plan.size, interpolation=cv2.INTER_AREA)
                shown_now = np.ascontiguousarray(shown_now[:, ::-1]) if piece.mirrored else shown_now
            yield lit(shown_now, plan.jumps, n / plan.fps)
        number = end


def lit(frame: decode.Frame, jumps: Sequence[Jump], time_s: float) -> decode.Frame:
    """The frame as it looks under the light of that moment."""
    for jump in jumps:
        if jump.start_s <= time_s < jump.end_s:
            return np.asarray(cv2.LUT(frame, _curve(jump)))
    return frame


def _curve(jump: Jump) -> np.ndarray:
    return np.clip(np.arange(256) * jump.gain + jump.offset, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    cli.run_main(main)
