"""A manipulated `.keras` file is refused by name before Keras creates anything that it describes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import synthetic

from violence_detection.errors import UserError
from violence_detection.training import heads, saved_heads


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "m.keras"
    heads.build("attention", {"a.rgb": (4, 6)}, synthetic.HEAD).save(path)
    return path


def _with_config(plain: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            new.writestr(name, content)
    return path


def _layer(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(layer for layer in config["config"]["layers"] if layer["class_name"] == name)


def _dense(config: dict[str, Any]) -> dict[str, Any]:
    return _layer(config, "Dense")


def _own(config: dict[str, Any]) -> dict[str, Any]:
    return _layer(config, "TemporalAttention")


SYSTEM = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}


@pytest.mark.parametrize(
    "change",
    [
        lambda c: _dense(c).update(module="os", class_name="system", registered_name=None),
        lambda c: _dense(c).update(module="keras.layers", class_name="TFSMLayer"),
        lambda c: _dense(c).update(module="keras.utils", class_name="get_file"),
        lambda c: _dense(c).update(registered_name="os>system"),
        lambda c: _dense(c).update(class_name=["Dense"]),
        lambda c: _dense(c).update(compile_config={"optimizer": "adam"}),
        lambda c: _dense(c)["config"].update(activation=SYSTEM),
        lambda c: _dense(c)["config"].update(activation="relu6"),
        lambda c: _dense(c)["config"].update(kernel_regularizer={"module": "os", "config": {}}),
        lambda c: _dense(c)["config"].update(kernel_initializer=SYSTEM),
        lambda c: _dense(c)["config"].update(
            kernel_initializer={"class_name": "__lambda__", "config": {"value": "x"}}
        ),
        lambda c: _own(c).update(module="os", class_name="system"),
        lambda c: _own(c).update(module="os"),
        lambda c: c.update(class_name="Sequential"),
        lambda c: _dense(c)["config"].update(units=10**6),
        lambda c: _dense(c)["config"].update(units=10**12),
        lambda c: _dense(c)["build_config"].update(input_shape=[None, 2 * 10**9]),
        lambda c: _layer(c, "PositionEmbedding")["build_config"].update(input_shape=[None, *[2000] * 3]),
        lambda c: _layer(c, "MultiHeadAttention")["config"].update(output_shape=[10**5, 10**5]),
        lambda c: _layer(c, "LayerNormalization")["config"].update(axis=[1, 2]),
        lambda c: c["config"]["layers"].extend(
            [_dense(c) | {"config": {**_dense(c)["config"], "units": 20_000}}] * 90
        ),
    ],
)
def test_a_config_that_names_anything_but_the_parts_of_a_head_is_refused(
    plain: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("was given to Keras"))
    with pytest.raises(UserError, match=r"m\.keras is not loaded: .*config"):
        saved_heads.load(_with_config(plain, tmp_path / "m.keras", change))


def test_the_same_file_unchanged_is_loaded(plain: Path, tmp_path: Path) -> None:
    assert saved_heads.load(_with_config(plain, tmp_path / "m.keras", lambda _: None)).name == "attention"


def test_a_lambda_layer_is_refused_and_not_run(tmp_path: Path) -> None:
    """The lambda creates the file `trace`, so its absence shows that the lambda was not run."""
    trace = tmp_path / "trace"
    inputs = keras.Input((3,))
    code = eval(f"lambda x: (__import__('pathlib').Path({str(trace)!r}).touch(), x)[1]")
    keras.Model(inputs, keras.layers.Lambda(code, output_shape=(3,))(inputs)).save(tmp_path / "m.keras")
    trace.unlink(missing_ok=True)  # Keras called the lambda once while building the model
    with pytest.raises(UserError, match=r"m\.keras is not loaded: its config names keras\.layers\.Lambda"):
        saved_heads.load(tmp_path / "m.keras")
    assert not trace.exists()
