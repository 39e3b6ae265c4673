"""Recordings with fights at known times, made of clips that a model was not trained on, for bench_recordings.py.

    python benchmarks/make_recordings.py --data-root DATA --models MODEL --parts 2 --quiet QUIET --output recordings
    python benchmarks/make_recordings.py --data-root DATA --models FOLD_0 FOLD_1 --quiet QUIET --output recordings

DATA/combined_all is what combine_all_datasets.py makes. Left out is every source with a clip that the model was
trained, selected or tuned on, or with a copy of one (evaluation/training_overlap.py). Sources are divided into parts,
and no two parts show the same source. With several models each has a part of its own, of sources that are new to it.

Each recording keeps to one data set: fights of 2 to 20 s, clips of one source each, among quiet scenes, also of one
source each. Videos below --quiet are a data set of their own, in which nobody fights; each folder there is a source.
Recordings differ in size, rate and quality; pictures are stretched to the size, as networks squeeze them anyway; light
jumps now and then; a scene may be mirrored.

Writes into --output the MP4 files, truth.csv (file, start_s, end_s of each fight), footage.csv (which clip is shown
when) and recordings.csv. Killed, or asked for more hours, the same command goes on where it was. The plan depends on
the clips and the seed alone. Prints one JSON line.
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

#: To be given another value whenever the same plan gives other pictures.
VERSION = 1
TRUTH = ("file", "start_s", "end_s", "dataset", "source")
FOOTAGE = ("file", "start_s", "end_s", "label", "dataset", "source", "clip")
RECORDINGS = ("file", "style", "part", "duration_s", "fights", "width", "height", "fps", "crf", "light_jumps")


def main(argv: Sequence[str] | None = None) -> int:
    p = cli.parser(__doc__)
    p.add_argument("--data-root", type=Path, required=True, help="with combined_all/manifest.csv")
    p.add_argument(
        "--models", type=Path, nargs="+", default=[], help="whose clips are not shown (default: any are)"
    )
    p.add_argument("--quiet", type=Path, help="folder with videos in which nobody fights")
    p.add_argument("--output", type=Path, required=True, help="folder of the recordings")
    p.add_argument("--hours", type=float, default=10.0, help="of all recordings together (default: 10)")
    p.add_argument("--minutes", type=float, default=12.0, help="of each recording (default: 12)")
    p.add_argument(
        "--fights-an-hour", type=float, default=30.0, help="in recordings with fights (default: 30)"
    )
    p.add_argument("--parts", type=int, help="of sources (default: one a model)")
    p.add_argument("--seed", type=int, default=0)
    args = cli.parse(p, argv)
    count = args.parts or max(len(args.models), 1)
    if len(args.models) > 1 and count != len(args.models):
        raise UserError("several models have a part each: leave --parts out")
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
    """Sources with a clip that the model was trained, selected or tuned on, or with a copy of one.

    Raises UserError where the model does not say all that it was trained on.
    """
    from violence_detection.combine import manifest
    from violence_detection.evaluation import training_overlap
    from violence_detection.models import shipped, trained_model

    combined = data_root / "combined_all"
    rows = manifest.read(combined)
    loaded = trained_model.load(shipped.find(model))
    trained_on, lost = training_overlap.known_clips(loaded)
    if lost or (trained_on.role == "").any():
        raise UserError(f"{model} does not say all that it was trained on. {lost}".strip())
    touched = training_overlap.compare(
        loaded, rows, storage.sha256_file(combined / manifest.FILE_NAME)
    ).by_clip
    return set(rows.source_group[rows.clip_id.isin(touched)])


def quiet_clips(folder: Path) -> tuple[list[Clip], list[dict[str, str]]]:
    """The videos below a folder as a data set of its name, and those that cannot be read."""
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


#: Begins the path of a clip that lies below --quiet.
_QUIET = "quiet"


def divided(
    clips: Sequence[Clip], known: Sequence[Collection[str]], parts: int, seed: int
) -> list[list[Clip]]:
    """The clips in parts by source. `known`: of each part, or of all, the sources that it may not show.

    What may be shown in every part is divided so that each has its share of every data set and class; what may be shown
    in one alone is there, with all of its data set that no other part alone may show: data sets that were left out of a
    training. A data set without a quiet clip in a part is not shown there. Raises UserError where too few sources are
    left.
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
            "the models were trained on every source, or on copies of their clips: none is left to show"
        )
    return found


def _with_quiet(clips: Sequence[Clip]) -> list[Clip]:
    """The clips of the data sets that have a quiet one."""
    calm = {c.dataset for c in clips if not c.is_fight}
    if without := sorted({c.dataset for c in clips} - calm):
        log.warning("no recordings of %s in one part: of it no quiet clip is left", ", ".join(without))
    return [c for c in clips if c.dataset in calm]


def shown(quiet: Stock, fights: Stock | None) -> dict[str, Any]:
    """Of a data set: its clips of both kinds, how often each was shown, and repeats in a recording."""

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
    """truth.csv, footage.csv and recordings.csv."""
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
    """Write a recording, unless the file is there that the same plan gave."""
    made_by = storage.stable_hash([VERSION, asdict(plan)], 32)
    if writer.comment_of(path) == made_by:
        return
    # ultrafast: a camera's own encoder does not try harder, and it takes a third of the time
    with (
        storage.atomic_path(path) as temporary,
        writer.h264(temporary, plan.fps, made_by, plan.crf, "ultrafast") as put,
    ):
        for frame in pictures(plan, data_root, quiet):
            put(frame)
    log.info("made: %s, %.1f min, %d fights", path.name, plan.duration_s / 60, len(plan.fights))


def pictures(plan: Plan, data_root: Path, quiet: Path | None) -> Iterator[decode.Frame]:
    """The recording's frames, (height, width, 3) uint8 RGB, `plan.fps` a second."""
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
    """The picture as the light is at a moment."""
    for jump in jumps:
        if jump.start_s <= time_s < jump.end_s:
            return np.asarray(cv2.LUT(frame, _curve(jump)))
    return frame


def _curve(jump: Jump) -> np.ndarray:
    return np.clip(np.arange(256) * jump.gain + jump.offset, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    cli.run_main(main)
