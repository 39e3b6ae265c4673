"""Damaged files: no crash, no hang, and the seconds reported as read are those that decode."""

from __future__ import annotations

from pathlib import Path

import pytest
import timed_videos

from benchmarks import damaged_videos
from benchmarks.damaged_videos import Damaged
from violence_detection.errors import UnreadableVideo
from violence_detection.system import processes
from violence_detection.video import decode


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    return [
        timed_videos.write(folder / "a.mp4", timed_videos.evenly(150, 25), pictures=timed_videos.noisy(150))
    ]


def _read(item: Damaged) -> decode.VideoInfo | str:
    try:
        return decode.probe(item.path)
    except UnreadableVideo as e:
        return e.reason


def _crashed(_: Damaged) -> decode.VideoInfo | str:
    return "CRASHED"


def _hung(_: Damaged) -> decode.VideoInfo | str:
    return "HUNG"


def test_damaged_files_neither_crash_nor_hang_and_say_how_much_was_read(
    tmp_path: Path, sources: list[Path]
) -> None:
    items = list(damaged_videos.make(sources, tmp_path, 100, seed=3))
    assert {item.kind for item in items} == set(damaged_videos.KINDS)
    wrong: list[tuple[str, object, float]] = []
    for item, found in processes.map_unordered(
        _read, items, 2, _crashed, time_limit_s=20.0, on_timeout=_hung
    ):
        there_s = damaged_videos.seconds_that_decode(item.path)
        if isinstance(found, str):
            if found in ("CRASHED", "HUNG") or there_s > 0.4:
                wrong.append((item.path.name, found, there_s))
        elif abs(found.read_s - there_s) > 0.1 * max(there_s, 0.4) + 0.05:
            wrong.append((item.path.name, found.read_s, there_s))
    assert not wrong
