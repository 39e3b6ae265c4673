"""Read the arrays of a network of TensorFlow.js by name; nothing of its graph is run."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.errors import UserError

#: What a cut-off, damaged or foreign file makes the readers raise.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, ValueError, KeyError, TypeError,
    AttributeError, RuntimeError,
)  # fmt: skip


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The float arrays, float32 by name, of a .zip with a network's description (.json) and its numbers (.bin).

    Raises UserError if it is no such file or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as kept:
            contents = {Path(name).suffix: kept.read(name) for name in kept.namelist()}
        return dict(_arrays(json.loads(contents[".json"]), contents[".bin"]))
    except _DAMAGE as e:
        raise UserError(f"{path} is not a readable network of TensorFlow.js ({e}). Fetch it again") from e


def _arrays(described: Mapping[str, Any], data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """Of the numbers that stand one after another in the file."""
    offset = 0
    for one in (weight for group in described["weightsManifest"] for weight in group["weights"]):
        dtype = np.dtype(one.get("quantization", {}).get("dtype", one["dtype"]))
        count = int(np.prod(one["shape"], dtype=int))
        values = np.frombuffer(data, dtype, count, offset).reshape(one["shape"])
        offset += count * dtype.itemsize
        if dtype.kind == "f":
            yield one["name"], values.astype(np.float32)
    if offset != len(data):
        raise ValueError(f"its numbers have {len(data)} bytes, described are {offset}")
