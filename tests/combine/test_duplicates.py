"""Pairing fingerprints: planted copies, families, order, clips without identity, fixed cameras."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_duplicates
from violence_detection.combine import duplicates, fingerprint
from violence_detection.combine.duplicates import Pair


def spectra(seed: int, *, motion: float = 0.2, n_frames: int = 8) -> np.ndarray:
    """Return the spectra of a made-up clip, (n_frames, 24): the seed sets both its scene and its motion."""
    rng = np.random.default_rng(seed)
    scene = rng.normal(size=(1, 24))
    path = np.cumsum(rng.normal(size=(n_frames, 24)), axis=0) * motion
    return (scene + path) * 20


def by_text(pairs: list[Pair], texts: list[str]) -> set[tuple[str, str, bool, float]]:
    return {(*sorted((texts[p.i], texts[p.j])), p.same_clip, p.distance) for p in pairs}  # type: ignore[misc]


def test_planted_copies_among_5000_are_found_and_little_else() -> None:
    texts, planted = bench_duplicates.synthetic(5_000, seed=1)
    pairs = duplicates.find_pairs(texts)
    found = {(p.i, p.j) for p in pairs}
    assert np.mean([p in found for p in planted]) >= 0.97
    same_clip = {(p.i, p.j) for p in pairs if p.same_clip}
    assert len(same_clip - set(planted)) <= 2


def test_the_index_misses_nothing_that_comparing_all_pairs_finds() -> None:
    texts, _ = bench_duplicates.synthetic(300, seed=2)
    frames, counts = fingerprint.to_arrays(texts)
    a, b = np.triu_indices(len(texts), 1)
    joined, _, _ = duplicates.compare(frames[a], counts[a], frames[b], counts[b])
    all_pairs = {(int(i), int(j)) for i, j in zip(a[joined], b[joined], strict=True)}
    found = {(p.i, p.j) for p in duplicates.find_pairs(texts)}
    assert found <= all_pairs
    assert len(found) >= 0.98 * len(all_pairs)


def test_the_pairs_do_not_depend_on_the_order_of_the_clips() -> None:
    texts, _ = bench_duplicates.synthetic(800, seed=3)
    shuffled = [texts[k] for k in np.random.default_rng(0).permutation(len(texts))]
    assert by_text(duplicates.find_pairs(texts), texts) == by_text(duplicates.find_pairs(shuffled), shuffled)


def test_clips_without_identity_pair_with_nothing() -> None:
    black = fingerprint.encode(np.zeros((8, 24)))
    assert black == ""
    assert duplicates.find_pairs([black] * 50 + [fingerprint.encode(spectra(0))]) == []


def test_clips_that_begin_black_do_not_all_pair_with_each_other() -> None:
    clips = [spectra(k) for k in range(30)]
    for clip in clips:
        clip[:4] = 0
    assert duplicates.find_pairs([fingerprint.encode(c) for c in clips]) == []


def test_equal_fingerprints_are_the_same_clip_and_one_cluster() -> None:
    texts = [fingerprint.encode(spectra(k)) for k in (0, 1, 0, 2, 0)]
    pairs = duplicates.find_pairs(texts)
    assert pairs == [Pair(0, 2, True, 0.0), Pair(2, 4, True, 0.0)]
    assert duplicates.clusters(5, pairs) == [0, 1, 0, 3, 0]


def test_a_family_larger_than_the_neighbour_count_is_one_cluster() -> None:
    rng = np.random.default_rng(0)
    family = [fingerprint.encode(spectra(0) + rng.normal(size=(8, 24)) * 0.3) for _ in range(60)]
    others = [fingerprint.encode(spectra(k)) for k in range(1, 200)]
    found = duplicates.clusters(259, duplicates.find_pairs(family + others))
    assert found == [0] * 60 + list(range(60, 259))


def test_two_moments_of_one_fixed_camera_share_footage_but_are_not_the_same_clip() -> None:
    scene = np.random.default_rng(0).normal(size=(1, 24)) * 20
    a, b = (scene + (spectra(k, motion=0.02) - spectra(k, motion=0.0)) for k in (1, 2))
    (pair,) = duplicates.find_pairs([fingerprint.encode(a), fingerprint.encode(b)])
    assert not pair.same_clip


def test_a_copy_that_begins_later_shares_footage_but_is_not_the_same_clip() -> None:
    source = spectra(0, n_frames=11)
    others = [fingerprint.encode(spectra(k)) for k in range(1, 100)]
    texts = [fingerprint.encode(source[:8]), fingerprint.encode(source[3:]), *others]
    (pair,) = duplicates.find_pairs(texts)
    assert (pair.i, pair.j, pair.same_clip) == (0, 1, False)


@pytest.mark.parametrize("later", [0, 2])
def test_a_mirrored_copy_is_found_also_where_it_begins_later(later: int) -> None:
    source = spectra(0, n_frames=10)
    others = [fingerprint.encode(spectra(k)) for k in range(1, 100)]
    copy = fingerprint.encode(fingerprint.mirrored(source[later : later + 8]))
    texts = [fingerprint.encode(source[:8]), *others, copy]
    (pair,) = duplicates.find_pairs(texts)
    assert (pair.i, pair.j, pair.same_clip, pair.mirrored) == (0, 100, False, not later)
    assert duplicates.compare_pairs(texts, [(0, 100), (1, 100)]) == duplicates.find_pairs(texts)


def test_the_index_misses_no_mirrored_copy_that_comparing_all_pairs_finds() -> None:
    texts, planted = bench_duplicates.synthetic(400, seed=2)
    frames, counts = fingerprint.to_arrays(texts)
    copies = [
        fingerprint.encode(fingerprint.mirrored(frames[j][: counts[j]].astype(float))) for _, j in planted
    ]
    pairs = {(p.i, p.j) for p in duplicates.find_pairs([*texts, *copies])}
    found = [(j, len(texts) + k) in pairs for k, (_, j) in enumerate(planted) if counts[j] >= 3]
    assert np.mean(found) >= 0.95


def test_a_place_that_is_like_its_mirror_image_joins_nothing() -> None:
    scene = np.random.default_rng(0).normal(size=(1, 24)) * 20
    a, b = (scene + (spectra(k, motion=0.02) - spectra(k, motion=0.0)) for k in (1, 2))
    assert duplicates.find_pairs([fingerprint.encode(a), fingerprint.encode(fingerprint.mirrored(b))]) == []


def test_a_mirrored_copy_is_known_as_one_though_its_place_is_like_its_mirror_image() -> None:
    scene = np.random.default_rng(0).normal(size=(1, 24)) * 20
    scene = scene + fingerprint.mirrored(scene)
    a = scene + (spectra(1, motion=0.02) - spectra(1, motion=0.0))
    (pair,) = duplicates.find_pairs([fingerprint.encode(a), fingerprint.encode(fingerprint.mirrored(a))])
    assert (pair.same_clip, pair.mirrored) == (False, True)


def test_a_copy_of_a_clip_that_is_its_own_mirror_image_is_a_copy_and_no_mirrored_one() -> None:
    clip = spectra(0) + fingerprint.mirrored(spectra(0))
    (pair,) = duplicates.find_pairs([fingerprint.encode(clip), fingerprint.encode(clip.round(-1))])
    assert (pair.same_clip, pair.mirrored) == (True, False)


def test_none_and_one_clip_have_no_pairs() -> None:
    assert duplicates.find_pairs([]) == []
    assert duplicates.find_pairs([fingerprint.encode(spectra(0))]) == []


@pytest.mark.parametrize("n_frames", range(1, 8))
def test_clips_too_short_for_a_later_window_are_still_compared(n_frames: int) -> None:
    rng = np.random.default_rng(0)
    clips = [spectra(k, n_frames=n_frames) for k in range(6)]
    clips.append(clips[2] + rng.normal(size=clips[2].shape) * 0.1)
    pairs = duplicates.find_pairs([fingerprint.encode(c) for c in clips])
    assert [(p.i, p.j) for p in pairs] == [(2, 6)]
    assert pairs[0].same_clip == (n_frames >= 3)  # with fewer common frames, motion is not compared


def test_clusters_join_chains_and_name_them_by_their_first_clip() -> None:
    pairs = [Pair(4, 5, True, 0.1), Pair(1, 4, False, 0.0), Pair(0, 2, True, 0.2)]
    assert duplicates.clusters(6, pairs) == [0, 1, 0, 3, 1, 1]


@pytest.mark.real
def test_hockey_clips_of_one_rink_stay_apart_but_the_known_duplicate_is_found(real_clips: Path) -> None:
    folder = real_clips / "raw" / "hockey_fights" / "data"
    paths = sorted(p for k in range(100, 141) for p in folder.glob(f"no{k}_*.avi"))
    pairs = duplicates.find_pairs([fingerprint.of_video(p)[1] for p in paths])
    same = [(paths[p.i].stem, paths[p.j].stem) for p in pairs if p.same_clip]
    assert same == [("no123_xvid", "no136_xvid")]


def test_pairs_that_are_named_are_joined_as_if_they_had_been_found() -> None:
    clips = [spectra(k) for k in range(6)]
    texts = [fingerprint.encode(c) for c in (*clips, *(c + 1 for c in clips), clips[0])]
    everyone = list(itertools.combinations(range(len(texts)), 2))
    named = duplicates.compare_pairs(texts, everyone)
    assert {(k, k + 6) for k in range(6)} | {(0, 12)} <= {(p.i, p.j) for p in named if p.same_clip}
    assert set(duplicates.find_pairs(texts)) <= set(named)
    assert duplicates.compare_pairs(texts, [(0, 1), (0, 2)]) == []
    assert duplicates.compare_pairs(["", ""], [(0, 1)]) == []


@pytest.mark.parametrize("chunk", [7, duplicates._CHUNK])
def test_all_against_all_is_joined_as_pair_by_pair(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """The clips: one camera whose picture changes gradually over a day, unrelated clips, copies that begin later, and
    shortened copies, a third of them mirrored.
    """
    rng = np.random.default_rng(0)
    night, day = rng.normal(0, 20, (2, 24))
    clips = [
        night * np.cos(angle) + day * np.sin(angle) + np.cumsum(rng.normal(0, 0.6, (8, 24)), axis=0)
        for angle in np.linspace(0, np.pi, 60)
    ]
    clips += [np.cumsum(rng.normal(0, 10, (8, 24)), axis=0) for _ in range(40)]
    clips += [clip[shift:] + rng.normal(0, 0.5) for shift in range(5) for clip in clips[55:75]]
    clips += [clip[: 1 + k % 8] * fingerprint._MIRRORED ** (k % 3) for k, clip in enumerate(clips[::3])]
    texts = [fingerprint.encode(clips[k]) for k in rng.permutation(len(clips))]
    seen, others = texts[:90], texts[90:]
    pairs = [(i, j) for i in range(90) for j in range(90, len(texts))]
    by_one = {(p.i, p.j) for p in duplicates.compare_pairs(texts, pairs)}
    joined = {j - 90 for _, j in by_one}
    monkeypatch.setattr(duplicates, "_chunks", functools.partial(duplicates._chunks, size=chunk))
    assert 0.3 * len(others) < len(joined) < 0.9 * len(others)
    assert set(np.flatnonzero(duplicates.joined_with_any(seen, others))) == joined
    for i in range(0, 90, 5):
        found = np.flatnonzero(duplicates.joined_with_any([texts[i]], others))
        assert [(i, 90 + k) for k in found] == sorted(pair for pair in by_one if pair[0] == i)
