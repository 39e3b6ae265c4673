"""The journal of a run repeated every night does not grow for ever, and lines of other versions in it stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from violence_detection.prediction import verdict_journal
from violence_detection.prediction.config import EventConfig, PredictConfig
from violence_detection.prediction.events import JudgedWindow, Verdict


@pytest.fixture
def config(tmp_path: Path) -> PredictConfig:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("best_model.keras", "config.json", "result.json"):
        (model / name).write_text("{}")
    return PredictConfig(model=model)


def _run(journal: Path, config: PredictConfig, videos: list[Path]) -> list[Verdict | None]:
    """Return the verdict that the journal has for each video, if any; then keep one for each."""
    with verdict_journal.kept(journal, config) as kept:
        found = []
        for video in videos:
            key = kept.key(video)
            found.append(kept.find(key, video))
            kept.keep(key, Verdict(str(video), (JudgedWindow(0.0, 2.0, 0.9),), EventConfig(), 2.0, 2.0))
        return found


def test_runs_that_judge_nothing_make_it_no_longer_for_ever(tmp_path: Path, config: PredictConfig) -> None:
    """A line per video and night would be half a gigabyte a year for 20,000 videos, and each run reads all of it."""
    videos, journal = [tmp_path / f"{n}.mp4" for n in range(3)], tmp_path / "out.json.journal.jsonl"
    for video in videos:
        video.write_text("a video")
    others = [b'{"key": "of another version", "windows": 3}\n', b'{"key": "torn\n', b"\xff\n"]
    journal.write_bytes(b"".join(others))
    lengths = []
    for night in range(20):
        # of the entries that are read, the one used last comes last
        order = videos[night % 3 :] + videos[: night % 3]
        assert all(_run(journal, config, order)) == (night > 0)
        assert [entry["path"] for entry in verdict_journal.read(journal).values()] == list(map(str, order))
        lines = journal.read_bytes().splitlines(keepends=True)
        assert lines[:3] == others
        assert [json.loads(line)["path"] for line in lines[3:6]] == list(map(str, videos))
        lengths.append(len(lines) - 6)
    # old times are removed once they are more than half of all lines
    assert max(lengths) <= 3 + 12
