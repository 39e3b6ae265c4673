"""The report: complete, self-contained, escaped, loud about generated clips, whole or absent."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from violence_detection.datasets.generated import marker, samples
from violence_detection.errors import UnreadableVideo
from violence_detection.evaluation import metrics
from violence_detection.evaluation.report import report
from violence_detection.evaluation.training_overlap import Comparison, Overlap

HOSTILE_PATH = 'val/fight/<script>alert("x")</script>&.avi'
PLOTS = {"accuracy_by_dataset.png", "confusion_matrix.png", "reliability.png", "roc.png", "scores.png"}


def predictions_frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 40
    fight = np.arange(n) % 2 == 0
    p = np.clip(0.5 + (fight - 0.5) * 0.6 + rng.normal(0, 0.25, n), 0.01, 0.99)
    frame = pd.DataFrame(
        {
            "clip_id": [f"{i:016x}" for i in range(n)],
            "path": [f"val/{'fight' if f else 'nonfight'}/{i:02d}.avi" for i, f in enumerate(fight)],
            "dataset": np.where(np.arange(n) < n // 2, "rwf_2000", "hockey_fights"),
            "source_group": [f"s{i // 4}" for i in range(n)],
            "label": np.where(fight, "fight", "nonfight"),
            "p_gru": p,
            "p_bilstm": np.clip(p + rng.normal(0, 0.05, n), 0, 1),
            "p_violent": p,
        }
    )
    frame.loc[0, "path"] = HOSTILE_PATH
    frame.loc[0, "p_violent"] = 0.001  # the worst mistake of all
    frame.loc[5, ["p_violent", "p_gru", "p_bilstm"]] = np.nan
    return frame


NOTHING_FOUND = Overlap(39, 120, 0, Comparison(0, 39), Comparison(0, 39), Comparison(0, 38, "one is black"))
SOME_FOUND = Overlap(
    39, 120, 12, Comparison(9, 39), Comparison(0, 0, "an earlier version"), Comparison(10, 39), {"train": 9}
)


def context(**changes: object) -> report.ReportContext:
    base = report.ReportContext(
        overlap=NOTHING_FOUND,
        split="val of data/combined_all/manifest.csv",
        command="python test_ensemble.py --models ./models_ensemble/ --data data/combined_all/val/",
        created="2026-01-02 03:04 UTC",
        model=[("Model", "models_ensemble 0123abcd"), ("Backbone", "efficientnet_lite0")],
        seeds=[7],
        failures=[{"path": "val/nonfight/05.avi", "reason": "only 3 of at least 8 frames decode"}],
    )
    return replace(base, **changes)  # type: ignore[arg-type]


class Page(HTMLParser):
    """What a reader of the page gets: text by element id, tables, addresses."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.by_id: dict[str, str] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "br", "wbr"):
            self._open.append((tag, dict(attrs).get("id")))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data: str) -> None:
        if any(tag == "style" for tag, _ in self._open):
            return
        self.text += data
        for _, element_id in self._open:
            if element_id:
                self.by_id[element_id] = self.by_id.get(element_id, "") + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    frame = predictions_frame()
    report.write_report(folder, metrics.figures(frame, 0.5), frame, context())
    return folder


def test_the_folder_holds_figures_predictions_page_and_plots(written: Path) -> None:
    expected = {"metrics.json", "predictions.csv", "index.html", *PLOTS}
    assert {p.name for p in written.iterdir()} == expected
    for name in PLOTS:
        image = cv2.imread(str(written / name))
        assert image is not None
        assert image.shape[1] > 500


def test_metrics_say_where_the_number_comes_from(written: Path) -> None:
    metrics = json.loads((written / "metrics.json").read_text())
    assert metrics["n"] == 39
    assert metrics["ci95"][0] < metrics["accuracy"] < metrics["ci95"][1]
    assert metrics["command"].startswith("python test_ensemble.py")
    assert metrics["seeds"] == [7]
    assert metrics["model"]["Backbone"] == "efficientnet_lite0"
    assert metrics["split"] == "val of data/combined_all/manifest.csv"
    assert metrics["clips_trained_on"] == 0
    assert metrics["seen_in_training"]["near_copy"] == {
        "checked": True, "compared": 38, "found": 0, "not_checked": "one is black",
    }  # fmt: skip
    assert metrics["generated_sample_clips"] is False
    assert set(metrics["by_dataset"]) == {"rwf_2000", "hockey_fights"}


def test_predictions_are_sorted_by_path_and_a_failed_clip_has_no_score(written: Path) -> None:
    with (written / "predictions.csv").open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert [r["path"] for r in rows] == sorted(r["path"] for r in rows)
    assert list(rows[0]) == [
        "clip_id",
        "path",
        "dataset",
        "source_group",
        "label",
        "p_bilstm",
        "p_gru",
        "p_violent",
    ]
    (failed,) = [r for r in rows if r["path"] == "val/nonfight/05.avi"]
    assert failed["p_violent"] == failed["p_gru"] == ""


def test_the_page_shows_accuracy_interval_n_split_command_date_model_and_seeds(written: Path) -> None:
    page = Page(written / "index.html")
    metrics = json.loads((written / "metrics.json").read_text())
    assert page.by_id["accuracy"].strip() == f"{100 * metrics['accuracy']:.1f}\u00a0%"
    low, high = (100 * v for v in metrics["ci95"])
    assert page.by_id["interval"] == f"{low:.1f}–{high:.1f}\u00a0%"
    text = " ".join(page.text.split())
    for shown in ("39 clips from 10 sources", "none of 38; the others not checked", context().command,
                  "2026-01-02 03:04 UTC",
                  "models_ensemble 0123abcd", "only 3 of at least 8 frames decode"):  # fmt: skip
        assert shown in text, shown
    for name in ("rwf_2000", "hockey_fights"):
        assert name in page.by_id["datasets"]
    for name in ("gru", "bilstm", "Together"):
        assert name in page.by_id["members"]


def test_the_page_needs_no_network_and_no_scripts(written: Path) -> None:
    page = Page(written / "index.html")
    assert not page.all("script")
    assert not page.all("link")
    addresses = [a.get("src") or a.get("srcset") or "" for tag in ("img", "source") for a in page.all(tag)]
    assert len(addresses) == 2 * len(PLOTS)  # light and dark
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    source = (written / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://", source)


def test_the_plots_on_the_disk_are_the_light_ones_of_the_page(written: Path) -> None:
    shown = [img.get("src") or "" for img in Page(written / "index.html").all("img")]
    on_disk = [
        f"data:image/png;base64,{base64.b64encode((written / p).read_bytes()).decode()}" for p in PLOTS
    ]
    assert set(on_disk) <= set(shown)


def test_a_path_with_markup_is_shown_not_run(written: Path) -> None:
    page = Page(written / "index.html")
    assert HOSTILE_PATH in page.by_id["mistakes"]
    assert "<script" not in (written / "index.html").read_text(encoding="utf-8")


def test_tables_have_captions_and_scopes_and_images_have_descriptions(written: Path) -> None:
    page = Page(written / "index.html")
    assert len(page.all("caption")) == len(page.all("table")) >= 4
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    assert all(len(attrs.get("alt") or "") > 10 for attrs in page.all("img"))
    assert page.all("html")[0]["lang"] == "en"


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio of two #rrggbb colours."""
    luminances = []
    for colour in (first, second):
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        luminances.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


def test_text_contrast_is_at_least_4_5_in_light_and_dark(written: Path) -> None:
    source = (written / "index.html").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", source, re.S)
    assert len(blocks) == 2
    for block in blocks:
        colour = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for text in ("text", "soft", "accent", "bad"):
            assert contrast(colour[text], colour["card"]) >= 4.5, text
            assert contrast(colour[text], colour["ground"]) >= 4.5, text
        assert contrast(colour["warn-text"], colour["warn-ground"]) >= 4.5


def test_generated_clips_are_announced_at_the_top_in_the_title_and_in_the_figures(tmp_path: Path) -> None:
    frame = predictions_frame()
    result = metrics.figures(frame, 0.5)
    page = Page(report.write_report(tmp_path, result, frame, context(generated=True)))
    assert marker.SAMPLE_LABEL in page.by_id["generated"]
    assert page.text.index("These numbers come from") < page.text.index("accuracy")
    assert marker.SAMPLE_LABEL in page.text.split("Violence detection")[1]  # the title of the window
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["generated_sample_clips"] is True
    assert written["data"] == marker.SAMPLE_LABEL


def test_a_report_on_published_clips_has_no_such_banner(written: Path) -> None:
    page = Page(written / "index.html")
    assert marker.SAMPLE_LABEL not in page.text
    assert "trained-on" not in page.by_id


def test_clips_that_were_trained_on_are_announced(tmp_path: Path) -> None:
    frame = predictions_frame().assign(source_path="raw/rwf_2000/clip.avi")
    page = Page(
        report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context(overlap=SOME_FOUND))
    )
    assert "12 of these 39 clips were trained on" in page.by_id["trained-on"]
    assert "9 of 39" in page.text
    assert "not checked: an earlier version" in page.text
    assert "raw/rwf_2000/clip.avi" in page.by_id["mistakes"]
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["clips_trained_on"] == 9
    assert written["seen_in_training"]["same_source"] == {
        "checked": False, "compared": 0, "found": None, "not_checked": "an earlier version",
    }  # fmt: skip
    assert (
        (tmp_path / "predictions.csv")
        .read_text()
        .startswith("clip_id,path,dataset,source_group,label,source_path")
    )


def test_what_one_class_does_not_define_says_so_and_is_null(tmp_path: Path) -> None:
    frame = predictions_frame()
    frame = frame[frame["label"] == "nonfight"].assign(p_violent=0.1)
    page = Page(report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context()))
    assert page.text.count("not defined") >= 5  # AUC, average precision, F1, precision, recall
    assert "nan" not in page.text.lower().split()
    written = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert written["roc_auc"] is written["precision"] is None


def test_baselines_stand_beside_the_result(tmp_path: Path) -> None:
    frame = predictions_frame()
    manifest = frame.assign(
        split=np.where(np.arange(40) < 28, "train", "val"), width=320, height=240, fps=25.0, duration_s=2.0
    )
    baselines = metrics.trivial_baselines(manifest)
    page = Page(
        report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context(baselines=baselines))
    )
    assert "Always" in page.by_id["baselines"]
    assert "File format alone" in page.by_id["baselines"]
    assert json.loads((tmp_path / "metrics.json").read_text())["baselines"] == baselines


def test_frames_of_mistakes_are_shown_and_an_unreadable_clip_says_so(tmp_path: Path) -> None:
    frame = predictions_frame()
    wrong = metrics.worst_mistakes(frame, 0.5)["path"]
    readable = next(p for p in wrong if p != HOSTILE_PATH)
    clip = samples.plan_clips(4, 2, 0)[0]
    frames, fps = samples.scene_frames(clip)
    (tmp_path / readable).parent.mkdir(parents=True)
    writer = cv2.VideoWriter(str(tmp_path / readable), cv2.VideoWriter.fourcc(*"MJPG"), fps,
                             (frames.shape[2], frames.shape[1]))  # fmt: skip
    for image in frames:
        writer.write(image)
    writer.release()
    strip = report.clip_strip(tmp_path / readable, n_frames=4, height_px=60)
    decoded = cv2.imdecode(np.frombuffer(strip, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (60, 4 * round(frames.shape[2] * 60 / frames.shape[1]), 3)
    result = metrics.figures(frame, 0.5)
    page = Page(
        report.write_report(tmp_path / "out", result, frame, context(strip=report.strips_below(tmp_path)))
    )
    strips = [a["src"] or "" for a in page.all("img") if "Frames of the clip" in (a.get("alt") or "")]
    assert len(strips) == 1
    assert base64.b64decode(strips[0].split(",")[1]) == report.clip_strip(tmp_path / readable)
    assert "no such file" in page.by_id["mistakes"]
    with pytest.raises(UnreadableVideo):
        report.clip_strip(tmp_path / "absent.avi")


def test_one_class_and_one_model_make_a_report_without_roc(tmp_path: Path) -> None:
    frame = predictions_frame().drop(columns=["p_gru", "p_bilstm"])
    frame = frame[frame["label"] == "fight"]
    page = Page(report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context()))
    assert not (tmp_path / "roc.png").exists()
    assert "members" not in page.by_id


def test_a_data_set_that_failed_as_a_whole_is_listed_without_an_accuracy(tmp_path: Path) -> None:
    frame = predictions_frame()
    frame.loc[frame["dataset"] == "hockey_fights", ["p_violent", "p_gru", "p_bilstm"]] = np.nan
    page = Page(report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context()))
    row = page.by_id["datasets"].split("hockey_fights")[1].split("rwf_2000")[0]
    assert "–" in row
    assert "20\u00a0missing" in row


def test_metrics_are_written_last_and_an_old_record_goes_first(tmp_path: Path) -> None:
    frame = predictions_frame()
    result = metrics.figures(frame, 0.5)
    (tmp_path / "metrics.json").write_text("{}")  # of an earlier run

    def broken_strip(path: str) -> bytes:
        assert not (tmp_path / "metrics.json").exists()
        raise RuntimeError("killed here")

    with pytest.raises(RuntimeError, match="killed here"):
        report.write_report(tmp_path, result, frame, context(strip=broken_strip))
    assert not (tmp_path / "metrics.json").exists()


def test_the_same_predictions_give_the_same_files_in_any_row_order(tmp_path: Path, written: Path) -> None:
    frame = predictions_frame().sample(frac=1, random_state=1)
    report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context())
    for file in written.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.slow
def test_the_page_renders_in_a_browser_without_sideways_scrolling(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no chromium installed")
    frame = predictions_frame()
    wide_strip = bytes(cv2.imencode(".png", np.zeros((90, 960, 3), np.uint8))[1])
    frame.loc[0, "source_group"] = "violent_flows:" + "Y" * 90
    long_path = {"path": "val/fight/" + "x" * 200 + ".avi", "reason": "the file is empty"}
    written = report.write_report(
        tmp_path / "out", metrics.figures(frame, 0.5), frame,
        context(generated=True, strip=lambda _: wide_strip, failures=[long_path]),
    )  # fmt: skip
    # Frames of the wanted widths, as windows have a least width; the outer page reads the inner ones' sizes.
    widths = (1200, 390)
    frames = "".join(
        f"<iframe style='width:{w}px;height:99px;border:0' src='{written.as_uri()}'></iframe>" for w in widths
    )
    outer = tmp_path / "outer.html"
    outer.write_text(
        f"{frames}<script>onload=()=>{{document.title=[...document.querySelectorAll('iframe')]"
        ".map(f=>f.contentDocument.documentElement).map(e=>e.scrollWidth+' '+e.scrollHeight).join(' ')}</script>"
    )
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               "--hide-scrollbars", "--allow-file-access-from-files",
               f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
               outer.as_uri()]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    match = re.search(r"<title>(\d+) (\d+) (\d+) (\d+)</title>", dom)
    assert match, dom[:500]
    wide, wide_height, narrow, narrow_height = (int(n) for n in match.groups())
    assert (wide, narrow) == widths
    assert min(wide_height, narrow_height) > 1500
