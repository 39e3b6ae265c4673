"""The report: complete, self-contained, escaped, explicit about generated clips, and whole or absent."""

from __future__ import annotations

import base64
import csv
import errno
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import page_reader
import pandas as pd
import pytest
from page_reader import Page

from violence_detection.combine.val_ledger import Looks
from violence_detection.datasets.generated import marker
from violence_detection.errors import UnreadableVideo
from violence_detection.evaluation import (
    by_training,
    calibrate,
    calibration,
    checklist,
    comparisons,
    evaluate,
    metrics,
)
from violence_detection.evaluation.config import EvaluationConfig
from violence_detection.evaluation.report import (
    film_strip,
    from_evaluation,
    page_filters,
    report,
    report_plots,
)
from violence_detection.evaluation.training_overlap import Comparison, Overlap
from violence_detection.features.config import FeatureConfig
from violence_detection.models import trained_model
from violence_detection.system.figures import number

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
    frame["p_gru"] = np.clip(p + rng.normal(0, 0.3, n), 0, 1)
    frame.loc[0, "path"] = HOSTILE_PATH
    frame.loc[0, "p_violent"] = 0.001  # the worst mistake
    frame.loc[5, ["p_violent", "p_gru", "p_bilstm"]] = np.nan
    return frame


def test_plots_and_log_write_no_figure_below_one_as_one() -> None:
    n = 4000
    fight = np.arange(n) % 2 == 0
    p = np.where(fight, 0.9, 0.1)
    p[0] = 0.01
    frame = pd.DataFrame(
        {
            "clip_id": [f"{i:016x}" for i in range(n)],
            "path": [f"{i}.avi" for i in range(n)],
            "dataset": "rwf_2000",
            "source_group": [f"s{i // 40}" for i in range(n)],
            "label": np.where(fight, "fight", "nonfight"),
            "p_gru": p,
            "p_violent": p,
        }
    )
    result = metrics.figures(frame, 0.5)
    plots = {plot.name: plot for plot in report_plots.make_plots(result, frame)}
    shown = {}
    for name in ("accuracy_by_dataset", "confusion_matrix", "roc"):
        (axes,) = report_plots.drawn(plots[name], report_plots.LIGHT).axes
        texts = [*axes.texts, *(legend.get_texts() if (legend := axes.get_legend()) else ())]
        shown[name] = [plots[name].description, *(text.get_text() for text in texts)]
    assert shown["accuracy_by_dataset"] == ["rwf_2000: 99.98 % of 4000", "99.98", "99.98"]
    assert shown["roc"] == ["Area under the curve 0.9995.", "gru 0.9995", "model 0.9995"]
    assert "1999\n99.95 %" in shown["confusion_matrix"]
    assert from_evaluation._row(result).split()[0] == "99.98%"
    assert from_evaluation._row(result).split()[-1] == "0.9995"


NOTHING_FOUND = Overlap(39, 120, 0, Comparison(0, 39), Comparison(0, 39), Comparison(0, 38, "one is black"))
SOME_FOUND = Overlap(
    39, 120, 12, Comparison(9, 39), Comparison(0, 0, "an earlier version"), Comparison(10, 39), {"train": 9}
)


LEDGER = Looks(
    39,
    [
        {"command": "python a.py <b>", "model_sha256": "1", "time": "2026-01-01T00:00:00+0000",
         "figures": {"accuracy": 0.5}, "purpose": "training"},
        {"command": "python test_ensemble.py", "model_sha256": "2", "time": "2026-01-02T00:00:00+0000",
         "figures": {"accuracy": 0.75}, "purpose": "evaluation"},
    ],
)  # fmt: skip
BOXES = [
    checklist.Box(
        "Backbone", "efficientnet_b4", checklist.DIFFERS, "efficientnet_lite0", "config.json: backbone"
    ),
    checklist.Box("TTA", "views averaged", checklist.MISSING, "the plain clip alone", "metrics.json: model"),
]


def context(**changes: object) -> report.ReportContext:
    base = report.ReportContext(
        overlap=NOTHING_FOUND,
        split="val of data/combined_all/manifest.csv",
        command="python test_ensemble.py --models ./models_ensemble/ --data data/combined_all/val/",
        created="2026-01-02 03:04 UTC",
        model=[("Model", "models_ensemble 0123abcd"), ("Backbone", "efficientnet_lite0")],
        seeds=[7],
        val_ledger=LEDGER.record(),
        checklist=BOXES,
        failures=[{"path": "val/nonfight/05.avi", "reason": "only 3 of at least 8 frames decode"}],
    )
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    frame = predictions_frame()
    report.write_report(folder, metrics.figures(frame, 0.5), frame, context())
    return folder


def test_a_report_that_cannot_be_written_over_an_earlier_one_leaves_no_page_of_that(tmp_path: Path) -> None:
    frame = predictions_frame()
    report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context())
    (tmp_path / report.PREDICTIONS_NAME).unlink()
    (tmp_path / report.PREDICTIONS_NAME / "in the way").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context())
    assert not (tmp_path / report.PAGE_NAME).exists()
    assert not (tmp_path / report.METRICS_NAME).exists()


def test_a_model_that_was_trained_on_every_clip_has_no_val_to_be_sent_to(tmp_path: Path) -> None:
    frame = predictions_frame()
    said = {}
    for trained_on_all in (False, True):
        parts = by_training.figures(frame, 0.5, ["another"])
        changed = context(by_training=parts, trained_on_all=trained_on_all)
        path = report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, changed)
        (tile,) = re.findall(
            r"Accuracy on data sets it was trained on</h2>.*?</div>\n</div>", path.read_text(), re.DOTALL
        )
        said[trained_on_all] = tile
    assert "combined_all/val" in said[False]
    assert "combined_all/val" not in said[True]
    assert "trained on every labelled clip" in said[True]


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
        "set",
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
    assert "39 of 40 clips were judged" in page.by_id["limits"]
    for shown in ("39 of 40 clips judged, from 10 sources", "none of 38; the others not checked", context().command,
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
    assert len(addresses) == 2 * len(PLOTS)  # light and dark plots; this report has no frames
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
    page = Page(report.write_report(tmp_path, result, frame, context(sample_label=marker.SAMPLE_LABEL)))
    assert marker.SAMPLE_LABEL in page.by_id["generated"]
    told = " ".join(page.by_id["generated"].split())
    assert told.endswith("The numbers say nothing about how well real violence is recognised.")
    assert page.text.index("These numbers come from") < page.text.index("Accuracy on")
    assert marker.SAMPLE_LABEL in page.text.split("Violence detection")[1]  # the window's title
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["generated_sample_clips"] is True
    assert written["data"] == marker.SAMPLE_LABEL


def test_the_page_says_how_often_and_by_what_val_was_looked_at(written: Path) -> None:
    said = " ".join(Page(written / "index.html").by_id["val-ledger"].split())
    assert "Looked at 2 times before, with 2 models, by a.py, test_ensemble.py." in said
    assert said.index("python test_ensemble.py") < said.index("python a.py <b>"), "the latest first"
    assert "75.0 %" in said
    assert json.loads((written / "metrics.json").read_text())["val_ledger"] == LEDGER.record()


def test_the_checklist_is_on_the_page_and_in_the_figures(written: Path) -> None:
    said = " ".join(Page(written / "index.html").by_id["checklist"].split())
    kept = json.loads((written / "metrics.json").read_text())["checklist"]
    assert [box["name"] for box in kept] == ["Backbone", "TTA"]
    for box in kept:
        assert all(value in said for value in box.values())


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


def some_frames(seed: int = 0, count: int = 5) -> list[film_strip.StripFrame]:
    """Frames of noise, which compress worst."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, 162, 288, 3), np.uint8)
    return [
        film_strip.StripFrame(0.5 * i, 288, 162, film_strip._jpeg(image)) for i, image in enumerate(noise)
    ]


def test_frames_of_mistakes_stand_over_the_attention_that_metrics_json_holds(tmp_path: Path) -> None:
    frame = predictions_frame()
    first, second = metrics.worst_mistakes(frame, 0.5).to_dict("records")[:2]
    shares = [0.5, *[0.5 / 9] * 9]

    def frames(path: str) -> list[film_strip.StripFrame]:
        if path != first["path"]:
            raise UnreadableVideo(Path(path), "no such file")
        return some_frames()

    attention = {first["clip_id"]: {"bilstm": shares}}
    result = metrics.figures(frame, 0.5)
    page = Page(report.write_report(tmp_path, result, frame, context(frames=frames, attention=attention)))
    shown = [a["src"] or "" for a in page.all("img") if "Frame at" in (a.get("alt") or "")]
    assert shown == [f.uri for f in some_frames()]
    assert "no such file" in page.by_id["mistakes"]
    assert "Attention of “bilstm”: at most 50.0\u00a0% on one moment" in page.by_id["mistakes"]
    drawings = [a for a in page.all("svg") if a.get("class") == "attention"]
    assert len(drawings) == 5
    record = json.loads((tmp_path / "metrics.json").read_text())["mistakes"]
    assert record[0]["clip_id"] == first["clip_id"]
    assert record[0]["attention"] == {"bilstm": shares}
    assert record[0]["frames_s"] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert record[1]["clip_id"] == second["clip_id"]
    assert record[1]["frames_missing"] == "no such file"


def test_a_disk_that_does_not_answer_costs_the_frames_not_the_report(tmp_path: Path) -> None:
    frame = predictions_frame()

    def frames(path: str) -> list[film_strip.StripFrame]:
        raise OSError(errno.EIO, "Input/output error", path)

    page = report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context(frames=frames))
    assert "no frames to show: [Errno 5] Input/output error" in Page(page).by_id["mistakes"]


def test_without_attention_the_page_says_so_and_draws_none(written: Path) -> None:
    page = Page(written / "index.html")
    assert "No member of this model has attention" in page.text
    assert not [a for a in page.all("svg") if a.get("class") == "attention"]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with baselines, figures by training, attention and frames."""
    frame = predictions_frame()
    manifest = frame.assign(
        split=np.where(np.arange(40) < 28, "train", "val"), width=320, height=240, fps=25.0, duration_s=2.0
    )
    wrong = metrics.worst_mistakes(frame, 0.5).clip_id
    everything = context(
        baselines=metrics.trivial_baselines(manifest),
        overlap=replace(NOTHING_FOUND, datasets=("rwf_2000",)),
        by_training=by_training.figures(frame, 0.5, ("rwf_2000",)),
        attention={clip_id: {"bilstm": [0.1, 0.3, 0.2, 0.4]} for clip_id in wrong},
        frames=lambda path: some_frames(),
    )
    folder = tmp_path_factory.mktemp("full")
    return report.write_report(folder, metrics.figures(frame, 0.5), frame, everything)


def test_every_figure_of_the_page_stands_in_metrics_or_predictions(full: Path, tmp_path: Path) -> None:
    assert len(page_reader.figures(full)) > 150
    assert page_reader.without_source(full) == []
    page = shutil.copytree(full.parent, tmp_path / "changed") / full.name
    accuracy = f"{100 * json.loads((full.parent / 'metrics.json').read_text())['accuracy']:.1f}"
    page.write_text(
        page.read_text(encoding="utf-8").replace(f"{accuracy}\u00a0%", "12.3\u00a0%"), encoding="utf-8"
    )
    assert set(page_reader.without_source(page)) == {"12.3"}


def test_each_figure_stands_in_the_row_and_column_that_it_is_of(written: Path) -> None:
    """A figure may be right in metrics.json and still be shown in another's place on the page."""
    page, percent, interval = written / "index.html", page_filters.percent, page_filters.interval
    whole = json.loads((written / "metrics.json").read_text())
    members = {**{member["name"]: member for member in whole["members"]}, "Together": whole}
    sets = {**whole["by_dataset"], "All": whole}
    for alike in (members, sets):
        assert len(alike) == 3
        for told in ("accuracy", "ci95", "roc_auc", "f1"):
            assert len({str(m[told]) for m in alike.values()}) == 3, f"{told} is to tell one from another"
    assert whole["precision"] != whole["recall"]

    shown = page_reader.rows(page, "members")
    assert shown == {
        name: [
            f"{percent(m['accuracy'])} {interval(m['ci95'])}", "", number(m["roc_auc"]), number(m["threshold"]),
            str(m["n"]),
        ]
        for name, m in members.items()
    }  # fmt: skip
    names = (
        "accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "average_precision",
        "recall_at_1_percent_false_alarms", "recall_at_5_percent_false_alarms",
    )  # fmt: skip
    for name, cells in page_reader.rows(page, "figures").items():
        figures = members[name.capitalize() if name == "together" else name]
        for key, cell in zip(names, cells, strict=True):
            low, high = figures["intervals"].get(key) or (None, None)
            expected = "–" if low is None else f"{number(figures[key])} {number(low)}–{number(high)}"
            assert cell == expected, (name, key)
    shown = page_reader.rows(page, "datasets")
    assert list(shown) == list(sets)
    for name, cells in shown.items():
        m = sets[name]
        assert cells[0] == f"{percent(m['accuracy'])} {interval(m['ci95'])}"
        assert cells[2].startswith(f"{m['n']} {m['coverage']['fight']['predicted']}\u00a0fight, ")
        assert cells[3:] == [
            str(m["n_groups"]), number(m["roc_auc"]), number(m["f1"]), f"{m['n']}\u00a0of\u00a0{m['asked']}",
        ]  # fmt: skip
    assert page_reader.key_figures(page) == {
        "ROC AUC": number(whole["roc_auc"]), "Average precision": number(whole["average_precision"]),
        "F1": number(whole["f1"]), "Precision": percent(whole["precision"]), "Recall": percent(whole["recall"]),
        "Threshold": number(whole["threshold"]), "Brier score": number(whole["brier"]),
        "Wrong": f"{whole['wrong']} of {whole['n']}",
    }  # fmt: skip


def test_in_set_and_out_of_set_stand_side_by_side_where_training_is_known(full: Path, written: Path) -> None:
    page = Page(full)
    record = json.loads((full.parent / "metrics.json").read_text())["by_training"]
    assert record["in_set"]["datasets"] == ["rwf_2000"]
    assert record["out_of_set"]["datasets"] == ["hockey_fights"]
    start = page.text.index("Accuracy elsewhere")
    assert f"{100 * record['out_of_set']['accuracy']:.1f}\u00a0%" in page.text[start : start + 40]
    assert "hockey_fights, which training did not have" in page.text[start:]
    rows = page.by_id["datasets"]
    assert "not in training" in rows.split("hockey_fights")[1].split("rwf_2000")[0]
    assert "in training too" in rows.split("rwf_2000")[1]
    unknown = Page(written / "index.html")
    assert "not measured" in unknown.text
    assert "--leave-one-dataset-out" in unknown.text
    assert "Which data sets training had is not known" in unknown.by_id["datasets"]


def test_a_section_of_another_module_is_in_metrics_json_and_its_limit_is_on_top(tmp_path: Path) -> None:
    frame = predictions_frame()
    section = {"found": 3, "limit": {"state": "alarm", "name": "Shortcuts", "text": "3 of them found"}}
    page = Page(
        report.write_report(
            tmp_path, metrics.figures(frame, 0.5), frame, context(sections={"audits": {"shortcuts": section}})
        )
    )
    assert json.loads((tmp_path / "metrics.json").read_text())["audits"]["shortcuts"] == section
    assert page.by_id["limits"].split()[:2] == ["Alarm", "Shortcuts"]
    others = page.by_id["limits"].split("not made in this run")[1]
    assert "leakage" in others
    assert "shortcuts" not in others


def test_headings_stand_in_order(full: Path) -> None:
    levels = [int(tag[1]) for tag, _ in Page(full).tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_ten_thousand_clips_make_a_page_below_five_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    n = 10_000
    fight = rng.random(n) < 0.5
    p = np.clip(0.5 + (fight - 0.5) * 0.5 + rng.normal(0, 0.3, n), 0, 1)
    frame = pd.DataFrame(
        {
            "clip_id": [f"{i:016x}" for i in range(n)],
            "path": [f"val/{'fight' if f else 'nonfight'}/a_clip_{i:05d}.avi" for i, f in enumerate(fight)],
            "dataset": [f"set_{i % 12}" for i in range(n)],
            "source_group": [f"s{i // 4}" for i in range(n)],
            "label": np.where(fight, "fight", "nonfight"),
            **{f"p_member_{k}": np.clip(p + rng.normal(0, 0.05, n), 0, 1) for k in range(5)},
            "p_violent": p,
        }
    )  # fmt: skip
    wrong = metrics.worst_mistakes(frame, 0.5).clip_id
    attention = {clip_id: {f"member_{k}": [0.05] * 20 for k in range(2)} for clip_id in wrong}
    failures = [
        {"path": f"val/fight/{i}.avi", "reason": "only 3 of at least 8 frames decode"} for i in range(500)
    ]
    page = report.write_report(
        tmp_path, metrics.figures(frame, 0.5), frame,
        context(failures=failures, attention=attention, frames=lambda path: some_frames()),
    )  # fmt: skip
    assert 0.5e6 < page.stat().st_size < 5e6
    assert page_reader.without_source(page) == []


def test_one_class_and_one_model_make_a_report_without_roc(tmp_path: Path) -> None:
    frame = predictions_frame().drop(columns=["p_gru", "p_bilstm"])
    report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context())
    assert (tmp_path / "roc.png").exists()  # it must be removed when figures have one class only
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
    assert "0 of 20\u00a0judged" in row


def test_metrics_are_written_last_and_an_old_record_goes_first(tmp_path: Path) -> None:
    frame = predictions_frame()
    result = metrics.figures(frame, 0.5)
    (tmp_path / "metrics.json").write_text("{}")  # from an earlier run

    def broken(path: str) -> list[film_strip.StripFrame]:
        assert not (tmp_path / "metrics.json").exists()
        raise RuntimeError("killed here")

    with pytest.raises(RuntimeError, match="killed here"):
        report.write_report(tmp_path, result, frame, context(frames=broken))
    assert not (tmp_path / "metrics.json").exists()


def test_the_same_predictions_give_the_same_files_in_any_row_order(tmp_path: Path, written: Path) -> None:
    frame = predictions_frame().sample(frac=1, random_state=1)
    report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context())
    for file in written.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_every_figure_of_the_page_is_scikit_learns_recomputed_from_predictions_csv(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [predictions_frame() for _ in range(6)]
    frame = pd.concat(parts).assign(clip_id=[f"{i:016x}" for i in range(6 * len(parts[0]))])
    for column in ("p_gru", "p_bilstm", "p_violent"):
        frame[column] = (frame[column] + rng.normal(0, 0.2, len(frame))).clip(0, 1)
        frame["plain_" + column] = (frame[column] + rng.normal(0, 0.2, len(frame))).clip(0, 1)
    report.write_report(tmp_path, metrics.figures(frame, 0.4), frame, context())
    written = json.loads((tmp_path / "metrics.json").read_text())
    rows = pd.read_csv(tmp_path / "predictions.csv").dropna()
    checked = 0
    for prefix, model in (("", written), ("plain_", written["plain"])):
        models = {"violent": model, **{m["name"]: m for m in model["members"]}}
        for name, figures in models.items():
            for dataset, found in (("", figures), *figures["by_dataset"].items()):
                part = rows[rows.dataset == dataset] if dataset else rows
                assert_equal_scikit_learns(found, part, f"{prefix}p_{name}", 0.4)
                checked += 1
    assert checked == 2 * 3 * 3


def assert_equal_scikit_learns(
    found: dict[str, object], rows: pd.DataFrame, column: str, threshold: float
) -> None:
    from sklearn import metrics as theirs

    is_fight, p = (rows.label == "fight").to_numpy(), rows[column].to_numpy()
    called = p >= threshold
    false_alarms, recall, _ = theirs.roc_curve(is_fight, p, drop_intermediate=False)
    expected = {
        "accuracy": theirs.accuracy_score(is_fight, called),
        "balanced_accuracy": theirs.balanced_accuracy_score(is_fight, called),
        "precision": theirs.precision_score(is_fight, called),
        "recall": theirs.recall_score(is_fight, called),
        "f1": theirs.f1_score(is_fight, called),
        "roc_auc": theirs.roc_auc_score(is_fight, p),
        "average_precision": theirs.average_precision_score(is_fight, p),
        "recall_at_5_percent_false_alarms": recall[false_alarms <= 0.05].max(),
    }
    if (~is_fight).sum() >= 100:
        expected["recall_at_1_percent_false_alarms"] = recall[false_alarms <= 0.01].max()
    assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-12)
    intervals = found["intervals"]
    assert isinstance(intervals, dict)
    for name, value in expected.items():
        low, high = intervals[name]
        assert 0 <= low <= value <= high <= 1


def test_members_plain_and_averaged_and_differences_stand_on_the_page(tmp_path: Path) -> None:
    frame = predictions_frame()
    frame = frame.assign(**{f"plain_{c}": frame[c] for c in ("p_gru", "p_bilstm", "p_violent")})
    earlier = report.write_report(tmp_path / "earlier", metrics.figures(frame, 0.5), frame, context()).parent
    result = {
        **metrics.figures(frame, 0.5),
        "comparisons": comparisons.between_models(frame, 0.5),
        "earlier_reports": comparisons.with_earlier(frame, 0.5, [comparisons.read(earlier)]),
    }
    page = Page(report.write_report(tmp_path / "now", result, frame, context()))
    for row in ("gru, plain", "bilstm, views averaged", "together, plain", "together, views averaged (TTA)"):
        assert row in page.by_id["figures"]
    assert "Recall at 1 % false alarms" in page.by_id["figures"]
    assert "too few" in page.text
    assert "bilstm – ensemble" in page.by_id["pairs"]
    assert "over 6 pairs" in page.by_id["pairs"]
    assert "Holm 1979" in page.by_id["earlier"]
    assert "39" in page.by_id["earlier"]
    written = json.loads((tmp_path / "now" / "metrics.json").read_text())
    assert written["earlier_reports"] == result["earlier_reports"]


def test_what_cannot_be_compared_and_other_thresholds_stand_on_the_page(tmp_path: Path) -> None:
    frame = predictions_frame().assign(source_group="one")
    earlier = report.write_report(tmp_path / "earlier", metrics.figures(frame, 0.4), frame, context()).parent
    result = {
        **metrics.figures(frame, 0.5),
        "comparisons": comparisons.between_models(frame, 0.5),
        "earlier_reports": comparisons.with_earlier(frame, 0.5, [comparisons.read(earlier)]),
    }
    page = Page(report.write_report(tmp_path / "now", result, frame, context()))
    assert "all clips are of one source, so none of these 3 pairs can be compared" in page.by_id["pairs"]
    assert "at threshold 0.400, here 0.500" in page.by_id["earlier"]


def test_what_was_looked_for_in_training_is_told_as_far_as_it_could_be(written: Path, tmp_path: Path) -> None:
    frame = predictions_frame()
    lost = Comparison(0, 0, "models has no trained_on.csv")
    for overlap, said in (
        (replace(NOTHING_FOUND, near_copy=Comparison(0, 39)), "data sets are combined. This finds"),
        (NOTHING_FOUND, "data sets are combined; what was not checked stands above. This finds"),
        (
            Overlap(39, 0, 0, lost, lost, lost),
            "combined, as far as the model’s folder names its clips; what was not checked stands above. This finds",
        ),
    ):
        path = report.write_report(tmp_path, metrics.figures(frame, 0.5), frame, context(overlap=overlap))
        assert said in " ".join(Page(path).text.split())


def test_a_calibrated_model_says_what_it_rests_on_and_the_predictions_hold_both(tmp_path: Path) -> None:
    frame = predictions_frame()
    known = frame[frame.p_violent.notna()]
    is_fight, groups = (known.label == "fight").to_numpy(), known.source_group.to_numpy()
    found = calibrate.fit(calibrate.out_of_fold(known, 5, 1), 0)
    assert found.temperature is not None
    frame["uncalibrated_p_violent"], frame["p_violent"] = (
        frame.p_violent,
        found.apply(frame.p_violent.to_numpy()),
    )
    p = frame.p_violent[known.index].to_numpy()
    result = metrics.figures(frame, 0.5)
    assert [m["name"] for m in result["members"]] == ["bilstm", "gru"], "what was before is no member"
    model = trained_model.TrainedModel(Path(), (), (), FeatureConfig(), {}, calibration=found)
    section = calibration.section(model, is_fight, {}, p, known.p_violent.to_numpy(), groups)
    page = Page(
        report.write_report(
            tmp_path, {**result, "operating_point": "balanced", "calibration": section}, frame, context()
        )
    )
    kept = json.loads((tmp_path / "metrics.json").read_text())
    rows = pd.read_csv(tmp_path / "predictions.csv").dropna(subset="p_violent")
    fights = (rows.label == "fight").to_numpy()
    for when, column in (("before", "uncalibrated_p_violent"), ("after", "p_violent")):
        error = calibration.expected_calibration_error(fights, rows[column].to_numpy())
        assert kept["calibration"][f"ece_{when}"] == pytest.approx(error)
        assert f"{error:.3f}" in page.by_id["calibration-figures"]
    assert kept["ece"] == pytest.approx(kept["calibration"]["ece_after"])
    assert page.by_id["calibration"].startswith(
        f"Temperature {found.temperature:.2f}, from 39 clips of 10 sources"
    )
    for name, point in kept["calibration"]["operating_points"].items():
        called = rows.p_violent >= point["threshold"]
        assert point["here"]["recall"] == pytest.approx(called[fights].mean())
        assert point["here"]["false_alarm_rate"] == pytest.approx(called[~fights].mean())
        assert name in page.by_id["operating-points"]
    assert "Chosen on: " in page.by_id["operating-points"]
    assert "no guarantee: 10 sources, at least 45 are needed" in page.text


def test_a_model_that_is_not_calibrated_is_said_to_be_none(tmp_path: Path) -> None:
    frame = predictions_frame()
    known = frame[frame.p_violent.notna()]
    p = known.p_violent.to_numpy()
    bare = trained_model.TrainedModel(Path(), (), (), FeatureConfig(), {})
    section = calibration.section(
        bare, (known.label == "fight").to_numpy(), {}, p, p, known.source_group.to_numpy()
    )
    result = {**metrics.figures(frame, 0.5), "operating_point": "balanced", "calibration": section}
    page = Page(report.write_report(tmp_path, result, frame, context()))
    assert page.by_id["calibration"].startswith("Not calibrated: ")
    assert "operating-points" not in page.by_id


def test_a_report_of_a_model_with_a_long_name_has_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = evaluate.default_report_folder(EvaluationConfig(models=Path("ж" * 127)))
    folder.mkdir(parents=True)
    assert evaluate.default_report_folder(EvaluationConfig(models=Path("gru"))).name.startswith("gru-2")


def test_the_page_names_the_interval_that_is_computed(written: Path) -> None:
    said = " ".join((written / "index.html").read_text().split())
    assert "averaged with that of a beta-binomial model of the sources" in said
