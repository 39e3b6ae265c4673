"""The page of a run, without a browser: its text and the data of its script."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.prediction.review import review_page
from violence_detection.prediction.review.review_media import ReviewMedia


def _page(folder: Path, settings: EventConfig, ps: list[float]) -> tuple[str, dict[str, Any]]:
    """Write the page of a video; return its text and the data of its script."""
    windows = tuple(JudgedWindow(5.0 * i, 5.0 * i + 5, p) for i, p in enumerate(ps))
    verdict = Verdict("v.mp4", windows, settings, 5.0 * len(ps), 5.0 * len(ps), fps=10.0)
    path = review_page.write(folder, [verdict], {"v.mp4": ReviewMedia(missing="none")})
    text = path.read_text(encoding="utf-8")
    data = re.search(r'id="run">(.*?)</script>', text, re.DOTALL)
    assert data
    return text, json.loads(data[1])


def test_what_is_below_one_is_not_written_as_one(tmp_path: Path) -> None:
    text, _ = _page(tmp_path, EventConfig(threshold=0.9972), [0.1, 0.9973, 0.1])
    assert "highest P(violent) 0.9973 · threshold 0.9972<" in text
    assert "P 0.997<" in text
    assert "1.00" not in text
    text, _ = _page(tmp_path, EventConfig(threshold=1.0), [1.0])
    assert "highest P(violent) 1.0000 · threshold 1.0000<" in text


def test_a_video_just_below_the_threshold_is_not_told_to_have_reached_it(tmp_path: Path) -> None:
    text, _ = _page(tmp_path, EventConfig(threshold=0.9001), [0.9])
    assert "No event" in text
    assert "highest P(violent) 0.9000 · threshold 0.9001<" in text


def test_the_script_of_a_long_video_has_every_window_not_the_highest_of_a_column(tmp_path: Path) -> None:
    ps = [0.1] * 4319
    ps[100] = 0.95
    _, run = _page(tmp_path, EventConfig(), ps)
    steps = run["videos"][0]["steps"]
    assert len(steps) == len(ps)
    assert steps[99:102] == [[495.0, 500.0, "0.10"], [500.0, 505.0, "0.95"], [505.0, 510.0, "0.10"]]


def test_the_script_has_probabilities_as_the_page_writes_them(tmp_path: Path) -> None:
    """A browser would round 0.125 up, Python rounds it to the even digit."""
    text, run = _page(tmp_path, EventConfig(), [0.125, 0.05])
    assert "highest P(violent) 0.1250 " in text
    assert run["videos"][0]["steps"] == [[0.0, 5.0, "0.12"], [5.0, 10.0, "0.05"]]
    _, run = _page(tmp_path, EventConfig(), [0.9972, 1.0])
    assert [p for _, _, p in run["videos"][0]["steps"]] == ["0.997", "1.00"]
