"""A head is restored from its stored weights bit for bit, and a manipulated file is refused and named."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import synthetic
from safetensors.numpy import load_file, save_file

from violence_detection.errors import UserError
from violence_detection.system import storage
from violence_detection.training import compiled_model, heads, run_folder, saved_heads, trainer
from violence_detection.training.config import ON_FEATURES

#: The inputs have two different numbers of steps, so that the head contains several layers of one kind.
SHAPES = {"i3d.rgb": (4, 9), "efficientnet_lite0.motion": (6, 12), "efficientnet_lite0.rgb": (6, 12)}
WEIGHTS = "best_model.safetensors"


def saved(folder: Path, architecture: str = "gru", policy: str = "float32") -> keras.Model:
    """Save a head with random weights and its record in `folder`."""
    data = synthetic.data()
    record = trainer.run_record(
        architecture,
        data,
        synthetic.FEATURES,
        2,
        synthetic.HEAD,
        dataclasses.replace(synthetic.TRAIN, seed=5),
    )
    caches = dict.fromkeys(SHAPES, record["feature_records"]["efficientnet_lite0.rgb"])
    record |= {"inputs": {n: list(s) for n, s in sorted(SHAPES.items())}, "feature_records": caches}
    storage.write_json(folder / run_folder.CONFIG_NAME, record)
    with heads.computing_in(policy):
        model = compiled_model.build(record, 3)
    saved_heads.save(model, folder / run_folder.BEST_NAME)
    return model


@pytest.fixture(scope="module")
def saved_gru(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    saved(folder)
    saved_heads.load(folder / WEIGHTS)
    return folder


@pytest.fixture
def gru(saved_gru: Path, tmp_path: Path) -> Path:
    """Return a folder with a saved head, which the test may damage."""
    return Path(shutil.copytree(saved_gru, tmp_path / "gru"))


@pytest.mark.parametrize("architecture", ON_FEATURES)
def test_numbers_alone_give_the_probabilities_of_the_keras_file_bit_for_bit(
    tmp_path: Path, architecture: str
) -> None:
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(0, 1, (5, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    for policy in ("float32", "mixed_float16"):
        model = saved(tmp_path, architecture, policy)
        wanted = np.asarray(model(inputs, training=False))
        for file in (WEIGHTS, run_folder.BEST_NAME):
            p_fight = np.asarray(saved_heads.load(tmp_path / file)(inputs, training=False))
            np.testing.assert_array_equal(p_fight, wanted)
    assert keras.config.dtype_policy().name == "float32"


def test_whoever_may_read_the_keras_file_may_read_the_weights(tmp_path: Path) -> None:
    saved(tmp_path)
    of_others = (tmp_path / run_folder.BEST_NAME).stat().st_mode
    assert (tmp_path / WEIGHTS).stat().st_mode == of_others


def test_a_head_of_the_default_size_is_within_bounds(tmp_path: Path) -> None:
    record = {"architecture": "bilstm_attention", "inputs": {"vgg19.rgb": (20, 4096), "vgg19.motion": (20, 4096)},
              "head": {"projection": 512, "units": 512, "dropout": 0.5, "input_dropout": 0.5},
              "train": dataclasses.asdict(synthetic.TRAIN)}  # fmt: skip
    model = compiled_model.build(record, 3)
    saved_heads.save(model, tmp_path / "m.keras")
    assert saved_heads.load(tmp_path / "m.keras").count_params() == model.count_params()


def _change(change: Callable[[dict[str, np.ndarray]], None], metadata: dict[str, str] | None = None) -> Any:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata=metadata or {"dtype_policy": "float32"})

    return apply


def _set_nan(tensors: dict[str, np.ndarray]) -> None:
    tensors["logits/kernel.1"][0] = np.nan


def _reshape(tensors: dict[str, np.ndarray]) -> None:
    tensors["logits/kernel.1"] = tensors["logits/kernel.1"].T.copy()


def _cast(tensors: dict[str, np.ndarray]) -> None:
    tensors["logits/kernel.1"] = tensors["logits/kernel.1"].astype(np.float64)


def _rename(tensors: dict[str, np.ndarray]) -> None:
    tensors["other"] = tensors.pop("logits/kernel.1")


def _cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def _no_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"no weights at all")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_cut, "is there, but is damaged"),
        (_no_weights, "is there, but is damaged"),
        (_change(_set_nan), r"its weight logits/kernel\.1 is not finite"),
        (_change(_reshape), r"logits/kernel\.1 is F32 \(1, "),
        (_change(_cast), r"logits/kernel\.1 is F64"),
        (_change(_rename), "its weights are not those of the model"),
        (_change(lambda _: None, {"dtype_policy": "os.system"}), "dtype_policy"),
    ],
)
def test_weights_that_are_not_the_models_are_named(
    gru: Path, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(gru)
    with pytest.raises(UserError, match=rf"best_model\.safetensors.*{says}"):
        saved_heads.load(gru / WEIGHTS)


def test_weights_of_a_keras_file_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    model = saved(tmp_path)
    kernel = next(v for v in model.weights if v.path == "logits/kernel")
    kernel.assign(np.full(kernel.shape, np.inf))
    model.save(tmp_path / "m.keras")
    with pytest.raises(UserError, match=r"m\.keras is not used: its weight logits/kernel\.1 is not finite"):
        saved_heads.load(tmp_path / "m.keras")


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("features", "frames", 10**9), ("features", "frames", "6"), ("features", "window_s", float("nan")),
        ("features", "streams", ["rgb", "../x"]), ("features", "backbone", "vgg19"), ("head", "units", 10**9),
        ("head", "units", 10**400), ("head", "dropout", -1), ("head", "more", 1), ("inputs", "i3d.rgb", [10**9, 9]),
        ("inputs", "i3d.rgb", 3), ("feature_records", "i3d.rgb", []), ("train", "seed", None), ("clips", "train", "x"),
    ],
)  # fmt: skip
def test_a_record_with_values_that_no_model_has_is_named(
    gru: Path, part: str, name: str, value: object
) -> None:
    record = storage.read_json(gru / run_folder.CONFIG_NAME)
    record[part][name] = value
    storage.write_json(gru / run_folder.CONFIG_NAME, record)
    with pytest.raises(UserError, match=rf"config\.json: {part}"):
        saved_heads.load(gru / WEIGHTS)


@pytest.mark.parametrize("architecture", ["gru", "attention", "average"])
def test_a_record_of_a_larger_model_than_the_file_takes_no_memory(tmp_path: Path, architecture: str) -> None:
    saved(tmp_path, architecture)
    record = storage.read_json(tmp_path / run_folder.CONFIG_NAME)
    for changed in (
        ({"projection": 65_536}, {"units": 65_536})
        if architecture != "average"
        else ({"projection": 65_536},)
    ):
        record["head"] = {**synthetic.HEAD.recorded(architecture), **changed}
        storage.write_json(tmp_path / run_folder.CONFIG_NAME, record)
        with pytest.raises(UserError, match="describes a larger model than it holds"):
            saved_heads.load(tmp_path / WEIGHTS)
