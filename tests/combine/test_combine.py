"""Combining small real files: copies, label conflicts, damage, interruption, official splits, and the real clips."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_videos import write

from violence_detection.combine import combine, dedupe, duplicates, fingerprint, manifest, outcome, scan
from violence_detection.combine.config import CombineConfig, CutConfig
from violence_detection.combine.dedupe import ScannedClip
from violence_detection.errors import UserError
from violence_detection.find import inventory
from violence_detection.system import storage
from violence_detection.video import video_files

REPOSITORY = Path(__file__).resolve().parents[2]
HOCKEY = "raw/hockey/data"
RWF = "raw/RWF-2000"
HALF = f"{HOCKEY}/no126_xvid.avi"
CLIP_NAME = manifest.clip_name


def flows_clip(seed: int, label: str) -> str:
    return f"raw/flows/1/{label}/crowd__Title{seed}__someone__id{seed:09d}.avi"


def rwf_id(seed: int) -> str:
    """Return a made-up video id of 11 characters, the length of YouTube's ids."""
    return f"Video-{seed:05d}"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with three data sets, copies, a label conflict and damaged files; tests copy it."""
    root = tmp_path_factory.mktemp("published")
    for seed in range(10):
        write(root / flows_clip(seed, "Violence"), seed)
        write(root / flows_clip(100 + seed, "NonViolence"), 100 + seed)
    for block in range(5):
        write(root / HOCKEY / f"fi{block * 25 + 1}_xvid.avi", 200 + block)
        write(root / HOCKEY / f"no{block * 25 + 1}_xvid.avi", 300 + block)
    for side, first in (("train", 400), ("val", 500)):
        for seed in range(first, first + 4):
            write(root / RWF / side / "Fight" / f"{rwf_id(seed)}_0.avi", seed)
            write(root / RWF / side / "NonFight" / f"{rwf_id(seed + 50)}_0.avi", seed + 50)
    copy(root, f"{HOCKEY}/no1_xvid.avi", f"{HOCKEY}/no14_xvid.avi")  # an exact copy
    copy(root, f"{HOCKEY}/fi26_xvid.avi", f"{HOCKEY}/no77_xvid.avi")  # the same content under both labels
    # no101 with more pixels
    write(root / HOCKEY / "no102_xvid.avi", 304, width=192, height=128, brightness=8)
    (root / HOCKEY / "fi130_xvid.avi").write_bytes(b"RIFF but no video" * 50)
    copy(root, f"{RWF}/val/Fight/{rwf_id(500)}_0.avi", f"{RWF}/train/Fight/planted_0.avi")
    write(root / RWF / "train/Fight/recoded_0.avi", 501, width=192, height=128, brightness=8)
    write(root / RWF / f"train/Fight/{rwf_id(502)}_7.avi", 777)  # another clip of an official val source
    copy(root, flows_clip(0, "Violence"), "raw/holiday/beach.avi")
    half = write(root / HALF, 305, n_frames=60)
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    return root


def copy(root: Path, source: str, target: str) -> None:
    (root / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(root / source, root / target)


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "root"))


@pytest.fixture(scope="module")
def done(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that was combined once; tests only read it."""
    root = Path(shutil.copytree(published, tmp_path_factory.mktemp("done") / "root"))
    combine.run(CombineConfig(data_root=root, workers=2))
    return root


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as f:
        reader = csv.DictReader(f)
        first = (reader.fieldnames or ["?"])[0]
        return {row[first]: row for row in reader}


def rows(root: Path) -> dict[str, dict[str, str]]:
    """Return the rows of the manifest by source path."""
    return {r["source_path"]: r for r in table(root / "combined_all" / "manifest.csv").values()}


def manifest_bytes(root: Path) -> bytes:
    return (root / "combined_all" / "manifest.csv").read_bytes()


def test_the_manifest_is_what_later_stages_read_and_the_folder_holds_just_that(done: Path) -> None:
    frame = manifest.read(done / "combined_all")
    assert list(frame.columns) == [*manifest.COLUMNS, "by_time"]
    assert list(frame.path) == sorted(frame.path)
    placed = {p.relative_to(done / "combined_all").as_posix() for p in (done / "combined_all").glob("*/*/*")}
    assert placed == set(frame.path)
    for row in rows(done).values():
        clip, source = done / "combined_all" / row["path"], done / row["source_path"]
        assert clip.samefile(source)
        assert not clip.is_symlink()
        assert row["path"].startswith(f"{row['split']}/{row['label']}/{row['dataset']}__")
        assert row["clip_id"] == row["sha256"][:16]
        assert row["n_frames"] == "24" or row["source_path"] == HALF
    record = json.loads((done / "combined_all" / combine.RECORD_NAME).read_text())
    assert record["summary"]["train"] == (frame.split == "train").sum()


def test_of_exact_copies_the_first_by_path_stays_and_the_other_is_named(done: Path) -> None:
    kept, gone = f"{HOCKEY}/no14_xvid.avi", f"{HOCKEY}/no1_xvid.avi"
    assert kept in rows(done)
    assert gone not in rows(done)
    row = table(done / "combined_all" / "duplicates.csv")[gone]
    assert row == {"source_path": gone, "kept_source_path": kept, "kind": "exact"}


def test_of_altered_copies_the_best_stays(done: Path) -> None:
    assert f"{HOCKEY}/no102_xvid.avi" in rows(done)
    dropped = table(done / "combined_all" / "duplicates.csv")[f"{HOCKEY}/no101_xvid.avi"]
    assert (dropped["kept_source_path"], dropped["kind"]) == (f"{HOCKEY}/no102_xvid.avi", "near")


def test_of_many_copies_with_one_picture_one_stays(root: Path) -> None:
    """Clips with equal fingerprints are only paired in a chain, whose order (by clip id) is arbitrary."""
    flows = "raw/flows/1"
    first = write(root / flows / "Violence" / "crowd__TitleA__someone__idA.avi", 600)
    for n in range(9):
        other = first.with_name(f"crowd__TitleB{n}__someone__idB{n}.avi")
        # another file with the same pictures, as after remuxing
        other.write_bytes(first.read_bytes() + bytes([n]))
    combine.run(CombineConfig(data_root=root, workers=1))
    kept = first.relative_to(root).as_posix()
    assert [name for name in rows(root) if "__TitleA" in name or "__TitleB" in name] == [kept]
    gone = [
        r for r in table(root / "combined_all" / "duplicates.csv").values() if "__idB" in r["source_path"]
    ]
    assert [(r["kept_source_path"], r["kind"]) for r in gone] == [(kept, "near")] * 9


def test_a_mirrored_copy_stays_in_the_source_of_its_original(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version, which did not compare mirrored clips, combined the files first; now they are joined."""
    folder = root / "raw/flows/1/Violence"
    write(folder / "crowd__TitleA__someone__idA.avi", 600)
    write(folder / "crowd__TitleB__someone__idB.avi", 600, width=192, height=128, brightness=8, mirrored=True)

    def combined() -> list[dict[str, str]]:
        combine.run(CombineConfig(data_root=root, workers=1))
        return [r for name, r in rows(root).items() if "__TitleA" in name or "__TitleB" in name]

    with monkeypatch.context() as earlier:
        earlier.setattr(combine, "VERSION", 3)
        earlier.setattr(fingerprint, "mirrored", np.zeros_like)
        original, copy_ = combined()
        assert original["source_group"] != copy_["source_group"]
    original, copy_ = combined()
    assert original["source_group"] == copy_["source_group"]
    assert original["split"] == copy_["split"]


def test_content_under_both_labels_is_left_out_and_named(done: Path) -> None:
    failures = table(done / "combined_all" / "failures.csv")
    for name in ("fi26_xvid.avi", "no77_xvid.avi"):
        assert f"{HOCKEY}/{name}" not in rows(done)
        assert "both left out" in failures[f"{HOCKEY}/{name}"]["reason"]


def test_a_damaged_file_is_a_named_failure(done: Path) -> None:
    failures = table(done / "combined_all" / "failures.csv")
    assert set(failures) == {f"{HOCKEY}/{n}_xvid.avi" for n in ("fi26", "no77", "fi130")}
    assert failures[f"{HOCKEY}/fi130_xvid.avi"]["reason"]


def test_a_clip_cut_short_stays_with_the_frames_it_has_and_a_warning_says_both_counts(done: Path) -> None:
    n_frames = int(rows(done)[HALF]["n_frames"])
    assert 20 < n_frames < 40
    warnings = table(done / "combined_all" / "warnings.csv")
    assert list(warnings) == [HALF]
    assert f"only {n_frames / 12:.1f} of 5.0 s decode" in warnings[HALF]["reason"]
    record = json.loads((done / "combined_all" / combine.RECORD_NAME).read_text())
    assert record["summary"]["cut_short"] == 1


def test_official_val_stays_val_and_what_it_shares_leaves_train(done: Path) -> None:
    found = rows(done)
    official = {p: r for p, r in found.items() if p.startswith(RWF)}
    assert {p.split("/")[2] for p, r in official.items() if r["split"] == "val"} == {"val"}
    assert sum(r["split"] == "val" for r in official.values()) == 8
    dropped = table(done / "combined_all" / "duplicates.csv")
    for name, kind in (("planted_0", "exact"), ("recoded_0", "near"), (f"{rwf_id(502)}_7", "source")):
        path = f"{RWF}/train/Fight/{name}.avi"
        assert path not in found
        assert dropped[path]["kind"] == kind
        assert dropped[path]["kept_source_path"].startswith(f"{RWF}/val/")


def test_train_clips_that_go_for_val_are_told(done: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary = json.loads((done / "combined_all" / manifest.RECORD_NAME).read_text())["summary"]
    n = summary["duplicates_by_kind"]["source"] + summary["duplicates_by_kind"]["footage"]
    assert n
    outcome.say(summary, 0.2)
    assert (
        f"{n} clip{'s' if n > 1 else ''} of train left out because val has clips of the same source or footage"
        in caplog.text
    )


def test_of_copies_one_whose_side_is_settled_stays() -> None:
    def clip(name: str, side: str) -> ScannedClip:
        return ScannedClip(name, "fight", "s", name, side, scan.Scan(sha256="same", width=320, height=240))

    (kept,) = dedupe.deduplicate([clip("a.avi", ""), clip("b.avi", "train")]).kept
    assert kept.official_split == "train"


def drawn(dataset: str, number: int, scene: int, *, motion: float, side: str = "") -> ScannedClip:
    """Make a clip with its own source and a made-up fingerprint: the picture of `scene`, and a motion of its own."""
    rng = np.random.default_rng([scene, number])
    path = np.cumsum(rng.normal(size=(fingerprint.N_FRAMES, fingerprint.N_COEFFICIENTS)), axis=0) * motion
    still = np.random.default_rng(scene).normal(size=fingerprint.N_COEFFICIENTS)
    look = scan.Scan(sha256=f"{dataset}{number:04}", fingerprint=fingerprint.encode(20 * (still + path)))
    name = f"raw/{dataset}/{number:04}.mp4"
    return ScannedClip(name, ("fight", "nonfight")[number % 2], dataset, name, side, look)


def test_what_one_fixed_camera_has_filmed_is_not_lost_to_val(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    room = [drawn("yard", k, 0, motion=0.05) for k in range(300)]
    others = [drawn("town" if k < 400 else "yard", 1000 + k, 1 + k, motion=0.2) for k in range(440)]
    config = CombineConfig(data_root=tmp_path)
    unique = dedupe.deduplicate(room + others)
    assert unique.bridges
    rows, dropped = combine.divide(unique, config)
    assert dropped == []
    frame = pd.DataFrame(rows)
    in_room = frame.source_path.isin({c.source_path for c in room})
    assert set(frame.split[in_room]) == {"train"}
    shares = (frame.split == "val")[~in_room].groupby([frame.dataset, frame.label]).mean()
    assert shares.tolist() == pytest.approx([0.2] * 4, abs=0.02)
    alone, dropped = combine.divide(dedupe.deduplicate(room), config)
    assert ({row["split"] for row in alone}, dropped) == ({"train"}, [])
    summary = {"by_dataset": {}, "cut_short": 0, "train": 300, "val": 0}
    outcome.say(summary, 0.2)
    assert "val has no clips" in caplog.text
    assert "Add clips of other places" in caplog.text


@pytest.mark.parametrize(("n", "fraction"), [(200, 0.2), (300, 0.5)])
def test_one_fixed_camera_is_not_halved_so_that_train_has_none_of_it(
    tmp_path: Path, n: int, fraction: float
) -> None:
    """Of 200 clips, at most half are joined into one group. One half once went to val, and as the other half shows the
    same footage, all of it was dropped from train.
    """
    unique = dedupe.deduplicate([drawn("yard", k, 0, motion=0.05) for k in range(n)])
    rows, dropped = combine.divide(unique, CombineConfig(data_root=tmp_path, val_fraction=fraction))
    assert ({row["split"] for row in rows}, dropped) == ({"train"}, [])


def test_what_shows_val_leaves_train_though_a_search_pairs_each_clip_with_few_of_a_large_family(
    tmp_path: Path,
) -> None:
    room = [drawn("yard", k, 0, motion=0.05, side="train" if k % 150 else "val") for k in range(300)]
    train, val = (next(c.source_path for c in room if c.official_split == side) for side in ("train", "val"))
    unique = dedupe.Deduplicated(room, [], [], 0, bridges=[(train, val)])
    rows, dropped = combine.divide(unique, CombineConfig(data_root=tmp_path))
    prints = [row["fingerprint"] for row in sorted(rows, key=lambda row: row["split"])]
    n_train = sum(row["split"] == "train" for row in rows)
    across = [(i, j) for i in range(n_train) for j in range(n_train, len(rows))]
    assert duplicates.compare_pairs(prints, across) == []
    assert {d.kind for d in dropped} == {"footage"}
    assert len(rows) + len(dropped) == len(room)


def ends_of_one_beginning(one: bytes, other: bytes) -> tuple[bytes, bytes]:
    """Find an ending for each content so that the SHA-256 of both begin with the same eight hexadecimal digits."""
    begun, known = hashlib.sha256(one), {}
    for k in range(1 << 17):
        (digest := begun.copy()).update(end := k.to_bytes(4, "big"))
        known[digest.digest()[:4]] = end
    begun = hashlib.sha256(other)
    for k in itertools.count():
        (digest := begun.copy()).update(end := k.to_bytes(4, "big"))
        if digest.digest()[:4] in known:
            return known[digest.digest()[:4]], end
    raise AssertionError


def test_clips_of_one_name_whose_ids_begin_alike_stand_under_paths_of_their_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [root / "own" / "fight" / "yard" / f"case_{k}" / "clip.avi" for k in range(2)]
    for k, path in enumerate(clips):
        write(path, 900 + k)
    for path, end in zip(clips, ends_of_one_beginning(*(p.read_bytes() for p in clips)), strict=True):
        path.write_bytes(path.read_bytes() + end)
    config = CombineConfig(data_root=root, own=(f"own={root / 'own'}",), workers=2)
    with monkeypatch.context() as before:
        before.setattr(manifest, "clip_name", lambda *of: CLIP_NAME(*of[:3]))
        combine.run(config)
        earlier = rows(root)
    assert len({r["path"] for r in earlier.values()}) < len(earlier)
    placed = {path: path.lstat().st_ino for path in (root / "combined_all").rglob("*.avi")}
    combine.run(config)
    made = rows(root)
    own = [r for r in made.values() if r["dataset"] == "own"]
    assert len({r["sha256"][:8] for r in own}) == 1
    for row in own:
        assert storage.sha256_file(root / "combined_all" / row["path"]) == row["sha256"]
        assert row["clip_id"] in row["path"]
    assert {n: r["path"] for n, r in made.items() if r["dataset"] != "own"} == {
        n: r["path"] for n, r in earlier.items() if r["dataset"] != "own"
    }
    after = {path: path.lstat().st_ino for path in (root / "combined_all").rglob("*.avi")}
    assert len(after.items() - placed.items()) == 2, "only these two are placed anew"


def test_videos_without_a_label_are_listed(done: Path) -> None:
    assert "raw/holiday" in table(done / "combined_all" / "unlabelled.csv")
    assert not any(p.startswith("raw/holiday") for p in rows(done))


def test_no_source_on_both_sides_and_both_classes_on_each(done: Path) -> None:
    sides: dict[str, set[str]] = defaultdict(set)
    classes: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows(done).values():
        sides[row["source_group"]].add(row["split"])
        classes[row["dataset"]].add((row["split"], row["label"]))
    assert all(len(s) == 1 for s in sides.values())
    assert all(len(c) == 4 for c in classes.values())


def test_a_second_copy_that_has_gone_is_counted_no_more(root: Path) -> None:
    shutil.copytree(root / RWF, root / "raw" / "again" / "RWF-2000")
    first = combine.run(CombineConfig(data_root=root)).summary["files"]
    shutil.rmtree(root / "raw" / "again")
    now = combine.run(CombineConfig(data_root=root)).summary["files"]
    assert first["second_copies"] > now["second_copies"]
    assert first["found"] - now["found"] == first["second_copies"] - now["second_copies"]


def test_a_second_run_changes_nothing_and_says_the_same(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = combine.run(CombineConfig(data_root=root))
    before = manifest_bytes(root)
    with_log(caplog)
    start = time.monotonic()
    again = combine.run(CombineConfig(data_root=root))
    assert time.monotonic() - start < 0.5
    assert "nothing has changed since" in caplog.text
    assert again == first
    assert manifest_bytes(root) == before
    # records of earlier versions have no such count: wrong annotations counted as unreadable videos
    path = root / "combined_all" / combine.RECORD_NAME
    record = storage.read_json(path)
    del record["summary"]["wrong_annotations"]
    storage.write_json(path, record)
    assert combine.run(CombineConfig(data_root=root)) == first


@pytest.mark.parametrize(
    "harm", ["clip", "manifest", "record", "failures.csv", "unlabelled.csv", "warnings.csv", "duplicates.csv"]
)
def test_what_is_missing_or_changed_is_made_again(
    root: Path, done: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    combine.run(CombineConfig(data_root=root))
    combined = root / "combined_all"
    if harm == "clip":
        next(combined.glob("val/fight/*")).unlink()
    elif harm == "manifest":
        (combined / "manifest.csv").write_text("clip_id\n")
    else:
        (combined / (combine.RECORD_NAME if harm == "record" else harm)).unlink()
    with_log(caplog)
    combine.run(CombineConfig(data_root=root))
    assert "0 to read" in caplog.text
    assert manifest_bytes(root) == manifest_bytes(done)
    if harm.endswith(".csv"):
        assert table(combined / harm) == table(done / "combined_all" / harm)
    assert all((combined / r["path"]).exists() for r in rows(root).values())


def with_log(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("violence_detection").propagate = True
    caplog.set_level(logging.INFO, "violence_detection")


def test_a_data_set_added_later_costs_only_itself(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    flows = root / "raw" / "flows"
    flows.rename(root / "flows")
    combine.run(CombineConfig(data_root=root, workers=1))
    (root / "flows").rename(flows)
    with_log(caplog)
    combine.run(CombineConfig(data_root=root, workers=1))
    assert "20 to read" in caplog.text


def test_a_data_set_that_is_not_found_any_more_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = root / "elsewhere"
    combine.run(CombineConfig(data_root=root, workers=1))
    n = sum(r["dataset"] == "violent_flows" for r in rows(root).values())
    (root / "raw" / "flows").rename(elsewhere)
    combine.run(CombineConfig(data_root=root, roots=(elsewhere,), workers=1))
    assert "this one has none" not in caplog.text
    combine.run(CombineConfig(data_root=root, workers=1))
    assert f"the earlier manifest had {n} clips of violent_flows, and this one has none" in caplog.text
    assert "name its folder with --roots" in caplog.text


def test_clips_that_are_on_the_other_side_now_are_counted(
    root: Path, done: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table_ = root / "combined_all" / "manifest.csv"
    combine.run(CombineConfig(data_root=root, workers=1))
    assert "of the earlier val" not in caplog.text
    frame = pd.read_csv(table_, dtype=str, keep_default_na=False)
    trained, held_out = (frame.index[frame.split == side] for side in ("train", "val"))
    frame.loc[trained[:3], "split"] = "val"
    frame.loc[held_out[:2], "split"] = "train"
    frame.to_csv(table_, index=False)
    with_log(caplog)
    combine.run(CombineConfig(data_root=root, workers=1))
    assert "3 clips of the earlier val are in train now" in caplog.text
    assert "2 clips of the earlier train are in val now" in caplog.text
    assert manifest_bytes(root) == manifest_bytes(done)


def test_a_manifest_that_somebody_has_edited_is_kept_beside_the_new_one(
    root: Path, done: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    combined = root / "combined_all"
    combine.run(CombineConfig(data_root=root, workers=1))
    edited = b"".join((combined / "manifest.csv").read_bytes().splitlines(keepends=True)[:-1])
    (combined / "manifest.csv").write_bytes(edited)
    with_log(caplog)
    combine.run(CombineConfig(data_root=root, workers=1))
    kept = combined / "manifest_before.csv"
    assert f"the edited one is kept as {kept}" in caplog.text
    assert kept.read_bytes() == edited
    assert manifest_bytes(root) == manifest_bytes(done)
    caplog.clear()
    (combined / "by_time.csv").unlink()
    monkeypatch.setattr(combine, "_record", lambda *_: sys.exit("killed between manifest and record"))
    for _ in range(2):
        with pytest.raises(SystemExit):
            combine.run(CombineConfig(data_root=root, seed=1, workers=1))
    assert manifest_bytes(root) != manifest_bytes(done)
    assert "is kept as" not in caplog.text
    assert kept.read_bytes() == edited


def test_killed_in_the_middle_it_goes_on_and_ends_the_same(root: Path, done: Path) -> None:
    command = [sys.executable, "combine_all_datasets.py", "--data-root", str(root), "--workers", "1"]
    journal = root / "combined_all" / scan.JOURNAL_NAME
    first = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not journal.is_file() or journal.read_bytes().count(b"\n") < 5:
        assert first.poll() is None
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    first.wait()
    known = journal.read_bytes().count(b"\n")
    with journal.open("ab") as f:
        f.write(b'{"key": "torn')
    assert not (root / "combined_all" / "manifest.csv").exists()
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert again.returncode == 1, again.stderr  # done, but some files were left out
    assert f"{known} known" in again.stderr
    summary = json.loads(again.stdout)
    assert summary["unreadable"] == 1
    assert summary["label_conflicts"] == 2
    assert manifest_bytes(root) == manifest_bytes(done)
    third = subprocess.run(
        [*command, "--seed", "1"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ", 0 to read" in third.stderr  # the line after the torn one is not lost


def test_another_seed_leaves_no_stale_link(root: Path, done: Path) -> None:
    shutil.copytree(done, root, dirs_exist_ok=True)
    combine.run(CombineConfig(data_root=root, seed=5))
    placed = {p.relative_to(root / "combined_all").as_posix() for p in (root / "combined_all").glob("*/*/*")}
    assert placed == set(manifest.read(root / "combined_all").path)
    assert manifest_bytes(root) != manifest_bytes(done)


@pytest.mark.parametrize("link", ["symlink", "copy"])
def test_other_ways_of_placing_give_the_same_manifest(root: Path, done: Path, link: str) -> None:
    combine.run(CombineConfig(data_root=root, link=link))
    assert manifest_bytes(root) == manifest_bytes(done)
    clips = list((root / "combined_all").glob("*/*/*"))
    assert all(c.is_symlink() == (link == "symlink") for c in clips)
    assert all(c.stat().st_size > 0 for c in clips)
    if link == "copy":
        assert all(c.stat().st_nlink == 1 for c in clips)


def test_a_copied_root_is_made_right_by_the_next_run(done: Path, tmp_path: Path) -> None:
    """Files and settings are the same, but hard links have become separate files, and symbolic links lead elsewhere."""
    root = shutil.copytree(done, tmp_path / "copied")  # copytree turns hard links into separate files
    combine.run(CombineConfig(data_root=root, workers=1))
    placed = {root / "combined_all" / r["path"]: root / name for name, r in rows(root).items()}
    assert all(clip.samefile(source) for clip, source in placed.items())
    combine.run(CombineConfig(data_root=root, link="symlink"))
    again = shutil.copytree(root, tmp_path / "again", symlinks=True)
    combine.run(CombineConfig(data_root=again, link="symlink"))
    assert all(
        (again / "combined_all" / r["path"]).resolve() == again / name for name, r in rows(again).items()
    )
    assert manifest_bytes(again) == manifest_bytes(done)


def test_a_clip_that_was_put_in_the_place_of_a_link_goes(
    root: Path, done: Path, caplog: pytest.LogCaptureFixture
) -> None:
    combine.run(CombineConfig(data_root=root, workers=1))
    name, row = next(iter(rows(root).items()))
    clip = root / "combined_all" / row["path"]
    clip.unlink()
    clip.write_bytes(b"another")
    with_log(caplog)
    combine.run(CombineConfig(data_root=root, workers=1))
    assert clip.samefile(root / name)
    caplog.clear()
    combine.run(CombineConfig(data_root=root, workers=1))
    assert "nothing has changed since" in caplog.text
    assert manifest_bytes(root) == manifest_bytes(done)


def test_of_altered_copies_the_one_that_decodes_to_its_end_stays_but_for_an_official_val_clip() -> None:
    print_ = fingerprint.from_frames(
        list(np.random.default_rng(0).integers(0, 255, (8, 48, 64, 3), np.uint8))
    )

    def clip(name: str, shortfall: str, width: int = 320, split: str = "") -> ScannedClip:
        look = scan.Scan(sha256=name, width=width, height=240, fingerprint=print_, shortfall=shortfall)
        return ScannedClip(name, "fight", "s", name, split, look)

    half, whole = clip("a (1).avi", "only 20.9 of 40.0 s decode", width=640), clip("a.avi", "")
    assert [c.source_path for c in dedupe.deduplicate([half, whole]).kept] == ["a.avi"]
    official = clip("b.avi", "only 20.9 of 40.0 s decode", split="val")
    assert [c.source_path for c in dedupe.deduplicate([half, whole, official]).kept] == ["b.avi"]


def test_the_order_of_files_does_not_matter() -> None:
    candidates = [
        ScannedClip(
            f"{i}.avi", "fight", "s", f"g{i}", "val" if i == 5 else "", scan.Scan(sha256=str(i % 7), width=i)
        )
        for i in range(20)
    ]
    expected = dedupe.deduplicate(candidates)
    for seed in range(3):
        shuffled = random.Random(seed).sample(candidates, len(candidates))
        assert dedupe.deduplicate(shuffled) == expected
    assert "5.avi" in {c.source_path for c in expected.kept}


def test_clips_of_a_further_folder_are_named_by_their_whole_path(done: Path, tmp_path: Path) -> None:
    combine.run(CombineConfig(data_root=tmp_path / "new", roots=(done / "raw",), workers=1))
    found = rows(tmp_path / "new")
    assert {r["clip_id"] for r in found.values()} == {r["clip_id"] for r in rows(done).values()}
    assert all(Path(p).is_file() and Path(p).is_absolute() for p in found)


def test_a_share_that_is_none_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="--val-fraction"):
        combine.run(CombineConfig(data_root=root, val_fraction=20))


def test_a_fault_that_may_have_passed_is_looked_at_again_though_nothing_is_new(
    root: Path, done: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        look = scan.scan_all

        def crash(files: dict[str, Path], journal: Path, workers: int) -> dict[str, scan.Scan]:
            return look(files, journal, workers) | {HALF: scan.Scan(reason=video_files.CRASHED)}

        patch.setattr(scan, "scan_all", crash)
        assert combine.run(CombineConfig(data_root=root)).summary["unreadable"] == 2
    assert HALF not in rows(root)
    with_log(caplog)
    combine.run(CombineConfig(data_root=root))
    assert manifest_bytes(root) == manifest_bytes(done)


def walked(folder: Path) -> int:
    return sum(p.suffix in (".avi", ".mp4") and not p.is_dir() for p in folder.rglob("*"))


def test_every_video_below_raw_is_counted_once(root: Path) -> None:
    shutil.copytree(root / RWF, root / "raw" / "again" / "RWF-2000")
    (root / "raw" / "again" / "RWF-2000" / "train" / "more.avi").write_bytes(b"in no other tree")
    (root / RWF / "extra.avi").write_bytes(b"no rule names it")
    (root / HOCKEY / "fi131_xvid.avi").symlink_to(root / "gone.avi")
    for name in (
        "Arrest/Arrest001_x264.mp4",
        "Normal_Videos/Normal_Videos003_x264.mp4",
        "Abuse/Abuse001_x264.mp4",
    ):
        write(root / "raw" / "ucf" / name, 900, n_frames=80)
    for name in ("SCVD_converted/Train/Normal/n001.avi", "SCVD_converted_sec_split/Train/Normal/n001.avi"):
        write(root / "raw" / "scvd" / name, 950)
    mine = root / "raw" / "mine"
    lines = ["path,label"]
    for k in range(6):
        write(mine / f"{k}.avi", 960 + k)
        lines.append(f"{k}.avi,{'fight' if k % 2 else 'nonfight' if k < 4 else 'unclear'}")
    (mine / "not_listed.avi").write_bytes(b"x")
    (mine / "own.csv").write_text("\n".join([*lines, "1.avi,fight"]) + "\n")
    own = (f"mine={mine}/own.csv",)
    result = combine.run(CombineConfig(data_root=root, own=own), CutConfig(window_s=2.0))
    files = dict(result.summary["files"])
    assert files["found"] == walked(root / "raw")
    assert sum(files[kind] for kind in outcome.FILE_KINDS) == files["found"]
    windows = sum(1 for p in rows(root) if p.startswith("windows/"))
    assert files["kept"] == result.summary["train"] + result.summary["val"] - windows
    assert {kind: files[kind] for kind in ("unlabelled", "excluded", "wrong_rows", "cut", "not_cut")} == {
        "unlabelled": 4,  # beach.avi, more.avi and extra.avi, which no rule matches, and not_listed.avi
        "excluded": 1,
        "wrong_rows": 1,
        "cut": 1,
        "not_cut": 1,
    }
    assert files["second_copies"] == walked(root / RWF) - 1 + 1
    assert files["unreadable"] == 2
    assert files["label_conflicts"] == 2


def test_names_that_are_no_utf_8_stop_nothing_and_come_back_as_they_are(root: Path) -> None:
    folder = os.fsdecode(b"caf\xe9")
    (root / "raw" / "hockey").rename(root / "raw" / folder)
    (root / "raw" / "holiday" / "beach.avi").rename(root / "raw" / "holiday" / os.fsdecode(b"b\xff.avi"))
    (root / "raw" / "holiday").rename(root / "raw" / os.fsdecode(b"\xfe"))
    command = [sys.executable, "combine_all_datasets.py", "--data-root", str(root), "--workers", "1"]
    for seed in ("0", "1"):
        done = subprocess.run(
            [*command, "--seed", seed], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done.stderr
        summary = json.loads(done.stdout)
        found = manifest.read(root / "combined_all")
        assert len(found) == summary["train"] + summary["val"]
        assert all((root / p).is_file() for p in found.source_path)
        assert all((root / "combined_all" / p).is_file() for p in found.path)
        tables = [storage.read_csv(root / "combined_all" / n) for n in ("failures.csv", "duplicates.csv")]
        named = {*found.source_path, *(r.get("path") or r["source_path"] for t in tables for r in t)}
        hockey = {f"raw/{folder}/data/{p.name}" for p in (root / "raw" / folder / "data").iterdir()}
        assert hockey <= named
        (unlabelled,) = storage.read_csv(root / "combined_all" / "unlabelled.csv")
        assert unlabelled["path"] == os.fsdecode(b"raw/\xfe")


def unlistable(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Make listing these folders fail. Permissions would not stop tests that run as root."""
    scandir = os.scandir

    def refuse(path: str = ".") -> object:
        if Path(path) in folders:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def test_a_folder_that_cannot_be_listed_is_a_named_failure(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is part of no recognised data set, so the run does not stop."""
    closed = root / "raw" / "closed"
    closed.mkdir()
    unlistable(monkeypatch, closed)
    result = combine.run(CombineConfig(data_root=root))
    (failure,) = [f for f in result.failures if "cannot be listed" in f["reason"]]
    assert failure["path"] == "raw/closed"
    assert "Permission denied" in failure["reason"]
    assert result.summary["unlisted_folders"] == 1
    assert result.summary["unreadable"] == 1


def test_a_class_folder_that_cannot_be_listed_ends_it_before_anything_is_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other data sets have clips of that class, but those of this data set would be missing unnoticed."""
    fights = root / "raw" / "flows" / "1" / "Violence"
    unlistable(monkeypatch, fights)
    monkeypatch.setattr(scan, "scan_file", None)
    with pytest.raises(UserError, match=r"a part of violent_flows.*Permission denied.*chmod u\+rx") as told:
        combine.run(CombineConfig(data_root=root))
    assert str(fights) in str(told.value)
    assert not (root / "combined_all" / "manifest.csv").exists()
    monkeypatch.undo()
    assert combine.run(CombineConfig(data_root=root)).summary["unlisted_folders"] == 0


@pytest.mark.parametrize("how", ["empty", "unlistable"])
def test_a_class_without_a_clip_ends_it_before_anything_is_read(
    root: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(root / "raw" / "hockey")
    shutil.rmtree(root / "raw" / "holiday")
    shutil.rmtree(root / RWF)
    fights = root / "raw" / "flows" / "1" / "Violence"
    if how == "empty":
        shutil.rmtree(fights)
    else:
        unlistable(monkeypatch, fights)
    monkeypatch.setattr(scan, "scan_file", None)
    with pytest.raises(
        UserError, match=r"no fight clip below .*10 nonfight.*violent_flows.*--labels"
    ) as told:
        combine.run(CombineConfig(data_root=root))
    assert (f"{fights}: this folder cannot be listed" in str(told.value)) == (how == "unlistable")
    assert not (root / "combined_all" / "manifest.csv").exists()


def test_a_class_without_a_clip_is_looked_for_where_ones_own_clips_lie(tmp_path: Path) -> None:
    """The data root does not exist yet, as with the first command in docs/guides/own_clips.md."""
    mine = tmp_path / "mine"
    for folder in ("fights", "noFights"):
        (mine / folder).mkdir(parents=True)
        (mine / folder / "1.mp4").write_bytes(b"never read")
    with pytest.raises(UserError) as told:
        combine.run(CombineConfig(data_root=tmp_path / "data", own=(f"mine={mine}",), caches=False))
    assert str(told.value).startswith(f"no nonfight clip below {mine}. Found: 1 fight clips")


def test_nothing_usable_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match="download_all_violence_datasets"):
        combine.run(CombineConfig(data_root=tmp_path))
    for name in ("fi1_xvid.avi", "no1_xvid.avi"):
        (tmp_path / "raw" / name).write_bytes(b"no video")
    with pytest.raises(UserError, match="unreadable"):
        combine.run(CombineConfig(data_root=tmp_path, workers=1))


@pytest.mark.real
@pytest.mark.slow
def test_real_clips_keep_every_rule_for_twenty_seeds(real_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").symlink_to(real_clips / "raw")
    combine.run(CombineConfig(data_root=tmp_path))
    oracle = pd.read_csv(real_clips / "sources.csv").set_index("path")
    found = {combine.source_path(c.path, tmp_path): c for c in inventory.discover([tmp_path / "raw"]).clips}
    journal = tmp_path / "combined_all" / scan.JOURNAL_NAME
    scans = scan.scan_all({name: c.path for name, c in found.items()}, journal, workers=1)
    unique = dedupe.deduplicate(
        ScannedClip(name, c.label, c.dataset, c.source_group, c.official_split, scans[name])
        for name, c in found.items()
    )
    for seed in range(20):
        rows = combine.divide(unique, CombineConfig(data_root=tmp_path, seed=seed))[0]
        clips = pd.DataFrame(rows).set_index("source_path")
        known = oracle.loc[clips.index]
        assert (clips.label == known.label).all()
        assert (clips.dataset == known.dataset).all()
        assert clips.split.groupby([known.dataset, known.source_group]).nunique().max() == 1
        assert clips.split.groupby(clips.source_group).nunique().max() == 1
        assert clips.split.groupby([clips.dataset, clips.label]).nunique().min() == 2
        assert 0.18 <= (clips.split == "val").mean() <= 0.22
        for a, b in ((13, 14), (123, 136)):
            kept = [f"raw/hockey_fights/data/no{n}_xvid.avi" in clips.index for n in (a, b)]
            assert sum(kept) <= 1
    assert (manifest.read(tmp_path / "combined_all").sha256.value_counts() == 1).all()


def test_a_manifest_that_cannot_be_read_is_made_again(
    done: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(shutil.copytree(done, tmp_path / "root"))
    before = manifest_bytes(root)
    path = root / "combined_all" / manifest.FILE_NAME
    path.write_bytes(before + b"x" * 200_000)
    combine.run(CombineConfig(data_root=root, workers=2))
    assert manifest_bytes(root) == before
    assert (
        f"{path} cannot be read and is made again; whether clips change sides is therefore unknown"
        in caplog.text
    )


@pytest.mark.parametrize("written", ['{"config": {', "[]", ""], ids=["cut off", "no record", "empty"])
def test_a_damaged_record_is_made_again(
    done: Path, tmp_path: Path, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(shutil.copytree(done, tmp_path / "root"))
    record = root / "combined_all" / combine.RECORD_NAME
    whole, before = storage.read_json(record), manifest_bytes(root)
    record.write_text(written)
    combine.run(CombineConfig(data_root=root, workers=2))
    assert storage.read_json(record).keys() == whole.keys()
    assert manifest_bytes(root) == before
    assert f"{record} is" in caplog.text
    assert "It is made again" in caplog.text
