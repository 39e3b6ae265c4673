"""Small files in both layouts of `torch.save`, written without PyTorch."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_KINDS = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage",
          "int64": "LongStorage", "int32": "IntStorage"}  # fmt: skip


def _class(module: str, name: str) -> Any:
    """Return a class that is pickled as a reference to module.name."""
    return type(name, (), {"__module__": module, "__qualname__": name})


@dataclass(frozen=True)
class View:
    """A tensor, as a view into a flat storage."""

    storage: np.ndarray
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def whole(values: np.ndarray) -> View:
    """Return the tensor with exactly these values."""
    stride = tuple(s // values.itemsize for s in values.copy(order="C").strides)
    return View(values.ravel(), 0, values.shape, stride)


class _Pickler(pickle.Pickler):
    """Pickles views as PyTorch does: as a function that rebuilds them and a persistent id of the storage."""

    def __init__(self, f: io.BytesIO, storages: dict[str, np.ndarray]):
        super().__init__(f, protocol=2)
        self.storages = storages

    def persistent_id(self, item: Any) -> Any:
        if not isinstance(item, np.ndarray):
            return None
        key = next((k for k, s in self.storages.items() if s is item), str(len(self.storages)))
        self.storages[key] = item
        kind = getattr(sys.modules["torch"], _KINDS[item.dtype.name])
        return ("storage", kind, key, "cpu", item.size)

    def reducer_override(self, item: Any) -> Any:
        if isinstance(item, View):
            rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
            arguments: tuple[object, ...] = (
                item.storage,
                item.offset,
                item.shape,
                item.stride,
                False,
                collections.OrderedDict(),
            )
            return rebuild, arguments
        return NotImplemented


def _pickled(value: Any) -> tuple[bytes, dict[str, np.ndarray]]:
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in _KINDS.values():
        setattr(torch, kind, _class("torch", kind))
    utils._rebuild_tensor_v2 = _class("torch._utils", "_rebuild_tensor_v2")  # type: ignore[attr-defined]
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        f, storages = io.BytesIO(), dict[str, np.ndarray]()
        _Pickler(f, storages).dump(value)
    finally:
        del sys.modules["torch"], sys.modules["torch._utils"]
    return f.getvalue(), storages


def write_legacy(path: Path, tensors: Mapping[str, View]) -> Path:
    """Write the layout before PyTorch 1.6: five pickles, then the length and the bytes of each storage."""
    state, storages = _pickled(collections.OrderedDict(tensors))
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    parts = [pickle.dumps(v, protocol=2) for v in head] + [state, pickle.dumps(sorted(storages), protocol=2)]
    parts += [struct.pack("<q", storages[k].size) + storages[k].tobytes() for k in sorted(storages)]
    path.write_bytes(b"".join(parts))
    return path


def write_zip(path: Path, tensors: Mapping[str, View]) -> Path:
    """Write the layout since PyTorch 1.6: a zip archive of one pickle and a file per storage."""
    state, storages = _pickled(collections.OrderedDict(tensors))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", state)
        for key, values in storages.items():
            archive.writestr(f"model/data/{key}", values.tobytes())
    return path


LAYOUTS: tuple[Callable[[Path, Mapping[str, View]], Path], ...] = (write_legacy, write_zip)
