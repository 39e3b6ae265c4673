"""Read the arrays of a TensorFlow.js network by name. Its graph is not run."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.errors import UserError

#: What the readers raise for a truncated, damaged or foreign file.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, ValueError, KeyError, TypeError,
    AttributeError, RuntimeError,
)  # fmt: skip


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the float arrays, as float32 by name, from a .zip with a network's description (.json) and numbers (.bin).

    Raises UserError if the file is not such a .zip, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as kept:
            contents = {Path(name).suffix: kept.read(name) for name in kept.namelist()}
        return dict(_arrays(json.loads(contents[".json"]), contents[".bin"]))
    except _DAMAGE as e:
        raise UserError(f"{path} is not a readable TensorFlow.js network ({e}). Fetch the file again") from e


def _arrays(described: Mapping[str, Any], data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """The float arrays, with their names, of the numbers in `data`, where the arrays follow one another."""
    offset = 0
    for one in (weight for group in described["weightsManifest"] for weight in group["weights"]):
        dtype = np.dtype(one.get("quantization", {}).get("dtype", one["dtype"]))
        count = int(np.prod(one["shape"], dtype=int))
        values = np.frombuffer(data, dtype, count, offset).reshape(one["shape"])
        offset += count * dtype.itemsize
        if dtype.kind == "f":
            yield one["name"], values.astype(np.float32)
    if offset != len(data):
        raise ValueError(f"it has {len(data)} bytes of numbers, but describes {offset}")
