"""Read a pickle of NumPy arrays in plain containers, and refuse anything else.

A pickle can name any function for its reader to call. This reader accepts only the three names that an array needs.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.errors import UserError

_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,  # written by NumPy 1
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,  # written by NumPy 2
}
#: What the reader raises for a truncated, damaged or foreign file.
_DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError,
    RecursionError,
)  # fmt: skip


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}")
        return _ADMITTED[module, name]


def read_tree(path: Path) -> dict[str, np.ndarray]:
    """Read the float arrays of a pickled dict of dicts, each named by the keys that lead to it: `params/head/kernel`.

    Raises UserError if the file is not such a pickle, is truncated, or names anything but arrays.
    """
    try:
        with path.open("rb") as f:
            return _flatten(_ArrayUnpickler(f).load())
    except _DAMAGE as e:
        raise UserError(
            f"{path} is not a readable pickle of NumPy arrays ({e!r}). Fetch the file again"
        ) from e


def _flatten(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    if isinstance(tree, np.ndarray) and tree.dtype.kind == "f":
        return {prefix: tree}
    if not isinstance(tree, dict):
        raise ValueError(f"unexpected {type(tree).__name__} at {prefix or 'the top level'}")
    flat: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}/{key}" if prefix else str(key))
    return flat
