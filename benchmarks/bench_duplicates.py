"""Measure time and memory to pair N fingerprints, and how many planted near duplicates are found.

    python benchmarks/bench_duplicates.py --n 100000

The fingerprints are synthetic, but distributed like those of real clips: many clips share one of a few looks (one rink,
one news channel), the spectrum is 1/f, motion ranges from almost none to panning, a fifth of the clips come from fixed
cameras (10 clips each), and a tenth are shorter than what a fingerprint covers. One in 20 is a planted copy of another,
changed as by re-encoding, a crop or a logo. Prints one JSON line. `seconds` and `cpu_seconds` are those of the pairing;
`peak_rss_mb` is that of the whole process, which also generates the fingerprints.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks import peak_memory
from violence_detection.combine import duplicates, fingerprint

#: Share of the fingerprints that are copies of others.
PLANTED_SHARE = 0.05
#: Share of the clips that come from fixed cameras, and clips of each camera.
CAMERA_SHARE, CAMERA_CLIPS = 0.2, 10
#: Number of looks, of which each clip has one.
N_LOOKS = 40
#: Share of the clips that have fewer frames than a fingerprint can describe.
SHORT_SHARE = 0.1
#: Fingerprints that are generated at a time.
_BLOCK = 10_000
_SHAPE = (fingerprint.N_FRAMES, fingerprint.N_COEFFICIENTS)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--n", type=int, default=100_000, help="number of fingerprints, including the planted copies"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    fingerprints, planted = synthetic(args.n, args.seed)
    started, cpu_started = time.perf_counter(), time.process_time()
    pairs = duplicates.find_pairs(fingerprints)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    found = {(p.i, p.j): p.same_clip for p in pairs}
    hits = [found[pair] for pair in planted if pair in found]
    print(json.dumps({
        "n": args.n, "pairs": len(pairs), "seconds": round(seconds, 2), "peak_rss_mb": peak_memory.of_this_mb(),
        "cpu_seconds": round(cpu_s, 2),
        "planted": len(planted), "planted_found": round(len(hits) / len(planted), 4),
        "planted_found_as_same_clip": round(sum(hits) / len(planted), 4),
        "planted_within_limits": round(within_limits(fingerprints, planted), 4),
    }))  # fmt: skip
    return 0


def synthetic(n: int, seed: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Generate n fingerprints in random order, and the pairs of positions i < j of which one is a copy of the other."""
    rng = np.random.default_rng(seed)
    n_planted = int(n * PLANTED_SHARE)
    n_original = n - n_planted
    looks = rng.normal(size=(N_LOOKS, _SHAPE[1]))
    texts: list[str] = []
    chosen = np.sort(rng.choice(n_original, n_planted, replace=False))
    copies: list[str] = []
    for start in range(0, n_original, _BLOCK):
        clips = originals(rng, looks, min(_BLOCK, n_original - start))
        lengths = np.where(rng.random(len(clips)) < SHORT_SHARE, rng.integers(5, 8, len(clips)), _SHAPE[0])
        texts += [fingerprint.encode(c[:k]) for c, k in zip(clips, lengths, strict=True)]
        here = chosen[(chosen >= start) & (chosen < start + len(clips))] - start
        changed = altered(rng, clips[here])
        keep = np.maximum(4, lengths[here] - rng.integers(0, 2, len(here)))
        copies += [fingerprint.encode(c[:k]) for c, k in zip(changed, keep, strict=True)]
    place = rng.permutation(n)
    result = [""] * n
    for position, text in zip(place, texts + copies, strict=True):
        result[position] = text
    pairs = [tuple(sorted((int(place[c]), int(place[n_original + k])))) for k, c in enumerate(chosen)]
    return result, [(a, b) for a, b in pairs]


def originals(rng: np.random.Generator, looks: np.ndarray, n: int) -> np.ndarray:
    """Generate spectra of n clips, unrelated or of fixed cameras: (n, 8, 24), in levels of luma."""
    scene = 0.6 * looks[rng.integers(len(looks), size=n)] + 0.8 * rng.normal(size=(n, _SHAPE[1]))
    at_cameras = int(n * CAMERA_SHARE) // CAMERA_CLIPS * CAMERA_CLIPS
    cameras = np.repeat(scene[: at_cameras // CAMERA_CLIPS], CAMERA_CLIPS, axis=0)
    scene[:at_cameras] = cameras + 0.05 * rng.normal(size=cameras.shape)
    moves = rng.normal(size=(n, *_SHAPE))
    moves[:, 1:] = 0.6 * moves[:, :-1] + 0.8 * moves[:, 1:]  # motion is correlated from frame to frame
    strength = np.exp(rng.normal(np.log(0.15), 1.0, size=(n, 1, 1)))
    path = np.cumsum(moves * np.minimum(strength, 1.0), axis=1) * 0.7
    contrast = np.exp(rng.normal(np.log(8.0), 0.4, size=(n, 1, 1)))
    return (scene[:, None] + path) * contrast / fingerprint.frequency_weights()


def altered(rng: np.random.Generator, clips: np.ndarray) -> np.ndarray:
    """Copy clips (n, 8, 24) with a change that all frames share (crop, logo), noise in each frame, another contrast."""
    n = len(clips)
    weights = fingerprint.frequency_weights()
    level = np.sqrt(((clips * weights) ** 2).mean(axis=(1, 2), keepdims=True))
    motion = np.sqrt((np.diff(clips * weights, axis=1) ** 2).mean(axis=(1, 2), keepdims=True))
    shared = np.minimum(np.exp(rng.normal(np.log(0.15), 0.8, size=(n, 1, 1))), 0.7)
    single = np.minimum(np.exp(rng.normal(np.log(0.1), 0.6, size=(n, 1, 1))), 0.4)
    change = (
        rng.normal(size=(n, 1, _SHAPE[1])) * shared * level
        + rng.normal(size=clips.shape) * single * motion / 2
    )
    return (clips + change / weights) * rng.uniform(0.7, 1.3, size=(n, 1, 1))


def within_limits(fingerprints: list[str], planted: list[tuple[int, int]]) -> float:
    """Share of the planted pairs that a comparison of all pairs would join: the most that the index can find."""
    frames, counts = fingerprint.to_arrays([fingerprints[k] for pair in planted for k in pair])
    joined, _, _ = duplicates.compare(frames[::2], counts[::2], frames[1::2], counts[1::2])
    return float(joined.mean())


if __name__ == "__main__":
    sys.exit(main())
