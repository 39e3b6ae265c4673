"""Measure how well altered copies of real clips are found, how often unrelated clips are paired, and what it costs.

    python benchmarks/bench_fingerprint.py --clips DIR --limit 200 --seed 0

DIR contains one folder per data set (or `raw/` with them) and, if the sources are known, sources.csv (path, dataset,
source_group). Source groups are dealt into two halves: a limit for the copy distance is chosen on the first half and
tested on the second. Prints one JSON line; pairs between source groups are logged to stderr for inspection. Takes about
10 min for 200 clips on 2 cores.

    second half, with the shipped limits: `recall`, `recall_as_same_clip`, `recall_by_kind`, `false_pair_rate`, for
        `clips_reported_on` clips, of which `altered_reported_on` were altered
    second half: `recall_of_chosen_threshold`, `nearest_unrelated_second_half`
    first half: `threshold_chosen_on_first_half`, `nearest_unrelated_first_half`, `recall_first_half_of_threshold`
    all clips: `..._all_originals`, `pairs_between_groups`
    all altered clips: `second_looks`, `confirmed_by_second_look`, `..._clips_per_cpu_s`, `fingerprint_over_decode_rate`
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np

from benchmarks import alterations
from violence_detection.combine import duplicates, fingerprint, second_look
from violence_detection.system import storage
from violence_detection.video import decode
from violence_detection.video.video_files import VideoSearch

log = logging.getLogger("bench_fingerprint")
#: The limit is this fraction of the distance between the nearest unrelated clips of the first half.
MARGIN = 0.85
#: Families of clips that have different published sources but show, as inspection has found, the same footage, or the
#: same scene from the same camera: data set, prefix of the file names, and inclusive ranges of the numbers after it.
SEEN_RELATED: tuple[tuple[str, str, tuple[tuple[int, int], ...]], ...] = (
    ("hockey_fights", "no", ((123, 123), (136, 136))),
    ("surveillance_fight", "nofi", ((62, 68),)),
    ("surveillance_fight", "nofi", ((69, 76),)),
    ("surveillance_fight", "nofi", ((77, 83),)),
    ("surveillance_fight", "nofi", ((84, 91),)),
    ("real_life_violence", "NV_", ((100, 260),)),  # one black-and-white show
    ("real_life_violence", "NV_", ((360, 450),)),  # one comedy series, one park
    ("real_life_violence", "NV_", ((38, 42), (301, 304))),  # one weightlifting stage
    ("real_life_violence", "NV_", ((724, 726),)),
)
#: Pairs of video ids that belong to the same video, as inspection has found.
SEEN_SAME_VIDEO = (
    ("SmxsnplMtb8", "n3yajhkWI6w"),
    ("vLOTaR9eMlg", "Ptvoh4L_FxY"),
    ("WL6AUKgOYSs", "9a616Ppoeak"),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--clips", type=Path, required=True, help="folder of real clips, with one folder per data set"
    )
    parser.add_argument("--limit", type=int, default=200, help="clips that are altered (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    log.addHandler(logging.StreamHandler(sys.stderr))
    log.setLevel(logging.INFO)
    root = args.clips / "raw" if (args.clips / "raw").is_dir() else args.clips
    paths = sorted(VideoSearch().below(root))
    if not paths:
        parser.error(f"no videos below {root}")
    names = [p.relative_to(root).as_posix() for p in paths]
    groups = source_groups(args.clips, names)
    chosen = draw_clips(names, args.limit, args.seed)
    with ProcessPoolExecutor(args.workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        rates = measure_rates(pool, [paths[i] for i in chosen])
        log.info("rates: %s", rates)
        originals = list(pool.map(fingerprint_of, paths, chunksize=8))
        jobs = [(paths[i], names[i], args.seed) for i in chosen]
        looked_at = dict(zip(chosen, pool.map(look_at_copies, jobs), strict=True))
    copies = {i: {kind: text for kind, (text, _) in kinds.items()} for i, kinds in looked_at.items()}
    confirmed = {i: {kind: same for kind, (_, same) in kinds.items()} for i, kinds in looked_at.items()}
    print(json.dumps({"clips": len(paths), "altered": len(chosen), "kinds": len(alterations.KINDS),
                      **evaluate(names, groups, originals, copies, args.seed),
                      **second_looks(originals, copies, confirmed), **rates}))  # fmt: skip
    return 0


def source_groups(clips: Path, names: list[str]) -> list[str]:
    """The source group of each clip if it is known, otherwise the clip's own name."""
    known: dict[str, str] = {}
    if (clips / "sources.csv").is_file():
        with (clips / "sources.csv").open(newline="", encoding="utf-8") as f:
            known = {
                r["path"].removeprefix("raw/"): f"{r['dataset']}/{r['source_group']}"
                for r in csv.DictReader(f)
            }
    return [known.get(name, name) for name in names]


def draw_clips(names: list[str], limit: int, seed: int) -> list[int]:
    """Draw `limit` clips, spread over the data sets as evenly as their sizes allow; return the positions."""
    queues: dict[str, list[int]] = {}
    for position in np.random.default_rng(seed).permutation(len(names)):
        queues.setdefault(names[position].split("/")[0], []).append(int(position))
    ranked = sorted((rank, dataset, i) for dataset, queue in queues.items() for rank, i in enumerate(queue))
    return sorted(i for _, _, i in ranked[:limit])


def fingerprint_of(path: Path) -> str:
    return fingerprint.of_video(path)[1]


def cpu_of_decoding(path: Path) -> float:
    started = time.process_time()
    decode.read(path, fingerprint.sample_plan)
    return time.process_time() - started


def cpu_of_fingerprinting(path: Path) -> float:
    started = time.process_time()
    fingerprint.of_video(path)
    return time.process_time() - started


def look_at_copies(job: tuple[Path, str, int]) -> dict[str, tuple[str, bool]]:
    """Write, fingerprint, compare and delete an altered copy of each kind of one clip.

    `job`: path, name and seed. Returns for each kind the copy's fingerprint, and whether a second look calls it a copy.
    """
    path, name, seed = job
    result = {}
    pictures = second_look.pictures(path)
    with tempfile.TemporaryDirectory() as folder:
        for kind in (*alterations.KINDS, *alterations.MIRRORED_KINDS):
            rng = np.random.default_rng(storage.stable_seed(seed, name, kind))
            copy = alterations.write(path, Path(folder) / kind, alterations.draw(kind, rng), rng)
            same = second_look.compare(pictures, second_look.pictures(copy)).same
            result[kind] = fingerprint_of(copy), same
            copy.unlink()
    return result


def second_looks(
    originals: list[str], copies: dict[int, dict[str, str]], confirmed: dict[int, dict[str, bool]]
) -> dict[str, object]:
    """The share of altered copies that a second look confirms, of those that fingerprints call copies."""
    found = [
        confirmed[i][kind]
        for i, texts in copies.items()
        for kind, text in texts.items()
        if any(pair.same_clip for pair in duplicates.find_pairs([originals[i], text]))
    ]
    return {"second_looks": len(found), "confirmed_by_second_look": round(float(np.mean(found)), 4)}


def measure_rates(pool: ProcessPoolExecutor, paths: list[Path]) -> dict[str, float]:
    """Clips per second of processor time, with all cores busy: decoded only, and fingerprinted from the same frames.

    The least processor time of three rounds counts, so that other work on the machine does not affect the comparison.
    """
    cpu_s = {"decode": np.inf, "fingerprint": np.inf}
    for _ in range(3):
        for key, work in (("decode", cpu_of_decoding), ("fingerprint", cpu_of_fingerprinting)):
            cpu_s[key] = min(cpu_s[key], sum(pool.map(work, paths, chunksize=4)))
    return {
        "decode_clips_per_cpu_s": round(len(paths) / cpu_s["decode"], 1),
        "fingerprint_clips_per_cpu_s": round(len(paths) / cpu_s["fingerprint"], 1),
        "fingerprint_over_decode_rate": round(cpu_s["decode"] / cpu_s["fingerprint"], 3),
    }


def evaluate(
    names: list[str], groups: list[str], originals: list[str], copies: dict[int, dict[str, str]], seed: int
) -> dict[str, object]:
    """Choose a limit on the first half; measure recall by kind and false pairs on the second with the shipped limits.

    `names`, `groups` and `originals` (fingerprints): of all clips. `copies`: position -> kind -> fingerprint.
    """
    first, second = halves(groups, seed)
    genuine = {h: np.array([d for i in map(int, rows) if i in copies for d in copy_distances(originals[i], copies[i])])
               for h, rows in (("first", first), ("second", second))}  # fmt: skip
    unrelated = nearest_unrelated(first, names, groups, originals)
    limit = round(MARGIN * unrelated, 3)
    recall, same, false_pairs = {}, {}, set()
    for kind in (*alterations.KINDS, *alterations.MIRRORED_KINDS):
        own = [int(i) for i in second if i in copies]
        texts = [originals[i] for i in second] + [copies[i][kind] for i in own]
        of_clip = [int(i) for i in second] + own
        pairs = duplicates.find_pairs(texts)
        hits = {
            of_clip[p.j]: p.same_clip for p in pairs if p.j >= len(second) and of_clip[p.i] == of_clip[p.j]
        }
        recall[kind], same[kind] = len(hits) / len(own), sum(hits.values()) / len(own)
        false_pairs |= {tuple(sorted((of_clip[p.i], of_clip[p.j]))) for p in pairs
                        if not related(of_clip[p.i], of_clip[p.j], names, groups)}  # fmt: skip
    for i, j in sorted(false_pairs):
        log.info("false pair: %s | %s", names[i], names[j])
    everywhere = duplicates.find_pairs(originals)
    for p in everywhere:
        if groups[p.i] != groups[p.j]:
            seen = "looked at" if related(p.i, p.j, names, groups) else "FALSE"
            log.info(
                "between groups (%s): %s | %s %s %.3f", seen, names[p.i], names[p.j], p.same_clip, p.distance
            )
    return {
        "clips_reported_on": len(second),
        "altered_reported_on": sum(1 for i in second if i in copies),
        "recall": round(float(np.mean([recall[kind] for kind in alterations.KINDS])), 4),
        "recall_as_same_clip": round(float(np.mean([same[kind] for kind in alterations.KINDS])), 4),
        "recall_by_kind": {k: round(v, 3) for k, v in recall.items()},
        "false_pair_rate": round(len(false_pairs) / len(second), 5),
        "false_pairs_all_originals": sum(not related(p.i, p.j, names, groups) for p in everywhere),
        "pairs_all_originals": len(everywhere),
        "pairs_between_groups": sum(groups[p.i] != groups[p.j] for p in everywhere),
        "threshold_chosen_on_first_half": limit,
        "nearest_unrelated_first_half": round(unrelated, 3),
        "nearest_unrelated_second_half": round(nearest_unrelated(second, names, groups, originals), 3),
        "recall_of_chosen_threshold": round(float((genuine["second"] <= limit).mean()), 4),
        "threshold": duplicates.SAME_CLIP,
        "recall_first_half_of_threshold": round(float((genuine["first"] <= duplicates.SAME_CLIP).mean()), 4),
    }


def halves(groups: list[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Deal the source groups of each data set into two halves at random; return the positions of the clips of each."""
    ranked = sorted(set(groups), key=lambda g: (g.split("/")[0], storage.stable_seed(seed, g)))
    half = {group: k % 2 for k, group in enumerate(ranked)}
    is_second = np.array([half[g] == 1 for g in groups])
    return np.flatnonzero(~is_second), np.flatnonzero(is_second)


def related(i: int, j: int, names: list[str], groups: list[str]) -> bool:
    """Whether two clips share a source, as published or as found by inspection."""
    if i == j or groups[i] == groups[j]:
        return True
    if any(
        (a in names[i] and b in names[j]) or (b in names[i] and a in names[j]) for a, b in SEEN_SAME_VIDEO
    ):
        return True
    return bool(families(names[i]) & families(names[j]))


def families(name: str) -> set[int]:
    """Positions of the families in SEEN_RELATED to which a clip belongs."""
    found = set()
    stem = Path(name).stem
    for k, (dataset, prefix, ranges) in enumerate(SEEN_RELATED):
        number = stem.removeprefix(prefix).split("_")[0]
        if name.startswith(dataset) and stem.startswith(prefix) and number.isdigit():
            found |= {k} if any(low <= int(number) <= high for low, high in ranges) else set()
    return found


def copy_distances(original: str, copies: dict[str, str]) -> list[float]:
    """Distance by the copy rule between a clip and each of its altered copies, without the mirrored ones."""
    plain = [text for kind, text in copies.items() if kind in alterations.KINDS]
    frames, counts = fingerprint.to_arrays([original, *plain])
    one = np.zeros(len(plain), np.int64)
    scene, motion, _ = duplicates.distances(frames[one], counts[one], frames[1:], counts[1:], 0)
    return list(scene + motion)


def nearest_unrelated(rows: np.ndarray, names: list[str], groups: list[str], originals: list[str]) -> float:
    """The smallest distance by the copy rule between two unrelated clips of `rows`, by comparing all pairs."""
    frames, counts = fingerprint.to_arrays([originals[i] for i in rows])
    best = np.inf
    for k in range(len(rows) - 1):
        rest = np.arange(k + 1, len(rows))
        same = np.full(len(rest), k)
        scene, motion, _ = duplicates.distances(frames[same], counts[same], frames[rest], counts[rest], 0)
        copy = scene + motion
        for m in np.flatnonzero(copy < best):
            if copy[m] < best and not related(int(rows[k]), int(rows[rest[m]]), names, groups):
                best = float(copy[m])
    return best


if __name__ == "__main__":
    sys.exit(main())
