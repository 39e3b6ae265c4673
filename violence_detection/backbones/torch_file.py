"""Read the tensors of a PyTorch state dict without PyTorch, and refuse anything but tensors.

Both formats of `torch.save` are read: the older one (pickles followed by raw storages) and the zip archive.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from violence_detection.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}
#: What the readers raise for a truncated, damaged or foreign file.
_DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
    RuntimeError, MemoryError, OSError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass
class _Storage:
    key: str
    dtype: np.dtype
    size: int


@dataclass
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a `.pth` file, by name, as C-contiguous arrays.

    Raises UserError if the file is not a state dict, is truncated, or names any class but those of tensors.
    """
    try:
        with path.open("rb") as f:
            if zipfile.is_zipfile(f):
                return _read_zip(f)
            f.seek(0)
            return _read_legacy(f)
    except _DAMAGE as e:
        raise UserError(f"{path} is not a readable PyTorch state dict ({e!r}). Fetch the file again") from e


class _TensorUnpickler(pickle.Unpickler):
    """Accepts OrderedDict and the classes and functions of tensors; refuses any others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"refused to load {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, size = pid[:5]
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown persistent id {kind!r}")
        return _Storage(str(key), dtype, int(size))


def _rebuild(storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


def _read_legacy(f: BinaryIO) -> dict[str, np.ndarray]:
    if _TensorUnpickler(f).load() != _MAGIC:
        raise ValueError("wrong magic number")
    _TensorUnpickler(f).load()  # protocol version
    _TensorUnpickler(f).load()  # system information
    tensors = _TensorUnpickler(f).load()
    keys = _TensorUnpickler(f).load()
    described = {t.storage.key: t.storage for t in tensors.values()}
    storages = {}
    for key in keys:
        (size,) = struct.unpack("<q", f.read(8))
        if size != described[key].size:
            raise ValueError("a tensor's stored data has the wrong size")
        data = f.read(size * described[key].dtype.itemsize)
        storages[key] = np.frombuffer(data, described[key].dtype, count=size)
    return {name: _array(t, storages[t.storage.key]) for name, t in tensors.items()}


def _read_zip(f: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(f) as archive:
        names = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it is a zip archive without tensors")
        root = names[0].removesuffix("data.pkl")
        tensors = _TensorUnpickler(io.BytesIO(archive.read(f"{root}data.pkl"))).load()
        return {
            name: _array(t, np.frombuffer(archive.read(f"{root}data/{t.storage.key}"), t.storage.dtype))
            for name, t in tensors.items()
        }


def _array(tensor: _Tensor, storage: np.ndarray) -> np.ndarray:
    """A C-contiguous copy of the view of `storage` that the tensor's strides (in elements) describe.

    The bounds are checked before the view is made.
    """
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True))
    if 0 in tensor.shape or min((tensor.offset, *tensor.stride), default=0) < 0 or last >= storage.size:
        raise ValueError("a tensor reaches beyond its stored data")
    strides = tuple(s * storage.itemsize for s in tensor.stride)
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
    return view.copy(order="C")
