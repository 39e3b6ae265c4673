"""The final fit trains on every clip, for as long as the folds suggest, and has no figures but theirs."""

from __future__ import annotations

import dataclasses
import errno
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
import tensorflow as tf

from violence_detection.combine import manifest, split, val_ledger
from violence_detection.ensemble import cross_validation, earlier_folds, ensemble_run, run_checks
from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.ensemble.member_jobs import Settings
from violence_detection.ensemble.pool import Choice, Pool
from violence_detection.errors import UserError
from violence_detection.evaluation import calibrate, held_out_table, temperature, training_overlap
from violence_detection.features.config import ExtractConfig
from violence_detection.models import (
    averaging,
    calibration,
    model_card,
    model_files,
    run_records,
    trained_model,
)
from violence_detection.models.averaging import EarlyExit
from violence_detection.system import storage
from violence_detection.training import run_folder, trained_clips, trainer, training_run

CONFIG = EnsembleConfig(members=("average", "kernel"), cross_validate=2, final=True)
#: An epoch has fewer steps in the folds than in the final fit, so a fit that counted epochs instead would be noticed.
SETTINGS = synthetic.settings(dataclasses.replace(synthetic.TRAIN, epochs=6, patience=3))


def _run(
    pool: Pool, output: Path, config: EnsembleConfig = CONFIG, settings: Settings = SETTINGS
) -> ensemble_run.EnsembleRun:
    combined = output.parent / "combined_all"
    rows = [
        {"clip_id": c, "split": split.VAL if i >= 72 else split.TRAIN}
        for i, c in enumerate(pool.frame.clip_id)
    ]
    storage.write_csv(combined / manifest.FILE_NAME, ("clip_id", "split"), rows)
    return ensemble_run.EnsembleRun(
        config, ExtractConfig(data_root=output.parent), settings, output, False, pool, frozenset(pool.frame.dataset),
        tf.distribute.get_strategy(), "python train.py",
    )  # fmt: skip


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A pool as `Choice(all_clips=True)` gives it: val counts as train."""
    made = synthetic.pool(tmp_path_factory.mktemp("features"))
    # some labels are wrong, so that no member is right on all clips
    label = [
        ("fight", "nonfight")[int((x == "fight") != (i % 12 == 5))] for i, x in enumerate(made.frame.label)
    ]
    return dataclasses.replace(made, frame=made.frame.assign(split=split.TRAIN, label=label))


@pytest.fixture(scope="module")
def done(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("root") / "models"
    return output, _run(pool, output).run()


def test_every_clip_of_the_manifest_is_trained_on_with_all_its_variants(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    output, said = done
    for name in CONFIG.members:
        table = trained_clips.read(output / "final" / name)
        assert table is not None
        assert sorted(table.clip_id) == sorted(pool.frame.clip_id)
        assert set(table.role) == {"train"}
        record = storage.read_json(output / "final" / name / "config.json")
        assert record["clips"] == {"train": len(pool.frame), "selection": 0}
    assert said["trained_on"] == len(pool.frame)
    both = pool.frame.assign(
        split=["train", "val"] * (len(pool.frame) // 2), path="x/y.avi", by_time=False, sha256=""
    )
    every = Choice(frozenset(both.dataset), (), all_clips=True)
    wanted = every.clips(both.assign(split=split.TRAIN), output, ("v0", "v1", "v2"))
    assert {clip.variants for clip in wanted} == {("v0", "v1", "v2")}, "of those of val too"


def test_a_member_makes_the_median_of_the_folds_steps_along_their_learning_rate(
    done: tuple[Path, dict[str, Any]],
) -> None:
    output, _ = done
    for name in ("average",):
        steps, an_epoch = [], []
        for i in range(2):
            folder = output / f"fold_{i}" / name
            clips = storage.read_json(folder / "config.json")["clips"]["train"]
            an_epoch.append(-(-clips // 16))
            steps.append(storage.read_json(folder / "result.json")["best_epoch"] * an_epoch[-1])
        wanted = statistics.median_low(steps)
        record = storage.read_json(output / "final" / name / "config.json")["steps"]
        horizon = 6 * statistics.median_low(an_epoch)
        warmup = statistics.median_low(an_epoch)
        assert record == {"steps": wanted, "horizon": horizon, "warmup": warmup}
        log = pd.read_csv(output / "final" / name / "training_log.csv")
        assert len(log) == -(-wanted // 6), "96 clips are 6 steps an epoch"
        assert log.selection_loss.isna().all()
        share = (wanted - warmup) / (horizon - warmup)
        falls = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * share))
        expected = 0.01 * falls if wanted >= warmup else 0.01 * wanted / warmup
        assert log.learning_rate.iloc[-1] == pytest.approx(expected, rel=1e-4)


def test_what_is_known_of_it_is_what_the_folds_gave(done: tuple[Path, dict[str, Any]], pool: Pool) -> None:
    output, said = done
    oof = pd.read_csv(output / "oof_predictions.csv", dtype={"clip_id": str})
    assert sorted(oof.clip_id) == sorted(pool.frame.clip_id)
    right = float(((oof.p_violent >= 0.5) == (oof.label == "fight")).mean())
    kept = run_records.read(output / "final").cross_validation
    assert (
        kept["cv_accuracy"] == pytest.approx(right, abs=1e-4) == pytest.approx(said["cv_accuracy"], abs=1e-4)
    )
    assert (kept["cv_n"], len(kept["folds"]), kept["views"]) == (96, 2, 1)
    assert str(output) not in (output / "final" / "ensemble.json").read_text(), "it can go to others"
    fitted, _ = temperature.fit((oof.label == "fight").to_numpy(), oof.p_violent.to_numpy())
    assert calibration.read(output / "final").temperature == pytest.approx(fitted) == said["temperature"]
    assert "out-of-fold predictions of 2 folds" in calibration.read(output / "final").described()
    assert all(m["selection_accuracy"] is m["val_accuracy"] is None for m in said["members"])
    assert said["ensemble_val_accuracy"] is None
    card = (output / "final" / model_card.CARD_NAME).read_text()
    assert (
        f"2 folds by source on the same manifest, other models of the same settings: {100 * right:.1f} %"
        in card
    )
    assert f"| all | {100 * right:.1f} % |" in card
    assert "no other accuracy is claimed" in card
    assert "selection accuracy" not in card


def test_its_weights_are_the_means_of_the_folds(done: tuple[Path, dict[str, Any]]) -> None:
    output, said = done
    listed = [storage.read_json(output / f"fold_{i}" / "ensemble.json")["members"] for i in range(2)]
    for i, member in enumerate(said["members"]):
        assert member["weight"] == pytest.approx(np.mean([fold[i]["weight"] for fold in listed]), abs=1e-4)


def test_members_of_different_kinds_are_averaged_by_what_the_other_folds_say_of_their_logits(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    output, _ = done
    oof = pd.read_csv(output / "oof_predictions.csv", dtype={"clip_id": str})
    own = []
    for i in range(2):
        other = oof[oof.fold != i]
        inputs = pool.plain(other.clip_id.tolist()).plain()
        model = trained_model.load(output / f"fold_{1 - i}")
        raw = {
            m.name: trained_model.load(output / f"fold_{1 - i}" / m.name).predict(inputs)
            for m in model.members
        }
        own.append(calibrate.member_temperatures(other, {n: p[n] for n, p in raw.items()}))
        assert model_files.temperatures(output / f"fold_{i}") == pytest.approx(own[i])
        assert set(own[i].values()) != {1.0}
    logits = [averaging.logit(oof[f"p_{name}"].to_numpy()) for name in CONFIG.members]
    np.testing.assert_allclose(averaging.logit(oof.p_violent.to_numpy()), np.mean(logits, axis=0), rtol=1e-6)
    final = trained_model.load(output / "final")
    for name, temperature_ in (model_files.temperatures(output / "final") or {}).items():
        assert temperature_ == pytest.approx((own[0][name] * own[1][name]) ** 0.5)
    inputs = pool.plain(pool.frame.clip_id.tolist()[:9]).plain()
    alone = {n: trained_model.load(output / "final" / n).predict(inputs)[n] for n in CONFIG.members}
    mean = np.mean(
        [averaging.logit(alone[m.name]) / m.temperature for m in final.members if m.temperature], axis=0
    )
    np.testing.assert_allclose(averaging.logit(final.uncalibrated(final.predict(inputs))), mean, rtol=1e-6)


def test_with_an_early_exit_the_same_members_are_judged_anew(
    done: tuple[Path, dict[str, Any]], pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "other"
    shutil.copytree(done[0], output)
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("trained again"))
    first = CONFIG.members[0]
    _run(pool, output, dataclasses.replace(CONFIG, early_exit=first, early_exit_below=0.4)).run()
    before, oof = (pd.read_csv(folder / "oof_predictions.csv") for folder in (done[0], output))
    sure = (oof[f"p_{first}"] < 0.4).to_numpy()
    assert 0 < sure.sum() < len(sure)
    np.testing.assert_allclose(oof.p_violent[sure], oof[f"p_{first}"][sure])
    np.testing.assert_allclose(oof.p_violent[~sure], before.p_violent[~sure])
    assert trained_model.load(output / "final").early_exit == EarlyExit(first, 0.4)
    assert model_files.identity(output / "final") != model_files.identity(done[0] / "final")
    stored = calibration.read(output / "final")
    averaged = averaging.Averaging(True, EarlyExit(first, 0.4))
    by_all = earlier_folds.by_all_members(output, ("fold_0", "fold_1"), oof, averaged)
    assert by_all is not None
    np.testing.assert_allclose(by_all, before.p_violent.to_numpy())
    assert stored.without_exit
    is_fight = (before.label == "fight").to_numpy()
    assert stored.without_exit.temperature == pytest.approx(
        temperature.fit(is_fight, before.p_violent.to_numpy())[0]
    )
    outside = {n for n, p in stored.operating_points.items() if p["threshold"] < 0.4}
    assert {n for n, p in stored.operating_points.items() if p.get("early_exit") is False} <= outside
    identity, path = model_files.identity(output / "final"), output / "final" / "ensemble.json"
    record = storage.read_json(path)
    record["calibration"]["without_exit"]["temperature"] = 3.0
    storage.write_json(path, record)
    assert model_files.identity(output / "final") != identity
    assert f"{first} alone where its P(fight) is below 0.4" in (output / "final" / "README.md").read_text()


def test_any_clip_that_it_is_measured_on_is_called_trained_on(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    val = pool.frame.iloc[72:]
    overlap = training_overlap.compare(trained_model.load(done[0] / "final"), val, "f" * 64)
    assert (overlap.same_clip.found, overlap.touched) == (len(val), len(val))
    assert overlap.roles == {"train": len(val)}


def test_folds_of_val_are_one_look_however_often_the_command_is_repeated(
    done: tuple[Path, dict[str, Any]], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, said = done
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("trained again"))
    assert _run(pool, output).run() == said
    without_k = dataclasses.replace(CONFIG, cross_validate=0)
    assert _run(pool, output, without_k).run() == said, "the folds that are there count"
    (look,) = val_ledger.read(output.parent / "combined_all").same
    assert (look["purpose"], look["val_clips"]) == ("folds", 24)


def _weights(output: Path, name: str) -> list[np.ndarray]:
    return trained_model.load_model(output / "final" / name / "best_model.keras").get_weights()


@pytest.mark.slow
def test_stopped_in_the_middle_it_ends_with_the_same_weights(
    done: tuple[Path, dict[str, Any]], pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, said = done
    again = tmp_path / "models"
    shutil.copytree(output, again)
    shutil.rmtree(again / "final")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run.Board, "scalars", stop)
        with pytest.raises(KeyboardInterrupt):
            _run(pool, again).run()
    assert storage.read_json(again / "final" / "average" / "checkpoint" / "state.json")["epoch"] == 1
    assert not (again / "final" / "ensemble.json").exists()
    after = _run(pool, again).run()
    assert after["cv_accuracy"] == said["cv_accuracy"]
    for name in CONFIG.members:
        for a, b in zip(_weights(output, name), _weights(again, name), strict=True):
            np.testing.assert_array_equal(a, b)


def _records(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file in the folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("gone", ["", "fold_0"], ids=["every folder taken", "the first one free"])
@pytest.mark.parametrize("begun", [False, True], ids=["finished", "begun"])
@pytest.mark.parametrize(
    "change",
    [{}, {"final": False, "all_clips": True}, {"final": False}],
    ids=["final", "folds", "an ensemble and folds"],
)
def test_refused_it_leaves_what_other_settings_have_made_as_it_is(
    done: tuple[Path, dict[str, Any]],
    pool: Pool,
    tmp_path: Path,
    change: dict[str, Any],
    gone: str,
    begun: bool,
) -> None:
    output = Path(shutil.copytree(done[0], tmp_path / "models"))
    if gone:
        shutil.rmtree(output / gone)
    if change == {"final": False}:
        shutil.copy(output / "final" / "ensemble.json", output)
        parts = [split.VAL if i >= 72 else split.TRAIN for i in range(len(pool.frame))]
        pool = dataclasses.replace(pool, frame=pool.frame.assign(split=parts))
    settings = SETTINGS
    if begun:  # with the same settings, but by another version
        (output / "fold_1" / "kernel" / "result.json").unlink()
        config = output / "fold_1" / "kernel" / "config.json"
        storage.write_json(config, storage.read_json(config) | {"version": "0.0.1"})
    else:
        settings = synthetic.settings(dataclasses.replace(SETTINGS.train, seed=7))
    before = _records(output)
    with pytest.raises(UserError, match=r"holds a (model trained with other settings or data|training run)"):
        _run(pool, output, dataclasses.replace(CONFIG, **change), settings).run()
    assert _records(output) == before


def _swapped(pool: Pool) -> Pool:
    """The pool with the labels of a fight and a nonfight of one source and data set swapped in the manifest."""
    frame, key = pool.frame.copy(), ["source_group", "dataset"]
    source = next(rows for _, rows in frame.groupby(key, sort=True) if rows.label.nunique() == 2)
    mended = {"fight": "nonfight", "nonfight": "fight"}
    two = [source.index[source.label == label][0] for label in mended]
    frame.loc[two, "label"] = frame.loc[two, "label"].map(mended)
    return dataclasses.replace(pool, frame=frame, manifest_sha256="0" * 64)


def test_labels_that_were_mended_are_not_taken_for_trained_on(pool: Pool, tmp_path: Path) -> None:
    config, output = dataclasses.replace(CONFIG, members=("kernel",)), tmp_path / "models"
    _run(pool, output, config).run()
    before, mended = _records(output), _swapped(pool)
    run = _run(mended, output, config)
    assert run.plan(2, config.members).folds == _run(pool, output).plan(2, config.members).folds
    with pytest.raises(UserError, match="holds a model trained with other settings or data"):
        run.run()
    assert _records(output) == before
    dataclasses.replace(run, overwrite=True).run()
    after = _records(output)
    weights = {n: after[n] != before[n] for n in after if n.endswith("best_model.safetensors")}
    assert weights["final/kernel/best_model.safetensors"]
    assert sum(weights.values()) > 1, "the folds that train on them, too"
    oof = held_out_table.parse((output / "oof_predictions.csv").read_bytes()).set_index("clip_id")
    assert (oof.label == mended.frame.set_index("clip_id").label[oof.index]).all()
    _run(dataclasses.replace(mended, manifest_sha256="1" * 64), output, config).run()
    assert _records(output) == after, "of other clips of the manifest nothing is trained on"


def test_labels_of_clips_that_are_only_trained_on_count_for_the_folds(two_sets: Pool, tmp_path: Path) -> None:
    config, output = dataclasses.replace(CONFIG, members=("kernel",)), tmp_path / "models"
    others = two_sets.frame.dataset == "b"
    mended = _swapped(dataclasses.replace(two_sets, frame=two_sets.frame[others])).frame
    changed = dataclasses.replace(
        two_sets, frame=pd.concat([two_sets.frame[~others], mended]).sort_index(), manifest_sha256="0" * 64
    )
    assert (changed.frame.label != two_sets.frame.label).sum() == 2

    def run(clips: Pool) -> ensemble_run.EnsembleRun:
        return dataclasses.replace(_run(clips, output, config), target=frozenset("a"))

    run(two_sets).run()
    before = (output / cross_validation.PREDICTIONS_NAME).read_bytes()
    again = run(changed)
    record = storage.read_json(output / cross_validation.RECORD_NAME)
    assert not again.plan(2, config.members).is_described_by(record), "nothing is calibrated on them"
    dataclasses.replace(again, overwrite=True).run()
    assert (output / cross_validation.PREDICTIONS_NAME).read_bytes() != before
    assert again.plan(2, config.members).is_described_by(
        storage.read_json(output / cross_validation.RECORD_NAME)
    )


def test_a_run_that_was_killed_goes_on_with_as_many_folds(
    done: tuple[Path, dict[str, Any]], pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Path(shutil.copytree(done[0], tmp_path / "models"))
    config = dataclasses.replace(CONFIG, members=("kernel",), cross_validate=0)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cross_validation, "judge_held_out", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _run(pool, output, config).run()
    assert not (output / cross_validation.RECORD_NAME).exists()
    assert run_checks.folds_there(output) == 2, "not those that are made where there are none"
    _run(pool, output, config).run()
    assert len(storage.read_json(output / cross_validation.RECORD_NAME)["folds"]) == 2
    assert not (output / run_folder.FOLDS_BEGUN_NAME).exists()


def _cut_off(table: Path) -> None:
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[: len(lines) // 2]))


@pytest.mark.parametrize("recorded", [True, False], ids=["with its hash", "as earlier versions wrote it"])
@pytest.mark.parametrize(
    "damage",
    [_cut_off, Path.unlink, lambda table: table.write_bytes(b"\0" * 100)],
    ids=["cut off", "gone", "garbage"],
)
def test_a_damaged_table_of_predictions_is_made_again_and_changes_nothing(
    done: tuple[Path, dict[str, Any]],
    pool: Pool,
    tmp_path: Path,
    damage: Callable[[Path], object],
    recorded: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = Path(shutil.copytree(done[0], tmp_path / "models"))
    table, record = output / cross_validation.PREDICTIONS_NAME, output / cross_validation.RECORD_NAME
    whole, shipped = table.read_bytes(), storage.read_json(output / "final" / "ensemble.json")
    known = storage.read_json(record)
    assert known[held_out_table.SHA256_KEY] == storage.sha256_file(table)
    if not recorded:
        del known[held_out_table.SHA256_KEY]
        storage.write_json(record, known)
    damage(table)
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("trained again"))
    _run(pool, output).run()
    assert table.read_bytes() == whole
    assert storage.read_json(output / "final" / "ensemble.json") == shipped
    assert "The folds are judged again" in caplog.text


@pytest.mark.parametrize("written", ['{"folds": [', "[]", "{}"], ids=["cut off", "no object", "empty"])
@pytest.mark.parametrize("name", [cross_validation.RECORD_NAME, "fold_0/ensemble.json"])
def test_folds_with_a_damaged_record_are_judged_anew_and_change_nothing(
    done: tuple[Path, dict[str, Any]],
    pool: Pool,
    tmp_path: Path,
    name: str,
    written: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = Path(shutil.copytree(done[0], tmp_path / "models"))
    record = output / name
    whole, shipped = storage.read_json(record), storage.read_json(output / "final" / "ensemble.json")
    record.write_text(written)
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("trained again"))
    _run(pool, output, dataclasses.replace(CONFIG, cross_validate=2)).run()
    assert storage.read_json(record).keys() == whole.keys()
    assert storage.read_json(output / "final" / "ensemble.json") == shipped


def test_a_damaged_ensemble_of_before_beside_the_fit_costs_its_card_alone(
    done: tuple[Path, dict[str, Any]], pool: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = Path(shutil.copytree(done[0], tmp_path / "models"))
    (output / "ensemble.json").write_text("[]")
    assert _run(pool, output).run()["cv_accuracy"] == done[1]["cv_accuracy"]
    assert (
        f"{output}: no new model card was written: {output / 'ensemble.json'} cannot be used" in caplog.text
    )
    assert (output / "final" / model_card.CARD_NAME).is_file()


def test_a_table_of_an_earlier_version_that_is_whole_is_taken(
    done: tuple[Path, dict[str, Any]], pool: Pool, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(done[0], tmp_path / "models"))
    record = output / cross_validation.RECORD_NAME
    known = storage.read_json(record)
    del known[held_out_table.SHA256_KEY]
    storage.write_json(record, known)
    _run(pool, output).run()
    assert storage.read_json(record) == known, "not judged anew"


def test_a_final_fit_that_may_not_be_replaced_stays_whole(
    done: tuple[Path, dict[str, Any]], pool: Pool, tmp_path: Path
) -> None:
    output = tmp_path / "models"
    shutil.copytree(done[0] / "final", output / "final")
    before = _records(output / "final")
    config = dataclasses.replace(CONFIG, members=("kernel",))
    settings = synthetic.settings(dataclasses.replace(SETTINGS.train, seed=7))
    with pytest.raises(UserError, match="final/kernel holds a model"):
        _run(pool, output, config, settings).run()
    assert (output / cross_validation.RECORD_NAME).is_file()
    assert _records(output / "final") == before


@pytest.fixture(scope="module")
def two_sets(pool: Pool) -> Pool:
    """The same clips, their sources assigned alternately to data sets a and b."""
    sources = {group: i for i, group in enumerate(sorted(set(pool.frame.source_group)))}
    dataset = ["ab"[sources[group] % 2] for group in pool.frame.source_group]
    return dataclasses.replace(pool, frame=pool.frame.assign(dataset=dataset))


LEFT_OUT = dataclasses.replace(CONFIG, cross_validate=0, leave_one_dataset_out=True, final_by="left-out")


@pytest.fixture(scope="module")
def by_left_out(two_sets: Pool, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("left_out") / "models"
    return output, _run(two_sets, output, LEFT_OUT).run()


def test_data_sets_left_out_say_how_long_it_is_trained_and_what_its_probabilities_mean(
    by_left_out: tuple[Path, dict[str, Any]], two_sets: Pool
) -> None:
    output, said = by_left_out
    assert not list(output.glob("fold_*")), "no folds are asked for"
    seed = output / f"seed_{SETTINGS.train.seed}"
    judged = pd.read_csv(seed / "leave_one_out_predictions.csv", dtype={"clip_id": str})
    assert sorted(judged.clip_id) == sorted(two_sets.frame.clip_id)
    parts = [
        storage.read_json(seed / name / "ensemble.json")["members"] for name in ("without_a", "without_b")
    ]
    final = storage.read_json(output / "final" / "ensemble.json")
    for i, member in enumerate(final["members"]):
        assert member["weight"] == pytest.approx(np.mean([part[i]["weight"] for part in parts]), abs=1e-4)
        both = [part[i]["temperature"] for part in parts]
        assert member["temperature"] == pytest.approx(np.prod(both) ** 0.5)
        assert len(set(both)) == 2, "each told by the other data set"
    fitted, _ = temperature.fit((judged.label == "fight").to_numpy(), judged.p_violent.to_numpy())
    kept = calibration.read(output / "final")
    assert kept.temperature == pytest.approx(fitted) == said["temperature"]
    assert "2 data sets, each by models that were trained on the others" in kept.described()
    steps = []
    for name in ("without_a", "without_b"):
        clips = storage.read_json(seed / name / "average" / "config.json")["clips"]["train"]
        steps.append(
            storage.read_json(seed / name / "average" / "result.json")["best_epoch"] * -(-clips // 16)
        )
    assert final["final_fit"]["by_left_out"] is True
    assert final["final_fit"]["why"] == "median of 2 data sets left out"
    assert final["final_fit"]["steps"]["average"]["steps"] == statistics.median_low(steps)
    assert final["final_fit"]["clips"] == 96


def test_data_sets_left_out_are_one_look_however_often_the_command_is_repeated(
    by_left_out: tuple[Path, dict[str, Any]], two_sets: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, said = by_left_out
    before = _records(output)
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("trained again"))
    with monkeypatch.context() as patch:
        patch.setattr(ensemble_run.EnsembleRun, "_fit_finally", lambda *_: pytest.fail("killed here"))
        with pytest.raises(pytest.fail.Exception, match="killed here"):
            _run(two_sets, output, LEFT_OUT).run()
    assert _records(output) == before
    assert _run(two_sets, output, LEFT_OUT).run() == said
    (look,) = val_ledger.read(output.parent / "combined_all").same
    assert (look["purpose"], look["val_clips"]) == ("left-out data sets", 24)


def test_data_sets_left_out_are_judged_anew_where_their_table_is_another(
    by_left_out: tuple[Path, dict[str, Any]], two_sets: Pool, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(by_left_out[0], tmp_path / "models"))
    table = next(output.glob("seed_*/leave_one_out_predictions.csv"))
    before = table.read_bytes()
    table.write_bytes(before[:-10])
    _run(two_sets, output, LEFT_OUT).run()
    assert table.read_bytes() == before
    assert len(val_ledger.read(tmp_path / "combined_all").same) == 1


def test_no_half_of_what_data_sets_left_out_gave_stands_beside_the_fit(
    by_left_out: tuple[Path, dict[str, Any]], two_sets: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Path(shutil.copytree(by_left_out[0], tmp_path / "models"))

    def on_a_full_disk(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", on_a_full_disk)
        with pytest.raises(OSError, match="No space left"):
            _run(two_sets, output, LEFT_OUT).run()
    brought = output / "final" / run_folder.LEFT_OUT_NAME
    assert not brought.exists()
    _run(two_sets, output, LEFT_OUT).run()
    assert brought.read_bytes() == (output / run_folder.LEFT_OUT_NAME).read_bytes()


def test_its_card_says_that_its_thresholds_are_for_places_it_has_not_seen(
    by_left_out: tuple[Path, dict[str, Any]],
) -> None:
    output, said = by_left_out
    records = run_records.read(output / "final")
    assert records.folds_are_data_sets
    judged = pd.read_csv(next(output.glob("seed_*/leave_one_out_predictions.csv")))
    right = float(((judged.p_violent >= 0.5) == (judged.label == "fight")).mean())
    card = (output / "final" / model_card.CARD_NAME).read_text()
    assert "Each of 2 data sets judged by other models of the same settings" in card
    assert f"| all | {100 * right:.1f} % |" in card
    assert "folds by source" not in card
    assert "| left out |" not in card, "the same figures stand above"
    assert "these are for\nvideos from elsewhere" in card
    for d in said["leave_one_dataset_out"]["datasets"]:
        assert f"| {d['dataset']} | {100 * d['accuracy']:.1f} % |" in card


def test_with_folds_besides_their_figures_stand_in_the_card_and_decide_nothing(
    two_sets: Pool, tmp_path: Path
) -> None:
    output = tmp_path / "models"
    config = dataclasses.replace(LEFT_OUT, cross_validate=2, members=("kernel",))
    alone = dataclasses.replace(config, cross_validate=0)
    _run(two_sets, output, alone).run()
    before = storage.read_json(output / "final" / "ensemble.json")
    said = _run(two_sets, output, config).run()
    after = storage.read_json(output / "final" / "ensemble.json")
    assert after["calibration"] == before["calibration"]
    assert after["members"] == before["members"]
    card = (output / "final" / model_card.CARD_NAME).read_text()
    in_set = f"{100 * said['cv_accuracy']:.1f} %"
    assert card.count("Command:\n\n    python train.py\n") == 2, "under each table"
    assert f"2 folds by source on the same manifest, other models of the same settings: {in_set}" in card
    assert "Models that had not seen a data set, below, chose the temperature and the thresholds" in card
    for d in said["leave_one_dataset_out"]["datasets"]:
        assert f"| {d['dataset']} | {100 * d['accuracy']:.1f} % |" in card.partition("| left out |")[2]


def test_the_first_of_several_seeds_decides_with_its_views_and_exit_and_the_card_has_them_all(
    by_left_out: tuple[Path, dict[str, Any]], two_sets: Pool, tmp_path: Path
) -> None:
    first = LEFT_OUT.members[0]
    config = dataclasses.replace(LEFT_OUT, seeds=2, tta=2, early_exit=first, early_exit_below=0.4)
    output = Path(shutil.copytree(by_left_out[0], tmp_path / "models"))  # has the models of the first seed
    said = _run(two_sets, output, config).run()
    judged = [pd.read_csv(output / f"seed_{i}" / "leave_one_out_predictions.csv") for i in range(2)]
    assert not np.allclose(judged[0].p_violent, judged[1].p_violent)
    kept = calibration.read(output / "final")
    assert (kept.rests_on["views"], kept.rests_on["n"]) == (2, 96)
    by_all = earlier_folds.by_all_members(
        output / "seed_0",
        ("without_a", "without_b"),
        judged[0],
        averaging.Averaging(True, EarlyExit(first, 0.4)),
    )
    assert by_all is not None
    assert kept.without_exit
    is_fight = (judged[0].label == "fight").to_numpy()
    assert kept.without_exit.temperature == pytest.approx(temperature.fit(is_fight, by_all)[0])
    made = storage.read_json(output / "final" / "ensemble.json")
    parts = [storage.read_json(output / "seed_0" / n / "ensemble.json") for n in ("without_a", "without_b")]
    for i, member in enumerate(made["members"]):
        both = [part["members"][i]["temperature"] for part in parts]
        assert member["temperature"] == pytest.approx(np.prod(both) ** 0.5)
    card = (output / "final" / model_card.CARD_NAME).read_text()
    for d in said["leave_one_dataset_out"]["datasets"]:  # each figure is the mean over both seeds
        assert f"| {d['dataset']} | {100 * d['accuracy']:.1f} % |" in card.partition("| left out |")[2]


def _with_closer_looks(made: Pool) -> Pool:
    """The pool with closer looks that separate the classes better, fights by lower values, but for every third clip."""
    rows = zip(made.frame.clip_id.tolist(), made.frame.label.tolist(), strict=True)
    for number, (clip_id, label) in enumerate(rows):
        for store in made.stores.values():
            closer = store.read(clip_id, ("v0",))[0].astype(np.float32)
            closer[:, :4] += (-1.0 if label == "fight" else 1.0) * (number % 3 > 0)
            store.add(clip_id, {"c3": closer}, "made up")
    return made


def test_with_a_closer_look_held_out_clips_are_judged_and_the_model_judges_so(
    by_left_out: tuple[Path, dict[str, Any]], two_sets: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Path(shutil.copytree(by_left_out[0], tmp_path / "models"))
    before = pd.read_csv(output / "seed_0" / "leave_one_out_predictions.csv")
    card = (output / "final" / model_card.CARD_NAME).read_text()
    assert "closer look" not in card
    identity = model_files.identity(output / "final")
    _with_closer_looks(two_sets)
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("trained again"))
    said = _run(two_sets, output, dataclasses.replace(LEFT_OUT, closer_look=True)).run()
    after = pd.read_csv(output / "seed_0" / "leave_one_out_predictions.csv")
    fight = (after.label == "fight").to_numpy()
    assert ((after.p_violent >= 0.5) == fight).mean() > ((before.p_violent >= 0.5) == fight).mean()
    assert said["leave_one_dataset_out"]["closer_look"] is True
    for folder in (output / "final", output / "seed_0" / "without_a"):
        assert trained_model.load(folder).closer_look
    assert model_files.identity(output / "final") != identity
    assert (
        run_records.read(output / "final").left_out["datasets"] == said["leave_one_dataset_out"]["datasets"]
    )
    assert "| closer look |" in (output / "final" / model_card.CARD_NAME).read_text()


def test_a_closer_look_of_nothing_that_is_judged_apart_is_refused() -> None:
    plain = EnsembleConfig(members=("average", "kernel"), closer_look=True)
    with pytest.raises(UserError, match="--closer-look is for --final"):
        run_checks.check(plain)
    with pytest.raises(UserError, match="--closer-look is for --final"):
        run_checks.check(dataclasses.replace(plain, cross_validate=2))
    run_checks.check(dataclasses.replace(plain, leave_one_dataset_out=True))


@pytest.mark.parametrize("change", [{"final": False}, {"leave_one_dataset_out": False}])
def test_data_sets_that_are_not_left_out_decide_no_final_fit(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"--final-by left-out needs --final and --leave-one-dataset-out"):
        run_checks.check(dataclasses.replace(LEFT_OUT, **change))


def test_its_card_has_what_leaving_out_a_data_set_gave(two_sets: Pool, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, members=("kernel",), leave_one_dataset_out=True)
    figures = _run(two_sets, tmp_path / "models", config).run()["leave_one_dataset_out"]
    kept = run_records.read(tmp_path / "models" / "final").left_out
    assert kept["datasets"] == figures["datasets"]
    card = (tmp_path / "models" / "final" / model_card.CARD_NAME).read_text()
    for d in figures["datasets"]:
        assert f"| {d['dataset']} | {100 * d['accuracy']:.1f} % |" in card.partition("| left out |")[2]


@pytest.mark.parametrize("change", [{"show_val": True}, {"fine_tune_hard": True}])
def test_what_needs_clips_kept_apart_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--final"):
        run_checks.check(dataclasses.replace(CONFIG, **change))
