"""Data sets are recognised by their layout in any folder, and videos that are not recognised are listed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import untrimmed_videos
from published_paths import PATHS
from small_videos import write

from violence_detection.datasets import catalogue
from violence_detection.errors import UserError
from violence_detection.find import find, inventory
from violence_detection.find.config import FindConfig
from violence_detection.video import video_files

REPOSITORY = Path(__file__).resolve().parents[2]


def touch(root: Path, *names: str, content: str = "") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content or name)


def tree(root: Path, key: str) -> None:
    """Create the files of `published_paths` for one data set, and the folders of its layout."""
    for entry in catalogue.load()[key].layout:
        (root / entry).mkdir(parents=True, exist_ok=True)
    touch(root, *PATHS[key])


@pytest.mark.parametrize("key", PATHS)
def test_a_data_set_is_recognised_in_a_renamed_nested_folder(tmp_path: Path, key: str) -> None:
    tree(tmp_path / "my stuff" / "archive (2)" / "archive (2)", key)
    found = [d for d in inventory.discover([tmp_path]).datasets if d.dataset == key]
    root = tmp_path / "my stuff" / "archive (2)" / "archive (2)"
    labels = {c.rel: c.label for d in found for c in d.clips} | {
        c.rel: "cut" for d in found for c in d.needs_cutting
    }
    expected = {
        path: "cut" if catalogue.load()[key].untrimmed else label
        for path, label in PATHS[key].items()
        if label in ("fight", "nonfight")
    }
    assert labels == expected
    unlabelled = {p.relative_to(root).as_posix() for d in found for p in d.unlabelled}
    assert not unlabelled & set(expected)


@pytest.mark.parametrize("key", PATHS)
def test_no_other_data_set_claims_the_files(tmp_path: Path, key: str) -> None:
    tree(tmp_path, key)
    assert {d.dataset for d in inventory.discover([tmp_path]).datasets} == {key}


def test_all_data_sets_side_by_side_keep_their_files(tmp_path: Path) -> None:
    for key in PATHS:
        tree(tmp_path / "raw" / key, key)
    found = inventory.discover([tmp_path])
    assert {d.dataset for d in found.datasets} == set(PATHS)
    for dataset in found.datasets:
        assert all(
            p.is_relative_to(tmp_path / "raw" / dataset.dataset) for p in (c.path for c in dataset.clips)
        )


def test_a_tree_that_an_archive_holds_twice_is_counted_once(tmp_path: Path) -> None:
    for outer in ("", "real life violence situations/"):
        tree(tmp_path / f"{outer}Real Life Violence Dataset", "real_life_violence")
    found = inventory.discover([tmp_path])
    assert len(found.datasets) == 1
    assert found.datasets[0].root == tmp_path / "Real Life Violence Dataset"
    assert [copy for copy, _ in found.duplicate_trees] == [
        tmp_path / "real life violence situations" / "Real Life Violence Dataset"
    ]


def test_only_one_of_scvds_trees_is_used(tmp_path: Path) -> None:
    tree(tmp_path / "SCVD", "scvd")
    (found,) = inventory.discover([tmp_path]).datasets
    assert found.counts() == {"fight": 2, "nonfight": 1}
    assert found.unlabelled == ()


def test_unknown_folders_and_our_own_output_are_left_out(tmp_path: Path) -> None:
    tree(tmp_path / "h", "hockey_fights")
    touch(
        tmp_path,
        "holiday/violence/beach.mp4",
        "combined_all/train/fight/fi1_xvid.avi",
        "h/.hidden/fi2_xvid.avi",
    )
    found = inventory.discover([tmp_path])
    assert found.unknown == {tmp_path / "holiday" / "violence": 1}
    assert len(found.clips) == 5
    assert sorted(p.name for p in found.unlabelled) == ["nofi1_xvid.avi", "video1.avi"]


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "hockey_fights")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "hockey").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "loop").symlink_to(tmp_path / "raw")
    found = inventory.discover([tmp_path / "raw"])
    assert {c.path.parent for c in found.clips} == {tmp_path / "raw" / "hockey"}
    assert found.duplicate_trees == ()


def test_files_that_are_no_videos_are_counted_by_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "raw", "fi1_xvid.avi", "no1_xvid.mpg", "notes.txt", "thumb.jpg", "._no1_xvid.avi")
    with caplog.at_level("INFO", logger="violence_detection"):
        inventory.discover([tmp_path / "raw"])
    assert f"skipped below {tmp_path}/raw: 1 .jpg, 1 .txt (no videos)" in caplog.text
    touch(tmp_path / "archives", "RWF-2000.zip")
    with pytest.raises(UserError, match=r"no video below .*archives must be unpacked first"):
        inventory.discover([tmp_path / "archives"])


def test_a_link_to_what_is_gone_is_found_and_named_by_the_check(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "fi1_xvid.avi", 1)
    write(tmp_path / "raw" / "no1_xvid.avi", 2)
    (tmp_path / "raw" / "no2_xvid.avi").symlink_to(tmp_path / "gone.avi")
    result = find.run(FindConfig(data_root=tmp_path, check=True, workers=1))
    assert result.summary["nonfight"] == 2
    (failure,) = result.failures
    assert failure["path"] == str(tmp_path / "raw" / "no2_xvid.avi")
    assert "no such file" in failure["reason"]


def test_overlapping_roots_in_any_order_give_the_same(tmp_path: Path) -> None:
    tree(tmp_path / "a" / "h", "hockey_fights")
    tree(tmp_path / "b", "rwf_2000")
    roots = [tmp_path, tmp_path / "a", tmp_path / "b"]
    assert inventory.discover(roots).clips == inventory.discover(roots[::-1]).clips


@pytest.mark.parametrize("given", [".", "../h"])
def test_a_data_set_is_recognised_from_within_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    (tmp_path / "h").mkdir()
    for name in ("fi1_xvid.avi", "no1_xvid.avi"):
        (tmp_path / "h" / name).write_text(name)
    monkeypatch.chdir(tmp_path / "h")
    (found,) = inventory.discover([Path(given)]).datasets
    assert (found.dataset, found.counts()) == ("hockey_fights", {"fight": 1, "nonfight": 1})


def test_check_names_the_damaged_files(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "fi1_xvid.avi", 1)
    good = write(tmp_path / "raw" / "no1_xvid.avi", 2)
    touch(tmp_path / "raw", "no2_xvid.avi", "fi2_xvid.avi", content="not a video")
    (tmp_path / "raw" / "no3_xvid.avi").write_bytes(b"")
    result = find.run(FindConfig(data_root=tmp_path, check=True, workers=2))
    assert [Path(f["path"]).name for f in result.failures] == ["fi2_xvid.avi", "no2_xvid.avi", "no3_xvid.avi"]
    assert all(f["reason"] for f in result.failures)
    assert (tmp_path / find.FAILURES_NAME).read_text().count("\n") == 4
    assert str(good) not in (tmp_path / find.FAILURES_NAME).read_text()


def test_check_names_what_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_files, "TIME_LIMIT_S", 0.0)
    video = write(tmp_path / "fi1_xvid.avi", 1)
    assert find.check([video], workers=1) == [{"path": str(video), "reason": video_files.timed_out(video)}]


def test_check_names_a_video_that_ends_long_before_its_header_says(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "fi1_xvid.avi", 1)
    half = write(tmp_path / "raw" / "no1_xvid.avi", 2, n_frames=60)
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    (failure,) = find.run(FindConfig(data_root=tmp_path, check=True, workers=1)).failures
    assert failure["path"] == str(half)
    assert re.fullmatch(r"only [12]\.\d of 5\.0 s decode .*cut short.*", failure["reason"])


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "find_all_datasets.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_script_reports_found_against_expected(tmp_path: Path) -> None:
    tree(tmp_path / "raw" / "x", "hockey_fights")
    done = run_script("--data-root", str(tmp_path))
    summary = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert summary["datasets"]["hockey_fights"]["nonfight"] == 3
    assert "3 of 500" in done.stderr
    written = json.loads((tmp_path / "inventory.json").read_text())
    assert written["datasets"][0]["expected"] == {"fight": 500, "nonfight": 500}


def test_further_folders_are_searched_with_and_without_the_flag(tmp_path: Path) -> None:
    tree(tmp_path / "a", "hockey_fights")
    tree(tmp_path / "b", "rwf_2000")
    done = run_script(
        "--data-root", str(tmp_path / "new"), "--roots", str(tmp_path / "a"), str(tmp_path / "b")
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["datasets"]) == {"hockey_fights", "rwf_2000"}


def test_a_wrong_path_and_an_empty_folder_say_what_to_do(tmp_path: Path) -> None:
    for arguments in (["--data-root", str(tmp_path / "nowhere")], ["--data-root", str(tmp_path)]):
        done = run_script(*arguments)
        assert done.returncode == 2
        assert "--data-root" in done.stderr
        assert done.stdout == ""


def test_a_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        inventory.discover([tmp_path / "nowhere"])


@pytest.mark.real
def test_every_real_clip_has_its_label_and_known_sources_are_not_torn(real_clips: Path) -> None:
    import pandas as pd

    oracle = pd.read_csv(real_clips / "sources.csv").set_index("path")
    clips = {
        c.path.relative_to(real_clips).as_posix(): c for c in inventory.discover([real_clips / "raw"]).clips
    }
    assert set(clips) == set(oracle.index)
    assert all(oracle.label[path] == clip.label for path, clip in clips.items())
    assert all(oracle.dataset[path] == clip.dataset for path, clip in clips.items())
    groups: dict[tuple[str, str], set[str]] = {}
    for path, clip in clips.items():
        groups.setdefault((clip.dataset, oracle.source_group[path]), set()).add(clip.source_group)
    assert [g for g, names in groups.items() if len(names) > 1] == []


def test_a_damaged_long_video_below_a_relative_folder_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path / "more", "hockey_fights")
    untrimmed_videos.publish(tmp_path / "more")
    (tmp_path / "more" / untrimmed_videos.CCTV_FIGHT).write_bytes(b"no video")
    monkeypatch.chdir(tmp_path)
    done = run_script("--data-root", str(tmp_path / "new"), "--roots", "more", "--check")
    assert done.returncode == 1, done.stderr
    failures = (tmp_path / "new" / find.FAILURES_NAME).read_text().splitlines()
    assert len([line for line in failures if "fight_0001.mpeg" in line]) == 1


def test_the_list_of_failures_is_that_of_the_last_run(tmp_path: Path) -> None:
    listed = tmp_path / find.FAILURES_NAME
    for i, name in enumerate(("fi1_xvid.avi", "no1_xvid.avi")):
        write(tmp_path / "raw" / name, i)
    touch(tmp_path / "raw", "no2_xvid.avi", content="not a video")
    find.run(FindConfig(data_root=tmp_path, check=True, workers=1))
    assert "no2_xvid.avi" in listed.read_text()
    write(tmp_path / "raw" / "no2_xvid.avi", 2)
    find.run(FindConfig(data_root=tmp_path))
    assert not listed.exists()
