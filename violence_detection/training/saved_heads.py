"""Save and load a trained head: its weights as `.safetensors`, and the whole model as `.keras`.

    best_model.safetensors    the weights; config.json beside it contains the architecture and its settings
    best_model.keras          the same model, for whoever opens it with Keras

A `.safetensors` file contains only numbers; our code builds the head for them. A file from a stranger can therefore
make the head judge wrongly, but cannot run code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors
import safetensors.numpy

from violence_detection.backbones import registry
from violence_detection.backbones.keras_archive import damaged, read_config, refused
from violence_detection.errors import UserError
from violence_detection.system import storage, tensorflow_start
from violence_detection.training import (
    archive_config,
    heads,
    model_record,
    run_folder,
    weight_difference,
    whole_numbers,
)
from violence_detection.training.config import PICTURES_OF

#: Key in the metadata of a `.safetensors` file: the Keras dtype policy that the head computes in.
_POLICY = "dtype_policy"
_POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
#: Data types that weights may be stored in. Half precision is enough to judge with.
_FLOATS = {"F32": np.float32, "F16": np.float16}
#: A weight may also be stored as whole numbers of one byte.
_INT8 = "I8"
#: The tensor with the step of each of its columns has the weight's name and this suffix.
_STEP = ".step"
#: The fewest bytes that a number is stored in.
_LEAST_BYTES = 1
#: Weights with fewer numbers than this (offsets, scales) are always stored as float32: little space would be saved, and
#: their rounding errors matter most.
_LARGE = 4096


def save(model: keras.Model, path: Path) -> None:
    """Write `path`, a `.keras` file, and the `.safetensors` file beside it."""
    with storage.atomic_path(path) as temporary:
        model.save(temporary)
    save_weights(model, run_folder.weights_of(path))


def save_weights(model: keras.Model, path: Path, half: bool = False) -> None:
    """Write the weights and the model's dtype policy to a `.safetensors` file.

    `half`: store large weights as float16, in half the bytes, or as int8, in a quarter of the bytes, if that is exact
    (whole_numbers.py).
    """
    tensors: dict[str, np.ndarray] = {}
    for name, values in zip(_names(model), model.get_weights(), strict=True):
        small = half and values.size >= _LARGE
        if small and values.ndim == 2 and (split := whole_numbers.split(values)):
            tensors[name], tensors[name + _STEP] = split
            continue
        # a value beyond the range of float16 becomes infinite, and loading the file is then refused
        with np.errstate(over="ignore"):
            tensors[name] = np.ascontiguousarray(values, np.float16 if small else np.float32)
    _write(path, tensors, {_POLICY: model.dtype_policy.name})


def save_difference(model: keras.Model, path: Path, published: Path, step: float) -> None:
    """Write the weights of a head with a whole network, the network's as differences from the published ones.

    `published`: the file of the published weights. `step`: how coarsely differences are rounded, see
    weight_difference.py.
    """
    own = _network_weights(model)
    base = _published(model, published)
    tensors = weight_difference.encode([w.numpy() for w in own.values()], base, step)
    rest = dict(zip(_names(model), model.get_weights(), strict=True))
    tensors |= {name: values.astype(np.float32) for name, values in rest.items() if name not in own}
    told = {
        _POLICY: model.dtype_policy.name,
        weight_difference.VERSION_KEY: weight_difference.VERSION,
        weight_difference.BASE_KEY: storage.sha256_file(published),
    }
    _write(path, tensors, told)


def _write(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write the file with the usual permissions of new files: `save_file` of safetensors makes it private."""
    content = safetensors.numpy.save(tensors, metadata)
    with storage.atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _network_weights(model: keras.Model) -> dict[str, Any]:
    """The variables of the whole network in a head, by name, in the network's own order."""
    from violence_detection.training import tuned_network

    names = dict(zip(map(id, model.weights), _names(model), strict=True))
    return {names[id(v)]: v for v in model.get_layer(tuned_network.TRUNK).weights}


def _published(model: keras.Model, file: Path) -> list[np.ndarray]:
    """Read the published weights of the head's network, in its own order.

    Raises UserError if the file does not contain them.
    """
    from violence_detection.backbones import numpy_pickle
    from violence_detection.backbones.networks import i3d
    from violence_detection.training import tuned_network

    return i3d.folded(model.get_layer(tuned_network.TRUNK).network, numpy_pickle.read_tree(file))


def load(file: Path, published: Path | None = None) -> keras.Model:
    """Load the trained head in a `.safetensors` or `.keras` file.

    `published`: the file of the published weights, for a head stored as a difference from them; by default it is found
    or fetched as for any backbone. Raises UserError if the head's file is missing, damaged, or contains anything but
    one of our heads with finite weights, or if the difference was made from other published weights.
    """
    if not file.is_file():
        raise UserError(f"no model at {file}. Train one, or copy the whole folder from where it was made")
    tensorflow_start.gpus()  # first, since it suppresses the lines that TensorFlow prints when it finds its devices
    if file.suffix == run_folder.WEIGHTS_SUFFIX:
        return _rebuild(file, model_record.read(file.parent / run_folder.CONFIG_NAME), published)
    return _open_archive(file)


def copy_of(model: keras.Model, record: Mapping[str, Any]) -> keras.Model:
    """Build the head again, with the same weights, in Keras' current precision, which may not be that of training."""
    copy = _build(record, keras.config.dtype_policy().name)
    copy.set_weights(model.get_weights())
    return copy


def _open_archive(file: Path) -> keras.Model:
    # importing these two modules registers the layers that the file names
    from violence_detection.training import tuned_network

    assert heads.ARCHITECTURES
    assert tuned_network.TRUNK
    archive_config.check(file, read_config(file))
    try:
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise damaged(file, e) from e
    for name, values in zip(_names(model), model.get_weights(), strict=True):
        _check_finite(file, name, values)
    return model


def _rebuild(file: Path, record: Mapping[str, Any], published: Path | None) -> keras.Model:
    """Build the head that the record describes, with the weights in the file."""
    try:
        with safetensors.safe_open(file, framework="np") as stored:
            told = stored.metadata() or {}
            policy = told.get(_POLICY)
            if policy not in _POLICIES:
                raise refused(file, f"its {_POLICY} is {policy!r}, not one of {', '.join(_POLICIES)}")
            _check_size(file, record)
            base = None
            if weight_difference.VERSION_KEY in told:
                base = _base_of_difference(stored, file, told, record["architecture"], published)
            model = _build(record, policy)
            _fill(model, stored, file, _from_difference(model, stored, file, base) if base else {})
    except (safetensors.SafetensorError, OSError) as e:
        raise damaged(file, e) from e
    return model


def _build(record: Mapping[str, Any], policy: str) -> keras.Model:
    with heads.computing_in(policy):
        return heads.of_record(record)


def _base_of_difference(
    stored: Any, file: Path, told: Mapping[str, str], architecture: str, published: Path | None
) -> Path:
    """Find the file of published weights from which the stored difference was made.

    Raises UserError if it is not here.
    """
    if (version := told[weight_difference.VERSION_KEY]) != weight_difference.VERSION:
        known = weight_difference.VERSION
        raise refused(
            file, f"it holds a difference in format {version!r:.50}; this version reads format {known}"
        )
    if architecture not in PICTURES_OF:
        raise refused(
            file, f"it holds a difference from published weights, but a head {architecture} has none"
        )
    if missing := set(weight_difference.NAMES) - set(stored.keys()):
        raise refused(file, f"it lacks {min(missing)}")
    base = registry.get(PICTURES_OF[architecture]).weights_file(published)
    if (here := storage.sha256_file(base)) != told.get(weight_difference.BASE_KEY):
        raise UserError(
            f"{file} holds a difference from published weights with SHA-256 {told.get(weight_difference.BASE_KEY)}, "
            f"but {base} has SHA-256 {here}. Give the original file with --backbone-weights FILE"
        )
    return base


def _from_difference(model: keras.Model, stored: Any, file: Path, base: Path) -> dict[str, np.ndarray]:
    """Compute the network's weights from the published ones and the stored difference. Returns name -> values."""
    parts = {name: stored.get_tensor(name) for name in weight_difference.NAMES}
    try:
        values = weight_difference.decode(parts, _published(model, base))
    except ValueError as e:
        raise refused(file, str(e)) from e
    return dict(zip(_network_weights(model), values, strict=True))


def _fill(model: keras.Model, stored: Any, file: Path, made: Mapping[str, np.ndarray]) -> None:
    """Set the model's weights to the stored ones. Raises UserError unless they fit it.

    `made`: name -> values of the weights that were computed from a stored difference.
    """
    wanted = dict(zip(_names(model), model.weights, strict=True))
    in_file = (set(wanted) - set(made)) | (set(weight_difference.NAMES) if made else set())
    if other := sorted(_without_steps(stored) ^ in_file):
        raise refused(
            file,
            f"its weights are not those of the model in {run_folder.CONFIG_NAME} (for example {other[0]})",
        )
    values = []
    for name, variable in wanted.items():
        if name in made:
            values.append(made[name])
            _check_finite(file, name, values[-1])
            continue
        found = stored.get_slice(name)
        kinds = (*_FLOATS, _INT8) if name + _STEP in stored.keys() else _FLOATS  # noqa: SIM118 - not a dict
        if found.get_dtype() not in kinds or tuple(found.get_shape()) != tuple(variable.shape):
            raise refused(
                file,
                f"{name} is {found.get_dtype()} {tuple(found.get_shape())}, but the model in {run_folder.CONFIG_NAME} "
                f"has {' or '.join(_FLOATS)} {tuple(variable.shape)}",
            )
        values.append(_tensor(stored, name, file))
        _check_finite(file, name, values[-1])
    model.set_weights(values)


def _without_steps(stored: Any) -> set[str]:
    """The names of a file's tensors, without those that contain the steps of whole numbers."""
    names = set(stored.keys())
    return {n for n in names if not (n.endswith(_STEP) and _is_whole(stored, n.removesuffix(_STEP), names))}


def _is_whole(stored: Any, name: str, names: Collection[str]) -> bool:
    return name in names and stored.get_slice(name).get_dtype() == _INT8


def _tensor(stored: Any, name: str, file: Path) -> np.ndarray:
    """Read a tensor as float32; whole numbers are multiplied by their steps."""
    values = stored.get_tensor(name)
    if values.dtype != np.int8:
        return values.astype(np.float32)
    step = stored.get_tensor(name + _STEP)
    if step.dtype != np.float32 or step.shape != values.shape[-1:]:
        raise refused(file, f"{name + _STEP} is {step.dtype} {step.shape}, not float32 {values.shape[-1:]}")
    return whole_numbers.joined(values, step)


def _check_finite(file: Path, name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise UserError(
            f"{file} is not used: its weight {name} is not finite (nan or infinite), so its predictions would not be "
            "either. Train the model again, or copy it again"
        )


def _check_size(file: Path, record: Mapping[str, Any]) -> None:
    """Raise UserError if the record describes a larger model than the file can contain, before it is built."""
    head, shapes = record["head"], list(record["inputs"].values())
    if record["architecture"] in PICTURES_OF:
        return  # the network has the same size whatever the record says
    wide = head["landmarks" if record["architecture"] == heads.KERNEL else "projection"]
    floats = [channels * wide for _, channels in shapes]
    if record["architecture"] not in ("average", heads.KERNEL):
        floats.append(head["units"] ** 2)
    if record["architecture"] == "attention":
        floats += [steps * head["units"] for steps, _ in shapes]
    if sum(floats) * _LEAST_BYTES > file.stat().st_size:
        raise refused(file, f"{run_folder.CONFIG_NAME} beside it describes a larger model than it holds")


def _names(model: keras.Model) -> list[str]:
    """A name for each weight that is the same each time the model is built.

    Keras' own names are not: they contain a number that counts the layers created by the process.
    """
    counts: Counter[str] = Counter()
    names = []
    for variable in model.weights:
        name = "/".join(re.sub(r"_\d+$", "", part) for part in variable.path.split("/"))
        counts[name] += 1
        names.append(f"{name}.{counts[name]}")
    return names
