"""Sets from elsewhere are measured beside val, and called unseen only if that was checked.

What does not fit is refused with a remedy.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_videos
import stand_in
import synthetic
from page_reader import Page

from violence_detection import cli
from violence_detection.backbones import registry
from violence_detection.combine import manifest, val_ledger
from violence_detection.datasets.generated import marker
from violence_detection.errors import UserError
from violence_detection.evaluation import elsewhere, evaluate, metrics
from violence_detection.evaluation.config import EvaluationConfig
from violence_detection.evaluation.measure import Evaluation
from violence_detection.evaluation.report import film_strip, from_evaluation
from violence_detection.models import made_alike, trained_model
from violence_detection.models.averaging import EarlyExit
from violence_detection.system import storage
from violence_detection.training import run_folder

CLASSES = ("fight", "nonfight")


@pytest.fixture(scope="module", autouse=True)
def backbone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        stand_in.install(patch.setattr)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 32 combined clips and an ensemble of one member trained on them."""
    root = tmp_path_factory.mktemp("root")
    for seed in range(16):
        for offset, label in enumerate(CLASSES):
            small_videos.write(root / "raw/mine" / label / f"{seed}.avi", 100 * offset + seed)
    synthetic.train_on_clips(root, root / "models" / "average", config=replace(synthetic.TRAIN, epochs=1))
    member = {"name": "average", "model": "average/best_model.keras", "weight": 1.0}
    storage.write_json(root / "models" / "ensemble.json", {"members": [member]})
    return root


@pytest.fixture(scope="module")
def places(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders: `market`, 8 new clips of 4 cameras; `known`, 4 clips of train and 2 new; `quiet`, 4 nonfights."""
    folder = tmp_path_factory.mktemp("places")
    for k in range(4):
        for offset, label in enumerate(CLASSES):
            small_videos.write(folder / "market" / label / f"cam{k}" / "a.avi", 500 + 100 * offset + k)
        small_videos.write(folder / "quiet" / "nonfight" / f"{k}.avi", 800 + k)
    small_videos.write(folder / "known" / "fight" / "new.avi", 900)
    small_videos.write(folder / "known" / "nonfight" / "new.avi", 901)
    train = manifest.read(root / "combined_all").query("split == 'train'")
    for path, label in zip(train.path[:4], train.label[:4], strict=True):
        shutil.copy(root / "combined_all" / path, folder / "known" / label / Path(path).name)
    return folder


def measure(root: Path, report: Path, **settings: object) -> Evaluation:
    config = EvaluationConfig(
        output=report,
        **{"models": root / "models", "data_root": root, "workers": 1, **settings},  # type: ignore[arg-type]
    )
    return evaluate.run(config, "python test_ensemble.py")


@pytest.fixture(scope="module")
def written(root: Path, places: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    folder = tmp_path_factory.mktemp("report")
    sets = tuple(f"{name}={places}/{name}" for name in ("market", "known", "quiet"))
    return measure(root, folder, elsewhere=sets, audit=("shortcuts",)), folder


def figures_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_figures_elsewhere_are_those_of_their_rows_in_predictions(written: tuple[Evaluation, Path]) -> None:
    _, folder = written
    figures = figures_of(folder)
    with (folder / "predictions.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert {r["set"] for r in rows} == {"val", "market", "known", "quiet"}
    assert [r["set"] for r in rows[: figures["n"]]] == ["val"] * figures["n"]
    for name, found in {**figures["elsewhere"], "val": figures}.items():
        of_set = [r for r in rows if r["set"] == name]
        right = [(float(r["p_violent"]) >= 0.5) == (r["label"] == "fight") for r in of_set]
        assert found["n"] == len(of_set)
        assert found["accuracy"] == pytest.approx(sum(right) / len(right))
        calm = [float(r["p_violent"]) >= 0.5 for r in of_set if r["label"] == "nonfight"]
        assert found["false_alarm_rate"] == pytest.approx(sum(calm) / len(calm))
    assert figures["elsewhere"]["market"]["n_groups"] == 4


def test_a_set_is_unseen_only_where_nothing_of_it_was_met_in_training(
    written: tuple[Evaluation, Path],
) -> None:
    scored, folder = written
    found = figures_of(folder)["elsewhere"]
    assert {name: one["unseen"] for name, one in found.items()} == {
        "market": True, "known": False, "quiet": True,
    }  # fmt: skip
    assert found["known"]["seen_in_training"]["touched"] == 4
    assert found["known"]["unseen_in_words"].startswith("no: 4 of 6 clips")
    assert found["market"]["unseen_in_words"].endswith(
        "its sources could not be compared, as you alone know them"
    )
    assert found["market"]["sources_checked"] is False
    assert scored.overlap.touched == 0  # what other sets share with train is not counted for val


def test_one_class_alone_gives_false_alarms_and_no_figure_that_needs_both(
    written: tuple[Evaluation, Path],
) -> None:
    _, folder = written
    quiet = figures_of(folder)["elsewhere"]["quiet"]
    assert quiet["classes"] == ["nonfight"]
    assert [quiet[k] for k in ("roc_auc", "recall", "balanced_accuracy", "average_precision")] == [None] * 4
    assert quiet["false_alarm_rate"] == pytest.approx(1 - quiet["accuracy"])
    assert quiet["false_alarm_ci95"][0] <= quiet["false_alarm_rate"] <= quiet["false_alarm_ci95"][1]
    assert "so they show false alarms and nothing else" in (folder / "index.html").read_text()


def test_the_page_shows_the_worst_first_and_the_rules_that_chose(written: tuple[Evaluation, Path]) -> None:
    _, folder = written
    figures, page = figures_of(folder), (folder / "index.html").read_text()
    rules = figures["selected_by"]
    assert "training-domain validation set" in rules["epoch"]
    assert rules["threshold"] == "fixed at 0.5 before any clip was judged"
    assert all(one["selected_by"] == rules for one in figures["elsewhere"].values())
    assert "fixed at 0.5 before any clip was judged" in page
    ordered = [one["name"] for one in elsewhere.worst_first(figures["elsewhere"])]
    accuracies = [figures["elsewhere"][name]["accuracy"] for name in ordered]
    assert accuracies == sorted(accuracies)
    table = page[page.index('id="elsewhere"') :]
    places = [table.index(f">{name}<small") for name in ordered]
    assert places == sorted(places)


def test_a_set_is_called_out_of_set_only_where_training_met_none_of_it(
    written: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    scored, folder = written
    table = Page(folder / "index.html").by_id["elsewhere"]
    assert "known met in training" in table
    assert "market out of set" in table
    market = scored.elsewhere["market"]
    unchecked = replace(market.overlap.near_copy, compared=0, why_not="not noted")
    told = replace(
        scored,
        overlap=replace(scored.overlap, touched=2, datasets=("other",)),
        elsewhere={"market": replace(market, overlap=replace(market.overlap, near_copy=unchecked))},
    )
    page = Page(from_evaluation.write(told, tmp_path, ""))
    assert "market not fully checked" in page.by_id["elsewhere"]
    assert "\nval met in training\n" in page.by_id["elsewhere"]
    assert "minenot in training by name" in page.by_id["datasets"]


def test_a_threshold_just_below_one_is_not_written_as_one(written: tuple[Evaluation, Path]) -> None:
    model = trained_model.load(written[0].path)
    rules = elsewhere.selected_by(replace(model, threshold=0.99997))
    assert rules["threshold"] == "0.99997, stored with the model"


@pytest.mark.parametrize(
    ("datasets", "said"),
    [(("mine",), "in set"), (("other",), "out of set"), (None, "judged above")],
)
def test_val_is_in_set_only_where_training_had_its_data_sets(
    written: tuple[Evaluation, Path], tmp_path: Path, datasets: tuple[str, ...] | None, said: str
) -> None:
    scored, _ = written
    left_out = {
        **_left_out(scored.path), "belongs": True, "whose": "x",
        "datasets": [{"dataset": "mine", "accuracy": 0.5, "ci95": [0.4, 0.6], "accuracy_sd": None, "in_set": None,
                      "n": 9, "n_groups": 3, "roc_auc": None, "recall": None, "false_alarms": None}],
    }  # fmt: skip
    told = replace(scored, overlap=replace(scored.overlap, datasets=datasets), left_out=left_out)
    page = Page(from_evaluation.write(told, tmp_path, ""))
    assert f"\nval {said}\n" in page.by_id["elsewhere"]
    unchecked = replace(scored.overlap.near_copy, compared=0, why_not="not noted")
    half = replace(told, overlap=replace(told.overlap, near_copy=unchecked))
    half_said = "not fully checked" if said == "out of set" else said
    shown = Page(from_evaluation.write(half, tmp_path / "half", "")).by_id["elsewhere"]
    assert f"\nval {half_said}\n" in shown
    assert ("val, above" in page.by_id["left-out"]) is (said == "in set")
    assert "Mean" not in page.by_id["left-out"]


def test_the_mean_of_left_out_sets_has_its_interval(
    written: tuple[Evaluation, Path], root: Path, tmp_path: Path
) -> None:
    """It follows from the intervals of the sets, so records of earlier versions, which lack it, get one too."""
    scored, _ = written
    rows = [
        _left_out_row(16),
        _left_out_row(16, "yours", accuracy=0.9, ci95=[0.84, 0.98], roc_auc_ci95=[0.5, 0.9]),
    ]
    storage.write_json(tmp_path / elsewhere.LEFT_OUT_NAME, _left_out(root / "models", datasets=rows))
    found = elsewhere.left_out(tmp_path, trained_model.load(root / "models"))
    assert found is not None
    low, high = 0.8 - np.hypot(0.2, 0.06) / 2, 0.8 + np.hypot(0.1, 0.08) / 2
    assert found["mean"]["accuracy"] == 0.8
    assert found["mean"]["ci95"] == pytest.approx([low, high], abs=1e-4)
    assert found["mean"]["roc_auc_ci95"] is None, "of one set there is none"
    page = Page(from_evaluation.write(replace(scored, left_out=found), tmp_path / "report", ""))
    assert f"Mean80.0\u00a0%{100 * low:.1f}–{100 * high:.1f}" in page.by_id["left-out"]
    assert "0.500–0.900" in page.by_id["left-out"]
    assert "another data set may lie further off" in page.text
    storage.write_json(
        tmp_path / elsewhere.LEFT_OUT_NAME,
        _left_out(root / "models", datasets=[{**row, "n_groups_shared": 2} for row in rows]),
    )
    found = elsewhere.left_out(tmp_path, trained_model.load(root / "models"))
    assert found is not None
    below, above = (np.sqrt((a**2 + b**2 + (a + b) ** 2) / 2) / 2 for a, b in ((0.2, 0.06), (0.1, 0.08)))
    assert found["mean"]["ci95"] == pytest.approx([0.8 - below, 0.8 + above], abs=1e-4), "half of the sources"
    assert "Not in the mean" not in page.text
    quiet = _left_out_row(16, "quiet", accuracy=1.0, ci95=[0.9, 1.0], roc_auc=None, recall=None)
    of_three = {**found, "datasets": [*rows, quiet], "mean": elsewhere.mean_of_left_out([*rows, quiet])}
    assert (of_three["mean"]["accuracy"], of_three["mean"]["ci95"]) == (
        0.8,
        pytest.approx([low, high], abs=1e-4),
    )
    page = Page(from_evaluation.write(replace(scored, left_out=of_three), tmp_path / "report", ""))
    assert "Not in the mean, as they have one class only: quiet." in page.text


def test_the_page_says_how_this_ensemble_averages(written: tuple[Evaluation, Path], tmp_path: Path) -> None:
    scored, _ = written
    (member,) = scored.model.members
    plain = replace(scored.model, members=(member, replace(member, name="b")))
    own = replace(plain, members=tuple(replace(m, temperature=2.0) for m in plain.members))
    logits = "the weighted mean of their logits, each divided by a temperature of the member's own"
    for model, said in (
        (plain, "the weighted mean of their probabilities"),
        (own, logits),
        (
            replace(own, early_exit=EarlyExit("b", 0.08)),
            f"{logits}; b alone where its P(fight) is below 0.08",
        ),
        (scored.model, ""),
    ):
        result = {**scored.result, "members": [{**scored.result, "name": m.name} for m in model.members]}
        page = from_evaluation.write(replace(scored, model=model, result=result), tmp_path, "")
        assert figures_of(tmp_path)["averaged"] == said
        caption = f"Each member alone on the same clips; together: {said}." if said else "on the same clips."
        assert caption in Page(page).by_id["members"]


def test_a_report_is_called_after_the_folder_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    for models, name in (
        (".", "mine"),
        ("below/..", "mine"),
        ("below/", "below"),
        ("fast", "fast"),
        ("/", "model"),
    ):
        folder = evaluate.default_report_folder(EvaluationConfig(models=Path(models)))
        assert re.fullmatch(rf"{name}-\d{{8}}-\d{{6}}", folder.name)


def test_groups_and_shortcuts_are_recorded(written: tuple[Evaluation, Path]) -> None:
    scored, folder = written
    figures = figures_of(folder)
    assert list(figures["groups"]) == sorted(["val", "market", "known", "quiet"])
    properties = {t["property"]: t for t in figures["groups"]["market"]}
    assert set(properties) == {"resolution", "frame rate", "length", "brightness", "amount of motion"}
    assert properties["brightness"]["measured"] == 8
    in_val = {t["property"]: t["edges"] for t in figures["groups"]["val"]}
    assert in_val["brightness"] == properties["brightness"]["edges"]  # both are divided at the same values
    shortcuts = figures["audits"]["shortcuts"]
    checks = shortcuts["checks"]
    assert {name: check["done"] for name, check in checks.items()} == dict.fromkeys(checks, True)
    assert set(checks) == {"metadata", "single_frame", "background"}
    assert all(row["n"] == 32 for check in checks.values() for row in check["datasets"])
    assert shortcuts["order_of_frames"]["n"] == scored.n
    assert shortcuts["train_too"] is True


def test_clips_are_called_generated_only_where_they_are(
    written: tuple[Evaluation, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A model of generated clips may judge real ones, and a set of generated clips may be measured beside real val."""
    scored, _ = written
    market = scored.elsewhere["market"]
    drawn = replace(market, clips=replace(market.clips, generated=True))
    beside = replace(scored, elsewhere={**scored.elsewhere, "market": drawn})
    page = Page(from_evaluation.write(beside, tmp_path / "beside", ""))
    found = figures_of(tmp_path / "beside")
    assert found["generated_sample_clips"] is False
    assert {name: one["generated"] for name, one in found["elsewhere"].items()} == {
        "market": True, "known": False, "quiet": False,
    }  # fmt: skip
    assert found["elsewhere"]["market"]["data"] == marker.SAMPLE_LABEL
    assert "generated" not in page.by_id
    assert page.by_id["elsewhere"].count(marker.SAMPLE_LABEL) == 1
    assert f"({marker.SAMPLE_LABEL}) of market" in page.text
    with caplog.at_level("INFO"):
        from_evaluation.log_table(beside, tmp_path)
    assert "elsewhere: market: GENERATED SAMPLE CLIPS" in caplog.text

    def of_samples(one: Evaluation) -> Evaluation:
        return replace(one, model=replace(one.model, record={**one.model.record, "generated_samples": True}))

    model = replace(of_samples(scored), elsewhere={n: of_samples(one) for n, one in scored.elsewhere.items()})
    page = Page(from_evaluation.write(model, tmp_path / "model", ""))
    found = figures_of(tmp_path / "model")
    assert (found["generated_sample_clips"], found["data"]) == (True, "own clips")
    assert "These numbers come from a model trained on generated sample clips." in page.by_id["generated"]
    assert "The clips are drawn figures" not in page.text
    assert page.text.count(marker.SAMPLE_LABEL) == page.text.count(
        f"a model trained on {marker.SAMPLE_LABEL}"
    )
    (box,) = (box for box in found["checklist"] if box["name"] == "Accuracy")
    assert box["found"].startswith("not known: a model trained on generated sample clips.")
    summary = from_evaluation.summary(model, tmp_path)
    assert (summary["generated_samples"], summary["elsewhere"]["market"]["generated"]) == (True, False)


@pytest.mark.parametrize(
    ("backbones", "looked", "window_s", "shown_s", "noted"),
    [
        (("i3d_steady",), True, 5.0, 2.56, False),
        (("i3d_steady",), False, 5.0, 5.0, False),
        (("stand_in",), True, 5.0, 5.0, False),
        (("i3d_steady", "stand_in"), True, 5.0, 5.0, True),
        (("i3d_steady", "stand_in"), True, 2.0, 2.0, False),
    ],
)
def test_bars_of_attention_stand_below_the_frames_that_the_backbones_saw(
    written: tuple[Evaluation, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    backbones: tuple[str, ...], looked: bool, window_s: float, shown_s: float, noted: bool,
) -> None:  # fmt: skip
    scored, _ = written
    asked = []
    monkeypatch.setattr(film_strip, "frames_below", lambda *args: asked.append(args[1]))
    features = replace(scored.model.features, backbone=backbones, window_s=window_s)
    wrong = metrics.worst_mistakes(scored.predictions, 0.5, 12).clip_id
    attention = {clip: {"average": [0.25] * 4} for clip in wrong} if looked else {}
    changed = replace(scored, model=replace(scored.model, features=features), attention=attention)
    page = Page(from_evaluation.write(changed, tmp_path, ""))
    assert asked == [shown_s]
    note = figures_of(tmp_path)["bars_note"]
    assert ("look only at the middle 2.56 s of a clip" in note) == bool(note) == noted
    assert note in page.text
    assert ("Some backbones look" in page.text) == noted


def test_without_being_asked_backgrounds_are_not_looked_at(root: Path, tmp_path: Path) -> None:
    measure(root, tmp_path / "report")
    background = figures_of(tmp_path / "report")["audits"]["shortcuts"]["checks"]["background"]
    assert not background["done"]
    assert "--audit shortcuts" in background["why_not"]
    assert figures_of(tmp_path / "report")["elsewhere"] == {}
    with pytest.raises(
        UserError, match="--audit shortcut: must be one or more of leakage, shortcuts, labels"
    ):
        EvaluationConfig(audit=("shortcut",))


def test_names_and_folders_that_cannot_be_are_refused_with_their_flag(
    root: Path, places: Path, tmp_path: Path
) -> None:
    for value, said in (
        (f"val={places}/market", "val is a side of combined_all"),
        (f"hockey_fights={places}/market", "--elsewhere hockey_fights=.*published data set"),
        (f"x={places}/gone", "--elsewhere x=.*there is no"),
        (str(places / "market"), "--elsewhere takes NAME=FOLDER"),
    ):
        with pytest.raises(UserError, match=said):
            measure(root, tmp_path / "report", elsewhere=(value,))
    small_videos.write(tmp_path / "odd" / "violence" / "a.avi", 1)
    with pytest.raises(UserError, match=r"--labels fight=violence .*--elsewhere odd="):
        measure(root, tmp_path / "report", elsewhere=(f"odd={tmp_path}/odd",))


def test_what_an_audit_lacks_is_said_before_val_is_looked_at(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = root / "combined_all" / val_ledger.FILE_NAME
    before = ledger.read_bytes() if ledger.exists() else b""
    with pytest.raises(
        UserError,
        match=r"--audit labels: no oof_predictions\.csv in .*that trained the model .*--cross-validate 5",
    ):
        measure(root, tmp_path / "report", audit=("labels",))
    monkeypatch.setattr(registry.Backbone, "is_video", True)
    with pytest.raises(
        UserError,
        match="needs a model with an image backbone, and this model has only stand_in: leave shortcuts",
    ):
        measure(root, tmp_path / "report", audit=("shortcuts",))
    assert (ledger.read_bytes() if ledger.exists() else b"") == before


def test_a_set_of_which_only_part_can_be_judged_says_so_wherever_its_figure_stands(
    root: Path, places: Path, tmp_path: Path
) -> None:
    market = shutil.copytree(places / "market", tmp_path / "market")
    for i in range(3):
        (market / "fight" / f"broken{i}.avi").write_bytes(b"no video")
    scored = measure(root, tmp_path / "report", elsewhere=(f"market={market}",))
    n, asked = (figures_of(tmp_path / "report")["out_of_set"][key] for key in ("n", "asked"))
    assert (n, asked) == (scored.elsewhere["market"].n, scored.elsewhere["market"].n + 3)
    page = Page(tmp_path / "report" / "index.html")
    answer = " ".join(page.text.split("What limits it")[0].split())
    assert f"{n} of {asked} clips judged, from" in answer
    assert f"{n} of {asked}\xa0judged" in page.by_id["elsewhere"]
    assert f"on market; {n} of {asked} clips could be judged" in page.by_id["limits"].replace("\n", " ")
    assert f"{scored.n} clips from" in answer


def test_a_class_that_could_not_be_judged_is_no_class_of_a_set(
    root: Path, places: Path, tmp_path: Path
) -> None:
    quiet = shutil.copytree(places / "quiet", tmp_path / "quiet")
    (quiet / "fight").mkdir()
    (quiet / "fight" / "broken.avi").write_bytes(b"no video")
    measure(root, tmp_path / "report", elsewhere=(f"quiet={quiet}",))
    assert figures_of(tmp_path / "report")["elsewhere"]["quiet"]["classes"] == ["nonfight"]
    page = Page(tmp_path / "report" / "index.html")
    assert "nonfight only" in page.by_id["elsewhere"]
    assert (
        "Only clips of one class were judged (nonfight), so they show false alarms and nothing else"
        in page.text
    )


def test_a_set_that_cannot_be_measured_costs_the_others_nothing(
    written: tuple[Evaluation, Path],
    root: Path,
    places: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, _ = written
    new = [small_videos.write(tmp_path / "new" / label / "a.avi", 970 + i) for i, label in enumerate(CLASSES)]
    stand_in.install(monkeypatch.setattr, lambda images: np.full((len(images), 4), np.nan, np.float32))
    sets = tuple(f"{name}={folder}/{name}" for name, folder in (("new", tmp_path), ("market", places)))
    scored = measure(root, tmp_path / "report", elsewhere=sets)
    assert list(scored.elsewhere) == list(figures_of(tmp_path / "report")["elsewhere"]) == ["market"]
    assert scored.elsewhere["market"].accuracy == before.elsewhere["market"].accuracy
    assert scored.accuracy == before.accuracy
    (failure,) = scored.failures
    found = figures_of(tmp_path / "report")
    assert found["n_failures"] == 0, "of the judged clips"
    assert [r["state"] for r in found["limits"] if r["name"] == "Coverage"] == ["fine"]
    assert failure["path"] == f"own clips: {tmp_path}/new"
    assert failure["reason"].startswith("--elsewhere new was not measured: none of the 2 clips could be read")
    assert str(new[0]) in failure["reason"]


def _left_out_row(n: int, dataset: str = "mine", **changes: object) -> dict[str, Any]:
    row = {
        "dataset": dataset, "n": n, "n_groups": 4, "accuracy": 0.7, "ci95": [0.5, 0.8], "accuracy_sd": None,
        "roc_auc": 0.8, "recall": 0.7, "false_alarms": 0.3, "in_set": None,
    }  # fmt: skip
    return {**row, **changes}


def _left_out(model: Path, **changes: object) -> dict[str, Any]:
    """A record of left-out figures as earlier versions wrote it, with all clips that the model was trained on."""
    record = json.loads((model / "average" / "config.json").read_text())
    found = {
        "datasets": [_left_out_row(sum(record["clips"].values()))], "seeds": [0], "members": ["average"],
        "jobs": [["a"]], "made_with": made_alike.made_with(record), "selected_by": "", "threshold_by": "",
    }  # fmt: skip
    return {**found, **changes}


def test_left_out_figures_are_claimed_only_where_they_belong_to_the_model(root: Path, tmp_path: Path) -> None:
    model = trained_model.load(root / "models")
    assert elsewhere.left_out(tmp_path, model) is None
    path = tmp_path / elsewhere.LEFT_OUT_NAME
    for changes, belongs, said in (
        ({}, True, "made with the clips, settings and members of this model"),
        ({"members": ["average", "bilstm"]}, False, "other members"),
        ({"made_with": {**_left_out(root / "models")["made_with"], "clips": "x"}}, False, "other clips"),
        ({"datasets": [_left_out_row(31)]}, False, "other clips"),
        ({"datasets": [_left_out_row(32, "yours")]}, False, "other clips"),
        ({"members_scaled_by": "x"}, False, "other average"),
        ({"made_with": None}, None, "earlier version"),
    ):
        storage.write_json(path, _left_out(root / "models", **changes))
        found = elsewhere.left_out(tmp_path, model)
        assert found is not None
        assert found["belongs"] is belongs
        assert said in found["whose"]
        assert found.get("generated_samples") == (model.trained_on_samples if belongs else None)
    shutil.copytree(root / "models", tmp_path / "models")
    (tmp_path / "models" / "average" / run_folder.CLIPS_NAME).unlink()
    storage.write_json(path, _left_out(root / "models"))
    found = elsewhere.left_out(tmp_path, trained_model.load(tmp_path / "models"))
    assert found is not None
    assert found["belongs"] is None
    assert "the model has no trained_on.csv that names its clips" in found["whose"]
    parts = {"members": {"average": 3}}
    cases: list[dict[str, Any]] = [
        {"datasets": "none"}, {"datasets": [3]}, {"datasets": []}, {"members": []}, {"made_with": parts},
        {"members": 3, "made_with": None},
        {"selected_by": None}, {"threshold_by": 0.5}, {"datasets": [{"dataset": "mine", "n": 32}]},
        *({"datasets": [{**_left_out_row(32), key: "x"}]} for key in _left_out_row(32) if key != "dataset"),
        *({"datasets": [_left_out_row(32, **changes)]} for changes in ({"ci95": [0.5]}, {"accuracy": None})),
        {"datasets": [_left_out_row(32, roc_auc_ci95=3)]},
        *({"datasets": [_left_out_row(32, n_groups_shared=odd)]} for odd in ("x", -1, 5)),
        {"datasets": [_left_out_row(32, in_set={"accuracy": 0.7})]},
    ]  # fmt: skip
    for odd in cases:
        storage.write_json(path, _left_out(root / "models", **odd))
        with pytest.raises(
            UserError,
            match=r"leave_one_dataset_out\.json cannot be used .it is not a record of .*make it again with",
        ):
            elsewhere.left_out(tmp_path, model)


def test_left_out_models_without_an_epoch_to_choose_are_not_told_of_one(root: Path, tmp_path: Path) -> None:
    """Records of earlier versions claim for every member that a selection part chose the epoch."""
    model, selection = trained_model.load(root / "models"), "a selection part of the other data sets"
    for changes, said in (
        ({}, selection),
        (
            {"members": ["kernel", "i3d_tuned"]},
            "nothing (a kernel head is fitted at once); the last of a number fixed beforehand",
        ),
        ({"members": ["i3d_tuned"]}, "the last of a number fixed beforehand"),
        ({"members": ["average", "kernel"]}, f"{selection}; nothing (a kernel head is fitted at once)"),
    ):
        record = {**_left_out(root / "models", **changes), "selected_by": selection}
        storage.write_json(tmp_path / elsewhere.LEFT_OUT_NAME, record)
        found = elsewhere.left_out(tmp_path, model)
        assert found is not None
        assert found["selected_by"] == said
    kept_last = {**model.record, "train": {**model.record["train"], "keep": "last"}}
    record = {
        **_left_out(root / "models"),
        "selected_by": selection,
        "made_with": made_alike.made_with(kept_last),
    }
    storage.write_json(tmp_path / elsewhere.LEFT_OUT_NAME, record)
    found = elsewhere.left_out(tmp_path, replace(model, record=kept_last, records=(kept_last,)))
    assert found is not None
    assert (found["belongs"], found["selected_by"]) == (True, "the last of a number fixed beforehand")


@pytest.mark.parametrize("said", ["a selection part", elsewhere.EPOCH["last"]])
@pytest.mark.parametrize(
    "members", [("gru", "kernel"), ("kernel", "gru"), ("i3d_tuned", "gru"), ("kernel", "i3d_tuned", "gru")]
)
def test_what_chose_the_epoch_of_left_out_models_is_said_once_when_it_is_read_again(
    members: tuple[str, ...], said: str
) -> None:
    written = elsewhere.left_out_epoch(members, said)
    assert elsewhere.left_out_epoch(members, written) == written


def test_what_an_earlier_version_wrote_of_a_kernel_heads_epoch_is_not_said_beside_todays_words() -> None:
    written = "none: fitted at once; the last of a number fixed beforehand"
    said = "nothing (a kernel head is fitted at once); the last of a number fixed beforehand"
    assert elsewhere.left_out_epoch(("kernel", "gru"), written) == said


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root / "models", tmp_path / "models")
    shutil.copytree(root / "combined_all", tmp_path / "combined_all", symlinks=True)
    return tmp_path


def _exit_code(monkeypatch: pytest.MonkeyPatch, models: Path, root: Path, output: Path) -> int:
    import test_ensemble

    monkeypatch.setattr("sys.argv", ["test_ensemble.py"])
    arguments = ["--models", models, "--data-root", root, "--output", output, "--workers", 1]
    with pytest.raises(SystemExit) as ended:
        cli.run_main(lambda: test_ensemble.main([str(a) for a in arguments]))
    return int(str(ended.value.code))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("classes", r"average/config\.json: the model's classes are \['fight', 'nonfight'\].*Train it again"),
        (
            "member",
            r"ensemble\.json lists the member average, but .* is missing\. Copy the whole folder again",
        ),
        ("backbone", r"unknown backbone 'other_net'. Use one of: .*stand_in"),
        ("val", r"the val part has no fight clip among its \d+ clips.*run combine_all_datasets\.py"),
    ],
)
def test_what_does_not_fit_ends_with_2_the_file_and_the_remedy(
    fault: str, said: str, copied: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = copied / "models" / "average" / "config.json"
    if fault == "classes":
        config.write_text(json.dumps({**json.loads(config.read_text()), "classes": ["fight", "nonfight"]}))
    elif fault == "member":
        for file in (copied / "models" / "average").glob("*_model.*"):
            file.unlink()
    elif fault == "backbone":
        config.write_text(config.read_text().replace('"stand_in"', '"other_net"'))
    else:
        table = copied / "combined_all" / "manifest.csv"
        lines = table.read_text().splitlines()
        table.write_text("\n".join(r for r in lines if not r.split(",")[1].startswith("val/fight")) + "\n")
    assert _exit_code(monkeypatch, copied / "models", copied, copied / "report") == 2
    assert re.search(said, capfd.readouterr().err)
    assert not (copied / "report" / "metrics.json").exists()


def test_features_of_another_backbone_in_the_data_root_are_not_taken_for_the_models(
    root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "combined_all", tmp_path / "combined_all", symlinks=True)
    other = tmp_path / "features" / "efficientnet_b4-0123456789ab"
    storage.write_json(other / "record.json", {"backbone": "efficientnet_b4"})
    scored = measure(root, tmp_path / "report", data_root=tmp_path)
    assert metrics.member_names(scored.predictions) == ["average"]
    assert scored.n == len(scored.predictions)
    made = sorted(p.name.partition("-")[0] for p in (tmp_path / "features").iterdir() if p.is_dir())
    assert made == ["efficientnet_b4", "stand_in", "stand_in"]
    assert [p.name for p in other.iterdir()] == ["record.json"]
