"""Near-duplicate clips: candidates from a nearest-neighbour index, then an exact comparison of each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from violence_detection import fingerprint

#: Distances up to these: an altered copy; footage in common.
SAME_CLIP = 0.03
SHARED_FOOTAGE = 0.06
_NEIGHBOURS = 16


@dataclass(frozen=True, order=True)
class Pair:
    """Two clips, positions i < j. `same_clip`: one is an altered copy of the other; else they share footage."""

    i: int
    j: int
    same_clip: bool
    distance: float


def find_pairs(fingerprints: Sequence[str]) -> list[Pair]:
    """Pairs of clips that are copies of each other or share footage, sorted by (i, j).

    Of a large family of copies every member is paired with some, not with all: `clusters` joins them. Clips
    whose fingerprint is empty (no texture) pair with nothing. The pairs do not depend on the order of the clips.
    """
    unique, members = _group_equal(fingerprints)
    pairs = [Pair(a, b, True, 0.0) for group in members for a, b in itertools.pairwise(group)]
    for a, b in _candidates(unique):
        distance = compare(unique[a], unique[b])
        if distance <= SHARED_FOOTAGE:
            i, j = sorted((members[a][0], members[b][0]))
            pairs.append(Pair(i, j, distance <= SAME_CLIP, distance))
    return sorted(pairs)


def compare(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of two fingerprint arrays: 1 - cosine over aligned frames, the least over shifts of one frame."""
    best = 2.0
    for shift in (0, -1, 1):
        x, y = a[max(shift, 0) :], b[max(-shift, 0) :]
        n = min(len(x), len(y))
        if n < 1:
            continue
        u, v = x[:n].astype(np.float64).ravel(), y[:n].astype(np.float64).ravel()
        norm = float(np.sqrt((u @ u) * (v @ v)))
        if norm:
            best = min(best, 1.0 - float(u @ v) / norm)
    return round(best, 6)


def clusters(n: int, pairs: Sequence[Pair]) -> list[int]:
    """Connected components: for each of n clips the smallest position in its cluster."""
    parent = list(range(n))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    for pair in pairs:
        a, b = sorted((root(pair.i), root(pair.j)))
        parent[b] = a
    return [root(k) for k in range(n)]


def _group_equal(fingerprints: Sequence[str]) -> tuple[list[np.ndarray], list[list[int]]]:
    """Distinct non-empty fingerprints in the order of their text, and the positions that have each."""
    groups: dict[str, list[int]] = {}
    for position, text in enumerate(fingerprints):
        if text:
            groups.setdefault(text, []).append(position)
    ordered = sorted(groups)
    return [fingerprint.to_array(t) for t in ordered], [groups[t] for t in ordered]


def _candidates(arrays: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs of near neighbours in a faiss index, a < b, sorted."""
    import faiss

    if len(arrays) < 2:
        return []
    vectors = np.stack([a[np.minimum(np.arange(6), len(a) - 1)].ravel() for a in arrays]).astype(np.float32)
    index = faiss.IndexHNSWFlat(vectors.shape[1], 16)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # the graph depends on the order of insertion
    index.add(vectors)
    faiss.omp_set_num_threads(threads)
    _, found = index.search(vectors, min(_NEIGHBOURS + 1, len(arrays)))
    return sorted(
        {(min(a, int(b)), max(a, int(b))) for a, row in enumerate(found) for b in row if b >= 0 and b != a}
    )
