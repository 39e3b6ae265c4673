"""Keras' weights files, looked through before Keras opens them, so that a stranger's can be wrong but do nothing.

An HDF5 file can have its content in other files of this machine, and can claim more than it holds.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import BinaryIO

from violence_detection.errors import UserError

#: All that Keras writes into the archive of a model without assets.
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = ("metadata.json", _CONFIG, _WEIGHTS)
_MOST_BYTES = 2 << 30
_MOST_CONFIG_BYTES = 8 << 20


def check_weights(path: Path) -> None:
    """Raise UserError if a weights file (`.h5`, `.keras`) is damaged, or reaches beyond itself."""
    if path.suffix == ".keras":
        read_config(path)
    elif path.suffix in (".h5", ".hdf5"):
        with path.open("rb") as f:
            _check_hdf5(path, f, path.stat().st_size)
    else:
        raise UserError(f"{path} is no weights file of Keras: those end with .h5 or .keras")


def read_config(path: Path) -> bytes:
    """The config of a `.keras` archive whose members are those of a model, and whose weights lie in it.

    Raises UserError if it is damaged or holds anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sorted(m.filename for m in members) != sorted(_MEMBERS):
                raise refused(path, f"it holds {', '.join(sorted(m.filename for m in members))[:200]}")
            if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
                raise refused(path, "it is compressed, as Keras does not do it")
            if sum(m.file_size for m in members) > _MOST_BYTES:
                raise refused(path, "it is larger than 2 GB")
            if archive.getinfo(_CONFIG).file_size > _MOST_CONFIG_BYTES:
                raise refused(path, f"its {_CONFIG} is too large")
            weights = archive.read(_WEIGHTS)
            _check_hdf5(path, io.BytesIO(weights), len(weights))
            return archive.read(_CONFIG)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as e:
        raise damaged(path, e) from e


def damaged(path: Path, reason: object) -> UserError:
    """The error for a file that is there but is not whole."""
    return UserError(
        f"{path} is there, but is damaged ({str(reason).splitlines()[0][:200] if str(reason) else 'cut off'}). "
        "Copy it again from where it was made, or make it again"
    )


def refused(path: Path, reason: str) -> UserError:
    """The error for a file that might do more than hold weights."""
    return UserError(
        f"{path} is not loaded: {reason}. Only what these scripts save is. Get the model from someone you trust, or "
        "train it again"
    )


def _check_hdf5(path: Path, file: BinaryIO, size_bytes: int) -> None:
    """Raise UserError unless all the file's content lies in it, as plain numbers."""
    import h5py

    try:
        with h5py.File(file, "r") as root:
            _check_group(path, root, size_bytes)
    except (OSError, RuntimeError, KeyError, ValueError) as e:
        raise damaged(path, e) from e


def _check_group(path: Path, root: object, size_bytes: int) -> None:
    import h5py

    waiting, known = [root], set()
    while waiting:
        group = waiting.pop()
        for name in group:  # type: ignore[attr-defined]
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):  # type: ignore[attr-defined]
                raise refused(path, f"{name} in it is a link to something else")
            found = group[name]  # type: ignore[index]
            address = h5py.h5o.get_info(found.id).addr
            if address in known:
                raise refused(path, f"{name} in it is there twice")
            known.add(address)
            if isinstance(found, h5py.Group):
                waiting.append(found)
            else:
                _check_dataset(path, name, found, size_bytes)


def _check_dataset(path: Path, name: str, found: object, size_bytes: int) -> None:
    import h5py

    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "biuf":
        raise refused(path, f"{name} in it is no array of numbers")
    if found.external or found.is_virtual:
        raise refused(path, f"the content of {name} lies in another file")
    if found.size and found.nbytes > size_bytes:
        raise refused(path, f"{name} in it claims {found.nbytes} bytes, more than the file has")
