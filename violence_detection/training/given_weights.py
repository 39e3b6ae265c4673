"""Given weights: a head with a whole network that another program trained is used as if it had been trained here.

<member's folder>/given_weights.npz    float arrays as `numpy.savez(path, *trunk.get_weights(), kernel, bias)` writes
                                       them: the last layer's kernel is (1024, 1), its bias (1,). These two may also be
                                       stored under the names kernel and bias

The weights are used as they are: averages over steps, or with the published weights, have to be taken before. How they
were trained is not known here; the run's record therefore contains the file's hash, and the model card says so.
"""

from __future__ import annotations

import logging
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from violence_detection.errors import UserError
from violence_detection.system import storage
from violence_detection.training import heads, plain_views, run_folder, saved_heads
from violence_detection.training.run_folder import Trained

if TYPE_CHECKING:
    from violence_detection.training.training_data import Data

log = logging.getLogger(__name__)
FILE_NAME = "given_weights.npz"
_LAST = ("kernel", "bias")


def record_of(folder: Path) -> dict[str, str]:
    """What given weights add to the record of the run in `folder`: {GIVEN_KEY: SHA-256}, or {} without the file."""
    path = folder / FILE_NAME
    return {run_folder.GIVEN_KEY: storage.sha256_file(path)} if path.is_file() else {}


def check(record: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError if the given weights in `folder` do not fit the head of `record`. Writes nothing."""
    _built(record, folder)


def _built(record: Mapping[str, Any], folder: Path) -> keras.Model:
    model = heads.of_record(record)
    _set(model, folder / FILE_NAME)
    return model


def take(record: Mapping[str, Any], data: Data, folder: Path) -> Trained:
    """Turn `folder` into that of a finished run with the given weights in it.

    Its selection accuracy is measured on `data.selection`, and None if that has no clips. Raises UserError if the
    weights do not fit.
    """
    model = _built(record, folder)
    for name in (run_folder.BEST_NAME, run_folder.FINAL_NAME):
        saved_heads.save(model, folder / name)
    accuracy = None
    if len(data.selection):
        p = plain_views.predict(model, data.selection)
        accuracy = float(np.mean((p >= 0.5) == (data.selection.labels == 1)))
    trained = Trained(folder, accuracy, best_epoch=0, epochs_run=0, samples_per_second=0.0)
    trained.write()
    log.info("%s: not trained here, its weights were taken from %s", folder, FILE_NAME)
    return trained


def _set(model: keras.Model, path: Path) -> None:
    arrays, wanted = _read(path), [tuple(w.shape) for w in model.trainable_weights]
    if [a.shape for a in arrays] != wanted:
        at = next((i for i, (a, w) in enumerate(zip(arrays, wanted, strict=False)) if a.shape != w), None)
        found = f"{len(arrays)} arrays" if at is None else f"array {at} of shape {arrays[at].shape}"
        belongs = f"{len(wanted)}" if at is None else f"{wanted[at]}"
        raise UserError(
            f"{path} has {found} instead of {belongs}. Save the trunk's weights in the order of get_weights, then the "
            "last layer's kernel and its bias"
        )
    for variable, values in zip(model.trainable_weights, arrays, strict=True):
        if not np.isfinite(values).all():
            raise UserError(f"{path}: the array for {variable.path} has values that are nan or infinite")
        variable.assign(values)


def _read(path: Path) -> list[np.ndarray]:
    """The arrays as float32: arr_0, arr_1, ... in numerical order, then kernel and bias. Raises UserError otherwise."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            numbered = {int(m[1]): name for name in stored.files if (m := re.fullmatch(r"arr_(\d+)", name))}
            last = [name for name in _LAST if name in stored.files]
            if sorted(numbered) != list(range(len(stored.files) - len(last))):
                raise ValueError(
                    f"its arrays are named {', '.join(stored.files)[:200]}, not arr_0, arr_1, ..."
                )
            names = [*(numbered[i] for i in range(len(numbered))), *last]
            return [np.asarray(stored[name], np.float32) for name in names]
    except (
        ValueError,
        OSError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,
    ) as e:
        raise UserError(f"{path} cannot be used ({e}). Write it with numpy.savez(path, *arrays)") from e
