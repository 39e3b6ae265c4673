"""Check what the config of a `.keras` file names: only the layers that our heads are made of are allowed.

Keras creates any object that a config names, with any arguments, before there is a model that could be inspected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from violence_detection.backbones.keras_archive import damaged, refused

_LAYERS = (
    "Activation", "Average", "Bidirectional", "Concatenate", "Conv1D", "Dense", "Dropout", "GRU",
    "GlobalAveragePooling1D", "InputLayer", "LSTM", "LayerNormalization", "MaxPooling1D", "MultiHeadAttention",
    "SpatialDropout1D",
)  # fmt: skip
#: (module, class name, registered name) of everything that a head's config may name, besides our own layers.
_ADMITTED = {
    *(("keras.layers", name, None) for name in _LAYERS),
    *(("keras.initializers", n, None) for n in ("GlorotUniform", "Ones", "Orthogonal", "RandomNormal", "Zeros")),
    ("keras", "DTypePolicy", None),
    ("keras.src.models.functional", "Functional", "Functional"),
    ("keras.src.ops.numpy", "Add", "Add"),
    (None, "__keras_tensor__", None),
}  # fmt: skip
#: Our own layers: registered name -> class name. Their modules have moved between versions. Keras finds the class by
#: its registered name and does not import the module, so any module of this package is accepted.
_OWN_LAYERS = {
    f"violence_detection>{name}": name
    for name in (
        "LandmarkSimilarity",
        "PictureAugmentation",
        "PositionEmbedding",
        "TemporalAttention",
        "VideoTrunk",
    )
}
_ACTIVATIONS = ("gelu", "linear", "sigmoid", "tanh")
#: Keys that no head's config sets: they have to be null or absent.
_MUST_BE_NULL = ("compile_config", "bias_regularizer", "kernel_regularizer", "recurrent_regularizer",
                 "activity_regularizer", "bias_constraint", "kernel_constraint", "recurrent_constraint",
                 "output_shape")  # fmt: skip
#: No head has more bytes of weights than this. What a config claims is never underestimated.
_MOST_BYTES = 4 << 30
#: Exponents in the estimate are cut off here: 2 to this power already exceeds the limit.
_MOST_AXES = 64


def check(path: Path, text: bytes) -> None:
    """Raise UserError unless `text`, the JSON config of the archive `path`, describes a head of acceptable size.

    It may name nothing but the parts of a head.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise damaged(path, e) from e
    if not isinstance(config, dict) or config.get("class_name") != "Functional":
        raise refused(path, "its config does not describe a head")
    config.pop("compile_config", None)  # ignored, since the model is loaded with compile=False
    nodes = list(_nodes(config))
    for node in nodes:
        _check_node(path, node)
    _check_size(path, [node for node in nodes if "class_name" in node])


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in `value`, at any depth."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def _check_node(path: Path, node: dict[str, Any]) -> None:
    if "class_name" in node:
        name, module, registered = node["class_name"], node.get("module"), node.get("registered_name")
        named = (module, name, registered)
        if not all(part is None or isinstance(part, str) for part in named):
            raise refused(path, "a name of a class or module in its config is not text")
        is_own = isinstance(registered, str) and _OWN_LAYERS.get(registered) == name
        if not (is_own and str(module).startswith("violence_detection.")) and named not in _ADMITTED:
            raise refused(path, f"its config names {module}.{name} ({registered})"[:300])
    elif "module" in node or "registered_name" in node:
        raise refused(path, f"its config names {node.get('module')}"[:300])
    for key in ("activation", "recurrent_activation"):
        if node.get(key, _ACTIVATIONS[0]) not in _ACTIVATIONS:
            raise refused(path, f"its config has the activation {node[key]}"[:300])
    if isinstance(axis := node.get("axis"), list) and len(axis) > 1:
        raise refused(path, f"its config has the axes {axis}"[:300])
    if set_ := [key for key in _MUST_BE_NULL if node.get(key) is not None]:
        raise refused(path, f"its config sets {set_[0]}")


def _check_size(path: Path, layers: list[dict[str, Any]]) -> None:
    """Raise UserError for a config that claims too many weights.

    Keras would allocate them, and could fill the memory, before comparing them with the weights in the file.
    """
    inputs = [max(_numbers(x["config"]), default=0) for x in layers if x["class_name"] == "InputLayer"]
    units = [_units(layer) for layer in layers]
    # no layer's input is wider than all inputs and layers concatenated
    widest = sum(inputs) + sum(units)
    weights = 0
    for u, layer in zip(units, layers, strict=True):
        # Keras builds the layer for these shapes, whatever comes before it
        built = list(_numbers(layer.get("build_config")))
        longest = max(built, default=0)
        width = max(widest, longest)
        weights += width + u * (width + u) * _matrices(layer)
        if layer["class_name"] == "PositionEmbedding":
            weights += max(max(units) * max(inputs, default=0), longest ** min(len(built), _MOST_AXES))
    if 4 * weights > _MOST_BYTES:
        raise refused(path, f"its config claims more than {_MOST_BYTES >> 30} GB of weights")


def _units(layer: dict[str, Any]) -> int:
    config = _numbers_of(layer, "units", "filters", "landmarks", "num_heads", "key_dim", "value_dim")
    attention = config["num_heads"] * max(config["key_dim"], config["value_dim"])
    return max(config["units"], config["filters"], config["landmarks"], attention)


def _matrices(layer: dict[str, Any]) -> int:
    """The largest number of weight matrices of a layer, each of at most (width + units) rows and `units` columns."""
    return 4 + _numbers_of(layer, "kernel_size")["kernel_size"]


def _numbers_of(layer: dict[str, Any], *names: str) -> dict[str, int]:
    config = layer.get("config")
    return {n: max(_numbers(config.get(n)), default=0) if isinstance(config, dict) else 0 for n in names}


def _numbers(value: Any) -> Iterator[int]:
    """The magnitudes of the whole numbers in `value`, at any depth."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found
        elif isinstance(found, int) and not isinstance(found, bool):
            yield abs(found)
