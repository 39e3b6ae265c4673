"""The feature cache: keyed by all that changes values, with entries that are whole or known to be damaged."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from violence_detection.backbones import registry
from violence_detection.errors import UserError
from violence_detection.features import cache, estimate, key, prune
from violence_detection.features.cache import FeatureStore, VerifiedIndex
from violence_detection.features.config import FeatureConfig
from violence_detection.system import storage
from violence_detection.video import augment

CONFIG = FeatureConfig(backbone=("efficientnet_lite0",))


def _values(*names: str) -> dict[str, np.ndarray]:
    return {n: np.random.default_rng(int(n[1:])).standard_normal((3, 4)).astype(np.float32) for n in names}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def store(tmp_path: Path, weights: Path) -> FeatureStore:
    return FeatureStore.open(tmp_path, key.record(CONFIG, "efficientnet_lite0", "rgb", weights))


@pytest.fixture
def unsaved_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the notes of damage off the disk: saving them hundreds of times would only take time."""
    monkeypatch.setattr(VerifiedIndex, "save", lambda _: None)


def test_what_is_written_is_read_back_as_float16(store: FeatureStore) -> None:
    values = _values("v0", "v1")
    store.add("clip", values, "engine")
    read = store.read("clip", ("v1", "v0"))
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, np.stack([values["v1"], values["v0"]]).astype(np.float16))
    assert store.variants("clip") == {"v0", "v1"}
    assert store.variants("other") == frozenset()


def test_further_variants_join_the_ones_there_are(store: FeatureStore) -> None:
    store.add("clip", _values("v0", "v1"), "engine")
    store.add("clip", _values("v2"), "engine")
    assert store.variants("clip") == {"v0", "v1", "v2"}
    np.testing.assert_array_equal(store.read("clip", ("v0",))[0], _values("v0")["v0"].astype(np.float16))


@pytest.mark.usefixtures("unsaved_notes")
@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_a_flipped_byte_anywhere_is_noticed_or_changes_nothing(store: FeatureStore, mask: int) -> None:
    store.add("clip", _values("v0", "v1"), "engine")
    path = store.path("clip")
    whole, before = path.read_bytes(), store.read("clip", ("v0", "v1"))
    noticed = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= mask
        path.write_bytes(damaged)
        found = store.variants("clip")
        noticed += found is None
        try:
            read = store.read("clip", ("v0", "v1"))
        except UserError:
            assert found is None or not {"v0", "v1"} <= found, f"byte {position} is damage only to a reader"
            continue
        np.testing.assert_array_equal(read, before)
    assert noticed > len(whole) / 2


@pytest.mark.usefixtures("unsaved_notes")
def test_a_file_cut_off_anywhere_is_noticed(store: FeatureStore) -> None:
    store.add("clip", _values("v0", "v1"), "engine")
    whole = store.path("clip").read_bytes()
    for length in range(0, len(whole), 5):
        store.path("clip").write_bytes(whole[:length])
        assert store.variants("clip") is None
        with pytest.raises(UserError, match=r"clip\.npz.*Run the same command again"):
            store.read("clip", ("v0",))


def test_a_damaged_entry_is_replaced_by_the_next_write(store: FeatureStore) -> None:
    store.add("clip", _values("v0", "v1"), "engine")
    store.path("clip").write_bytes(store.path("clip").read_bytes()[:-30])
    store.add("clip", _values("v1"), "engine")
    assert store.variants("clip") == {"v1"}


def test_a_folder_in_the_place_of_an_entry_is_named_and_stays(store: FeatureStore) -> None:
    store.path("clip").mkdir()
    (store.path("clip") / "mine.txt").touch()
    said = r"clip\.npz is a folder.*Move the folder away"
    for ask in (
        lambda: store.variants("clip"),
        lambda: store.variants("clip", verify=False),
        lambda: store.read("clip", ("v0",)),
        lambda: store.add("clip", _values("v0"), "engine"),
        lambda: store.engines_of("clip"),
    ):
        with pytest.raises(UserError, match=said):
            ask()
    assert (store.path("clip") / "mine.txt").is_file()
    assert [p.name for p in store.folder.glob(".*")] == []


def test_reading_what_is_not_there_names_the_file(store: FeatureStore) -> None:
    with pytest.raises(UserError, match=r"absent\.npz"):
        store.read("absent", ("v0",))
    store.add("clip", _values("v0"), "engine")
    with pytest.raises(UserError, match=r"clip\.npz.*v7"):
        store.read("clip", ("v0", "v7"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_values_that_float16_cannot_hold_are_an_error_and_not_written(
    store: FeatureStore, bad: float
) -> None:
    values = _values("v0")
    values["v0"][1, 2] = bad
    with pytest.raises(ValueError, match="clip v0"), np.errstate(over="ignore"):
        store.add("clip", values, "engine")
    assert not store.path("clip").exists()


def test_entries_say_which_engine_made_them_and_hold_no_pickles(store: FeatureStore) -> None:
    store.add("clip", _values("v0"), "engine-a")
    store.add("clip", _values("v1"), "engine-b")
    assert store.engines_of("clip") == {"v0": "engine-a", "v1": "engine-b"}
    store.add("clip", _values("v0"), "engine-c")
    assert store.engines_of("clip") == {"v0": "engine-c", "v1": "engine-b"}
    with np.load(store.path("clip"), allow_pickle=False) as entry:
        assert all(entry[name].dtype != object for name in entry)
    with zipfile.ZipFile(store.path("clip")) as archive:
        assert sorted(archive.namelist()) == ["_made_by.npy", "v0.npy", "v1.npy"]


@pytest.mark.parametrize(
    ("change", "changes_rgb"),
    [
        ({"frames": 7}, True),
        ({"window_s": 3.0}, True),
        ({"augment_seed": 1}, True),
        ({"motion_spacing_s": 0.5}, False),
        ({"motion_gain": 1.0}, False),
        ({"streams": ("rgb",)}, None),
    ],
)
def test_the_key_changes_with_what_changes_the_values_only(
    tmp_path: Path, weights: Path, change: dict[str, Any], changes_rgb: bool | None
) -> None:
    def folder(config: FeatureConfig, stream: str) -> Path:
        record = key.record(config, "efficientnet_lite0", stream, weights)
        return FeatureStore.open(tmp_path, record).folder

    changed = replace(CONFIG, **change)
    assert (folder(changed, "rgb") != folder(CONFIG, "rgb")) == bool(changes_rgb)
    assert (folder(changed, "motion") != folder(CONFIG, "motion")) == (changes_rgb is not None)


def test_the_key_changes_with_weights_backbone_stream_and_augmentation(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other weights")
    records = [
        key.record(CONFIG, "efficientnet_lite0", "rgb", weights),
        key.record(CONFIG, "efficientnet_lite0", "rgb", other),
        key.record(CONFIG, "efficientnet_lite2", "rgb", weights),
        key.record(CONFIG, "efficientnet_lite0", "motion", weights),
        key.record(CONFIG, "efficientnet_lite0", "crop", weights),
        key.record(CONFIG, "efficientnet_lite0", "moving", weights),
    ]
    monkeypatch.setattr(augment, "TRAIN", replace(augment.TRAIN, zoom=0.3))
    records.append(key.record(CONFIG, "efficientnet_lite0", "rgb", weights))
    assert len({FeatureStore.open(tmp_path, r).folder for r in records}) == len(records)


def test_a_start_reads_only_entries_that_are_new_or_have_changed(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for clip in ("a", "b", "c"):
        store.add(clip, _values("v0", "v1"), "engine")
    store.index.save()
    b = store.path("b")
    b.write_bytes(b.read_bytes())  # changes the time stamp
    read: list[str] = []
    testzip = zipfile.ZipFile.testzip

    def counted(archive: zipfile.ZipFile) -> str | None:
        read.append(Path(str(archive.filename)).stem)
        return testzip(archive)

    monkeypatch.setattr(zipfile.ZipFile, "testzip", counted)
    again = FeatureStore(store.folder)
    assert {c: again.variants(c, verify=False) for c in "abc"} == {c: {"v0", "v1"} for c in "abc"}
    assert read == ["b"]
    assert again.variants("a", verify=True) == {"v0", "v1"}
    assert read == ["b", "a"]


def test_damage_that_keeps_size_and_time_is_found_at_reading_and_by_the_next_start(
    store: FeatureStore,
) -> None:
    store.add("clip", _values("v0", "v1"), "engine")
    store.index.save()
    _damage_unseen(store.path("clip"))
    assert FeatureStore(store.folder).variants("clip", verify=False) == {"v0", "v1"}, (
        "it should not be seen yet"
    )
    with pytest.raises(UserError, match=r"clip\.npz"):
        FeatureStore(store.folder).read("clip", ("v0", "v1"))
    assert FeatureStore(store.folder).variants("clip", verify=False) is None


def test_a_damaged_entry_is_made_again_while_it_is_read(
    store: FeatureStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.add("clip", _values("v0", "v1"), "engine")
    before = store.read("clip", ("v0", "v1"))
    _damage_unseen(store.path("clip"))
    mended = FeatureStore(store.folder, reextract=lambda clip: store.add(clip, _values("v0", "v1"), "engine"))
    logging.getLogger("violence_detection").propagate = True
    np.testing.assert_array_equal(mended.read("clip", ("v0", "v1")), before)
    assert f"{store.path('clip')} is missing or damaged" in caplog.text
    hopeless = FeatureStore(store.folder, reextract=lambda clip: None)
    _damage_unseen(store.path("clip"))
    with pytest.raises(UserError, match=r"clip\.npz was extracted again and is damaged again"):
        hopeless.read("clip", ("v0", "v1"))


def _damage_unseen(path: Path) -> None:
    """Zero the middle of a file, leaving its size and time of change as they were."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_threads_and_processes_that_add_different_variants_lose_none(store: FeatureStore) -> None:
    program = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from violence_detection.features.cache import FeatureStore\n"
        "store = FeatureStore(Path(sys.argv[1]))\n"
        "for v in sys.argv[2].split(','):\n"
        "    store.add('clip', {v: np.full((3, 4), int(v[1:]), np.float32)}, 'engine')"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(cache.__file__).parents[2])}
    names = [f"v{i}" for i in range(20)]
    others = [
        subprocess.Popen([sys.executable, "-c", program, str(store.folder), ",".join(part)], env=environment)
        for part in (names[:5], names[5:10])
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda v: store.add("clip", {v: np.full((3, 4), int(v[1:]))}, "engine"), names[10:]))
    assert [p.wait(60) for p in others] == [0, 0]
    assert store.variants("clip") == set(names)
    np.testing.assert_array_equal(store.read("clip", names)[:, 0, 0], np.arange(20))


@pytest.mark.parametrize("damaged", ["", '{"backbone":', "[]", '{"backbone": "another"}'])
def test_a_record_that_was_copied_half_is_written_anew(tmp_path: Path, weights: Path, damaged: str) -> None:
    record = key.record(CONFIG, "efficientnet_lite0", "rgb", weights)
    path = FeatureStore.open(tmp_path, record).folder / cache.RECORD_NAME
    whole = path.read_bytes()
    path.write_text(damaged)
    FeatureStore.open(tmp_path, record)
    assert path.read_bytes() == whole
    before = path.stat().st_mtime_ns
    FeatureStore.open(tmp_path, record)
    assert path.stat().st_mtime_ns == before, "one that is whole is left alone"


def test_a_damaged_note_of_an_engine_or_of_rates_says_nothing_and_stops_nobody(store: FeatureStore) -> None:
    store.note_engine("one", relative_error=0.001)
    store.note_engine("two", relative_error=0.002)
    (store.folder / "engine-two.json").write_text('{"relative_')
    assert store.engines() == {"one": {"relative_error": 0.001}, "two": {"relative_error": None}}
    run = key.BackboneRun(FeatureConfig(), (registry.get("efficientnet_lite0"),), Path("weights"))
    rates = estimate.RateRecord(store.folder, run)
    for damaged in ("", "[]", '{"'):
        rates.path.write_text(damaged)
        assert rates.known() is None
        rates.note(12.5)
        assert rates.known() == 12.5


def test_a_folder_that_has_the_name_of_a_note_is_named_or_is_no_note(
    tmp_path: Path, store: FeatureStore, weights: Path
) -> None:
    store.add("clip", _values("v0"), "one")
    run = key.BackboneRun(FeatureConfig(), (registry.get("efficientnet_lite0"),), Path("weights"))
    rates = estimate.RateRecord(store.folder, run)
    for path in (store.folder / cache.VERIFIED_NAME, store.folder / "engine-one.json", rates.path):
        path.unlink(missing_ok=True)
        path.mkdir()
    again = FeatureStore(store.folder)
    assert again.variants("clip", verify=False) == {"v0"}
    again.index.save()
    assert again.engines() == {"one": {"relative_error": None}}
    rates.note(12.5)
    assert rates.known() is None
    with pytest.raises(UserError, match=r"engine-one\.json is a folder, but .*Move the folder away"):
        again.note_engine("one")
    record = store.folder / cache.RECORD_NAME
    record.unlink()
    record.mkdir()
    with pytest.raises(UserError, match=r"record\.json is a folder, but .*Move the folder away"):
        FeatureStore.open(tmp_path, key.record(CONFIG, "efficientnet_lite0", "rgb", weights))
    assert not prune._is_cache(record)


def test_a_cache_whose_notes_cannot_be_written_is_read_all_the_same(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a cache is, for example, one that was copied to a volume mounted read-only."""
    monkeypatch.setattr(logging.getLogger("violence_detection"), "propagate", True)
    for i in range(4):
        store.add(f"clip{i}", _values("v0"), "a")
    (store.folder / cache.LOCK_NAME).unlink()
    (store.folder / cache.LOCK_NAME).mkdir()  # a folder, so that nobody can lock it, not even root
    monkeypatch.setattr(cache, "_SAVE_AFTER", 2)
    copied = FeatureStore(store.folder)
    assert [copied.variants(f"clip{i}", verify=False) for i in range(4)] == [{"v0"}] * 4
    copied.index.save()
    assert [r.message for r in caplog.records if "cannot write" in r.message] == [
        f"cannot write {store.folder / cache.VERIFIED_NAME} (Is a directory): it does not record which entries were "
        "verified, and the next run verifies them again"
    ]
    (store.folder / cache.LOCK_NAME).rmdir()
    copied.index.save()
    assert len(VerifiedIndex(store.folder)._known) == 4, "they are noted once that can be done"


def test_the_larger_the_notes_the_more_of_them_are_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each save reads and rewrites all notes: at a fixed interval its total time would be quadratic in the clips."""
    monkeypatch.setattr(cache, "_SAVE_AFTER", 2)
    written: list[Path] = []
    write_text = storage.write_text

    def counted(path: Path, text: str) -> None:
        written.append(path)
        write_text(path, text)

    monkeypatch.setattr(storage, "write_text", counted)
    for part in range(2):
        index = VerifiedIndex(tmp_path)
        for k in range(200):
            index.note(f"{part}{k:03}", (k, k), ["v0"])
    index.save()
    assert len(written) < 60
    assert len(VerifiedIndex(tmp_path)._known) > 360, (
        "of the first part at most a tenth was still to be written"
    )
