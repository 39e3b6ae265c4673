"""The arrays of an ONNX file are read by name; a file that is not one, or that refers to other files, is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from violence_detection.backbones import onnx_file
from violence_detection.errors import UserError

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)


def _write(path: Path, *tensors: onnx.TensorProto) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "onnx::MatMul_7"], ["h"], name="/encoder/layer.0/fc/MatMul"),
        helper.make_node("Add", ["h", "encoder.layer.0.fc.bias"], ["y"], name="/encoder/layer.0/fc/Add"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    onnx.save_model(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], tensors)), path)
    return path


def test_an_array_without_a_name_of_its_own_is_named_after_the_node_that_takes_it(tmp_path: Path) -> None:
    tensors = (
        numpy_helper.from_array(KERNEL, "onnx::MatMul_7"),
        numpy_helper.from_array(KERNEL[0], "encoder.layer.0.fc.bias"),
        numpy_helper.from_array(np.arange(3), "sizes"),
    )
    arrays = onnx_file.read_arrays(_write(tmp_path / "w.onnx", *tensors))
    assert sorted(arrays) == ["encoder.layer.0.fc.bias", "encoder/layer.0/fc/MatMul"]
    np.testing.assert_array_equal(arrays["encoder/layer.0/fc/MatMul"], KERNEL)


def test_an_array_whose_content_lies_in_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(KERNEL.tobytes())
    tensor = TensorProto(name="onnx::MatMul_7", dims=KERNEL.shape, data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    path = _write(tmp_path / "w.onnx", tensor)
    with pytest.raises(UserError, match=r"w\.onnx.*is in another file"):
        onnx_file.read_arrays(path)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x08\x07" * 3])
def test_a_file_that_is_no_onnx_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"other\.onnx is not a readable ONNX file"):
        onnx_file.read_arrays(tmp_path / "other.onnx")


def test_a_cut_off_file_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "cut.onnx", numpy_helper.from_array(KERNEL, "onnx::MatMul_7"))
    whole = path.read_bytes()
    for length in (20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.onnx"):
            onnx_file.read_arrays(path)
