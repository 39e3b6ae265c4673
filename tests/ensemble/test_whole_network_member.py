"""A member that is a whole network on pictures and one on features train together, each on its own inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import seeded_i3d
import synthetic
import tensorflow as tf

from violence_detection.ensemble import ensemble, ensemble_run, folds, run_checks
from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.ensemble.pool import Pool
from violence_detection.errors import UserError
from violence_detection.features.cache import FeatureStore
from violence_detection.features.config import ExtractConfig
from violence_detection.models import trained_model
from violence_detection.system import storage
from violence_detection.training import run_folder

SIDE, FRAMES, NAME = 12, 8, "i3d_pictures.rgb"
MEMBERS = ("kernel", "i3d_tuned")


@pytest.fixture(scope="module", autouse=True)
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Small pictures, a small network, and the file of its weights."""
    with pytest.MonkeyPatch.context() as patch:
        seeded_i3d.shrink(patch.setattr)
        path = seeded_i3d.write(tmp_path_factory.mktemp("weights") / "i3d.ckpt")
        seeded_i3d.install_pictures(patch.setattr, path, SIDE, FRAMES)
        yield path


@pytest.fixture(scope="module")
def pool(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    root = tmp_path_factory.mktemp("features")
    made = synthetic.pool(root, 48)
    store, rng = FeatureStore(root / NAME), np.random.default_rng(0)
    storage.write_json(root / NAME / "engine-made-up.json", {})
    for clip_id in made.frame.clip_id:
        values = rng.integers(0, 256, (3, FRAMES, SIDE * SIDE * 3)).astype(np.float16)
        store.add(clip_id, dict(zip(("v0", "v1", "t1"), values, strict=True)), "made up")
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
        (("kernel",), ("i3d_steady", "i3d_pictures"), "--backbone i3d_pictures: .* or add one of i3d_tuned"),
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
