"""Find near-duplicate clips: candidates from a nearest-neighbour index (faiss), then an exact comparison.

All values compared are whole numbers, so the result depends neither on the machine nor on the order of the clips.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from violence_detection.combine import fingerprint
from violence_detection.datasets import source_groups

if TYPE_CHECKING:
    import faiss

#: Largest distances at which `compare` joins two clips, measured by benchmarks/bench_fingerprint.py on 1,277 real
#: clips. Scene plus motion distance of a copy: unrelated clips start at 0.75, two moments of an almost still camera at
#: 0.30.
SAME_CLIP = 0.28
#: Scene distance alone: two different rinks seen from the same angle start at 0.075.
SAME_SCENE = 0.05
#: Scene plus motion distance of a copy that starts later: two different still scenes start at 0.22.
SHIFTED_COPY = 0.2
#: Motion energy below this fraction of a clip's energy counts as coding noise.
MOTION_FLOOR = 1e-4

#: Frames of a clip that one vector of the index covers, and the fewest common frames that prove a shifted copy.
_WINDOW = 4
_MAX_SHIFT = fingerprint.N_FRAMES - _WINDOW
#: Fewest common frames for which motion is compared.
_MIN_COMMON = 3
#: Number of lowest frequencies of the motion in the index; with all 24 its cells become uneven.
_INDEXED_CHANGES = 8
#: Neighbours retrieved for each vector.
_NEIGHBOURS = 16
#: Average number of clips per cell of the index.
_CELL = 64
#: Cells searched for each vector, and for each vector of a later window.
_PROBES, _PROBES_SHIFTED = 8, 4
#: Squared distances in the index, in units of _UNIT squared, beyond which (almost) no pair passes the exact comparison.
_NEAR_PICTURE, _NEAR_COPY, _NEAR_SHIFTED = 0.25, 1.2, 1.0
#: Length of the vectors in the index.
_UNIT = 100.0
#: Clips or pairs per step, so that temporary arrays stay below 1 MB and in the processor's caches.
_CHUNK = 500
#: Clips per call of the index, which prepares its cell centres again in every call.
_QUERIES = 20_000

_Vectors = Callable[[np.ndarray], np.ndarray]  # positions of clips -> their vectors, (n, width) float32


@dataclass(frozen=True, order=True)
class Pair:
    """Two clips at positions i < j that are copies or share footage.

    `same_clip`: one is an altered copy of the other; otherwise they share footage. `mirrored`: they share footage, and
    one is a mirrored copy of the other (left and right swapped). `distance`: as measured by the rule that joined them;
    0 means equal, and every rule has its own limit.
    """

    i: int
    j: int
    same_clip: bool
    distance: float
    mirrored: bool = False


def find_pairs(fingerprints: Sequence[str]) -> list[Pair]:
    """Find the pairs of clips that are copies of each other or share footage, sorted by position.

    Same clip: alike from the start, in picture and motion. Shared footage: the same scene (two moments of a fixed
    camera); a copy that starts up to 0.8 s later, found most reliably at multiples of 0.2 s; or a mirrored copy, with
    or without such a shift. In a large family each member is paired with some of the others, not all, and clips with
    equal fingerprints form a chain; `clusters` joins them. Clips with an empty fingerprint (no texture) are in no pair.
    Raises ValueError if a text is not a fingerprint.
    """
    texts, members = _group_equal(fingerprints)
    pairs = [Pair(a, b, True, 0.0) for group in members for a, b in itertools.pairwise(group)]
    frames, counts = fingerprint.to_arrays(texts)
    for pair in _joined(frames, counts, *_candidates(frames, counts)):
        i, j = sorted((members[pair.i][0], members[pair.j][0]))
        pairs.append(replace(pair, i=i, j=j))
    return sorted(pairs)


def compare_pairs(fingerprints: Sequence[str], of: Sequence[tuple[int, int]]) -> list[Pair]:
    """Compare the given pairs of positions i < j; return, sorted, those that `find_pairs` would join.

    Unlike `find_pairs`, it needs no search, so no pair is missed. Raises ValueError if a text is not a fingerprint.
    """
    told = [pair for pair in of if all(fingerprints[k] for k in pair)]
    pairs = [Pair(i, j, True, 0.0) for i, j in told if fingerprints[i] == fingerprints[j]]
    others = [sorted(pair, key=lambda k: fingerprints[k]) for pair in told]
    rows = [pair for pair in others if fingerprints[pair[0]] != fingerprints[pair[1]]]
    if rows:
        ends = np.array(rows, np.int64)
        for found in _joined(*fingerprint.to_arrays(fingerprints), ends, ends):
            i, j = sorted((found.i, found.j))
            pairs.append(replace(found, i=i, j=j))
    return sorted(pairs)


def joined_with_any(fingerprints: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Tell for each of the others whether `compare_pairs` joins it with any of the fingerprints: (others,) bool.

    No text may be empty. All are compared with all by matrix products, whose sums of whole numbers are exact, so the
    answer is the same. Raises ValueError if a text is not a fingerprint.
    """
    order = np.unique([*fingerprints, *others], return_inverse=True)[1].reshape(-1)
    frames, counts = fingerprint.to_arrays([*fingerprints, *others])
    n, found = len(fingerprints), np.zeros(len(order), bool)
    sides = [[np.flatnonzero(counts[side] == k) for k in np.unique(counts[side])] for side in np.s_[:n, n:]]
    for alike, others_alike in itertools.product(*sides):
        for a, b in itertools.product(_chunks(alike), _chunks(others_alike + n)):
            if len(b := b[~found[b]]):
                ahead = order[a][:, None] - order[b]
                joined = _all_joined(frames[a], frames[b], int(counts[a[0]]), int(counts[b[0]]), ahead < 0)
                found[b] = (joined | (ahead == 0)).any(axis=0)
    return found[n:]


def neighbours(fingerprints: Iterable[str]) -> dict[str, dict[str, Pair]]:
    """Map each distinct non-empty fingerprint to those it is paired with, and these to the Pair.

    A Pair's positions are those in the sorted list of the distinct fingerprints.
    """
    texts = sorted(set(fingerprints) - {""})
    found: dict[str, dict[str, Pair]] = {text: {} for text in texts}
    for pair in find_pairs(texts):
        found[texts[pair.i]][texts[pair.j]] = found[texts[pair.j]][texts[pair.i]] = pair
    return found


def families(near: Mapping[str, Mapping[str, Pair]]) -> dict[str, int]:
    """Map each fingerprint of `neighbours` to the number of its family: all that chains of pairs connect it with.

    `neighbours` has only some of the pairs of a large family; `compare_pairs` can test the others.
    """
    at = {text: k for k, text in enumerate(near)}
    pairs = [(at[a], at[b]) for a, others in near.items() for b in others]
    return dict(zip(at, source_groups.connected(len(at), pairs), strict=True))


def _joined(frames: np.ndarray, counts: np.ndarray, rows: np.ndarray, mirrored: np.ndarray) -> Iterable[Pair]:
    """Compare the pairs in `rows`, (pairs, 2), as they are, and those in `mirrored`, (pairs, 2), with one mirrored.

    Returns the pairs that are copies or share footage, each once. For a pair that is joined both ways, `distance` is
    that of the unmirrored comparison.
    """
    found: dict[tuple[int, int], Pair] = {}
    for pairs, in_a_mirror in ((rows, False), (mirrored, True)):
        for chunk in _chunks(pairs):
            a, b = chunk.T
            other = fingerprint.mirrored(frames[b]) if in_a_mirror else frames[b]
            joined, same_clip, distances = compare(frames[a], counts[a], other, counts[b], not in_a_mirror)
            for k in np.flatnonzero(joined):
                ends, copy = (int(a[k]), int(b[k])), bool(same_clip[k])
                distance = round(float(distances[k]), 6)
                pair = found.setdefault(ends, Pair(*ends, copy and not in_a_mirror, distance))
                if copy and not pair.same_clip:
                    found[ends] = replace(pair, mirrored=True)
    return found.values()


def compare(
    a: np.ndarray, count_a: np.ndarray, b: np.ndarray, count_b: np.ndarray, scenes: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare clips pairwise. a, b: (pairs, 8, 24) whole numbers; counts: (pairs,) number of real frames.

    Without `scenes`, the same scene alone does not join two clips: it is for mirrored clips, as a place may look like
    its mirror image. Returns three arrays (pairs,): joined bool, same_clip bool, and the distance by the rule that
    joined them.
    """
    scene, motion, common = distances(a, count_a, b, count_b, 0)
    copy = np.where(common >= _MIN_COMMON, scene + motion, np.inf)
    same_clip = copy <= SAME_CLIP
    shifted = np.full(len(a), np.inf)
    rest = np.flatnonzero(~same_clip)
    a, count_a, b, count_b = a[rest], count_a[rest], b[rest], count_b[rest]
    for shift in (s for s in range(-_MAX_SHIFT, _MAX_SHIFT + 1) if s):
        s, m, n = distances(a, count_a, b, count_b, shift)
        shifted[rest] = np.minimum(shifted[rest], np.where(n >= _WINDOW, s + m, np.inf))
    by_shift = shifted <= SHIFTED_COPY
    by_scene = scenes & (scene <= SAME_SCENE)
    joined = same_clip | by_scene | by_shift
    return joined, same_clip, np.where(same_clip, copy, np.where(by_scene, scene, shifted))


def _all_joined(a: np.ndarray, b: np.ndarray, count_a: int, count_b: int, before: np.ndarray) -> np.ndarray:
    """Tell which clips a (n, 8, 24) `compare` joins with which b (m, 8, 24), mirrored or not: (n, m) bool.

    `before`, (n, m) bool: where the clip of a is the first of its pair. The order changes the last digits of a motion
    distance, so it has to be that of `compare_pairs`.
    """
    joined = np.zeros(before.shape, bool)
    for other in (b, fingerprint.mirrored(b)):
        scene, motion, common = _all_distances(a, other, count_a, count_b, 0)
        behind = _all_distances(other, a, count_b, count_a, 0)[1].T
        if common >= _MIN_COMMON:
            joined |= scene + np.where(before, motion, behind) <= SAME_CLIP
        if other is b:
            joined |= scene <= SAME_SCENE
        for shift in range(1, _MAX_SHIFT + 1):
            for ends, turned in (((a, other, count_a, count_b), False), ((other, a, count_b, count_a), True)):
                scene, motion, common = _all_distances(*ends, shift)
                if common >= _WINDOW:
                    copy = scene + motion <= SHIFTED_COPY
                    joined |= copy.T if turned else copy
    return joined


def _all_distances(
    a: np.ndarray, b: np.ndarray, count_a: int, count_b: int, shift: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """`distances` between all clips a (n, 8, 24) and all b (m, 8, 24), which have `count_a` and `count_b` real frames.

    `shift` is at least 0. Returns scene and motion distances, (n, m) each, and the number of common frames.
    """
    common = max(min(count_a - shift, count_b), 0)
    a, b = (x.astype(np.float64) for x in (a[:, shift : shift + common], b[:, :common]))
    flat = [x.reshape(len(x), -1) for x in (a, b, np.diff(a, axis=1), np.diff(b, axis=1))]
    cross, move_cross = flat[0] @ flat[1].T, flat[2] @ flat[3].T
    energies = [(x**2).sum(axis=1) for x in flat]
    lit = (energies[0][:, None] > 0) & (energies[1] > 0)
    scene, motion = _scene_and_motion(
        cross, energies[0][:, None], energies[1], move_cross, energies[2][:, None], energies[3]
    )
    return np.where(lit, scene, np.inf), np.where(lit, motion, np.inf), common


def clusters(n: int, pairs: Sequence[Pair]) -> list[int]:
    """Return for each of n clips the smallest position in its cluster (connected component of the pairs)."""
    return source_groups.connected(n, [(pair.i, pair.j) for pair in pairs])


def distances(
    a: np.ndarray, count_a: np.ndarray, b: np.ndarray, count_b: np.ndarray, shift: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scene and motion distances if frame k of b corresponds to frame k + shift of a, and the number of common frames.

    All are (pairs,); the distances are float64, infinite where a clip has no common frame that is not black. Scene:
    1 - cosine over all common frames. Motion: squared difference of the frame-to-frame changes divided by their energy
    (0 equal, 1 unrelated), after scaling both clips to the same contrast.
    """
    if shift < 0:
        a, count_a, b, count_b, shift = b, count_b, a, count_a, -shift
    a, b = a[:, shift:].astype(np.float64), b[:, : b.shape[1] - shift].astype(np.float64)
    common = np.clip(np.minimum(count_a - shift, count_b), 0, None)
    real = np.arange(a.shape[1]) < common[:, None]  # (pairs, frames)
    cross, energy_a, energy_b = _products(a, b, real)
    move_cross, move_a, move_b = _products(np.diff(a, axis=1), np.diff(b, axis=1), real[:, 1:])
    scene, motion = _scene_and_motion(cross, energy_a, energy_b, move_cross, move_a, move_b)
    # the common frames may be black, as a clip may begin
    lit = (common > 0) & (energy_a > 0) & (energy_b > 0)
    return np.where(lit, scene, np.inf), np.where(lit, motion, np.inf), common


def _scene_and_motion(
    cross: np.ndarray,
    energy_a: np.ndarray,
    energy_b: np.ndarray,
    move_cross: np.ndarray,
    move_a: np.ndarray,
    move_b: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the two distances from sums over the common frames; NaN where a clip has no energy."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scene = 1 - cross / np.sqrt(energy_a * energy_b)
        gain = np.sqrt(energy_a / energy_b)
        total = move_a + move_b * gain**2
        motion = (total - 2 * move_cross * gain) / (total + 2 * MOTION_FLOOR * energy_a)
    return scene, motion


def _products(a: np.ndarray, b: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of a * b, a * a and b * b over the real frames; exact, because all are whole numbers below 2**53."""
    a, b = a * real[:, :, None], b * real[:, :, None]
    return np.einsum("pfc,pfc->p", a, b), np.einsum("pfc,pfc->p", a, a), np.einsum("pfc,pfc->p", b, b)


def _group_equal(fingerprints: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Return the distinct non-empty fingerprints, sorted, and for each the positions at which it occurs."""
    groups: dict[str, list[int]] = {}
    for position, text in enumerate(fingerprints):
        if text:
            groups.setdefault(text, []).append(position)
    ordered = sorted(groups)
    return ordered, [groups[t] for t in ordered]


def _candidates(frames: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs worth comparing, and those worth comparing mirrored: (pairs, 2) each, a < b, sorted.

    One index contains the mean pictures and finds scenes. The other contains the picture and motion of the first frames
    and finds copies: the first frames of each clip are looked up in it, its later windows (for copies that start
    later), and the mirror images of all of these.
    """
    if len(frames) < 2:
        return np.zeros((0, 2), np.int64), np.zeros((0, 2), np.int64)
    everyone = np.arange(len(frames))

    def pictures(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([_pictures(frames[chunk]) for chunk in _chunks(rows)])

    def windows(rows: np.ndarray, shift: int = 0) -> np.ndarray:
        return np.concatenate([_windows(frames[chunk], shift) for chunk in _chunks(rows)])

    def in_a_mirror(rows: np.ndarray, shift: int = 0) -> np.ndarray:
        return np.concatenate(
            [_windows(fingerprint.mirrored(frames[chunk]), shift) for chunk in _chunks(rows)]
        )

    index = _index(windows, everyone)
    found = []
    for vectors in (windows, in_a_mirror):
        keys = [_near(index, vectors, everyone, _NEAR_COPY, _PROBES)]
        for shift in range(1, _MAX_SHIFT + 1):
            later = np.flatnonzero(counts >= shift + _WINDOW)
            keys.append(_near(index, partial(vectors, shift=shift), later, _NEAR_SHIFTED, _PROBES_SHIFTED))
        found.append(keys)
    found[0].append(_near(_index(pictures, everyone), pictures, everyone, _NEAR_PICTURE, _PROBES))
    plain, mirrored = (np.unique(np.concatenate(keys)) for keys in found)
    return _ends(plain), _ends(mirrored)


def _ends(keys: np.ndarray) -> np.ndarray:
    """Unpack the pairs (pairs, 2) that `_near` returns as one number each."""
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1)


def _index(vectors_of: _Vectors, rows: np.ndarray) -> faiss.IndexIVFScalarQuantizer:
    """Build an inverted-file index of the clips `rows`, whose cell centres are a fixed sample of the vectors.

    Unlike centres from k-means, sampled whole numbers keep every distance exact, so the cells are the same on any
    machine. The number of cells grows with that of the vectors, so the time of a look-up does not. All centres are
    scaled to one length: a short one (a clip that hardly moves) is near everything, and its cell would get twenty times
    its share.
    """
    import faiss

    n_cells = max(1, len(rows) // _CELL)
    sample = np.sort(np.random.default_rng(0).choice(rows, n_cells, replace=False))
    sampled = vectors_of(sample).astype(np.float64)
    centres = faiss.IndexFlatL2(sampled.shape[1])
    centres.add(np.rint(_unit(sampled) * np.sqrt(np.max((sampled**2).sum(axis=1)))).astype(np.float32))
    as_int8 = faiss.ScalarQuantizer.QT_8bit_direct_signed  # exact: the vectors are whole numbers below 128
    index = faiss.IndexIVFScalarQuantizer(centres, centres.d, n_cells, as_int8, faiss.METRIC_L2, False)
    index.train(sampled[:1].astype(np.float32))  # required by faiss; the centres are already set
    for chunk in _chunks(rows, _QUERIES):
        index.add(vectors_of(chunk))
    return index


def _near(
    index: faiss.IndexIVFScalarQuantizer, vectors_of: _Vectors, rows: np.ndarray, limit: float, probes: int
) -> np.ndarray:
    """Look up the vectors of the clips `rows`; return neighbours within a squared distance of `limit` * _UNIT**2.

    Each pair a < b is one number, (a << 32) + b; a pair may occur twice.
    """
    index.nprobe = min(probes, index.nlist)
    keys = [np.zeros(0, np.int64)]
    for chunk in _chunks(rows, _QUERIES):
        own = chunk[:, None]
        squared, ids = index.search(vectors_of(chunk), min(_NEIGHBOURS + 1, index.ntotal))
        near = (ids >= 0) & (squared <= limit * _UNIT**2) & (ids != own)
        a, b = np.broadcast_to(own, ids.shape)[near], ids[near]
        keys.append((np.minimum(a, b) << 32) + np.maximum(a, b))
    return np.concatenate(keys)


def _chunks(rows: np.ndarray, size: int = _CHUNK) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _pictures(frames: np.ndarray) -> np.ndarray:
    """The mean picture of each clip, (n, 24) float32 whole numbers, of length _UNIT."""
    return np.rint(_unit(frames.mean(axis=1)) * _UNIT).astype(np.float32)


def _windows(frames: np.ndarray, shift: int) -> np.ndarray:
    """Vectors of _WINDOW frames of each clip, from frame `shift` on: (n, 48) float32 whole numbers.

    They consist of the mean picture and the frame-to-frame changes, each of about length _UNIT, so that squared
    distances approximate scene plus motion, the distance of `compare`.
    """
    window = frames[:, shift : shift + _WINDOW].astype(np.float64)
    changes = np.diff(window[:, :, :_INDEXED_CHANGES], axis=1).reshape(len(window), -1)
    noise = MOTION_FLOOR * (window**2).sum(axis=(1, 2))
    parts = _unit(window.mean(axis=1)), _unit(changes, noise)
    return np.rint(np.hstack(parts) * _UNIT).astype(np.float32)


def _unit(rows: np.ndarray, noise: np.ndarray | float = 0.0) -> np.ndarray:
    """Scale rows (n, width) to length 1, or to less where the squared length is not well above the `noise` (n,)."""
    return rows / np.sqrt(np.maximum((rows**2).sum(axis=1) + noise, 1.0))[:, None]
