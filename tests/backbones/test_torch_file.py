"""PyTorch state dicts are read without PyTorch: in both layouts, and nothing but tensors."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files
from torch_files import View

from violence_detection.backbones import torch_file
from violence_detection.errors import UserError

Write = Callable[[Path, Mapping[str, View]], Path]
both_layouts = pytest.mark.parametrize("write", torch_files.LAYOUTS)
RNG = np.random.default_rng(0)
TENSORS: dict[str, np.ndarray] = {
    "conv.weight": RNG.standard_normal((4, 3, 2, 2)).astype(np.float32),
    "bn.bias": RNG.standard_normal(5),
    "half": RNG.standard_normal((2, 3)).astype(np.float16),
    "bn.num_batches_tracked": np.array(7, np.int64),
}


def _whole() -> dict[str, View]:
    return {name: torch_files.whole(values) for name, values in TENSORS.items()}


@both_layouts
def test_tensors_come_back_by_name_with_shape_type_and_values(tmp_path: Path, write: Write) -> None:
    read = torch_file.read_state_dict(write(tmp_path / "a.pth", _whole()))
    assert list(read) == list(TENSORS)
    for name, values in TENSORS.items():
        assert read[name].dtype == values.dtype
        assert read[name].shape == values.shape
        np.testing.assert_array_equal(read[name], values)


@both_layouts
def test_offsets_and_strides_into_a_shared_storage_are_honoured(tmp_path: Path, write: Write) -> None:
    storage = np.arange(20, dtype=np.float32)
    tensors = {
        "transposed": View(storage, 2, (3, 4), (1, 3)),
        "every other": View(storage, 1, (5,), (2,)),
        "broadcast": View(storage, 4, (2, 3), (0, 1)),
    }
    read = torch_file.read_state_dict(write(tmp_path / "a.pth", tensors))
    np.testing.assert_array_equal(read["transposed"], storage[2:14].reshape(4, 3).T)
    np.testing.assert_array_equal(read["every other"], [1, 3, 5, 7, 9])
    np.testing.assert_array_equal(read["broadcast"], [[4, 5, 6], [4, 5, 6]])
    assert all(v.flags.c_contiguous for v in read.values())


@both_layouts
@pytest.mark.parametrize(
    "view",
    [
        View(np.zeros(6, np.float32), 0, (7,), (1,)),
        View(np.zeros(6, np.float32), 5, (2,), (1,)),
        View(np.zeros(6, np.float32), 0, (2, 3), (4, 1)),
        View(np.zeros(6, np.float32), -1, (2,), (1,)),
        View(np.zeros(6, np.float32), 5, (2,), (-1,)),
        View(np.zeros(6, np.float32), 0, (2**40, 2**40), (0, 1)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path: Path, write: Write, view: View) -> None:
    path = write(tmp_path / "bad.pth", {"w": view})
    with pytest.raises(UserError, match=r"bad\.pth"):
        torch_file.read_state_dict(path)


class _Runs:
    """An object that is unpickled by calling a function, as in a malicious file."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@both_layouts
@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, getattr, pickle.loads, np.zeros])
def test_a_file_that_asks_for_any_other_function_is_refused_and_it_is_not_called(
    tmp_path: Path, write: Write, function: Callable[..., Any]
) -> None:
    trace = tmp_path / "trace"
    path = write(tmp_path / "evil.pth", {"w": _Runs(function, f"mkdir {trace}")})
    with pytest.raises(UserError, match=r"evil\.pth.*refused to load"):
        torch_file.read_state_dict(path)
    assert not trace.exists()


@both_layouts
def test_a_file_cut_off_anywhere_is_an_error_that_names_it(tmp_path: Path, write: Write) -> None:
    data = write(tmp_path / "a.pth", _whole()).read_bytes()
    cut = tmp_path / "cut.pth"
    for length in range(0, len(data), 7):
        cut.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cut\.pth.*Fetch the file again"):
            torch_file.read_state_dict(cut)


@both_layouts
def test_a_damaged_byte_is_an_error_for_users_or_harmless_and_never_a_crash(
    tmp_path: Path, write: Write
) -> None:
    data = write(tmp_path / "a.pth", _whole()).read_bytes()
    for position in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        path = tmp_path / "damaged.pth"
        path.write_bytes(damaged)
        try:
            torch_file.read_state_dict(path)
        except UserError as e:
            assert "damaged.pth" in str(e)  # noqa: PT017 - either outcome is allowed, other errors are not


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="without tensors"):
        torch_file.read_state_dict(path)
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    with pytest.raises(UserError, match="wrong magic number"):
        torch_file.read_state_dict(path)
    path.write_text("<html>404</html>")
    with pytest.raises(UserError, match="other"):
        torch_file.read_state_dict(path)
