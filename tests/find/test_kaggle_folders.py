"""Data sets in the caches of kagglehub and kaggle: only the newest version, once, and none with --no-caches."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_videos import write

from violence_detection.combine import combine
from violence_detection.combine.config import CombineConfig
from violence_detection.download import kaggle_source
from violence_detection.find import find, inventory, kaggle_folders
from violence_detection.find.config import FindConfig

REPOSITORY = Path(__file__).resolve().parents[2]
OWNER = "datasets/yassershrief/hockey-fight-vidoes"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, without the variables that would move the caches elsewhere."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("KAGGLEHUB_CACHE", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kaggle_folders, "NOTEBOOK_INPUT", tmp_path / "kaggle" / "input")
    return folder


def version(cache: Path, number: int, *, whole: bool = True) -> Path:
    folder = cache / OWNER / "versions" / str(number)
    folder.mkdir(parents=True)
    if whole:
        (cache / OWNER / f"{number}.complete").touch()
    return folder


def hockey(folder: Path, *seeds: int) -> None:
    for seed in seeds:
        write(folder / "data" / f"fi{seed * 25 + 1}_xvid.avi", seed)
        write(folder / "data" / f"no{seed * 25 + 1}_xvid.avi", 100 + seed)


def test_a_machine_without_caches_has_none(home: Path) -> None:
    assert kaggle_folders.folders() == []


def test_of_each_data_set_the_newest_whole_version_counts(home: Path) -> None:
    cache = home / ".cache" / "kagglehub"
    version(cache, 9)
    newest = version(cache, 10)
    version(cache, 11, whole=False)  # still being downloaded
    (cache / "models" / "a" / "b").mkdir(parents=True)
    assert kaggle_folders.folders() == [newest]


def test_where_no_version_is_marked_the_newest_counts(home: Path) -> None:
    version(home / ".cache" / "kagglehub", 1, whole=False)
    newest = version(home / ".cache" / "kagglehub", 2, whole=False)
    assert kaggle_folders.folders() == [newest]


def test_kagglehubs_own_variable_moves_its_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version(home / ".cache" / "kagglehub", 1)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(home / "elsewhere"))
    moved = version(home / "elsewhere", 3)
    assert kaggle_folders.folders() == [moved]


@pytest.mark.parametrize(
    ("where", "variable", "value"),
    [
        (".kaggle", "", ""),
        (".config/kaggle", "", ""),
        ("own", "KAGGLE_CONFIG_DIR", "{home}/own"),
        ("own", "KAGGLE_CONFIG_DIR", "~/own"),
        ("own/kaggle", "XDG_CONFIG_HOME", "~/own"),
    ],
)
def test_the_kaggle_clients_download_folder_is_searched(
    home: Path, where: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, value.format(home=home))
    (home / where).mkdir(parents=True)
    (home / where / "kaggle.json").write_text(json.dumps({"username": "u", "path": str(home / "down")}))
    (home / "down" / "datasets" / "someone" / "rwf").mkdir(parents=True)
    assert kaggle_folders.folders() == [home / "down" / "datasets" / "someone"]


@pytest.mark.parametrize("text", ["", "[]", '{"username": "u"}', '{"path": 3}', "{"])
def test_settings_without_a_folder_say_nothing(home: Path, text: str) -> None:
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text(text)
    assert kaggle_folders.folders() == []


def test_inputs_of_a_kaggle_notebook_are_searched(home: Path) -> None:
    folder = kaggle_folders.NOTEBOOK_INPUT / "rwf2000"
    folder.mkdir(parents=True)
    assert kaggle_folders.folders() == [folder]


def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_scripts_find_what_is_in_a_cache_unless_told_not_to(home: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    hockey(version(home / ".cache" / "kagglehub", 1), *range(4))
    done = script("find_all_datasets.py", "--data-root", root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["datasets"]["hockey_fights"]["fight"] == 4
    assert ".cache/kagglehub" in done.stderr
    combined = script("combine_all_datasets.py", "--data-root", root, "--workers", 1)
    assert combined.returncode == 0, combined.stderr
    for name in ("find_all_datasets.py", "combine_all_datasets.py"):
        without = script(name, "--data-root", root, "--no-caches")
        assert without.returncode == 2
        assert "no video below" in without.stderr


def test_a_data_set_in_the_data_root_and_in_a_cache_is_counted_once(home: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    own = root / "raw" / "deeper/than/any/cache/will/ever/be/found/to/stand"
    hockey(own, *range(4))
    cached = version(home / ".cache" / "kagglehub", 1)
    shutil.copytree(own, cached, dirs_exist_ok=True)
    done = script("find_all_datasets.py", "--data-root", root)
    assert json.loads(done.stdout)["fight"] == 4
    assert json.loads(done.stdout)["duplicate_trees"] == 1
    assert f"{cached / 'data'} is a copy of {own}" in done.stderr
    result = combine.run(CombineConfig(data_root=root, workers=1))
    assert result.summary["duplicates_removed"] == 0


def test_a_link_from_the_data_root_into_a_cache_stays_below_the_data_root(home: Path, tmp_path: Path) -> None:
    cached = version(home / ".cache" / "kagglehub", 1)
    hockey(cached, 1)
    (tmp_path / "root" / "raw").mkdir(parents=True)
    (tmp_path / "root" / "raw" / "hockey").symlink_to(cached)
    (found,) = find.discover(FindConfig(data_root=tmp_path / "root")).datasets
    assert found.root == tmp_path / "root" / "raw" / "hockey" / "data"


def test_other_peoples_videos_in_a_cache_are_not_spoken_of(home: Path, tmp_path: Path) -> None:
    cached = version(home / ".cache" / "kagglehub", 1)
    hockey(cached, 1)
    write(home / ".cache/kagglehub/datasets/a/cats/versions/1/cat.avi", 7)
    (tmp_path / "root").mkdir()
    found = find.discover(FindConfig(data_root=tmp_path / "root"))
    assert found.unknown == {}
    assert len(found.clips) == 2


def test_a_wrong_data_root_is_said_though_a_cache_has_data(home: Path, tmp_path: Path) -> None:
    hockey(version(home / ".cache" / "kagglehub", 1), 1)
    done = script("find_all_datasets.py", "--data-root", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nowhere is not a folder" in done.stderr


def test_the_order_of_caches_does_not_matter(home: Path, tmp_path: Path) -> None:
    hockey(tmp_path / "a", 1)
    hockey(tmp_path / "b", 2)
    (tmp_path / "root").mkdir()
    ways = [[tmp_path / "a", tmp_path / "b"], [tmp_path / "b", tmp_path / "a"]]
    first, second = (inventory.discover([tmp_path / "root"], way) for way in ways)
    assert first == second


def test_a_home_folder_that_there_is_not_ends_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLEHUB_CACHE", "~nobody-of-this-name/cache")
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text(json.dumps({"path": "~nobody-of-this-name/data"}))
    assert kaggle_folders.folders() == []
    monkeypatch.delenv("KAGGLEHUB_CACHE")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # a user without a name, as on some pods
    assert kaggle_folders.folders() == []
    assert kaggle_source.credentials_found() == []
