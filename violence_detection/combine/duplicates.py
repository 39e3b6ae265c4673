"""Near-duplicate clips: candidates from a nearest-neighbour index (faiss), then an exact comparison.

Everything compared is a whole number, so neither the machine nor the order of the clips changes a result.
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

#: Limits of the distances of `compare`, measured by benchmarks/bench_fingerprint.py on 1,277 real clips.
SAME_CLIP = 0.28  # unrelated clips begin at 0.75, two moments of an almost still camera at 0.30
SAME_SCENE = 0.05  # two different rinks seen from the same angle begin at 0.075
SHIFTED_COPY = 0.2  # two different still scenes begin at 0.22
#: Motion below this part of a clip's contrast is coding noise.
MOTION_FLOOR = 1e-4

_WINDOW = 4  # frames that stand in the index, and the fewest that tell a shifted copy
_MAX_SHIFT = fingerprint.N_FRAMES - _WINDOW
_MIN_COMMON = 3  # frames without which no motion can be compared
_INDEXED_CHANGES = 8  # lowest frequencies of the motion in the index; with all 24 its cells grow uneven
_NEIGHBOURS = 16
_CELL = 64  # clips in a cell of the index, on average
_PROBES, _PROBES_SHIFTED = 8, 4  # cells looked into
#: Squared distances in the index beyond which (nearly) nothing passes the exact comparison.
_NEAR_PICTURE, _NEAR_COPY, _NEAR_SHIFTED = 0.25, 1.2, 1.0
_UNIT = 100.0  # length of the vectors in the index
#: Clips or pairs at a time: temporary arrays of less than 1 MB stay in the processor's caches.
_CHUNK = 500
#: Clips in one call of the index, which prepares its cell centres anew in each.
_QUERIES = 20_000

_Vectors = Callable[[np.ndarray], np.ndarray]  # positions of clips -> their vectors, (n, width) float32


@dataclass(frozen=True, order=True)
class Pair:
    """Two clips, positions i < j. `same_clip`: one is an altered copy of the other, else they share footage.

    `mirrored`: they share footage, and one is a copy of the other with left and right changed over.
    `distance` is that of the rule that joined them: 0 is equal, each rule has its own limit.
    """

    i: int
    j: int
    same_clip: bool
    distance: float
    mirrored: bool = False


def find_pairs(fingerprints: Sequence[str]) -> list[Pair]:
    """Pairs of clips that are copies of each other or share footage, sorted by position.

    Same clip: alike from the start on, in picture and motion. Shared footage: the same scene (two moments of a fixed
    camera), or a copy that starts up to 0.8 s later, most surely by a multiple of 0.2 s, or one of which left and right
    were changed over, begun at once or later. Of a large family every member is paired with some, not with all, and
    clips with equal fingerprints are chained: `clusters` joins them. Clips whose fingerprint is empty (no texture) pair
    with nothing. Raises ValueError for text that is no fingerprint.
    """
    texts, members = _group_equal(fingerprints)
    pairs = [Pair(a, b, True, 0.0) for group in members for a, b in itertools.pairwise(group)]
    frames, counts = fingerprint.to_arrays(texts)
    for pair in _joined(frames, counts, *_candidates(frames, counts)):
        i, j = sorted((members[pair.i][0], members[pair.j][0]))
        pairs.append(replace(pair, i=i, j=j))
    return sorted(pairs)


def compare_pairs(fingerprints: Sequence[str], of: Sequence[tuple[int, int]]) -> list[Pair]:
    """Those of the pairs of positions i < j that `find_pairs` would join if it looked at them, sorted."""
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
    """Of each of the others whether `compare_pairs` joins it with one of the fingerprints, (others,) bool; none empty.

    All against all, whose sums are products of matrices: of whole numbers, so they are the same. Raises ValueError.
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
    """Each distinct fingerprint -> the others that it makes a pair with, and the pair; the empty one is left out."""
    texts = sorted(set(fingerprints) - {""})
    found: dict[str, dict[str, Pair]] = {text: {} for text in texts}
    for pair in find_pairs(texts):
        found[texts[pair.i]][texts[pair.j]] = found[texts[pair.j]][texts[pair.i]] = pair
    return found


def families(near: Mapping[str, Mapping[str, Pair]]) -> dict[str, int]:
    """Each fingerprint of `neighbours` -> a number that it shares with those that chains of pairs join it with.

    Of a large family `neighbours` has some of the pairs only; `compare_pairs` tells of the others.
    """
    at = {text: k for k, text in enumerate(near)}
    pairs = [(at[a], at[b]) for a, others in near.items() for b in others]
    return dict(zip(at, source_groups.connected(len(at), pairs), strict=True))


def _joined(frames: np.ndarray, counts: np.ndarray, rows: np.ndarray, mirrored: np.ndarray) -> Iterable[Pair]:
    """Those of the pairs of rows, (pairs, 2), that are copies or share footage; of `mirrored`, (pairs, 2), as a mirror.

    Each pair once, by the pictures as they are where they join it.
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
    """Compare clips pairwise. a, b: (pairs, 8, 24) whole numbers; counts: (pairs,) frames that are real.

    Without `scenes` the same scene alone joins nothing: places may be like their mirror images.
    Returns (pairs,) each: joined bool, same_clip bool, and the distance of the rule that joined them.
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
    """What `compare` joins of all clips a (n, 8, 24) with all b (m, 8, 24), or a mirror of them: (n, m) bool.

    `before`: where a clip of a is the first of a pair, (n, m) bool; which is tells the last digits of a motion.
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
    """`distances` of all clips a (n, 8, 24) from all b (m, 8, 24), of these numbers of frames: (n, m) each."""
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
    """Connected components: for each of n clips the smallest position in its cluster."""
    return source_groups.connected(n, [(pair.i, pair.j) for pair in pairs])


def distances(
    a: np.ndarray, count_a: np.ndarray, b: np.ndarray, count_b: np.ndarray, shift: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scene and motion distance where frame k of b is frame k + shift of a; (pairs,) float64, and common frames.

    Scene: 1 - cosine of all frames. Motion: squared difference of the frame-to-frame changes over their energy
    (0 equal, 1 unrelated), once both clips have the same contrast.
    """
    if shift < 0:
        a, count_a, b, count_b, shift = b, count_b, a, count_a, -shift
    a, b = a[:, shift:].astype(np.float64), b[:, : b.shape[1] - shift].astype(np.float64)
    common = np.clip(np.minimum(count_a - shift, count_b), 0, None)
    real = np.arange(a.shape[1]) < common[:, None]  # (pairs, frames)
    cross, energy_a, energy_b = _products(a, b, real)
    move_cross, move_a, move_b = _products(np.diff(a, axis=1), np.diff(b, axis=1), real[:, 1:])
    scene, motion = _scene_and_motion(cross, energy_a, energy_b, move_cross, move_a, move_b)
    lit = (common > 0) & (energy_a > 0) & (energy_b > 0)  # a clip may begin black
    return np.where(lit, scene, np.inf), np.where(lit, motion, np.inf), common


def _scene_and_motion(
    cross: np.ndarray,
    energy_a: np.ndarray,
    energy_b: np.ndarray,
    move_cross: np.ndarray,
    move_a: np.ndarray,
    move_b: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The two distances by the sums over common frames; no number where nothing is lit."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scene = 1 - cross / np.sqrt(energy_a * energy_b)
        gain = np.sqrt(energy_a / energy_b)
        total = move_a + move_b * gain**2
        motion = (total - 2 * move_cross * gain) / (total + 2 * MOTION_FLOOR * energy_a)
    return scene, motion


def _products(a: np.ndarray, b: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of a * b, a * a and b * b over the real frames; exact, for they are whole numbers below 2**53."""
    a, b = a * real[:, :, None], b * real[:, :, None]
    return np.einsum("pfc,pfc->p", a, b), np.einsum("pfc,pfc->p", a, a), np.einsum("pfc,pfc->p", b, b)


def _group_equal(fingerprints: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Distinct non-empty fingerprints in the order of their text, and the positions that have each."""
    groups: dict[str, list[int]] = {}
    for position, text in enumerate(fingerprints):
        if text:
            groups.setdefault(text, []).append(position)
    ordered = sorted(groups)
    return ordered, [groups[t] for t in ordered]


def _candidates(frames: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs worth comparing, and pairs worth comparing with a mirror, (pairs, 2) each, a < b, sorted.

    One index holds the pictures (finds scenes), one the first frames' picture and motion (finds copies; each clip's
    later windows are looked up in it too, for copies that begin later, and all of these as a mirror shows them).
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
    """Pairs (pairs, 2) that `_near` gives as one number each."""
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1)


def _index(vectors_of: _Vectors, rows: np.ndarray) -> faiss.IndexIVFScalarQuantizer:
    """An inverted-file index of clips `rows` whose cell centres are a fixed sample of the vectors, not k-means.

    Sampled whole numbers keep every distance exact, so the cells are the same on any machine; and the number of
    cells grows with the vectors, so that a look-up does not. The centres get one length: a short one (a clip that
    hardly moves) is near to everything, and its cell would hold twenty times its share.
    """
    import faiss

    n_cells = max(1, len(rows) // _CELL)
    sample = np.sort(np.random.default_rng(0).choice(rows, n_cells, replace=False))
    sampled = vectors_of(sample).astype(np.float64)
    centres = faiss.IndexFlatL2(sampled.shape[1])
    centres.add(np.rint(_unit(sampled) * np.sqrt(np.max((sampled**2).sum(axis=1)))).astype(np.float32))
    as_int8 = faiss.ScalarQuantizer.QT_8bit_direct_signed  # exact: the vectors are whole and below 128
    index = faiss.IndexIVFScalarQuantizer(centres, centres.d, n_cells, as_int8, faiss.METRIC_L2, False)
    index.train(sampled[:1].astype(np.float32))  # the centres stand already
    for chunk in _chunks(rows, _QUERIES):
        index.add(vectors_of(chunk))
    return index


def _near(
    index: faiss.IndexIVFScalarQuantizer, vectors_of: _Vectors, rows: np.ndarray, limit: float, probes: int
) -> np.ndarray:
    """Neighbours of the vectors of clips `rows` within a squared distance: pairs a < b as (a << 32) + b."""
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
    """The mean picture of each clip, (n, 24) float32 whole numbers, length _UNIT."""
    return np.rint(_unit(frames.mean(axis=1)) * _UNIT).astype(np.float32)


def _windows(frames: np.ndarray, shift: int) -> np.ndarray:
    """Four frames of each clip from `shift` on: (n, 48) float32 whole numbers.

    The mean picture and the frame-to-frame changes, each of about length _UNIT, so that squared distances follow
    scene plus motion, the distance of `compare`.
    """
    window = frames[:, shift : shift + _WINDOW].astype(np.float64)
    changes = np.diff(window[:, :, :_INDEXED_CHANGES], axis=1).reshape(len(window), -1)
    noise = MOTION_FLOOR * (window**2).sum(axis=(1, 2))
    parts = _unit(window.mean(axis=1)), _unit(changes, noise)
    return np.rint(np.hstack(parts) * _UNIT).astype(np.float32)


def _unit(rows: np.ndarray, noise: np.ndarray | float = 0.0) -> np.ndarray:
    """Rows (n, width) scaled to length 1, or less where they are no larger than the noise (n,)."""
    return rows / np.sqrt(np.maximum((rows**2).sum(axis=1) + noise, 1.0))[:, None]
