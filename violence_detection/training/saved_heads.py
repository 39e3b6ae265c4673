"""A trained head on the disk: `.safetensors`, numbers alone from which it is built anew by our code, and `.keras`.

    best_model.safetensors    the weights; config.json beside it has the architecture and its settings
    best_model.keras          the same for whoever opens it with Keras

Nothing but numbers is taken from a file, so one from a stranger can be wrong but do nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors
from safetensors.numpy import save_file

from violence_detection.backbones.keras_archive import damaged, read_config, refused
from violence_detection.errors import UserError
from violence_detection.system import storage, tensorflow_start
from violence_detection.training import archive_config, heads, model_record, run_folder
from violence_detection.training.config import ARCHITECTURES, KERNEL, PICTURES_OF, HeadConfig

_POLICY, _POLICIES = "dtype_policy", ("float32", "mixed_float16", "mixed_bfloat16")
#: What weights may be kept as; half the bytes are enough to judge with.
_FLOATS = {"F32": np.float32, "F16": np.float16}
_LEAST_BYTES = 2
#: Numbers in a weight from which half precision is worth it; small ones (offsets, scales, sums' shares) matter most.
_LARGE = 4096


def save(model: keras.Model, path: Path) -> None:
    """Write `path`, a `.keras` file, and the weights beside it."""
    with storage.atomic_path(path) as temporary:
        model.save(temporary)
    save_weights(model, run_folder.weights_of(path))


def save_weights(model: keras.Model, path: Path, half: bool = False) -> None:
    """Write the weights, with what the model computes in. `half`: large ones as float16, in half of the bytes."""

    def kept(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values, np.float16 if half and values.size >= _LARGE else np.float32)

    with np.errstate(
        over="ignore"
    ):  # a weight that half precision has no number for becomes infinite: refused
        arrays = [kept(values) for values in model.get_weights()]
    tensors = dict(zip(_names(model), arrays, strict=True))
    with storage.atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_POLICY: model.dtype_policy.name})


def load(file: Path) -> keras.Model:
    """The trained head in a `.safetensors` or `.keras` file.

    Raises UserError if the file is missing, damaged, or holds anything but one of our heads with finite weights.
    """
    if not file.is_file():
        raise UserError(f"no model at {file}. Train one, or copy the whole folder from where it was made")
    tensorflow_start.gpus()  # the first look at the devices
    if file.suffix == run_folder.WEIGHTS_SUFFIX:
        return _rebuild(file, model_record.read(file.parent / run_folder.CONFIG_NAME))
    return _open_archive(file)


def copy_of(model: keras.Model, record: Mapping[str, Any]) -> keras.Model:
    """The head with its weights, built anew in the precision of now, which may be another than it was trained in."""
    copy = _build(record, keras.config.dtype_policy().name)
    copy.set_weights(model.get_weights())
    return copy


def _open_archive(file: Path) -> keras.Model:
    # importing these registers the layers that the file names
    from violence_detection.training import tuned_network

    assert ARCHITECTURES
    assert tuned_network.TRUNK
    archive_config.check(file, read_config(file))
    try:
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise damaged(file, e) from e
    for name, values in zip(_names(model), model.get_weights(), strict=True):
        _check_finite(file, name, values)
    return model


def _rebuild(file: Path, record: Mapping[str, Any]) -> keras.Model:
    """The head that the record describes, with the weights of the file."""
    try:
        with safetensors.safe_open(file, framework="np") as stored:
            policy = (stored.metadata() or {}).get(_POLICY)
            if policy not in _POLICIES:
                raise refused(file, f"it says {_POLICY} {policy!r}, which is none of {', '.join(_POLICIES)}")
            _check_size(file, record)
            model = _build(record, policy)
            _fill(model, stored, file)
    except (safetensors.SafetensorError, OSError) as e:
        raise damaged(file, e) from e
    return model


def _build(record: Mapping[str, Any], policy: str) -> keras.Model:
    shapes = {name: (shape[0], shape[1]) for name, shape in record["inputs"].items()}
    with heads.computing_in(policy):
        return heads.build(record["architecture"], shapes, HeadConfig(**record["head"]))


def _fill(model: keras.Model, stored: Any, file: Path) -> None:
    """Give the model the stored weights, if they are its own."""
    wanted = dict(zip(_names(model), model.weights, strict=True))
    if other := sorted(set(stored.keys()) ^ set(wanted)):
        raise refused(
            file, f"its weights are not those of the model in {run_folder.CONFIG_NAME} (such as {other[0]})"
        )
    values = []
    for name, variable in wanted.items():
        found = stored.get_slice(name)
        if found.get_dtype() not in _FLOATS or tuple(found.get_shape()) != tuple(variable.shape):
            raise refused(
                file,
                f"{name} is {found.get_dtype()} {tuple(found.get_shape())}, but the model in {run_folder.CONFIG_NAME} "
                f"has {' or '.join(_FLOATS)} {tuple(variable.shape)}",
            )
        values.append(stored.get_tensor(name).astype(np.float32))
        _check_finite(file, name, values[-1])
    model.set_weights(values)


def _check_finite(file: Path, name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise UserError(
            f"{file} is not used: its weight {name} is not finite (nan or infinite), and so nothing that it says would "
            "be. Train the model again, or copy it again"
        )


def _check_size(file: Path, record: Mapping[str, Any]) -> None:
    """Refuse a record whose model is larger than the file, before memory is taken for it."""
    head, shapes = record["head"], list(record["inputs"].values())
    if record["architecture"] in PICTURES_OF:
        return  # of one size, whatever the record says
    wide = head["landmarks" if record["architecture"] == KERNEL else "projection"]
    floats = [channels * wide for _, channels in shapes]
    if record["architecture"] not in ("average", KERNEL):
        floats.append(head["units"] ** 2)
    if record["architecture"] == "attention":
        floats += [steps * head["units"] for steps, _ in shapes]
    if sum(floats) * _LEAST_BYTES > file.stat().st_size:
        raise refused(file, f"{run_folder.CONFIG_NAME} beside it describes a larger model than it holds")


def _names(model: keras.Model) -> list[str]:
    """A name for each weight that is the same whenever the model is built: Keras numbers layers by process."""
    counts: Counter[str] = Counter()
    names = []
    for variable in model.weights:
        name = "/".join(re.sub(r"_\d+$", "", part) for part in variable.path.split("/"))
        counts[name] += 1
        names.append(f"{name}.{counts[name]}")
    return names
