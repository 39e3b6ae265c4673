"""The card beside a model, made from its records and an evaluation's figures; it never replaces a person's text."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic
import tensorflow as tf
from huggingface_hub import ModelCard

from violence_detection.ensemble import ensemble, folds, member_jobs
from violence_detection.models import model_card, model_files, run_records, trained_model
from violence_detection.models.run_records import MemberRecord, RunRecords
from violence_detection.system import storage
from violence_detection.training import run_folder, trained_clips

COMMAND = "python test_ensemble.py --models models_ensemble --data data/combined_all/val"


def _figures(accuracy: float, n: int) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "ci95": [accuracy - 0.1, accuracy + 0.1],
        "n": n,
        "n_groups": n // 4,
        "roc_auc": 0.8,
    }


COVERAGE = {"nonfight": {"n": 12, "predicted": 12}, "fight": {"n": 12, "predicted": 12}}


def _metrics(**changes: Any) -> dict[str, Any]:
    unchecked = {"checked": False, "compared": 0, "found": None, "not_checked": "no <table> | there"}
    checked = {"checked": True, "compared": 24, "found": 0, "not_checked": ""}
    return {
        **_figures(0.75, 24), "by_dataset": {"hockey_fights": _figures(0.5, 8)}, "threshold": 0.5, "recall": 0.6,
        "precision": None, "split": "val of manifest.csv", "data": "published clips", "created": "2026-01-02",
        "command": COMMAND, "generated_sample_clips": False, "val_ledger": {"text": "not looked at before"},
        "coverage": COVERAGE,
        "seen_in_training": {
            "touched": 0, "same_clip": checked, "same_source": checked, "near_copy": unchecked,
        },
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of two small heads, trained on clips of a published data set and on the user's own."""
    made = synthetic.pool(tmp_path_factory.mktemp("features"))
    renamed = made.frame.assign(dataset=made.frame.dataset.replace({"a": "hockey_fights", "b": "my_clips"}))
    pool = dataclasses.replace(made, frame=renamed)
    folder = tmp_path_factory.mktemp("cards") / "models_ensemble"
    fold = folds.official(pool.frame, {"hockey_fights", "my_clips"}, 0.2, 0)
    names = ("conv_lstm", "average")
    short = synthetic.settings(dataclasses.replace(synthetic.TRAIN, epochs=2))
    jobs = ensemble.jobs(names, pool, fold, short, folder, False)
    done = member_jobs.run(jobs, strategy=tf.distribute.get_strategy())
    parts = [ensemble.Part.of(n, t) for n, t in zip(names, done, strict=True)]
    ensemble.write(folder, parts, pool.plain(fold.selection), 0)
    return folder


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "models_ensemble"))


def test_training_says_what_it_was_made_of_and_that_nobody_has_measured_it(model: Path) -> None:
    model_card.write_trained(model)
    card = ModelCard.load(model / "README.md")
    run = run_records.read(model)
    selection = int((run.clips[run.clips.dataset == "my_clips"].role == "selection").sum())
    train = int((run.clips.dataset == "my_clips").sum()) - selection
    assert f"| my\\_clips | {train} | {selection} | own clips: not noted |" in card.text
    assert "Bermejo Nievas" in card.text, "the catalogue's citation"
    assert "| Hockey Fights (hockey\\_fights) |" in card.text
    assert "Not yet evaluated" in card.text
    assert "misses fights" in card.text
    assert card.data.datasets == ["hockey_fights", "my_clips"]
    assert card.data.eval_results is None
    for member in run.members:
        name, accuracy = member.name.replace("_", "\\_"), 100 * member.result["selection_accuracy"]
        clips = member.config["clips"]["selection"]
        assert f"| {name} | 0.500 | {accuracy:.1f} % | {clips} |" in card.text


def test_an_evaluation_completes_it_with_n_interval_data_set_and_command(model: Path, tmp_path: Path) -> None:
    model_card.write_trained(model)
    model_card.complete(model, _metrics(), tmp_path / "model_card.md")
    assert (tmp_path / "model_card.md").read_text() == (model / "README.md").read_text()
    card = ModelCard.load(model / "README.md")
    assert "Not yet evaluated" not in card.text
    assert "| all | 75.0 % | 65.0 % to 85.0 % | 0.800 | 24 | 6 |" in card.text
    assert "| hockey\\_fights | 50.0 % | 40.0 % to 60.0 % | 0.800 | 8 | 2 |" in card.text
    assert f"    {COMMAND}\n" in card.text
    assert "a copy not checked (no \\<table\\> \\| there)" in card.text
    results = card.data.eval_results
    assert results is not None
    assert [(r.dataset_name, r.metric_value, r.metric_args["n"]) for r in results] == [
        ("all data sets", 0.75, 24),
        ("hockey_fights", 0.5, 8),
    ]
    assert results[0].metric_args["ci95"] == [0.65, 0.85]
    assert results[0].metric_args["command"] == COMMAND


def test_an_evaluation_at_another_threshold_changes_nothing_of_what_the_model_is(
    model: Path, tmp_path: Path
) -> None:
    model_card.complete(model, _metrics(threshold=0.9), tmp_path / "card.md")
    card = ModelCard.load(tmp_path / "card.md")
    assert "counts as a fight from 0.5." in card.text
    assert "precision not defined at threshold 0.9." in card.text
    assert card.data.eval_results
    assert card.data.eval_results[0].metric_args["threshold"] == 0.9


def test_clips_that_could_not_be_judged_are_told_by_class(model: Path, tmp_path: Path) -> None:
    lost = "Not every clip could be judged: 12 of 12 nonfight clips and 4 of 12 fight clips were."
    for fights, said in ((4, True), (12, False)):
        coverage = {**COVERAGE, "fight": {"n": 12, "predicted": fights}}
        model_card.complete(model, _metrics(coverage=coverage), tmp_path / "card.md")
        assert (lost in (tmp_path / "card.md").read_text()) == said


def test_a_card_of_an_adapted_model_says_so_and_claims_no_selection(model: Path, tmp_path: Path) -> None:
    for member in ("conv_lstm", "average"):
        path = model / member / run_folder.CONFIG_NAME
        record = storage.read_json(path)
        storage.write_json(path, {**record, "clips": {**record["clips"], "selection": 0}})
    row = dict.fromkeys(trained_clips.COLUMNS, "") | {"clip_id": "f", "role": "adapted", "dataset": "footage"}
    own = trained_clips.read(model)
    assert own is not None
    own.loc[len(own)] = row
    own.to_csv(model / run_folder.CLIPS_NAME, index=False)
    card = model_card.render(model, "x")
    unmeasured = "; how right it is since then was not measured"
    assert f"Adapted afterwards to 1 stretch of footage without labels{unmeasured}.**" in card
    model_card.complete(model, _metrics(), tmp_path / "card.md")
    assert unmeasured not in (tmp_path / "card.md").read_text()
    assert "| footage |" not in card
    assert "Selection is cut from train" not in card
    assert "No clip was kept apart to select by" in card
    assert "may have set" not in card


def test_the_command_of_an_evaluation_is_written_as_it_was_given(model: Path, tmp_path: Path) -> None:
    model_card.write_trained(model)
    command = "python test_ensemble.py --data '/data/two  blanks and a ` in it'"
    model_card.complete(model, _metrics(command=command), tmp_path / "card.md")
    assert f"    {command}\n" in (tmp_path / "card.md").read_text()


def test_the_lines_that_a_card_offers_name_the_model(model: Path, tmp_path: Path) -> None:
    folder = model.rename(tmp_path / "models of  'today' `1` \"quoted\"")
    model_card.write_trained(folder)
    card = (folder / "README.md").read_text()
    (line,) = (s for s in card.splitlines() if "test_ensemble.py" in s)
    (given,) = re.findall(r"violence_detection\.load\((.+)\)\.judge", card)
    assert ast.literal_eval(given) == folder.name
    assert shlex.split(line) == [
        "python", "test_ensemble.py", "--models", f"PATH/{folder.name}", "--data-root", "ROOT",
    ]  # fmt: skip
    assert "PATH is where this folder lies" in card


def test_training_again_keeps_the_figures_of_the_same_model_and_drops_those_of_another(
    model: Path, tmp_path: Path
) -> None:
    model_card.complete(model, _metrics(), tmp_path / "card.md")
    model_card.write_trained(model)
    assert "75.0 %" in (model / "README.md").read_text()
    record = storage.read_json(model / run_folder.ENSEMBLE_NAME)
    record["members"][0]["weight"] = 0.75
    storage.write_json(model / run_folder.ENSEMBLE_NAME, record)
    model_card.write_trained(model)
    assert "Not yet evaluated" in (model / "README.md").read_text()


def test_clips_seen_in_training_and_generated_ones_are_said_on_top(model: Path, tmp_path: Path) -> None:
    seen = {**_metrics()["seen_in_training"], "touched": 5}
    model_card.complete(
        model, _metrics(seen_in_training=seen, generated_sample_clips=True), tmp_path / "card.md"
    )
    text = (tmp_path / "card.md").read_text()
    assert "**5 of these clips were trained on" in text
    assert not (model / "README.md").exists(), "the model's own card has no such figures"
    assert "generated sample clips: no figure on this card says anything about real videos" in text


def test_what_a_person_wrote_stays(model: Path, tmp_path: Path) -> None:
    (model / "README.md").write_text("# Mine\n")
    model_card.write_trained(model)
    model_card.complete(model, _metrics(), tmp_path / "card.md")
    assert (model / "README.md").read_text() == "# Mine\n"
    assert "75.0 %" in (tmp_path / "card.md").read_text()


def test_a_card_changes_nothing_of_the_model(model: Path) -> None:
    before = model_files.identity(model)
    model_card.write_trained(model)
    model_card.write_trained(model / "conv_lstm")
    assert model_files.identity(model) == before
    assert [m.name for m in trained_model.load(model).members] == ["conv_lstm", "average"]


def _folds_of(model: Path) -> dict[str, Any]:
    """Copy the model's own members into two folds below it, and return the record of these folds."""
    for i in range(2):
        for name in ("conv_lstm", "average"):
            shutil.copytree(model / name, model / f"fold_{i}" / name)
    clips = run_records.read(model).clips
    return {
        "folds": [{"fold": 0}, {"fold": 1}],
        "members": ["conv_lstm", "average"],
        "cv_accuracy": 0.9,
        "cv_accuracy_ci95": [0.8, 1.0],
        "cv_n": 9,
        "cv_n_groups": 3,
        "cv_by_dataset": {name: {"n": int(n)} for name, n in clips.dataset.value_counts().items()},
    }


def test_folds_of_another_manifest_are_no_evidence(model: Path) -> None:
    assert "no cross_validation.json" in run_records.read(model).no_cross_validation
    record = _folds_of(model)
    storage.write_json(model / run_folder.FOLDS_RECORD_NAME, record)
    assert run_records.read(model).cross_validation == record
    config = storage.read_json(model / "fold_0" / "conv_lstm" / "config.json")
    storage.write_json(
        model / "fold_0" / "conv_lstm" / "config.json", {**config, "manifest_sha256": "0" * 64}
    )
    assert "folds of other settings (other clips)" in run_records.read(model).no_cross_validation
    shutil.rmtree(model / "fold_1")
    assert "not the models of its folds" in run_records.read(model).no_cross_validation


@pytest.mark.parametrize("key", ["members", "cv_by_dataset"])
@pytest.mark.parametrize("value", [None, 7, "x", ["x", 3]])
def test_a_record_of_folds_that_is_odd_is_none(model: Path, key: str, value: Any) -> None:
    storage.write_json(model / run_folder.FOLDS_RECORD_NAME, {**_folds_of(model), key: value})
    found = run_records.read(model)
    assert found.cross_validation == {}
    assert str(model / run_folder.FOLDS_RECORD_NAME) in found.no_cross_validation


def test_a_number_of_epochs_that_is_none_is_not_told(tmp_path: Path) -> None:
    results: tuple[dict[str, Any], ...] = (
        {"epochs_run": [3]},
        {"epochs_run": "4"},
        {"epochs_run": None},
        {"epochs_run": -3},
        {"epochs_run": True},
        {},
        {"epochs_run": 5},
    )
    members = tuple(MemberRecord(f"m{i}", 0.2, {}, result) for i, result in enumerate(results))
    clips = pd.DataFrame(columns=list(trained_clips.COLUMNS), dtype=str)
    run = RunRecords(tmp_path, members, clips, 0, (), False, {}, "")
    assert dict(model_card._settings(run))["epochs that ran"] == "5"


def _settings_of(*configs: dict[str, Any]) -> dict[str, str]:
    """Return the settings that a card lists for members with these config.json, each of which ran one epoch."""
    members = tuple(MemberRecord(c["architecture"], 0.5, c, {"epochs_run": 1}) for c in configs)
    clips = pd.DataFrame(columns=list(trained_clips.COLUMNS), dtype=str)
    return dict(model_card._settings(RunRecords(Path("x"), members, clips, 0, (), False, {}, "")))


def test_settings_stand_on_a_card_of_members_for_which_they_do_something() -> None:
    train = {"epochs": 1000, "keep": "best", "batch_size": 256, "learning_rate": 0.001}
    kernel = {"architecture": "kernel", "train": train}
    gru = {"architecture": "gru", "train": {**train, "batch_size": 64}}
    tuned = {"architecture": "i3d_tuned", "train": {**train, "batch_size": 32}, "steps": {"steps": 300}}
    of_steps = ("epochs at most", "epoch kept", "batch", "peak learning rate", "epochs that ran")
    alone = _settings_of(kernel)
    assert not set(of_steps) & set(alone), "it is fitted at once"
    assert alone["optimiser steps"] == "kernel: fitted at once"
    both = _settings_of(kernel, gru)
    assert [both[name] for name in of_steps] == ["1000", "best", "64", "0.001", "1"]
    fixed = _settings_of(kernel, tuned)
    assert not {"epochs at most", "epoch kept", "epochs that ran"} & set(fixed)
    assert (fixed["batch"], fixed["optimiser steps"]) == ("32", "300, kernel: fitted at once")


def test_a_card_of_a_whole_network_gives_the_rate_that_it_is_trained_with() -> None:
    network = {
        "architecture": "i3d_tuned",
        "train": {"epochs": 5, "learning_rate": 2e-3},
        "head": {"tuned_learning_rate": 1e-4},
    }
    said = _settings_of(network)
    assert "peak learning rate" not in said
    assert said["peak learning rate of the network"] == "0.0001"
    gru = {"architecture": "gru", "train": {"learning_rate": 1e-3}, "head": {"tuned_learning_rate": 1e-4}}
    assert _settings_of(gru)["peak learning rate"] == "0.001"
    assert "peak learning rate of the network" not in _settings_of(gru)


def test_a_card_counts_the_members_that_it_does_not_list(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_card, "_MEMBERS_SHOWN", 1)
    path = model / "average" / run_folder.CONFIG_NAME
    storage.write_json(path, {**run_folder.read_object(path), "architecture": "i3d_tuned"})
    card = model_card.render(model, "x")
    assert "by the average of 2 heads, 1 of which is a whole network" in card
    assert "The first 1 of 2 members:" in card
    record = run_folder.read_object(model / run_folder.ENSEMBLE_NAME)
    fit: dict[str, Any] = {"cross_validation": {"folds": [{}]}}
    storage.write_json(model / run_folder.ENSEMBLE_NAME, {**record, run_folder.FINAL_KEY: fit})
    assert "\nThe first 1 of 2 members:\n" in model_card.render(model, "x")


def test_a_card_names_the_streams_and_frames_that_the_backbones_took() -> None:
    asked = {"backbone": ["i3d_actions", "i3d_movements", "movenet_poses"], "streams": ["rgb"], "frames": 20}
    taken = (("i3d_actions", "rgb", 32), ("i3d_movements", "moving", 32), ("movenet_poses", "rgb", 10))
    records = {f"{b}.{s}": {"backbone": b, "stream": s, "frames": n} for b, s, n in taken}
    kernel = {"architecture": "kernel", "features": asked, "feature_records": records}
    said = _settings_of(kernel)
    assert said["streams"] == "moving, rgb"
    assert said["frames a clip"] == "10 (movenet_poses), 32 (i3d_actions, i3d_movements)"
    alone = _settings_of(
        {**kernel, "feature_records": {k: v for k, v in records.items() if v["frames"] == 32}}
    )
    assert alone["frames a clip"] == "32"
    unknown = _settings_of({"architecture": "kernel", "features": asked})
    assert (unknown["streams"], unknown["frames a clip"]) == ("rgb", "20")


@pytest.mark.parametrize(
    ("changes", "chose_epoch"),
    [({"architecture": "kernel"}, False), ({"train": {"keep": "last"}}, False), ({}, True)],
)
def test_a_card_says_that_selection_chose_the_epoch_where_it_did(
    model: Path, changes: dict[str, Any], chose_epoch: bool
) -> None:
    for name in ("conv_lstm", "average"):
        path = model / name / run_folder.CONFIG_NAME
        storage.write_json(path, {**run_folder.read_object(path), **changes})
    card = model_card.render(model, "x")
    assert ("chooses the epoch" in card) == chose_epoch
    assert ("They chose the epoch" in card) == chose_epoch


def test_a_card_of_a_final_fit_says_that_folds_chose_steps_where_they_did(model: Path) -> None:
    record = run_folder.read_object(model / run_folder.ENSEMBLE_NAME)
    fit: dict[str, Any] = {"cross_validation": {"folds": [{}]}}
    storage.write_json(model / run_folder.ENSEMBLE_NAME, {**record, run_folder.FINAL_KEY: fit})
    assert "They chose the number of steps, the temperature" in model_card.render(model, "x")
    for name, architecture in (("conv_lstm", "kernel"), ("average", "i3d_tuned")):
        path = model / name / run_folder.CONFIG_NAME
        storage.write_json(path, {**run_folder.read_object(path), "architecture": architecture})
    assert "They chose the temperature and the thresholds" in model_card.render(model, "x")


def test_a_threshold_just_below_one_is_not_written_as_one(model: Path) -> None:
    path = model / run_folder.ENSEMBLE_NAME
    point = {"threshold": 0.99997, "false_alarm_rate": 0.1, "recall": 0.9, "guarantee": {"text": "none"}}
    calibration = {"operating_points": {"low_false_alarm": point}}
    storage.write_json(path, {**run_folder.read_object(path), run_folder.CALIBRATION_KEY: calibration})
    (row,) = model_card._points(dataclasses.replace(run_records.read(model), final_fit={"n": 1}))
    assert row["threshold"] == "0.99997"


def test_folds_whose_clips_cannot_be_compared_are_no_evidence(model: Path) -> None:
    storage.write_json(model / run_folder.FOLDS_RECORD_NAME, _folds_of(model))
    for folder in (model, model / "conv_lstm", model / "average"):
        (folder / run_folder.CLIPS_NAME).unlink()
    assert "may be of other clips than the model" in run_records.read(model).no_cross_validation
    assert "Cross-validation" not in model_card.render(model, "x")


def test_folds_of_other_members_are_named_without_a_figure(model: Path) -> None:
    storage.write_json(model / run_folder.FOLDS_RECORD_NAME, {**_folds_of(model), "members": ["average"]})
    card = model_card.render(model, "x")
    assert "folds of other settings than this model (other members), so no figure of them" in card
    assert "90.0 %" not in card
