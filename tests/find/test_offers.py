"""Unknown clips are not mistaken for a published data set, and are reported with the command that includes them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_videos import write

from violence_detection.combine.config import CombineConfig, CutConfig
from violence_detection.errors import UserError
from violence_detection.find import find, inventory, offers
from violence_detection.find.config import FindConfig

REPOSITORY = Path(__file__).resolve().parents[2]


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def many(folder: str, count: int, name: str = "clip{}.mp4") -> list[str]:
    return [f"{folder}/{name.format(i)}" for i in range(count)]


def said(root: Path, *, own: tuple[str, ...] = (), labels: tuple[str, ...] = (), **more: object) -> list[str]:
    """Return the messages about folders below `root` that are left out."""
    config = FindConfig(data_root=root, own=own, labels=labels, **more)  # type: ignore[arg-type]
    found = find.discover(config)
    return list(offers.texts(found, own, labels, find.step_2(config, CutConfig())))


def command(text: str) -> list[str]:
    return shlex.split(text[text.index("python combine_all_datasets.py") :])


#: Class folders named as in a published data set -> the --labels words that explain them.
FOREIGN = {
    ("fights", "noFights"): ["fight=fights", "nonfight=noFights"],
    ("Violence", "NonViolence"): ["fight=Violence", "nonfight=NonViolence"],
    ("Violence", "NoViolence"): ["fight=Violence", "nonfight=NoViolence"],
    ("violent", "non-violent"): ["fight=violent", "nonfight=non-violent"],
}


@pytest.mark.parametrize("count", [3, 40, 100, 700])
@pytest.mark.parametrize("folders", FOREIGN)
def test_class_folders_of_foreign_clips_are_no_published_set(
    tmp_path: Path, folders: tuple[str, str], count: int
) -> None:
    root = tmp_path / "my clips"
    touch(root, *many(folders[0], count), *many(folders[1], count))
    found = inventory.discover([root])
    assert found.datasets == ()
    (text,) = said(tmp_path)
    assert text.startswith(f"{root} (")
    assert ") does not look like a published data set, judging by its file names. If" in text
    assert f"{folders[0]}: {count}" in text
    assert command(text) == [
        "python", "combine_all_datasets.py", "--data-root", str(tmp_path), "--own", f"my_clips={root}",
        "--labels", *FOREIGN[folders],
    ]  # fmt: skip


def test_train_and_val_of_foreign_clips_are_no_rwf_2000(tmp_path: Path) -> None:
    for side in ("train", "val"):
        touch(tmp_path, *many(f"x/{side}/Fight", 9, "parking_lot_{}.avi"), *many(f"x/{side}/NonFight", 9))
    assert inventory.discover([tmp_path]).datasets == ()
    texts = said(tmp_path)
    assert [command(t)[5] for t in texts] == [f"train={tmp_path}/x/train", f"val={tmp_path}/x/val"]
    assert all("--labels" not in command(t) for t in texts)  # these names need no explanation


PUBLISHED = {
    "movie_fights": [*many("fights", 40, "newfi{}.avi"), *many("noFights", 40, "{}.mpg")],
    "bus_violence": [*many("Violence", 20, "VIOLENCE_{}.mp4"), *many("NoViolence", 20, "NONVIOLENCE_{}.mp4")],
    "rwf_2000": [
        *many("train/Fight", 30, "Ab3-_x{:05d}_0.avi"),
        *many("train/NonFight", 5, "0Ow4cotK_{}.avi"),
    ],
    "scvd": [*many("SCVD_converted/Train/Normal", 5, "n00{}_converted.avi")],
    "hockey_fights": [*many(".", 3, "fi{}_xvid.avi")],
    "real_life_violence": [*many("Violence", 4, "V_{}.mp4"), *many("NonViolence", 4, "NV_{}.mp4")],
}


@pytest.mark.parametrize("key", PUBLISHED)
def test_a_part_of_a_published_set_is_recognised_by_its_names(tmp_path: Path, key: str) -> None:
    touch(tmp_path, *PUBLISHED[key])
    (found,) = inventory.discover([tmp_path]).datasets
    assert found.dataset == key
    assert len(found.clips) == len(PUBLISHED[key])


def test_a_few_other_names_do_not_hide_a_published_set_but_most_of_one_class_do(tmp_path: Path) -> None:
    touch(
        tmp_path / "a", *many("fights", 9, "newfi{}.avi"), *many("fights", 8), *many("noFights", 9, "{}.mpg")
    )
    touch(tmp_path / "b", *many("fights", 9), *many("noFights", 90, "{}.mpg"))
    (found,) = inventory.discover([tmp_path]).datasets
    assert found.root == tmp_path / "a"
    assert len(found.clips) == 26


def test_what_step_1_has_recorded_needs_no_names(tmp_path: Path) -> None:
    names = [*many("Peliculas/fights", 3), *many("Peliculas/noFights", 3)]
    for key in ("movie_fights", "scvd"):
        touch(tmp_path / key, *names)
        (tmp_path / key / ".complete.json").write_text(json.dumps({"dataset": "movie_fights"}))
    (tmp_path / "broken").mkdir()
    touch(tmp_path / "broken", *names, ".complete.json")
    found = inventory.discover([tmp_path])
    assert [d.dataset for d in found.datasets] == ["movie_fights"]
    assert set(found.unknown) == {
        tmp_path / "broken/Peliculas/fights",
        tmp_path / "broken/Peliculas/noFights",
    }


def test_what_a_kaggle_client_has_put_under_its_address_needs_no_names(tmp_path: Path) -> None:
    for owner in ("naveenk903", "somebody"):
        folder = tmp_path / owner / "movies-fight-detection-dataset" / "versions" / "1" / "Peliculas"
        touch(folder, *many("fights", 3), *many("noFights", 3))
    (found,) = inventory.discover([tmp_path]).datasets
    assert (found.dataset, found.root.parts[-5]) == ("movie_fights", "naveenk903")


def test_folders_that_tell_no_class_are_offered_with_a_place_for_their_names(tmp_path: Path) -> None:
    touch(tmp_path, *many("raw/x/brawl/cam1", 3), *many("raw/x/street/cam1", 2), "raw/h/fi1_xvid.avi")
    (text,) = said(tmp_path)
    assert "brawl: 3, street: 2 videos" in text
    assert command(text)[5:9] == [f"x={tmp_path}/raw/x", "--labels", "fight=WHICH", "nonfight=WHICH"]


def test_of_two_folders_one_tells_its_class(tmp_path: Path) -> None:
    touch(tmp_path, *many("x/brawl", 3), *many("x/normal/cam1", 2))
    (text,) = said(tmp_path)
    assert command(text)[5:9] == [f"x={tmp_path}/x", "--labels", "nonfight=normal", "fight=WHICH"]


def test_videos_that_lie_about_are_only_counted(tmp_path: Path) -> None:
    touch(tmp_path, "raw/holiday/a.mp4", "raw/holiday/b.mp4", "raw/h/fi1_xvid.avi")
    (text,) = said(tmp_path)
    assert text.startswith(f"{tmp_path}/raw/holiday: 2 videos in no known layout")
    assert "own_clips.md" in text


def test_thousands_of_folders_of_unknown_videos_are_told_at_once_and_counted_whole(tmp_path: Path) -> None:
    unknown = {Path(f"/x/case_{k:05}/raw"): 2 for k in range(5000)}
    found = inventory.Inventory((Path("/x"),), (), (), unknown, (), {})
    began_s = time.process_time()
    (text,) = offers.texts(found, (), (), find.step_2(FindConfig(data_root=tmp_path), CutConfig()))
    assert time.process_time() - began_s < 2
    assert "case_00011: 2 videos and 9976 in 4988 more folders) does not" in text


def test_a_name_that_is_taken_gets_another(tmp_path: Path) -> None:
    touch(tmp_path, *many("UCF Crime/violence", 3), *many("UCF Crime/normal", 2), *many("mine/fight", 1))
    (text,) = said(tmp_path, own=(f"own_ucf_crime={tmp_path}/mine",))
    assert command(text)[5:8] == [
        f"own_ucf_crime={tmp_path}/mine",
        "--own",
        f"own_ucf_crime_2={tmp_path}/UCF Crime",
    ]


def test_the_command_keeps_what_was_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, *many("x/violence", 3), *many("x/normal", 2), *many("mine/Streit", 1))
    config = CombineConfig(
        data_root=tmp_path, own=(f"mine={tmp_path}/mine",), labels=("fight=Streit",), seed=3, caches=False
    )
    found = find.discover(config)
    (text,) = offers.texts(found, config.own, config.labels, find.step_2(config, CutConfig(window_s=4.0)))
    line = shlex.join(command(text))
    for part in ("--seed 3", "--no-caches", "--window-s 4.0", "fight=Streit fight=violence nonfight=normal"):
        assert part in line


def test_a_folder_of_an_own_set_that_is_no_class_comes_with_its_command(tmp_path: Path) -> None:
    touch(tmp_path, *many("x/fight", 3), *many("x/normal", 2), *many("x/brawl", 4), *many("x/a, b", 1))
    (text,) = said(tmp_path, own=(f"mine={tmp_path}/x",))
    assert text.startswith(
        "mine: left out because of an unknown class, by folder: a, b: 1, brawl: 4, normal: 2 videos."
    )
    words = ["nonfight=normal", "WHICH=a\\, b", "WHICH=brawl"]
    assert command(text)[4:] == ["--own", f"mine={tmp_path}/x", "--labels", *words]
    told = tuple(w.replace("WHICH", "fight") for w in words)
    assert said(tmp_path, own=(f"mine={tmp_path}/x",), labels=told) == []


def test_class_folders_further_down_are_offered_as_sets_of_their_own(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"x/{side}/{label}/a.mp4" for side in ("train", "val") for label in ("fight", "nonfight"))
    )
    with pytest.raises(UserError, match="a column split keeps train and val apart") as error:
        said(tmp_path, own=(f"mine={tmp_path}/x",))
    assert "counts as another source in each" in str(error.value)
    line = command(str(error.value))
    assert line[4:] == ["--own", f"mine_train={tmp_path}/x/train", "--own", f"mine_val={tmp_path}/x/val"]
    assert said(tmp_path, own=(line[5], line[7])) == []


def test_an_own_set_of_which_nothing_can_be_used_says_why(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "x/a.mp4")
    (tmp_path / "clips.csv").write_text("path,label\na.mp4,Streit\ngone.mp4,fight\n")
    with pytest.raises(UserError, match=r"clips\.csv:3: no file") as error:
        said(tmp_path, own=(f"mine={tmp_path}/clips.csv",))
    assert "WHICH=Streit" in str(error.value)
    with pytest.raises(UserError, match=r"Put your clips into .*/x/fight"):
        said(tmp_path, own=(f"mine={tmp_path}/x",))


def test_of_many_wrong_rows_it_is_said_how_many_more_there_are(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("path,label\n" + "gone.mp4,fight\n" * 15)
    with pytest.raises(UserError, match=r"clips\.csv:13: no file.*\n  and 3 more$") as error:
        said(tmp_path, own=(f"mine={tmp_path}/clips.csv",))
    assert "clips.csv:14" not in str(error.value)


def test_own_files_are_no_part_of_a_published_set(tmp_path: Path) -> None:
    touch(tmp_path, "raw/h/fi1_xvid.avi", "raw/h/fi2_xvid.avi", "raw/h/no1_xvid.avi")
    (tmp_path / "raw" / "h" / "mine.csv").write_text("path,label\nfi2_xvid.avi,nonfight\n")
    found = find.discover(FindConfig(data_root=tmp_path, own=(f"mine={tmp_path}/raw/h/mine.csv",)))
    assert [(d.dataset, d.counts()) for d in found.datasets] == [
        ("hockey_fights", {"fight": 1, "nonfight": 1}),
        ("mine", {"fight": 0, "nonfight": 1}),
    ]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a person would, from a shell with the environment activated."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        shlex.join(words), shell=True, cwd=REPOSITORY, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


def test_the_offered_command_works_as_it_is_printed(tmp_path: Path) -> None:
    """The command is taken from the message of find_all_datasets.py; names have blanks, quotes and commas."""
    root = tmp_path / "it's here"
    clips = root / "raw" / "my clips, 2020"
    for seed in range(6):
        write(clips / "Violence" / f"{seed}.avi", seed)
        write(clips / "non-violent" / f"{seed}.avi", 50 + seed)
    found = run("python", "find_all_datasets.py", "--data-root", str(root))
    assert found.returncode == 2, found.stderr  # nothing can be combined without these clips
    (line,) = re.findall(r"If these are your own clips: (python .*)", found.stderr)
    done = subprocess.run(
        line, shell=True, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["train"] + summary["val"] == 12
    assert set(summary["by_dataset"]) == {"my_clips_2020"}
    assert summary["unlabelled"] == 0


def test_the_script_names_wrong_rows_in_the_failures_file_and_says_what_it_found(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "c.csv").write_text("path,label\na.mp4,fight\nb.mp4,nonfight\ngone.mp4,fight\n")
    done = run(
        "python",
        "find_all_datasets.py",
        "--data-root",
        str(tmp_path / "new"),
        "--own",
        f"mine={tmp_path}/c.csv",
    )
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert summary["datasets"] == {"mine": {"fight": 1, "needs_cutting": 0, "nonfight": 1, "unlabelled": 0}}
    assert summary["wrong_rows"] == 1
    assert 'c.csv:4,"no file' in (tmp_path / "new" / find.FAILURES_NAME).read_text()
    (written,) = json.loads((tmp_path / "new" / "inventory.json").read_text())["datasets"]
    assert (written["dataset"], written["expected"]) == ("mine", None)
    assert re.search(r"mine +1 +1  .*c\.csv", done.stderr)
