"""Folders are walked through links, each once, and circles of links come to an end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from violence_detection.system import folders

pytestmark = pytest.mark.timeout(60)  # so that an endless walk fails soon


@pytest.fixture
def circles(tmp_path: Path) -> Path:
    """top/a/deep and top/b/x, with links from every folder to itself, to its parent and to the top."""
    top = tmp_path / "top"
    for name in ("a/deep", "b"):
        (top / name).mkdir(parents=True)
    (top / "b" / "x").touch()
    for name in (".", "a", "a/deep", "b"):
        (top / name / "again").symlink_to(".")
        (top / name / "up").symlink_to("..")
        (top / name / "home").symlink_to(top)
    return top


def test_each_real_folder_comes_once(circles: Path) -> None:
    walked = list(folders.walk(circles))
    real = [os.path.realpath(folder) for folder, _, _ in walked]
    assert len(real) == len(set(real))
    assert {str(circles), str(circles / "a"), str(circles / "a" / "deep"), str(circles / "b")} <= set(real)
    assert [str(f) for f, _, names in walked if "x" in names] == [str(circles / "b")]


def test_what_is_taken_out_of_the_list_is_not_looked_into(circles: Path) -> None:
    found = []
    for folder, below, _ in folders.walk(circles):
        found.append(folder)
        below[:] = [name for name in below if name == "a"]
    assert found == [circles, circles / "a"]


def test_walks_that_share_what_they_have_seen_meet_a_folder_once(circles: Path) -> None:
    seen: set[str] = set()
    first = [folder for folder, _, _ in folders.walk(circles / "b", seen)]
    assert first[0] == circles / "b"
    assert list(folders.walk(circles / "b" / "again", seen)) == []


def test_folders_that_cannot_be_listed_are_told(circles: Path) -> None:
    told: list[OSError] = []
    assert list(folders.walk(circles / "none", on_error=told.append)) == []
    assert [e.filename for e in told] == [str(circles / "none")]


def test_the_nearest_of_a_name_is_found_through_links_and_circles(circles: Path, tmp_path: Path) -> None:
    assert folders.nearest("x", circles) == circles / "b" / "x"
    assert folders.nearest("none", circles) is None
    assert folders.nearest("x", tmp_path / "none") is None
    (circles / "a" / "x").mkdir()
    assert folders.nearest("x", circles) == circles / "a" / "x"
    linked = tmp_path / "elsewhere"
    linked.mkdir()
    (linked / "y").touch()
    (circles / "a" / "linked").symlink_to(linked)
    assert folders.nearest("y", circles) == circles / "a" / "linked" / "y"
