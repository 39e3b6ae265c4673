"""An extraction keeps few images in memory, however many clips there are, and ends at the first error."""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_videos
import stand_in
import timed_videos

from violence_detection.backbones import engines
from violence_detection.features import cache, extract, extraction_pass, meter
from violence_detection.features.config import ExtractConfig
from violence_detection.features.extraction_pass import ExtractionPass, WantedClip, open_groups
from violence_detection.video import pictures

WORKERS = 2


class Alive:
    """Counts the images of clips in memory: those there are now, and the most there were."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def made(self, images: np.ndarray) -> None:
        with self._lock:
            self.now += len(images)
            self.most = max(self.most, self.now)
        weakref.finalize(images, self._gone, len(images))

    def _gone(self, count: int) -> None:
        with self._lock:
            self.now -= count


def _most_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path, count: int) -> int:
    alive = Alive()
    original = pictures.clip_variants

    def counted(*args: Any) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        for variant, streams in original(*args):
            for images in streams.values():
                alive.made(images)
            yield variant, streams

    def slow(images: np.ndarray) -> np.ndarray:
        time.sleep(0.002)
        return stand_in.features_of(images)

    stand_in.install(monkeypatch.setattr)
    monkeypatch.setattr(pictures, "clip_variants", counted)
    (group,) = open_groups(
        stand_in.CONFIG,
        None,
        lambda name, stream, _: cache.FeatureStore.open(tmp_path / str(count) / stream, {"backbone": name}),
    )
    engine = engines.Engine("slow", [slow, slow])
    run = ExtractionPass(group, engine)
    run.extract(
        [WantedClip(f"clip{i}", path, tuple(f"v{k}" for k in range(4))) for i in range(count)], WORKERS
    )
    monkeypatch.setattr(pictures, "clip_variants", original)
    assert run.clips_extracted == count
    return alive.most


def test_images_in_memory_do_not_grow_with_clips_or_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_videos.write(tmp_path / "clip.avi", 0)
    few, many = (_most_images(tmp_path, monkeypatch, path, count) for count in (10, 40))
    # In each worker: the two streams of a variant, and of the one before while the next is made. In each runner: a job.
    bound = stand_in.CONFIG.frames * (WORKERS * 4 + 2)
    assert few <= bound
    assert many <= bound


def test_an_error_leaves_no_file_of_scalars_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow")
    begun: list[meter.Meter] = []

    class Noted(meter.Meter):
        def __init__(self, *args: Any):
            super().__init__(*args)
            begun.append(self)

    def broken(images: np.ndarray) -> np.ndarray:
        if begun:
            raise RuntimeError("a bug")
        return stand_in.features_of(images)

    monkeypatch.setattr(meter, "Meter", Noted)
    monkeypatch.setattr(extraction_pass, "REPORT_EVERY_S", 0.0)
    path = small_videos.write(tmp_path / "clip.avi", 0)
    stand_in.install(monkeypatch.setattr, broken)
    (group,) = open_groups(
        stand_in.CONFIG,
        None,
        lambda name, stream, _: cache.FeatureStore.open(tmp_path / stream, {"backbone": name}),
    )
    run = ExtractionPass(group, engines.Engine("broken", [broken]))
    with pytest.raises(RuntimeError, match="a bug"):
        run.extract([WantedClip(f"clip{i}", path, ("v0",)) for i in range(9)], 1, tmp_path / "logs")
    (reports,) = begun
    assert list((tmp_path / "logs").glob("events*"))
    with pytest.raises(RuntimeError, match="closed"):
        reports.finish(1)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_clip_whose_features_are_no_numbers_is_a_named_failure_and_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    clips = stand_in.wanted([small_videos.write(tmp_path / f"{i}.avi", i) for i in range(3)], 2)
    broken = stand_in.features_of(next(iter(_images(clips[1]).values())))

    def runner(images: np.ndarray) -> np.ndarray:
        features = stand_in.features_of(images)
        if np.array_equal(features, broken):
            features[2, 1] = value  # 1e6 is more than float16 holds
        return features

    stand_in.install(monkeypatch.setattr, runner)
    extraction = extract.ensure(clips, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    (failure,) = extraction.failures
    assert failure["path"] == str(clips[1].path)
    assert re.search(r"features by stand_in\.\w+ \(v0\) are not finite", failure["reason"])
    for store in extraction.stores.values():
        assert [store.path(clip.clip_id).is_file() for clip in clips] == [True, False, True]


def _images(clip: WantedClip) -> dict[str, np.ndarray]:
    ((_, by_stream),) = pictures.clip_variants(
        clip.path, clip.clip_id, ("v0",), stand_in.SIZE, stand_in.CONFIG
    )
    return by_stream


def test_a_closer_look_runs_the_backbone_only_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is nothing to enlarge, it has the plain clip's features, from the same run or an earlier one."""
    seen: list[np.ndarray] = []

    def runner(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return stand_in.features_of(images)

    stand_in.install(monkeypatch.setattr, runner)
    paths = {
        "all": small_videos.write(tmp_path / "all.avi", 3),
        "part": timed_videos.corner_moves(tmp_path / "part.mp4"),
    }
    how = ExtractConfig(data_root=tmp_path)
    for variants, runs in ((("v0",), 2), (("v0", "v1", "c3"), 3), (("c3",), 0)):
        seen.clear()
        clips = [WantedClip(name, path, variants) for name, path in paths.items()]
        done = extract.ensure(clips, stand_in.CONFIG, how)
        assert not done.failures
        assert len(seen) == runs * len(done.stores), "v1 of both and the one closer look"
    for store in done.stores.values():
        for name, is_same in (("all", True), ("part", False)):
            plain, closer = store.read(name, ("v0", "c3"))
            assert np.array_equal(plain, closer) is is_same
    together = tmp_path / "together"
    seen.clear()
    fresh = extract.ensure(
        [WantedClip(name, path, ("v0", "c3")) for name, path in paths.items()],
        stand_in.CONFIG,
        ExtractConfig(data_root=together),
    )
    assert len(seen) == 3 * len(fresh.stores)
    for name, store in fresh.stores.items():
        for clip in paths:
            np.testing.assert_array_equal(
                store.read(clip, ("v0", "c3")), done.stores[name].read(clip, ("v0", "c3"))
            )
