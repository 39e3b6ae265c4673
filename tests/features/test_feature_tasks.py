"""What the training scripts do instead of training: extract only, draw variants, list and delete unused features."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import small_videos
import stand_in

from violence_detection import cli
from violence_detection.combine import manifest
from violence_detection.ensemble import run_checks
from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.errors import UserError
from violence_detection.features import extract, feature_tasks
from violence_detection.features.cache import FeatureStore
from violence_detection.features.config import ExtractConfig, FeatureConfig, FeatureTaskConfig
from violence_detection.system import storage
from violence_detection.video import contact_sheet

CLIPS = (("train", "fight"), ("train", "nonfight"), ("train", "fight"), ("val", "nonfight"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with three train clips and one val clip."""
    stand_in.install(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    combined = tmp_path / "data" / "combined_all"
    rows = []
    for i, (split, label) in enumerate(CLIPS):
        path = small_videos.write(combined / split / label / f"clip{i}.avi", i)
        row = {"clip_id": f"clip{i}", "path": str(path.relative_to(combined)), "label": label, "split": split}
        rows.append(dict.fromkeys(manifest.COLUMNS, "0") | {"fingerprint": "0" * 48} | row)
    pd.DataFrame(rows).to_csv(combined / manifest.FILE_NAME, index=False)
    return tmp_path / "data"


def _run(root: Path, *flags: str, **how: Any) -> tuple[int | None, dict[str, Any]]:
    """Run a task; return its exit code and summary, or (None, {}) without a task."""
    parser = argparse.ArgumentParser()
    for config in (ExtractConfig, FeatureConfig, FeatureTaskConfig):
        cli.add_config(parser, config)
    settings = ["--backbone", "stand_in", "--frames", "5", "--window-s", "2", "--augment", "3"]
    args = parser.parse_args(["--data-root", str(root), *settings, *flags])
    features, extraction = cli.build(FeatureConfig, args), cli.build(ExtractConfig, args)
    task, output = cli.build(FeatureTaskConfig, args), root.parent / "models"
    done = feature_tasks.run(task, features, extraction, output, lambda: None, **how)
    return (cli.exit_code(done.failures), done.summary) if done else (None, {})


def test_features_only_extracts_and_says_what_and_where(root: Path) -> None:
    assert _run(root) == (None, {}), "without a flag training goes on"
    (root / "combined_all" / "train" / "fight" / "clip2.avi").write_bytes(b"no video")
    code, summary = _run(root, "--features-only", "--usd-per-hour", "0.7")
    assert code == cli.EXIT_SOME_FAILED
    assert (summary["clips"], summary["clips_extracted"], summary["clips_failed"]) == (4, 3, 1)
    assert "clip2.avi" in (root.parent / "models" / "failures.csv").read_text()
    stores = {name: FeatureStore(Path(folder)) for name, folder in summary["features"].items()}
    assert set(stores) == {"stand_in.rgb", "stand_in.motion"}
    for store in stores.values():
        assert store.variants("clip0") == {"v0", "v1", "v2"}
        assert store.variants("clip3") == {"v0"}, "val clips need the plain variant alone"


def test_a_clip_that_has_become_another_file_is_named_and_not_kept_under_the_old_ones_id(root: Path) -> None:
    path = root / "combined_all" / "train" / "fight" / "clip0.avi"
    table = root / "combined_all" / manifest.FILE_NAME
    frame = pd.read_csv(table, dtype=str)
    sha256 = storage.sha256_file(path)
    frame.loc[frame.path == "train/fight/clip0.avi", ["clip_id", "sha256"]] = [sha256[:16], sha256]
    frame.to_csv(table, index=False)
    _run(root, "--features-only", "--augment", "1")
    other = small_videos.write(root / "other.avi", 9).read_bytes()
    before = path.stat()
    path.write_bytes(other)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    code, summary = _run(root, "--features-only")
    assert (code, summary["clips_failed"]) == (1, 1)
    (failure,) = storage.read_csv(root.parent / "models" / "failures.csv")
    assert failure["path"].endswith("train/fight/clip0.avi")
    assert (
        "its content has changed. Run: python combine_all_datasets.py, with the flags you combine with"
        in failure["reason"]
    )
    folder = Path(summary["features"]["stand_in.rgb"])
    assert FeatureStore(folder).variants(sha256[:16]) == {"v0"}, "what was made of the old file stays"


def test_features_only_of_folds_takes_the_views_and_variants_of_what_they_hold_out(root: Path) -> None:
    folds = EnsembleConfig(cross_validate=2, all_clips=True, tta=3)
    wanted = run_checks.wanted_clips(folds, ExtractConfig(data_root=root, augment=2))
    assert {c.clip_id: c.variants for c in wanted} == dict.fromkeys(
        ("clip0", "clip1", "clip2", "clip3"), ("v0", "v1", "w1", "w2")
    )
    _, summary = _run(root, "--features-only", wanted=lambda _: wanted)
    (folder, *_) = summary["features"].values()
    assert FeatureStore(Path(folder)).variants("clip3") == {"v0", "v1", "w1", "w2"}


def test_prune_lists_first_and_deletes_only_what_is_unused_and_at_rest(root: Path) -> None:
    _, made = _run(root, "--features-only")
    kept = {Path(folder) for folder in made["features"].values()}
    wanted = stand_in.wanted(sorted((root / "combined_all").rglob("*.avi")), 1)
    other = replace(stand_in.CONFIG, augment_seed=1)
    old = {s.folder for s in extract.ensure(wanted, other, ExtractConfig(data_root=root)).stores.values()}
    other = replace(stand_in.CONFIG, augment_seed=2)
    busy = {s.folder for s in extract.ensure(wanted, other, ExtractConfig(data_root=root)).stores.values()}
    an_hour_ago = time.time() - 3600
    for path in (p for folder in old for p in folder.iterdir()):
        os.utime(path, (an_hour_ago, an_hour_ago))
    stranger = root / "features" / "mine"
    stranger.mkdir()
    (stranger / "record.json").write_text('{"title": "no cache"}')
    notes = min(old) / "notes.txt"
    notes.write_text("mine")
    os.utime(notes, (an_hour_ago, an_hour_ago))
    gone = next(iter(kept)) / "gone.npz"
    gone.write_bytes(bytes(1000))
    os.utime(gone, (an_hour_ago, an_hour_ago))
    fresh, unfinished = gone.with_name("fresh.npz"), gone.with_name(".gone.host.1-2.tmp.npz")
    for path in (fresh, unfinished):
        path.write_bytes(bytes(10))
    os.utime(unfinished, (an_hour_ago, an_hour_ago))
    everything = sorted(root.rglob("*"))

    code, listed = _run(root, "--prune")
    assert code == cli.EXIT_DONE
    assert {Path(part["folder"]) for part in listed["unused"]} == old | busy | {gone.parent}
    assert listed["freed_bytes"] == 0
    assert sorted(root.rglob("*")) == everything, "listing deletes nothing"

    size = sum(p.stat().st_size for folder in old for p in folder.iterdir() if p != notes)
    _, done = _run(root, "--prune", "yes")
    assert done["freed_bytes"] == size + 1000
    assert set((root / "features").iterdir()) == kept | busy | {stranger, notes.parent}
    assert list(notes.parent.iterdir()) == [notes], "what the cache did not make stays"
    assert list(stranger.iterdir()) == [stranger / "record.json"]
    assert not gone.exists()
    assert fresh.exists(), "another process may have made it for a manifest that this one does not know yet"
    assert unfinished.exists(), "another process is writing it"
    code, again = _run(root, "--features-only")
    assert again["clips_extracted"] == 0, "what is used has been deleted"


def test_preview_draws_a_row_a_variant_and_stream_of_both_classes(root: Path) -> None:
    _, summary = _run(root, "--preview", "2")
    sheets = {Path(path).stem: np.asarray(cv2.imread(path)) for path in summary["sheets"]}
    assert set(sheets) == {"clip0", "clip1"}, "a fight and a nonfight"
    assert not (root / "features").exists()
    rows = len(sheets["clip0"]) / (contact_sheet._THUMB + contact_sheet._GAP)
    assert rows == 3 * 2
    assert not np.array_equal(sheets["clip0"], sheets["clip1"])


def test_preview_draws_of_the_clips_that_would_be_trained_on(root: Path) -> None:
    def wanted(how: ExtractConfig) -> list[extract.WantedClip]:
        return [clip for clip in extract.all_clips(how) if clip.clip_id in ("clip2", "clip3")]

    _, summary = _run(root, "--preview", "4", wanted=wanted)
    assert [Path(path).stem for path in summary["sheets"]] == ["clip2"], "clip3 is of val"


def test_an_unreadable_clip_costs_the_preview_its_own_sheet_only(root: Path) -> None:
    next((root / "combined_all").rglob("clip0*")).write_bytes(b"no video")
    code, summary = _run(root, "--preview", "2")
    assert code == cli.EXIT_SOME_FAILED
    assert [Path(path).stem for path in summary["sheets"]] == ["clip1"]


def test_a_sheet_shows_each_image_in_its_place_and_colour() -> None:
    red, blue = (np.full((2, 8, 8, 3), colour, np.uint8) for colour in ([255, 0, 0], [0, 0, 255]))
    drawn = contact_sheet.sheet({"v0": {"rgb": red, "motion": blue}})
    middle, cell = contact_sheet._THUMB // 2, contact_sheet._THUMB + contact_sheet._GAP
    column = contact_sheet._MARGIN + cell + middle
    assert drawn[middle, column].tolist() == [0, 0, 255], "BGR of red"
    assert drawn[cell + middle, column].tolist() == [255, 0, 0]


def test_two_tasks_at_once_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match="--prune and --features-only are tasks of their own"):
        _run(root, "--prune", "--features-only")


def test_prune_deletes_nothing_that_another_machine_writes_whatever_the_clock_says(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = stand_in.wanted(sorted((root / "combined_all").rglob("*.avi")), 1)
    other = replace(stand_in.CONFIG, augment_seed=1)
    busy = {s.folder for s in extract.ensure(wanted, other, ExtractConfig(data_root=root)).stores.values()}
    for folder in busy:  # a name whose file is gone when it is looked at, as while files are renamed
        (folder / ".clip9.other_host.1-2.tmp.npz").symlink_to(folder / "gone")
    before = sorted(root.rglob("*.npz"))
    ahead = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: ahead)
    _, done = _run(root, "--prune", "yes")
    assert {Path(part["folder"]) for part in done["unused"]} == busy
    assert done["freed_bytes"] == 0
    assert sorted(root.rglob("*.npz")) == before


def test_a_preview_leaves_the_list_of_clips_that_a_training_left_out(root: Path) -> None:
    failures = root.parent / "models" / "failures.csv"
    failures.parent.mkdir()
    failures.write_text("path,reason\nclip9.avi,no video\n")
    _run(root, "--preview", "2")
    assert "clip9.avi" in failures.read_text()
    next((root / "combined_all").rglob("clip0*")).write_bytes(b"no video")
    _run(root, "--preview", "2")
    assert "clip9.avi" in failures.read_text()
    assert "clip0.avi" in (failures.parent / "preview" / "failures.csv").read_text()
