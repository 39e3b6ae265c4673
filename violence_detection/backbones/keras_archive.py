"""Check Keras weights files before Keras opens them, so that a stranger's file can be wrong but cannot do harm.

An HDF5 file can refer to content in other files on this machine, and can declare more data than it contains.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import BinaryIO

from violence_detection.errors import UserError

#: The members of the archive that Keras writes for a model without assets.
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = ("metadata.json", _CONFIG, _WEIGHTS)
_MOST_BYTES = 2 << 30
_MOST_CONFIG_BYTES = 8 << 20


def check_weights(path: Path) -> None:
    """Raise UserError if a weights file is damaged or refers to anything outside itself.

    Its name must end with `.h5`, `.hdf5` or `.keras`; the latter must be an archive as Keras writes it.
    """
    if path.suffix == ".keras":
        read_config(path)
    elif path.suffix in (".h5", ".hdf5"):
        with path.open("rb") as f:
            _check_hdf5(path, f, path.stat().st_size)
    else:
        raise UserError(f"{path} is not a Keras weights file: those end with .h5 or .keras")


def read_config(path: Path) -> bytes:
    """The config of a `.keras` archive that consists of a model's members, with all weights inside.

    Raises UserError if the archive is damaged, or contains anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sorted(m.filename for m in members) != sorted(_MEMBERS):
                raise refused(path, f"it contains {', '.join(sorted(m.filename for m in members))[:200]}")
            if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
                raise refused(path, "it is compressed, which archives from Keras are not")
            if sum(m.file_size for m in members) > _MOST_BYTES:
                raise refused(path, "it is larger than 2 GB")
            if archive.getinfo(_CONFIG).file_size > _MOST_CONFIG_BYTES:
                raise refused(path, f"its {_CONFIG} is larger than 8 MB")
            weights = archive.read(_WEIGHTS)
            _check_hdf5(path, io.BytesIO(weights), len(weights))
            return archive.read(_CONFIG)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as e:
        raise damaged(path, e) from e


def damaged(path: Path, reason: object) -> UserError:
    """The error for a file that exists but is not intact."""
    return UserError(
        f"{path} is there, but is damaged ({str(reason).splitlines()[0][:200] if str(reason) else 'cut off'}). "
        "Copy it again from where it was made, or make it again"
    )


def refused(path: Path, reason: str) -> UserError:
    """The error for a file that might do more than provide weights."""
    return UserError(
        f"{path} is not loaded: {reason}. Only files as these scripts save them are loaded. Get the model from "
        "someone you trust, or train it again"
    )


def _check_hdf5(path: Path, file: BinaryIO, size_bytes: int) -> None:
    """Raise UserError unless the file contains all its content itself, as plain numbers."""
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
                raise refused(path, f"its entry {name} is a link to something else")
            found = group[name]  # type: ignore[index]
            address = h5py.h5o.get_info(found.id).addr
            if address in known:
                raise refused(path, f"its entry {name} is a second name of another entry")
            known.add(address)
            if isinstance(found, h5py.Group):
                waiting.append(found)
            else:
                _check_dataset(path, name, found, size_bytes)


def _check_dataset(path: Path, name: str, found: object, size_bytes: int) -> None:
    import h5py

    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "biuf":
        raise refused(path, f"its entry {name} is not an array of numbers")
    if found.external or found.is_virtual:
        raise refused(path, f"the content of its entry {name} is in another file")
    if found.size and found.nbytes > size_bytes:
        raise refused(path, f"its entry {name} declares {found.nbytes} bytes, more than the whole file has")
