"""The report's page as Chromium shows and prints it: nothing beyond the screen, no request, no console message."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import page_in_browser
import pandas as pd
import pytest

from violence_detection.evaluation import by_training, clip_groups, metrics
from violence_detection.evaluation.report import film_strip, report, report_plots
from violence_detection.evaluation.training_overlap import Comparison, Overlap

pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not page_in_browser.CHROMIUM, reason="no chromium installed"),
]
#: Width of A4 between its margins, at 96 pixels per inch.
A4_WIDTH_PX = 688
COMMAND = f"python test_ensemble.py --models ./models_ensemble/ --data '/a/two  blanks/{'long/' * 30}'"


WAY = {"checked": True, "found": 0, "not_checked": ""}
LEAKAGE: dict[str, Any] = {
    **{"clips": 60, "training_clips": 200, "suspicious": 0, "suspects": [], "without_suspicious": None},
    **dict.fromkeys(("same_clip", "same_source", "near_copy"), WAY),
    "by_feature": {
        **WAY,
        "sources": [],
        "sources_compared": 9,
        "datasets": [
            {"dataset": name, "measured_on": "all data sets", "typical": 0.41, "limit": 0.99891, "highest": 0.99932,
             "beyond": 112, "clips": 1200}
            for name in ("surveillance_fight", "a_set_of_ones_own_with_a_long_name")
        ],
    },
}  # fmt: skip


def predictions() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 60
    fight = np.arange(n) % 2 == 0
    p = np.clip(0.5 + (fight - 0.5) * 0.4 + rng.normal(0, 0.3, n), 0, 1)
    frame = pd.DataFrame(
        {
            "clip_id": [f"{i:016x}" for i in range(n)],
            "path": [f"val/{'fight' if f else 'nonfight'}/clip{i:02d}.avi" for i, f in enumerate(fight)],
            "dataset": np.where(np.arange(n) < n // 2, "rwf_2000", "a_set_of_ones_own_with_a_long_name"),
            "source_group": [f"s{i // 3}" for i in range(n)],
            "label": np.where(fight, "fight", "nonfight"),
            "p_bilstm_attention": p,
            "p_attention": np.clip(p + rng.normal(0, 0.05, n), 0, 1),
            "p_violent": p,
        }
    )
    frame.loc[0, "source_group"] = "violent_flows:" + "Y" * 90
    frame.loc[0, "p_violent"] = 0.001
    return frame


def film(path: str) -> list[film_strip.StripFrame]:
    """Frames that are usual, upright or very wide, depending on the length of the path."""
    height, width = [(162, 288), (162, 91), (60, 288)][len(path) % 3]
    ok, jpeg = cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))
    assert ok
    return [film_strip.StripFrame(0.4 * i, width, height, jpeg.tobytes()) for i in range(5)]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    frame = predictions()
    overlap = Overlap(
        60, 200, 4, Comparison(4, 60), Comparison(0, 60), Comparison(0, 60), datasets=("rwf_2000",)
    )
    wrong = metrics.worst_mistakes(frame, 0.5).clip_id
    members = ("attention", "bilstm_attention")
    context = report.ReportContext(
        command=COMMAND,
        created="2026-01-02T03:04:05+0000",
        model=[("backbone", "efficientnet_lite0"), ("members", ", ".join(members))],
        seeds=[7],
        overlap=overlap,
        split="val of data/combined_all/manifest.csv",
        sample_label="generated sample clips",
        failures=[{"path": "val/fight/" + "x" * 200 + ".avi", "reason": "the file is empty"}],
        by_training=by_training.figures(frame, 0.5, overlap.datasets),
        attention={clip: {m: np.full(20, 0.05).tolist() for m in members} for clip in wrong},
        frames=film,
        audits={"leakage": LEAKAGE},
        val_ledger={
            "checked": False,
            "text": "there is no /data/" + "z" * 200 + "/manifest.csv",
            "val_clips": 60,
            "by_command": [{"command": COMMAND, "looks": 1, "last": "2026-01-02", "accuracy": 0.5}],
        },
    )
    folder = tmp_path_factory.mktemp("page")
    return report.write_report(folder, metrics.figures(frame, 0.5), frame, context).as_uri()


SETS = [*(f"published_data_set_{i}" for i in range(12)), "recordings_of_the_second_car_park_and_its_three_entrances",
        "OneNameWithoutAnyPlaceToBreakItAsPeopleNameTheirFolders"]  # fmt: skip
MEMBERS = [*(f"member_{i}" for i in range(8)), "AnotherMemberWithALongNameAndNoPlaceToBreakIt"]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, str]:
    """Predictions of many members on many data sets, two with very long names, and the URL of their page."""
    rng = np.random.default_rng(5)
    n = 6 * len(SETS)
    fight = np.arange(n) % 2 == 0
    p = np.clip(0.5 + (fight - 0.5) * 0.4 + rng.normal(0, 0.3, n), 0, 1)
    frame = pd.DataFrame(
        {
            "clip_id": [f"{i:016x}" for i in range(n)],
            "path": [f"val/{'fight' if f else 'nonfight'}/clip{i:02d}.avi" for i, f in enumerate(fight)],
            "dataset": np.repeat(SETS, 6),
            "source_group": [f"s{i}" for i in range(n)],
            "label": np.where(fight, "fight", "nonfight"),
            **{f"p_{member}": np.clip(p + rng.normal(0, 0.05, n), 0, 1) for member in MEMBERS},
            "p_violent": p,
        }
    )
    alarms = [{"check": "file_format", "dataset": name} for name in SETS]
    context = report.ReportContext(
        command=COMMAND,
        created="2026-01-02T03:04:05+0000",
        model=[("members", ", ".join(MEMBERS))],
        seeds=[7],
        overlap=Overlap(
            n, 200, 0, Comparison(0, n), Comparison(0, n), Comparison(0, n), datasets=tuple(SETS[:1])
        ),
        split="val",
        by_training=by_training.figures(frame, 0.5, SETS[:1]),
        elsewhere={
            name: {
                **metrics.figures(frame[frame.dataset == name], 0.5),
                **clip_groups.false_alarms(frame, 0.5),
                "split": "clips of ./" + "x" * 200,
                "classes": ["fight", "nonfight"],
                "unseen": True,
                "unseen_in_words": "yes",
                "sample_label": "",
            }
            for name in SETS
        },
        false_alarms=clip_groups.false_alarms(frame, 0.5),
        sections={"audits": {"shortcuts": {"alarms": alarms, "comparisons": 20, "too_few": 0}}},
    )
    folder = tmp_path_factory.mktemp("crowded")
    return frame, report.write_report(folder, metrics.figures(frame, 0.5), frame, context).as_uri()


@pytest.mark.parametrize("width", [1400, 768, 390, 320])
def test_many_sets_and_members_with_long_names_stay_within_the_screen(
    browser: Any, crowded: tuple[pd.DataFrame, str], width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto(crowded[1])
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(page_in_browser.BESIDE) == []
    for table in ("elsewhere", "datasets", "members"):
        overflow = f"document.querySelector('#{table}').parentElement"
        assert page.evaluate(f"{overflow}.scrollWidth - {overflow}.clientWidth") <= 1, table
    assert page.locator(".answer").bounding_box()["height"] < (1100 if width == 320 else 1000)
    assert "file format on 14 data sets" in page.locator("#limits").inner_text()
    assert page.locator(".tile").first.inner_text().endswith("84 clips from 84 sources of 14 data sets")
    shapes = "i => i.naturalHeight / i.naturalWidth - i.getAttribute('height') / i.getAttribute('width')"
    bent = page.evaluate(f"[...document.querySelectorAll('figure img')].map({shapes})")
    assert max(map(abs, bent)) < 0.01
    page.close()


def test_names_in_plots_are_whole_and_apart(crowded: tuple[pd.DataFrame, str]) -> None:
    frame, _ = crowded
    plots = {p.name: p for p in report_plots.make_plots(metrics.figures(frame, 0.5), frame)}
    figure = report_plots.drawn(plots["accuracy_by_dataset"], report_plots.LIGHT)
    figure.canvas.draw()
    boxes = sorted((t.get_window_extent() for t in figure.axes[0].get_yticklabels()), key=lambda box: box.y0)
    assert len(boxes) == len(SETS) + 1
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0
    figure = report_plots.drawn(plots["roc"], report_plots.LIGHT)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == len(MEMBERS) + 1
    assert legend.get_window_extent().y1 <= figure.axes[0].get_window_extent().y0
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines[1:]}
    assert len(looks) == len(MEMBERS) + 1


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with page_in_browser.browser() as chromium:
        yield chromium


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_reaches_beside_the_screen_and_the_page_is_quiet(
    browser: Any, address: str, width: int, scheme: str, tmp_path: Path
) -> None:
    with browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme) as session:
        page = session.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        picture = tmp_path / "page.png"
        page.screenshot(path=picture, full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(page_in_browser.BESIDE) == []
        broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
        assert page.evaluate(broken) == 0
        in_first_screen = page.locator("#accuracy, #interval").all()
        assert len(in_first_screen) == 2
        assert all(part.bounding_box()["y"] < 844 for part in in_first_screen)
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
    shown = cv2.imread(str(picture))
    assert shown is not None
    ground = shown[5, 5].mean()
    assert ground > 200 if scheme == "light" else ground < 50


@pytest.mark.parametrize("where", ["code.command", "#val-ledger code"])
def test_a_command_is_copied_as_it_was_given(browser: Any, address: str, where: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(address)
    page.evaluate(f"getSelection().selectAllChildren(document.querySelector('{where}'))")
    assert shlex.split(page.evaluate("getSelection().toString()")) == shlex.split(COMMAND)
    page.close()


def test_short_tables_need_no_sideways_scrolling_on_a_phone(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(address)
    for table in ("members", "coverage", "leakage-features"):
        overflow = f"document.querySelector('#{table}').parentElement"
        assert page.evaluate(f"{overflow}.scrollWidth - {overflow}.clientWidth") <= 1, table
    page.close()


def test_a_hundred_percent_fits_on_the_narrowest_phone(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 320, "height": 700})
    page.goto(address)
    page.evaluate("document.querySelector('.accuracy').textContent = '100.0\\u00a0%'")
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert page.evaluate(page_in_browser.BESIDE) == []
    page.close()


def test_paper_shows_everything_and_cuts_no_strip(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": A4_WIDTH_PX, "height": 1000}, color_scheme="dark")
    page.goto(address)
    page.emulate_media(media="print")
    assert page.evaluate(page_in_browser.BESIDE) == []
    clipped = (
        """[...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth + 1).length"""
    )
    assert page.evaluate(clipped) == 0
    kept = "[...document.querySelectorAll('.mistake, .scroll, figure')].map(e => getComputedStyle(e).breakInside)"
    assert set(page.evaluate(kept)) == {"avoid"}
    text = "getComputedStyle(document.body).color"
    assert page.evaluate(text) == "rgb(27, 35, 48)"  # dark text even if the screen's theme is dark
    pdf = page.pdf(format="A4")
    page.close()
    assert pdf.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 15
