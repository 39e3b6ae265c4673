"""The benchmark of learning: marks as made by somebody who knows the fights, and figures by camera."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import bench_learning
from violence_detection.prediction import formats
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.prediction.review.marks import Mark


def _verdict(path: str, ps: list[float]) -> Verdict:
    windows = tuple(JudgedWindow(5.0 * i, 5.0 * i + 5, p) for i, p in enumerate(ps))
    return Verdict(path, windows, EventConfig(), 5.0 * len(ps), 5.0 * len(ps), fps=25.0)


def test_marks_are_those_of_somebody_who_knows() -> None:
    verdict = _verdict("/a/x.mp4", [0.1, 0.9, 0.1, 0.1, 0.8, 0.1, 0.2])
    found = bench_learning.marked([verdict], {"x.mp4": [(6.0, 8.0), (30.5, 34.0)]})
    assert found.by_video == {
        "/a/x.mp4": [Mark(5.0, 10.0, "right"), Mark(20.0, 25.0, "wrong"), Mark(30.5, 34.0, "missed")]
    }


def test_figures_by_camera(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lines,) = formats.chosen(["jsonl"])
    assert lines.of_video
    truth = ["file,start_s,end_s,dataset"]
    for i in range(6):
        verdict = _verdict(f"/a/{i}.mp4", [0.1, 0.6, 0.1, 0.1, 0.9, 0.1])
        formats.write(tmp_path / "kept", str(i), lines.of_video(verdict))
        truth.append(f"{i}.mp4,21.0,24.0,{'street' if i < 5 else 'other'}")
    (tmp_path / "truth.csv").write_text("\n".join(truth) + "\n")
    arguments = ["--recordings", str(tmp_path / "kept"), "--truth", str(tmp_path / "truth.csv")]
    assert bench_learning.main(arguments) == 0
    cameras = json.loads(capsys.readouterr().out)["cameras"]
    assert cameras["street"]["before"]["false_events"] == 5
    assert cameras["street"]["on_others"] == {"false_events": 0, "missed_fights": 0}
    assert cameras["street"]["learnt"]
    assert "too few marks" in cameras["other"]["why_not"]
