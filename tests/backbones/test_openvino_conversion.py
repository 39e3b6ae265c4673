"""TensorFlow networks are converted to OpenVINO with every version of Python."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest
import warm_start

from violence_detection.backbones import openvino_conversion

pytest.importorskip("openvino")


def _converted_where_exec_keeps_nothing() -> None:
    """Convert a model while `exec` works as in a function in Python 3.13: each call has a namespace of its own."""
    import keras
    import openvino as ov
    from openvino.frontend.tensorflow import utils

    utils.exec = lambda statement: builtins.exec(statement, {})
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2, kernel_initializer="ones")(x))
    network = ov.Core().compile_model(openvino_conversion.converted(model), "CPU")
    print(network(np.ones((1, 3), np.float32))[0].tolist())


def test_a_model_is_converted_where_exec_keeps_nothing(tmp_path: Path) -> None:
    """To find TensorFlow's version, OpenVINO imports and deletes it with `exec`, which fails from Python 3.13 on."""
    done = warm_start.start(_converted_where_exec_keeps_nothing, cwd=tmp_path).wait()
    assert (done.returncode, done.stdout) == (0, "[[3.0, 3.0]]\n"), done.stderr
