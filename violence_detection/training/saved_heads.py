"""A trained head on the disk: `.safetensors`, numbers alone from which it is built anew by our code, and `.keras`.

    best_model.safetensors    the weights; config.json beside it has the architecture and its settings
    best_model.keras          the same for whoever opens it with Keras

Nothing but numbers is taken from a file, so one from a stranger can be wrong but do nothing else.
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

_POLICY, _POLICIES = "dtype_policy", ("float32", "mixed_float16", "mixed_bfloat16")
#: What weights may be kept as; half the bytes are enough to judge with.
_FLOATS = {"F32": np.float32, "F16": np.float16}
#: Or as whole numbers of one byte, with the step of each column in a tensor of that name with this end.
_WHOLE, _STEP = "I8", ".step"
_LEAST_BYTES = 1
#: Numbers in a weight from which half precision is worth it; small ones (offsets, scales, sums' shares) matter most.
_LARGE = 4096


def save(model: keras.Model, path: Path) -> None:
    """Write `path`, a `.keras` file, and the weights beside it."""
    with storage.atomic_path(path) as temporary:
        model.save(temporary)
    save_weights(model, run_folder.weights_of(path))


def save_weights(model: keras.Model, path: Path, half: bool = False) -> None:
    """Write the weights, with what the model computes in.

    `half`: large ones as float16, in half of the bytes, or in a quarter where they lie on a grid of whole numbers.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, values in zip(_names(model), model.get_weights(), strict=True):
        small = half and values.size >= _LARGE
        if small and values.ndim == 2 and (split := whole_numbers.split(values)):
            tensors[name], tensors[name + _STEP] = split
            continue
        # a weight that half precision has no number for becomes infinite: refused
        with np.errstate(over="ignore"):
            tensors[name] = np.ascontiguousarray(values, np.float16 if small else np.float32)
    _write(path, tensors, {_POLICY: model.dtype_policy.name})


def save_difference(model: keras.Model, path: Path, published: Path, step: float) -> None:
    """Write the weights of a head with a whole network, those of the network as differences from the published ones.

    `published`: the file of these. `step`: how coarsely, see weight_difference.py.
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
    """Write the file, readable for whom other new files are: safetensors' `save_file` lets its owner alone read it."""
    content = safetensors.numpy.save(tensors, metadata)
    with storage.atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _network_weights(model: keras.Model) -> dict[str, Any]:
    """Of a head with a whole network the variables of that, by name, in its own order."""
    from violence_detection.training import tuned_network

    names = dict(zip(map(id, model.weights), _names(model), strict=True))
    return {names[id(v)]: v for v in model.get_layer(tuned_network.TRUNK).weights}


def _published(model: keras.Model, file: Path) -> list[np.ndarray]:
    """The published weights of its network. Raises UserError if the file does not hold them."""
    from violence_detection.backbones import numpy_pickle
    from violence_detection.backbones.networks import i3d
    from violence_detection.training import tuned_network

    return i3d.folded(model.get_layer(tuned_network.TRUNK).network, numpy_pickle.read_tree(file))


def load(file: Path, published: Path | None = None) -> keras.Model:
    """The trained head in a `.safetensors` or `.keras` file.

    `published`: a file of the published weights, for a head that holds its difference from them; by default it is found
    or fetched as for any backbone. Raises UserError if the file is missing, damaged, or holds anything but one of our
    heads with finite weights, and where the published weights are not those that the difference is from.
    """
    if not file.is_file():
        raise UserError(f"no model at {file}. Train one, or copy the whole folder from where it was made")
    tensorflow_start.gpus()  # the first look at the devices
    if file.suffix == run_folder.WEIGHTS_SUFFIX:
        return _rebuild(file, model_record.read(file.parent / run_folder.CONFIG_NAME), published)
    return _open_archive(file)


def copy_of(model: keras.Model, record: Mapping[str, Any]) -> keras.Model:
    """The head with its weights, built anew in the precision of now, which may be another than it was trained in."""
    copy = _build(record, keras.config.dtype_policy().name)
    copy.set_weights(model.get_weights())
    return copy


def _open_archive(file: Path) -> keras.Model:
    # importing these registers the layers that the file names
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
    """The head that the record describes, with the weights of the file."""
    try:
        with safetensors.safe_open(file, framework="np") as stored:
            told = stored.metadata() or {}
            policy = told.get(_POLICY)
            if policy not in _POLICIES:
                raise refused(file, f"it says {_POLICY} {policy!r}, which is none of {', '.join(_POLICIES)}")
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
    """The file of the published weights that the stored difference is from. Raises UserError where it is not here."""
    if (version := told[weight_difference.VERSION_KEY]) != weight_difference.VERSION:
        known = weight_difference.VERSION
        raise refused(file, f"it holds a difference of version {version!r:.50}; known here is {known}")
    if architecture not in PICTURES_OF:
        raise refused(file, f"a head {architecture} has no published weights to differ from")
    if missing := set(weight_difference.NAMES) - set(stored.keys()):
        raise refused(file, f"it lacks {min(missing)}")
    base = registry.get(PICTURES_OF[architecture]).weights_file(published)
    if (here := storage.sha256_file(base)) != told.get(weight_difference.BASE_KEY):
        raise UserError(
            f"{file} holds a difference from published weights with SHA-256 {told.get(weight_difference.BASE_KEY)}, "
            f"but {base} has {here}. Give the original file with --backbone-weights FILE"
        )
    return base


def _from_difference(model: keras.Model, stored: Any, file: Path, base: Path) -> dict[str, np.ndarray]:
    """The weights of the network by name, from the published ones and the stored difference."""
    parts = {name: stored.get_tensor(name) for name in weight_difference.NAMES}
    try:
        values = weight_difference.decode(parts, _published(model, base))
    except ValueError as e:
        raise refused(file, str(e)) from e
    return dict(zip(_network_weights(model), values, strict=True))


def _fill(model: keras.Model, stored: Any, file: Path, made: Mapping[str, np.ndarray]) -> None:
    """Give the model the stored weights, if they are its own. `made`: those that were made of a stored difference."""
    wanted = dict(zip(_names(model), model.weights, strict=True))
    in_file = (set(wanted) - set(made)) | (set(weight_difference.NAMES) if made else set())
    if other := sorted(_without_steps(stored) ^ in_file):
        raise refused(
            file, f"its weights are not those of the model in {run_folder.CONFIG_NAME} (such as {other[0]})"
        )
    values = []
    for name, variable in wanted.items():
        if name in made:
            values.append(made[name])
            _check_finite(file, name, values[-1])
            continue
        found = stored.get_slice(name)
        kinds = (*_FLOATS, _WHOLE) if name + _STEP in stored.keys() else _FLOATS  # noqa: SIM118 - no dict
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
    """The names of a file's tensors, less those of the steps of whole numbers."""
    names = set(stored.keys())
    return {n for n in names if not (n.endswith(_STEP) and _is_whole(stored, n.removesuffix(_STEP), names))}


def _is_whole(stored: Any, name: str, names: Collection[str]) -> bool:
    return name in names and stored.get_slice(name).get_dtype() == _WHOLE


def _tensor(stored: Any, name: str, file: Path) -> np.ndarray:
    """A tensor as float32, whole numbers times their steps."""
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
            f"{file} is not used: its weight {name} is not finite (nan or infinite), and so nothing that it says would "
            "be. Train the model again, or copy it again"
        )


def _check_size(file: Path, record: Mapping[str, Any]) -> None:
    """Refuse a record whose model is larger than the file, before memory is taken for it."""
    head, shapes = record["head"], list(record["inputs"].values())
    if record["architecture"] in PICTURES_OF:
        return  # of one size, whatever the record says
    wide = head["landmarks" if record["architecture"] == heads.KERNEL else "projection"]
    floats = [channels * wide for _, channels in shapes]
    if record["architecture"] not in ("average", heads.KERNEL):
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
