"""The user's own clips are combined like published ones: sources, splits, stretches, wrong rows, another catalogue."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numbered_videos
import pandas as pd
import pytest
import small_videos
import timed_videos
from timed_videos import evenly
from untrimmed_videos import numbered, numbers

from violence_detection.combine import combine, manifest
from violence_detection.combine.config import CombineConfig, CutConfig
from violence_detection.combine.cut import cutting
from violence_detection.combine.cut.cutting import CutResult
from violence_detection.errors import UserError
from violence_detection.find import find
from violence_detection.find.config import FindConfig
from violence_detection.video import decode, writer

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("brawl", "street scenes")
LABELS = ("fight=brawl", "nonfight=street scenes")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 clips in two class folders with names that only --labels explains; tests only read them."""
    folder = tmp_path_factory.mktemp("clips")
    for seed in range(20):
        for offset, name in enumerate(CLASSES):
            small_videos.write(folder / name / f"recording {seed}.avi", 100 * offset + seed)
    return folder


def manifest_of(config: CombineConfig) -> pd.DataFrame:
    combine.run(config)
    return manifest.read(config.data_root / "combined_all")


def test_forty_clips_in_two_folders_become_a_set(clips: Path, tmp_path: Path) -> None:
    frame = manifest_of(CombineConfig(data_root=tmp_path, own=(f"Mine={clips}",), labels=LABELS))
    assert len(frame) == 40
    assert set(frame.dataset) == {"mine"}
    assert (frame.label == frame.source_path.map(lambda p: "fight" if "/brawl/" in p else "nonfight")).all()
    assert frame.source_path.map(lambda p: Path(p).is_absolute()).all()
    assert frame.source_group.is_unique
    assert frame.groupby("label").split.value_counts().unstack()["val"].tolist() == [4, 4]


def test_clips_below_the_data_root_are_named_below_it(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine").symlink_to(clips)
    monkeypatch.chdir(tmp_path)
    frame = manifest_of(CombineConfig(data_root=tmp_path, own=("mine=raw/mine",), labels=LABELS))
    assert frame.source_path.str.startswith("raw/mine/").all()
    assert len(frame) == 40


def test_sources_that_a_csv_file_names_are_respected_by_the_split(clips: Path, tmp_path: Path) -> None:
    lines = ["path,label,source"]
    for k in range(20):
        lines += [f"{clips}/{CLASSES[0]}/recording {k}.avi,fight,cam{k % 5}"]
        lines += [f"{clips}/{CLASSES[1]}/recording {k}.avi,nonfight,cam{k % 5}"]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    for seed in range(5):
        frame = manifest_of(CombineConfig(data_root=tmp_path, own=(f"mine={tmp_path}/clips.csv",), seed=seed))
        assert len(frame) == 40
        assert set(frame.source_group) == {f"mine:cam{k}" for k in range(5)}
        assert frame.groupby("source_group").split.nunique().max() == 1
        assert (frame.split == "val").sum() == 8


def test_sub_folders_are_sources_across_the_classes(clips: Path, tmp_path: Path) -> None:
    for k in range(20):
        for label, name in zip(("fight", "nonfight"), CLASSES, strict=True):
            link = tmp_path / "mine" / label / f"cam{k % 4}" / f"{k}.avi"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(clips / name / f"recording {k}.avi")
    frame = manifest_of(CombineConfig(data_root=tmp_path / "root", own=(f"mine={tmp_path}/mine",)))
    assert frame.groupby("source_group").split.nunique().max() == 1
    assert frame.groupby("source_group").label.nunique().tolist() == [2, 2, 2, 2]


def test_a_split_of_ones_own_stands(clips: Path, tmp_path: Path) -> None:
    lines = ["path,label,split"]
    for k in range(20):
        for label, name in zip(("fight", "nonfight"), CLASSES, strict=True):
            lines.append(f"{clips}/{name}/recording {k}.avi,{label},{'val' if k < 6 else 'train'}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    frame = manifest_of(CombineConfig(data_root=tmp_path, own=(f"mine={tmp_path}/clips.csv",)))
    assert (frame.split == frame.official_split).all()
    assert (frame.split == "val").sum() == 12


def test_a_copy_in_another_set_joins_the_sources(clips: Path, tmp_path: Path) -> None:
    """Sources of two sets show the same fight, so no clip of one may be in train and one of the other in val."""
    small_videos.write(tmp_path / "b/fight/cam/x.avi", 2001)
    small_videos.write(tmp_path / "b/nonfight/cam/x.avi", 2002)
    small_videos.write(tmp_path / "c/fight/door/x.avi", 2001, width=192, height=128, brightness=8)
    small_videos.write(tmp_path / "c/nonfight/door/x.avi", 2003)
    own = (f"a={clips}", f"b={tmp_path}/b", f"c={tmp_path}/c")
    frame = manifest_of(CombineConfig(data_root=tmp_path / "root", own=own, labels=LABELS))
    assert len(frame) == 43
    joined = frame[frame.dataset.isin(["b", "c"])]
    assert sorted(joined.label) == ["fight", "nonfight", "nonfight"]
    assert joined.source_group.nunique() == 1
    assert joined.split.nunique() == 1


def test_a_set_that_the_next_run_does_not_name_is_told(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed, label in enumerate(("fight", "nonfight")):
        small_videos.write(tmp_path / "other" / label / "1.avi", 901 + seed)
    mine = f"mine={clips}"
    config = CombineConfig(
        data_root=tmp_path, own=(mine, f"other={tmp_path}/other"), labels=LABELS, caches=False
    )
    combine.run(config)
    assert "this one has none" not in caplog.text
    combine.run(dataclasses.replace(config, own=(mine,)))
    (said,) = [r.getMessage() for r in caplog.records if "this one has none" in r.getMessage()]
    assert said.startswith("the earlier manifest had 2 clips of other, and this one has none")
    assert "name them with --own" in said
    combine.run(dataclasses.replace(config, own=(mine,)))
    assert caplog.text.count("this one has none") == 1


def test_an_unexplained_folder_is_left_out_and_named(clips: Path, tmp_path: Path) -> None:
    for seed, label in enumerate(("fight", "nonfight")):
        small_videos.write(tmp_path / "other" / label / "1.avi", 901 + seed)
    own = (f"mine={clips}", f"other={tmp_path}/other")
    result = combine.run(CombineConfig(data_root=tmp_path, own=own, labels=LABELS[:1]))
    assert result.summary["by_dataset"]["mine"]["train"]["nonfight"] == 0
    assert result.summary["unlabelled"] == 20
    assert "--labels says what a folder means" in (tmp_path / "combined_all" / "unlabelled.csv").read_text()


def test_the_script_takes_all_of_it_and_wrong_rows_are_failures(clips: Path, tmp_path: Path) -> None:
    rows = [f"{clips}/{n}/recording {k}.avi,{n},cam{k}" for k in range(10) for n in CLASSES]
    (tmp_path / "a.csv").write_text("\n".join(["path,label,source", "gone.avi,brawl,", *rows]))
    (tmp_path / "other").mkdir()
    small_videos.write(tmp_path / "other" / "fight" / "1.avi", 901)
    small_videos.write(tmp_path / "other" / "nonfight" / "1.avi", 902)
    command = [
        sys.executable, "combine_all_datasets.py", "--data-root", str(tmp_path / "root"),
        "--own", f"a={tmp_path}/a.csv", "--labels", *LABELS, "--own", f"b={tmp_path}/other", "--workers", "1",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert summary["train"] + summary["val"] == 22
    assert (summary["wrong_rows"], summary["unreadable"]) == (1, 0)
    assert set(summary["by_dataset"]) == {"a", "b"}
    assert "a.csv:2" in (tmp_path / "root" / "combined_all" / "failures.csv").read_text()
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "nothing has changed since" in again.stderr
    assert json.loads(again.stdout) == summary
    mended = (tmp_path / "a.csv").read_text().replace("gone.avi,brawl,\n", "")
    (tmp_path / "a.csv").write_text(mended)
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


# --- stretches of longer videos: at 8 frames a second, a window is 40 frames


def cut(
    root: Path, *rows: str, config: CutConfig | None = None, header: str = "path,label,start_s,end_s"
) -> CutResult:
    (root / "long.csv").write_text("\n".join([header, *rows]) + "\n")
    found = find.discover(CombineConfig(data_root=root, own=(f"mine={root}/long.csv",)))
    result = cutting.cut(found, config or CutConfig(), root, workers=1)
    cutting.remove(result.left_over)
    return result


def frames(result: CutResult) -> list[tuple[str, int, int]]:
    """Return (class, first frame, last frame) of each clip, read off its pictures, which must be consecutive."""
    found = []
    for clip in result.clips:
        seen = numbers(clip.path)
        assert seen == list(range(seen[0], seen[-1] + 1)), clip.path
        found.append((clip.label, seen[0], seen[-1]))
    return sorted(found, key=lambda f: f[1:])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    numbered(tmp_path / "video.mp4")  # 240 frames, 30 s
    return tmp_path


def test_a_row_becomes_a_clip_right_to_the_frame(root: Path) -> None:
    result = cut(root, "video.mp4,fight,2.5,5", "video.mp4,nonfight,10,15", "video.mp4,fight,5,6.5")
    assert frames(result) == [("fight", 20, 39), ("fight", 40, 51), ("nonfight", 80, 119)]
    assert result.by_dataset == {"mine": {"fight": 2, "nonfight": 1}}
    assert {c.path.parent for c in result.clips} == {root / "windows" / "mine"}
    assert "video__2500-5000.mp4" in {c.path.name for c in result.clips}
    assert {c.source_group for c in result.clips} == {"mine:video.mp4"}
    assert result.failures == result.left_out == []


def test_a_row_of_a_video_of_variable_rate_is_cut_by_its_times(root: Path) -> None:
    """The video has 5 frames a second for 12 s, then 25 for 8 s."""
    timed_videos.write(root / "slow.mp4", [*evenly(60, 5), *evenly(200, 25, start_s=12.0)])
    result = cut(root, "slow.mp4,nonfight,2,7", "slow.mp4,fight,13,18")
    shown = {clip.label: numbers(clip.path) for clip in result.clips}
    for label, (first, last) in {"nonfight": (10, 34), "fight": (85, 209)}.items():
        assert shown[label] == sorted(shown[label])
        assert abs(shown[label][0] - first) <= 1
        assert abs(shown[label][-1] - last) <= 1
    assert [decode.probe(clip.path).duration_s for clip in result.clips] == pytest.approx([5.0, 5.0], abs=0.1)


def test_a_longer_row_gives_windows_inside_it_of_either_class(root: Path) -> None:
    result = cut(root, "video.mp4,nonfight,1,12.5", "video.mp4,fight,13,30")
    found = frames(result)
    assert [label for label, _, _ in found] == ["nonfight"] * 2 + ["fight"] * 3
    assert all(last - first == 39 for _, first, last in found)
    assert all(
        first >= 8 and last < 100 if label == "nonfight" else first >= 104 for label, first, last in found
    )
    few = cut(
        root, "video.mp4,nonfight,1,12.5", "video.mp4,fight,13,30", config=CutConfig(windows_per_video=1)
    )
    assert [label for label, _, _ in frames(few)] == ["nonfight", "fight"]


def test_all_short_rows_count_however_many(root: Path) -> None:
    result = cut(
        root, *(f"video.mp4,fight,{k},{k + 1}" for k in range(30)), config=CutConfig(windows_per_video=2)
    )
    assert frames(result) == [("fight", 8 * k, 8 * k + 7) for k in range(30)]


def test_rows_of_one_class_may_overlap(root: Path) -> None:
    result = cut(
        root, "video.mp4,fight,0,5", "video.mp4,fight,3,8", "video.mp4,fight,5,10", "video.mp4,fight,4,6"
    )
    assert frames(result) == [("fight", 0, 39), ("fight", 24, 63), ("fight", 32, 47), ("fight", 40, 79)]


def test_rows_that_the_video_does_not_have_are_named_by_line_and_the_others_cut(root: Path) -> None:
    result = cut(
        root,
        "video.mp4,fight,28,33",
        "video.mp4,fight,31,36",
        "video.mp4,nonfight,2,2.5",
        "video.mp4,fight,4,6",
    )
    assert frames(result) == [("fight", 32, 47), ("fight", 224, 239)]
    assert [(f["path"], f["reason"]) for f in result.failures] == [
        ("long.csv:3", "video.mp4: starts at 31 s, but the video ends after 30.00 s"),
        ("long.csv:4", "video.mp4: has 4 frames, fewer than the 8 that a clip needs"),
    ]
    again = cut(
        root,
        "video.mp4,fight,28,33",
        "video.mp4,fight,31,36",
        "video.mp4,nonfight,2,2.5",
        "video.mp4,fight,4,6",
    )
    assert again == result


def test_a_video_shorter_than_its_header_says_gives_the_rows_it_has(tmp_path: Path) -> None:
    numbered_videos.write(tmp_path / "video.avi", n_frames=100, fps=8.0)
    numbered_videos.claim_frames(tmp_path / "video.avi", 400)
    result = cut(tmp_path, "video.avi,fight,1,4", "video.avi,fight,10,14", "video.avi,fight,20,24")
    assert frames(result) == [("fight", 8, 31), ("fight", 80, 99)]
    assert [f["path"] for f in result.failures] == ["long.csv:4"]


def test_a_damaged_video_is_named_and_the_others_are_cut(root: Path) -> None:
    (root / "broken.mp4").write_bytes(b"no video")
    result = cut(root, "broken.mp4,fight,1,4", "video.mp4,nonfight,1,4")
    assert frames(result) == [("nonfight", 8, 31)]
    assert [f["path"] for f in result.failures] == ["broken.mp4"]


def test_whole_files_and_stretches_stand_in_one_table(root: Path) -> None:
    numbered(root / "whole.mp4", n_frames=24)
    result = cut(root, "video.mp4,nonfight,1,4", "whole.mp4,fight,,")
    found = find.discover(CombineConfig(data_root=root, own=(f"mine={root}/long.csv",)))
    assert [c.path.name for c in found.clips] == ["whole.mp4"]
    assert frames(result) == [("nonfight", 8, 31)]


def test_train_and_val_of_one_video_stay_what_they_are_called(root: Path) -> None:
    result = cut(root, "video.mp4,fight,1,4,train", "video.mp4,fight,9,12,val", "video.mp4,nonfight,20,23,val",
                 header="path,label,start_s,end_s,split")  # fmt: skip
    sides = {numbers(c.path)[0]: c.official_split for c in result.clips}
    assert sides == {8: "train", 72: "val", 160: "val"}
    assert len({c.source_group for c in result.clips}) == 1  # so combining drops the clip of train


def test_a_row_moved_is_cut_anew_and_a_line_above_it_changes_nothing(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("violence_detection").propagate = True
    caplog.set_level(logging.INFO, "violence_detection")
    numbered(root / "other.mp4")
    cut(root, "video.mp4,fight,2,5", "other.mp4,fight,2,5")
    cut(root, "", "gone.mp4,fight,1,2", "video.mp4,fight,2,5", "other.mp4,fight,2,5")
    assert "2 known, 0 to cut" in caplog.text
    result = cut(root, "video.mp4,fight,2,5", "other.mp4,fight,3,5")
    assert "1 known, 1 to cut" in caplog.text
    assert len(list((root / "windows").rglob("*.mp4"))) == 2
    assert frames(result) == [("fight", 16, 39), ("fight", 24, 39)]


def test_windows_of_videos_that_are_no_longer_listed_are_named_stay_and_are_not_used(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    numbered(root / "other.mp4")
    for seed, label in ((901, "fight"), (902, "nonfight")):
        small_videos.write(root / "whole" / label / "1.avi", seed)
    (root / "raw").mkdir()
    table, whole = root / "long.csv", f"whole={root}/whole"

    def used(*own: str) -> tuple[set[str], list[str]]:
        caplog.clear()
        combine.run(CombineConfig(data_root=root, own=own, caches=False, workers=1))
        listed = csv.DictReader((root / "windows" / cutting.TABLE_NAME).read_text().splitlines())
        clips = manifest.read(root / "combined_all").source_path
        return {p for p in clips if p.startswith("windows/")}, [row["path"] for row in listed]

    table.write_text("path,label,start_s,end_s\nvideo.mp4,fight,1,4\nother.mp4,fight,2,5\n")
    both = [f"windows/mine/{name}.mp4" for name in ("other__2000-5000", "video__1000-4000")]
    clips, listed = used(f"mine={table}", whole)
    assert clips <= set(both)
    assert sorted(listed) == both
    assert "not used" not in caplog.text
    table.write_text("path,label,start_s,end_s\nvideo.mp4,fight,1,4\n")
    assert used(f"mine={table}", whole) == ({both[1]}, [both[1]])
    assert f"1 clips in {root / 'windows'} were cut from videos that are no longer listed" in caplog.text
    assert "not used: mine/other__2000-5000.mp4. windows.csv there lists the clips in use" in caplog.text
    assert used(whole) == (set(), [])
    assert "not used: mine/other__2000-5000.mp4, mine/video__1000-4000.mp4." in caplog.text
    assert all((root / path).is_file() for path in both)


def test_windows_of_before_that_are_longer_than_asked_for_are_cut_anew(root: Path) -> None:
    result = cut(root, "video.mp4,fight,0,12")
    journal = root / "windows" / cutting.WINDOWS_JOURNAL
    line = json.loads(journal.read_text())
    line["windows"][0]["end_s"] += 3.0
    journal.write_text(json.dumps(line) + "\n")
    assert cut(root, "video.mp4,fight,0,12") == result
    assert len(journal.read_text().splitlines()) == 2


def test_find_tells_what_the_rows_will_give(root: Path) -> None:
    (root / "long.csv").write_text(
        "path,label,start_s,end_s\nvideo.mp4,fight,0,17\nvideo.mp4,nonfight,20,21\n"
    )
    config = FindConfig(data_root=root, own=(f"mine={root}/long.csv",), check=True, workers=1)
    result = find.run(config, (), lambda found: cutting.forecast(found, CutConfig(), root, 1))
    assert result.summary["windows"] == {"mine": {"fight": 3, "nonfight": 1}}
    assert result.summary["datasets"]["mine"]["needs_cutting"] == 2
    assert not (root / "windows").exists()


def test_rows_that_give_nothing_are_wrong_rows_to_finding_and_to_combining(root: Path) -> None:
    (root / "raw").mkdir()
    for seed, label in ((901, "fight"), (902, "nonfight")):
        small_videos.write(root / "whole" / label / "1.avi", seed)
    rows = "video.mp4,fight,0,5\nvideo.mp4,nonfight,20,21\nvideo.mp4,fight,29.9,30\nvideo.mp4,fight,40,50\n"
    (root / "long.csv").write_text("path,label,start_s,end_s\n" + rows)
    own = (f"mine={root}/long.csv", f"whole={root}/whole")
    config = FindConfig(data_root=root, own=own, check=True, workers=1, caches=False)
    told = find.run(config, (), lambda found: cutting.forecast(found, CutConfig(), root, 1))
    made = combine.run(CombineConfig(data_root=root, own=own, caches=False, workers=1))
    for summary in (told.summary, made.summary):
        assert [summary[k] for k in ("wrong_rows", "unreadable", "not_cut")] == [2, 0, 0]
    assert [Path(f["path"]).name for f in told.failures] == ["long.csv:4", "long.csv:5"]
    assert "long.csv:5" in (root / find.FAILURES_NAME).read_text()
    assert [f["reason"] for f in made.failures] == [f["reason"] for f in told.failures]


# --- another catalogue

ENTRY = """
[arena]
title = "Arena"
roadmap = false
archive_bytes = 1
extracted_bytes = 1
clips = { fight = 40, nonfight = 40 }
licence = "mine"
terms = "none"
citation = "none"
notes = "none"
sources = [{ kind = "manual", instructions = "It is here." }]
labels = [
    { pattern = 'brawl/[^/]+\\.{video}', label = "fight" },
    { pattern = 'street scenes/[^/]+\\.{video}', label = "nonfight" },
]
"""


def test_another_catalogue_decides_what_is_found_and_its_content_is_part_of_the_record(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("violence_detection").propagate = True
    caplog.set_level(logging.INFO, "violence_detection")
    path = tmp_path / "mine.toml"
    path.write_text(ENTRY)
    config = CombineConfig(data_root=tmp_path / "root", roots=(clips,), catalogue=path)
    assert set(manifest_of(config).dataset) == {"arena"}
    record = json.loads((tmp_path / "root" / "combined_all" / combine.RECORD_NAME).read_text())
    combine.run(config)
    assert "nothing has changed since" in caplog.text
    path.write_text(ENTRY + "# other\n")
    combine.run(config)
    changed = json.loads((tmp_path / "root" / "combined_all" / combine.RECORD_NAME).read_text())
    assert changed["inputs"] != record["inputs"]
    assert changed["catalogue"] != record["catalogue"]
    result = find.run(FindConfig(data_root=tmp_path / "root", roots=(clips,), catalogue=path))
    assert "20 of 40" in caplog.text
    assert result.summary["datasets"]["arena"]["fight"] == 20
    with pytest.raises(UserError, match="arena is a published data set"):
        combine.run(CombineConfig(data_root=tmp_path / "root", own=(f"arena={clips}",), catalogue=path))


def test_a_wrong_catalogue_ends_the_script_with_what_to_mend(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(ENTRY.replace('title = "Arena"', "").replace('"nonfight"', '"calm"'))
    for script in ("find_all_datasets.py", "combine_all_datasets.py"):
        command = [
            sys.executable,
            script,
            "--data-root",
            str(clips),
            "--catalogue",
            str(tmp_path / "mine.toml"),
        ]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "[arena] title: found nothing" in done.stderr
        assert "[arena] labels[1] label: found 'calm'" in done.stderr


@pytest.mark.parametrize("link", ["hard", "symlink", "copy"])
def test_file_names_of_any_script_that_the_disk_takes_are_placed(tmp_path: Path, link: str) -> None:
    """A file name may have at most 255 bytes, and a character may take four of them."""
    name = "𝗦𝘁𝗿𝗲𝗲𝘁𝗙𝗶𝗴𝗵𝘁" * 5 + "𝗔𝗯𝗰𝗱𝗲"
    for seed in range(8):
        label = ("fight", "nonfight")[seed % 2]
        small_videos.write(tmp_path / "clips" / label / f"{seed}{name}.avi", seed)
    frame = manifest_of(CombineConfig(data_root=tmp_path, own=(f"mine={tmp_path}/clips",), link=link))
    assert len(frame) == 8
    combined = tmp_path / "combined_all"
    for path, source in zip(frame.path, frame.source_path, strict=True):
        assert (combined / path).read_bytes() == (tmp_path / source).read_bytes()


def test_stretches_of_one_video_stay_on_one_side_in_whatever_set_they_are_listed(tmp_path: Path) -> None:
    for seed in range(4):
        small_videos.write(tmp_path / "clips" / CLASSES[seed % 2] / f"{seed}.avi", seed)
    rows = [f"{CLASSES[seed % 2]}/{seed}.avi,{CLASSES[seed % 2]},0,0.5" for seed in range(4)]
    (tmp_path / "clips" / "parts.csv").write_text("\n".join(["path,label,start_s,end_s", *rows]) + "\n")
    own = (f"whole={tmp_path / 'clips'}", f"parts={tmp_path / 'clips' / 'parts.csv'}")
    found = find.discover(FindConfig(data_root=tmp_path, own=own, labels=LABELS, caches=False))
    whole, parts = found.datasets
    groups = {c.path: c.source_group for c in whole.clips}
    assert len(groups) == 4
    assert {c.path: c.source_group for c in parts.needs_cutting} == groups


def test_clips_of_a_long_videos_copy_are_of_its_source(tmp_path: Path) -> None:
    """The same video is listed under two names with different stretches, so comparing the clips would not join them."""
    for seed in range(6):
        scenes = (small_videos.frames(seed + 10 * k, 24) for k in range(5))
        writer.write(tmp_path / f"{seed}.mp4", 12.0, itertools.chain(*scenes), "mp4v")
    shutil.copy(tmp_path / "0.mp4", tmp_path / "again.mp4")
    shutil.copy(tmp_path / "1.mp4", tmp_path / "whole.mp4")
    (tmp_path / "link.mp4").symlink_to("2.mp4")
    with (tmp_path / "3.mp4").open("ab") as f:  # 3.mp4 and 4.mp4 get the same size but different content
        f.write(b"free" * 1000)
    with (tmp_path / "4.mp4").open("ab") as f:
        f.write(bytes((tmp_path / "3.mp4").stat().st_size - (tmp_path / "4.mp4").stat().st_size))
    begun = [f"{seed}.mp4,{CLASSES[seed % 2]},0,1" for seed in range(6)]
    rows = [*begun, "again.mp4,brawl,8,10", "link.mp4,brawl,8,10"]
    (tmp_path / "parts.csv").write_text("\n".join(["path,label,start_s,end_s", *rows]) + "\n")
    (tmp_path / "whole.csv").write_text("path,label\nwhole.mp4,street scenes\n")
    own = (f"parts={tmp_path}/parts.csv", f"whole={tmp_path}/whole.csv")
    frame = manifest_of(
        CombineConfig(data_root=tmp_path / "root", own=own, labels=LABELS, caches=False, keep_near=True)
    )
    sources = {
        Path(path).stem.partition("__")[0]: s
        for path, s in zip(frame.source_path, frame.source_group, strict=True)
    }
    assert sources["again"] == sources["0"]
    assert sources["link"] == sources["2"]
    assert sources["whole"] == sources["1"]
    assert len(set(sources.values())) == 6


def test_what_step_2_has_made_is_nobodys_own_clips(clips: Path, tmp_path: Path) -> None:
    """The next run of step 2 would remove such clips, and their sources and sides of the split would be lost."""
    config = CombineConfig(data_root=tmp_path / "root", own=(f"mine={clips}",), labels=LABELS, caches=False)
    combined = tmp_path / "root" / "combined_all"
    train, before = combined / "train", manifest_of(config)
    linked, table, moved = tmp_path / "linked", tmp_path / "clips.csv", tmp_path / "moved"
    linked.mkdir()
    for label in ("fight", "nonfight"):
        (linked / label).symlink_to(train / label)
    files = sorted(train.rglob("*.avi"))
    table.write_text("path,label\n" + "".join(f"{f},{f.parent.name}\n" for f in files))
    shutil.copytree(combined, moved)
    for place in (train, combined, linked, table, moved / "val"):
        for again in (tmp_path / "root", tmp_path / "other"):
            with pytest.raises(UserError, match=r"combine_all_datasets.py made.*source_path"):
                combine.run(CombineConfig(data_root=again, own=(f"a={place}",), caches=False))
    assert before.path.map(lambda name: (combined / name).is_file()).all()
    assert not (tmp_path / "other").exists()


def test_a_name_with_a_carriage_return_is_combined_as_any_other(tmp_path: Path) -> None:
    for seed in range(4):
        for label in ("fight", "nonfight"):
            video = small_videos.write(tmp_path / f"{label}.avi", 10 * seed + len(label))
            (tmp_path / "mine" / label).mkdir(parents=True, exist_ok=True)
            video.rename(tmp_path / "mine" / label / f"{seed}\rb.avi")
    config = CombineConfig(
        data_root=tmp_path / "root", own=(f"mine={tmp_path}/mine",), caches=False, workers=1
    )
    frame = manifest_of(config)
    assert {Path(path).name for path in frame.source_path} == {f"{seed}\rb.avi" for seed in range(4)}
    assert len(frame) == 8
    pd.testing.assert_frame_equal(manifest_of(config), frame)
