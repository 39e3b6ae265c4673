"""At any moment every clip of the manifest exists, and combining removes only files that it made itself."""

from __future__ import annotations

import csv
import errno
import filecmp
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_videos import write

from violence_detection.combine import combine, links, manifest
from violence_detection.combine.config import CombineConfig
from violence_detection.errors import UserError
from violence_detection.system import console, locks, storage

REPOSITORY = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("VIOLENCE_KILLS", "8"))
#: A script that combines, and kills itself with SIGKILL after a given number of file operations on combined_all.
KILLED = """
import os, signal, sys
from pathlib import Path
from violence_detection.combine import combine
from violence_detection.combine.config import CombineConfig
left = int(sys.argv[4])
def hook(event, arguments):
    global left
    changes = event in ("os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir")
    if changes and "combined_all" in str(arguments):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    sys.addaudithook(hook)
    combine.run(CombineConfig(data_root=Path(sys.argv[1]), seed=int(sys.argv[2]), link=sys.argv[3]))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that was combined once; tests copy it."""
    root = tmp_path_factory.mktemp("published")
    for block in range(10):
        write(root / "raw" / f"fi{block * 25 + 1}_xvid.avi", block)
        write(root / "raw" / f"no{block * 25 + 1}_xvid.avi", 300 + block)
    combine.run(CombineConfig(data_root=root, workers=2))
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "root"))


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "combined_all" / "manifest.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def placed(root: Path) -> set[str]:
    combined = root / "combined_all"
    return {
        p.relative_to(combined).as_posix()
        for p in combined.rglob("*")
        if len(p.relative_to(combined).parts) == 3
    }


def test_killed_at_any_moment_a_manifest_stands_whose_clips_all_exist(root: Path, tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    rng = random.Random(KILLS)
    died = 0
    for turn in range(KILLS):
        settings = [str(turn % 3), rng.choice(["hard", "symlink", "copy"]), str(rng.randrange(60))]
        done = subprocess.run([sys.executable, str(tmp_path / "killed.py"), str(root), *settings],
                              env=environment, capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        died += done.returncode != 0
        found = rows(root)
        assert len(found) == 20, settings
        for row in found:
            clip = root / "combined_all" / row["path"]
            assert clip.read_bytes() == (root / row["source_path"]).read_bytes(), (settings, row["path"])
    assert died > KILLS / 4
    combine.run(CombineConfig(data_root=root, seed=7))
    assert placed(root) == {row["path"] for row in rows(root)}, "what killed runs have left"
    assert not list((root / "combined_all").rglob("*.tmp*"))


@pytest.mark.parametrize(
    "name", ["train/fight/mine.avi", "val/mine/nonfight/a.avi", "notes.txt", "manifest.csv"]
)
def test_a_folder_that_is_somebody_elses_is_refused_before_any_work(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(root / "combined_all")
    mine = root / "combined_all" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("file,class\n")
    before = sorted(root.rglob("*"))
    monkeypatch.setattr(combine.find, "discover", None)
    with pytest.raises(UserError, match=f"{name}.*mv .*--own NAME=FOLDER"):
        combine.run(CombineConfig(data_root=root))
    assert sorted(root.rglob("*")) == before


def test_the_command_that_moves_somebodys_files_away_can_be_pasted(tmp_path: Path) -> None:
    combined = tmp_path / "my drive" / "combined_all"
    combined.mkdir(parents=True)
    (combined / "mine.mp4").touch()
    with pytest.raises(UserError, match="mv ") as raised:
        links.check_ours(combined, ())
    command = str(raised.value).partition("Move your files away: ")[2].partition(";")[0]
    subprocess.run(command, shell=True, check=True)
    assert (tmp_path / "my drive" / "my_clips" / "mine.mp4").is_file()


def test_files_beside_the_links_stay_and_are_named_and_are_no_part_of_the_set(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.log, "propagate", True)
    mine = [root / "combined_all" / name for name in ("train/fight/mine.avi", "val/extra/a.avi")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
    (root / "combined_all" / "train" / "fight" / "linked").symlink_to(root / "gone")
    combine.run(CombineConfig(data_root=root, seed=3))
    assert all(path.read_bytes() == b"mine" for path in mine)
    assert all(str(path) in caplog.text for path in mine)
    assert not {"train/fight/mine.avi", "val/extra/a.avi"} & {row["path"] for row in rows(root)}
    stale = placed(root) - {row["path"] for row in rows(root)}
    assert stale == {"train/fight/mine.avi", "val/extra/a.avi", "train/fight/linked"}


def test_a_list_that_somebody_changed_takes_nothing_outside_the_class_folders(root: Path) -> None:
    outside = root / "raw" / "fi1_xvid.avi"
    storage.write_json(
        root / "combined_all" / links.LIST_NAME,
        {
            "links": [
                "../raw/fi1_xvid.avi",
                "train/fight/..",
                str(outside),
                "train/fight/../../../raw/fi1_xvid.avi",
            ]
        },
    )
    combine.run(CombineConfig(data_root=root, seed=3))
    assert outside.is_file()


def test_links_of_the_version_that_kept_no_list_are_known_by_the_manifest(root: Path) -> None:
    (root / "combined_all" / links.LIST_NAME).unlink()
    before = placed(root)
    combine.run(CombineConfig(data_root=root, seed=3))
    assert placed(root) == {row["path"] for row in rows(root)} != before


def test_a_second_run_below_the_same_root_is_told_of_the_first(root: Path) -> None:
    told = pytest.raises(UserError, match=rf"combine.*the first .process {os.getpid()} on")
    with locks.only_one(root / "combined_all", "the first"), told:
        combine.run(CombineConfig(data_root=root, seed=3))


def test_a_full_disk_leaves_the_manifest_that_stood(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (root / "combined_all" / manifest.FILE_NAME).read_bytes()
    copies = iter(range(3))

    def fill_up(source: Path, target: Path) -> None:
        if next(copies, None) is None:
            raise OSError(28, "No space left on device")
        shutil.copyfile(source, target)

    monkeypatch.setattr(storage, "copied", fill_up)
    with pytest.raises(UserError, match="No space left"):
        combine.run(CombineConfig(data_root=root, seed=3, link="copy"))
    assert (root / "combined_all" / manifest.FILE_NAME).read_bytes() == before
    assert all((root / "combined_all" / row["path"]).is_file() for row in rows(root))


def test_on_a_share_of_another_user_copies_stand_and_are_made_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a share allows no links, and only the owner of a file may set its times and permissions."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for path in (root / "raw").rglob("*.avi"):
        os.utime(path, (1, 1))
    shutil.rmtree(root / "combined_all")
    for name in ("link", "symlink", "utime", "chmod"):
        monkeypatch.setattr(os, name, refuse)
    combine.run(CombineConfig(data_root=root, seed=3))
    assert placed(root) == {row["path"] for row in rows(root)}
    clips = [root / "combined_all" / row["path"] for row in rows(root)]
    made = [clip.stat().st_ino for clip in clips]
    combine.run(CombineConfig(data_root=root, seed=3, link="copy"))
    assert [clip.stat().st_ino for clip in clips] == made
    clips[0].write_bytes(bytes(clips[0].stat().st_size))
    combine.run(CombineConfig(data_root=root, seed=3))
    assert storage.sha256_file(clips[0]) == rows(root)[0]["sha256"]


def test_copies_whose_time_differs_are_compared_whole_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources that were copied or unpacked again have new times; only the next run compares their contents."""
    combine.run(CombineConfig(data_root=root, seed=3, link="copy"))
    for path in (root / "raw").rglob("*.avi"):
        os.utime(path, (1, 1))
    made = [(root / "combined_all" / row["path"]).stat().st_ino for row in rows(root)]
    combine.run(CombineConfig(data_root=root, seed=3, link="copy"))
    monkeypatch.delattr(filecmp, "cmp")
    combine.run(CombineConfig(data_root=root, seed=3, link="copy"))
    assert [(root / "combined_all" / row["path"]).stat().st_ino for row in rows(root)] == made


def test_a_manifest_that_a_spreadsheet_has_saved_tells_whose_the_folder_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    columns = ",".join(f'"{name}"' for name in manifest.COLUMNS)
    (tmp_path / manifest.FILE_NAME).write_text(f"\ufeff{columns}\r\n", encoding="utf-8")
    links.check_ours(tmp_path, ())
