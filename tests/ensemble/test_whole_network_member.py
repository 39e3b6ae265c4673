"""A member that is a whole network on pictures and a head on features train together, each on its own inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import seeded_i3d
import synthetic
import tensorflow as tf
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from violence_detection.ensemble import (
    ensemble,
    ensemble_run,
    folds,
    member_jobs,
    member_processes,
    run_checks,
)
from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.ensemble.member_jobs import TrainingJob
from violence_detection.ensemble.pool import Pool
from violence_detection.errors import UserError
from violence_detection.features.cache import FeatureStore
from violence_detection.features.config import ExtractConfig
from violence_detection.features.key import Inputs
from violence_detection.models import model_card, shipping, trained_model
from violence_detection.system import storage
from violence_detection.training import (
    fine_tuning,
    given_weights,
    heads,
    run_folder,
    saved_heads,
    trained_clips,
    weight_difference,
)
from violence_detection.training.config import HeadConfig

SIDE, FRAMES, NAME = 12, 8, "i3d_pictures.rgb"
MEMBERS = ("kernel", "i3d_tuned")


@pytest.fixture(scope="module", autouse=True)
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make the network and its pictures small for these tests; yield the file of its published weights."""
    with seeded_i3d.small_pictures(tmp_path_factory.mktemp("weights"), SIDE, FRAMES) as path:
        yield path


@pytest.fixture(scope="module")
def pool(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    root = tmp_path_factory.mktemp("features")
    made = synthetic.pool(root, 48)
    store, rng = FeatureStore(root / NAME), np.random.default_rng(0)
    storage.write_json(root / NAME / "engine-made-up.json", {})
    for clip_id in made.frame.clip_id:
        values = rng.integers(0, 256, (3, FRAMES, SIDE * SIDE * 3)).astype(np.float16)
        store.add(clip_id, dict(zip(("v0", "v1", "w1"), values, strict=True)), "made up")
    sha256 = storage.sha256_file(pictures)
    record = {"backbone": seeded_i3d.PICTURES, "stream": "rgb", "weights_sha256": sha256}
    return dataclasses.replace(
        made, stores={**made.stores, NAME: store}, records={**made.records, NAME: record}
    )


def _settings() -> ensemble.Settings:
    made = synthetic.settings()
    features = dataclasses.replace(synthetic.FEATURES, backbone=("efficientnet_lite0", seeded_i3d.PICTURES))
    head = dataclasses.replace(made.head, tuned_steps=4, tuned_batch_size=9)
    return dataclasses.replace(made, features=features, head=head)


def test_each_member_is_trained_and_judges_on_its_own_inputs(pool: Pool, tmp_path: Path) -> None:
    said = ensemble_run.EnsembleRun(
        EnsembleConfig(members=MEMBERS), ExtractConfig(data_root=tmp_path), _settings(), tmp_path / "models",
        False, pool, frozenset(pool.frame.dataset), tf.distribute.get_strategy(),
    ).run()  # fmt: skip
    assert [m["name"] for m in said["members"]] == list(MEMBERS)
    model = trained_model.load(tmp_path / "models")
    assert model.features.backbone == ("efficientnet_lite0", seeded_i3d.PICTURES)
    assert set(model.record["feature_records"]) == set(pool.stores)
    kernel, tuned = model.records
    assert (set(tuned["inputs"]), set(kernel["inputs"])) == ({NAME}, set(pool.stores) - {NAME})
    inputs = pool.plain(pool.frame.clip_id.tolist()).plain()
    both = model.predict(inputs)
    for name, own in (("kernel", set(pool.stores) - {NAME}), ("i3d_tuned", {NAME})):
        alone = trained_model.load(tmp_path / "models" / name)
        assert set(alone.features.backbone) == {n.split(".")[0] for n in own}
        (p,) = alone.predict({n: inputs[n] for n in own}).values()
        np.testing.assert_array_equal(p, both[name])
    result = run_folder.read_result(tmp_path / "models" / "i3d_tuned" / run_folder.RESULT_NAME)
    assert result.epochs_run == 1


@pytest.mark.parametrize(
    ("parallel", "ray", "at_once"), [(1, None, 1), (5, None, 5), (0, None, 8), (1, "local", None)]
)
def test_the_time_that_is_told_is_that_of_so_many_at_once(
    pool: Pool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parallel: int,
    ray: str | None,
    at_once: int | None,
) -> None:
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(member_processes, "visible_gpus", list)
    monkeypatch.setattr(member_processes, "worker_count", lambda _: 16)
    monkeypatch.setattr(fine_tuning, "say_what_it_takes", lambda *asked: told.append(asked[2:]))
    monkeypatch.setattr(member_jobs, "run", lambda *_, **__: [])
    run = ensemble_run.EnsembleRun(
        EnsembleConfig(members=MEMBERS, parallel=parallel), ExtractConfig(data_root=tmp_path, ray=ray), _settings(),
        tmp_path / "models", False, pool, frozenset(pool.frame.dataset), None,
    )  # fmt: skip
    run.train(run._official_jobs())
    assert told == [(1, 0.0, at_once)]


def _check_shipped(
    trained: run_folder.Trained, rows: pd.DataFrame, inputs: Inputs, published: Path, folder: Path
) -> None:
    """Check that the network is shipped as a difference from the published weights, and loads with no others."""
    ensemble.write_listed(
        folder, [ensemble.Part.of("i3d_tuned", trained)], [1.0], {}, {trained_clips.WEIGHTS: rows}
    )
    assert (trained_model.load(folder).folder / run_folder.RANGES_NAME).is_file(), "for judging in 8 bits"
    change = shipping._write_as_small_as_it_may_be(folder, folder / "shipped", inputs, published)
    assert 0 < change < shipping.MOST_CHANGE_OF_NETWORKS
    file = folder / "shipped" / "i3d_tuned" / "best_model.safetensors"
    tensors = load_file(file)
    assert set(tensors) == {*weight_difference.NAMES, "logits/kernel.1", "logits/bias.1"}
    one, other = (trained_model.load(f, published).predict(inputs) for f in (folder, folder / "shipped"))
    assert np.abs(one["i3d_tuned"] - other["i3d_tuned"]).max() == pytest.approx(change)
    foreign = folder / "foreign.ckpt"
    foreign.write_bytes(published.read_bytes() + b" ")
    with pytest.raises(
        UserError, match=r"a difference from published weights .*foreign\.ckpt has.*--backbone-weights"
    ):
        trained_model.load(folder / "shipped", foreign)
    with safe_open(file, "np") as stored:
        told = dict(stored.metadata())
    for key, value, says in (
        ("difference", "2", "a difference in format '2'"),
        ("difference_from", "0" * 64, "SHA-256 0000"),
    ):
        save_file(tensors, file, metadata={**told, key: value})
        with pytest.raises(UserError, match=says):
            trained_model.load(folder / "shipped", published)
    save_file({k: v for k, v in tensors.items() if "steps" not in k}, file, metadata=told)
    with pytest.raises(UserError, match=r"lacks difference\.steps"):
        trained_model.load(folder / "shipped", published)


def test_weights_that_lie_in_its_folder_are_taken_and_not_trained(
    pool: Pool, pictures: Path, tmp_path: Path
) -> None:
    fold = folds.official(pool.frame, {"a", "b"}, 0.2, 0)

    def job(overwrite: bool = False) -> TrainingJob:
        (made,) = ensemble.jobs(MEMBERS[1:], pool, fold, _settings(), tmp_path, overwrite)
        return made

    untold = job().key
    shapes = {NAME: (FRAMES, SIDE * SIDE * 3)}
    network = heads.build("i3d_tuned", shapes, HeadConfig())
    arrays = [w + np.float32(0.01) for w in (*network.layers[2].get_weights(), *network.get_weights()[-2:])]
    given = tmp_path / "i3d_tuned" / given_weights.FILE_NAME
    given.parent.mkdir()
    for wrong, says in (
        (arrays[:-1], "has 31 arrays instead of 32"),
        ([a.T for a in arrays], "array 0 of shape"),
    ):
        np.savez(given, *wrong)
        with pytest.raises(UserError, match=says):
            member_jobs.run([job(overwrite=True)], strategy=tf.distribute.get_strategy())
    np.savez(given, *arrays)
    (trained,) = member_jobs.run([job(overwrite=True)], strategy=tf.distribute.get_strategy())
    for name in ("best_model.safetensors", "best_model.keras"):
        kept = saved_heads.load(trained.folder / name).trainable_weights
        for one, other in zip(kept, arrays, strict=True):
            np.testing.assert_array_equal(one.numpy(), other)
    selection = pool.plain(fold.selection)
    p = heads.predict(saved_heads.load(trained.folder / "best_model.keras"), selection.plain())
    assert trained.selection_accuracy == np.mean((p >= 0.5) == (selection.labels == 1))
    card = model_card.render(trained.folder, "x")
    assert "weights given, not trained here" in card
    assert "by one head that is a whole network, trained end to end. Classes" in card
    assert member_jobs.finished(job())
    (trained.folder / run_folder.RANGES_NAME).unlink()  # as if killed before the ranges were measured
    member_jobs.run([job()], strategy=tf.distribute.get_strategy())
    assert (trained.folder / run_folder.RANGES_NAME).is_file()
    _check_shipped(trained, selection.rows, selection.plain(), pictures, tmp_path)
    given.unlink()
    assert job().key == untold, "without the file it is an ordinary member"
    assert member_jobs.finished(job()) is None


def test_pictures_beside_them_make_no_other_model_of_features(pool: Pool, tmp_path: Path) -> None:
    fold = folds.official(pool.frame, {"a", "b"}, 0.2, 0)
    (beside, _) = ensemble.jobs(MEMBERS, pool, fold, _settings(), tmp_path, False)
    alone_settings = dataclasses.replace(_settings(), features=synthetic.FEATURES)
    (alone,) = ensemble.jobs(
        MEMBERS[:1], pool.only(["efficientnet_lite0"]), fold, alone_settings, tmp_path, False
    )
    assert beside.key == alone.key, "it is not trained again"


@pytest.mark.parametrize(
    ("members", "backbones", "says"),
    [
        (("kernel", "i3d_tuned"), ("i3d_steady",), "--members i3d_tuned: .* Add i3d_pictures"),
        (
            ("kernel",),
            ("i3d_steady", "i3d_pictures"),
            "--backbone i3d_pictures: .* or add one of i3d_tuned to --members",
        ),
        (("kernel",), ("i3d_pictures",), "--members kernel: .* such as i3d_steady"),
    ],
)
def test_a_member_without_inputs_and_a_backbone_without_a_member_are_named(
    members: tuple[str, ...], backbones: tuple[str, ...], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        run_checks._check_looked_at(members, backbones)


def test_only_heads_on_features_are_tuned_on_hard_clips() -> None:
    with pytest.raises(UserError, match=r"--fine-tune-hard is for heads on features.*i3d_tuned"):
        run_checks.check(EnsembleConfig(members=MEMBERS, fine_tune_hard=True))
