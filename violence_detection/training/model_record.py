"""Read config.json of a trained model without trusting it.

Every value that is used later must be present, of the right type, and within bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import UserError
from violence_detection.training import run_folder
from violence_detection.training.config import ARCHITECTURES, KERNEL, PICTURES_OF
from violence_detection.video.config import STREAMS

#: Name -> (type, least, most). The bounds of all these tables are far beyond any real model.
_FEATURES = {
    "frames": (int, 2, 4096), "window_s": (float, 0.01, 3600), "focus": (float, 0, 0.9),
    "motion_spacing_s": (float, 0, 3600), "motion_gain": (float, 0, 1000), "augment_seed": (int, -(2**63), 2**63),
}  # fmt: skip
_HEAD = {
    "projection": (int, 1, 65_536), "units": (int, 2, 65_536),
    "dropout": (float, 0, 0.99), "input_dropout": (float, 0, 0.99),
}  # fmt: skip
_KERNEL_HEAD = {
    "landmarks": (int, 1, 1_000_000),
    "kernel_width": (float, 0, 1e6),
    "kernel_c": (float, 0, 1e12),
}
_TUNED_HEAD = {
    "dropout": (float, 0, 0.99), "tuned_steps": (int, 1, 10_000_000), "tuned_batch_size": (int, 1, 1_000_000),
    "tuned_learning_rate": (float, 0, 1000), "keep_pretrained": (float, 0, 1),
}  # fmt: skip
#: Limits of the shape (T, C) of an input, and of the number of inputs.
_MOST_STEPS, _MOST_CHANNELS, _MOST_INPUTS = 4096, 1_000_000, 100


def read(path: Path) -> dict[str, Any]:
    """Read and check the record of a trained model. Raises UserError naming the file and what is wrong in it."""
    record = run_folder.read_object(path)
    _check_classes(path, record.get("classes", list(CLASS_NAMES)))
    _check_part(path, record, "features", _FEATURES, required=("frames", "window_s"))
    for name in ("backbone", "streams"):
        _expect(path, f"features.{name}", _is_names(record["features"].get(name)), "a list of names")
    _expect(
        path,
        "features.streams",
        set(record["features"]["streams"]) <= set(STREAMS),
        f"streams among {', '.join(STREAMS)}",
    )
    architecture = record.get("architecture")
    _expect(
        path,
        "architecture",
        architecture in ARCHITECTURES,
        f"one of {', '.join(ARCHITECTURES)}",
    )
    head = _TUNED_HEAD if architecture in PICTURES_OF else _KERNEL_HEAD if architecture == KERNEL else _HEAD
    _check_part(path, record, "head", head, required=tuple(head))
    inputs = record.get("inputs")
    is_inputs = (
        isinstance(inputs, dict) and 0 < len(inputs) <= _MOST_INPUTS and all(map(_is_shape, inputs.values()))
    )
    _expect(path, "inputs", is_inputs, "an object with the numbers of steps and features of each input")
    _check_cache_records(path, record)
    _check_part(path, record, "train", {"seed": (int, -(2**63), 2**63)}, required=("seed",))
    counts = {"train": (int, 0, 2**53), "selection": (int, 0, 2**53)}
    _check_part(path, record, "clips", counts, required=tuple(counts))
    for name in ("manifest_sha256", "version"):
        _expect(path, name, isinstance(record.get(name), str), "text")
    _expect(path, "augment", _is_number(record.get("augment"), int, 1, 2**31), "a whole number of at least 1")
    return record


def _check_classes(path: Path, classes: Any) -> None:
    """Raise UserError for a model with other classes, or with ours in another order: its verdicts would be reversed."""
    if classes != list(CLASS_NAMES):
        raise UserError(
            f"{path}: the model's classes are {classes!r}"[:500]
            + f", but these scripts use 0 for {CLASS_NAMES[0]} and 1 for "
            f"{CLASS_NAMES[1]}, so its verdicts would be wrong. Train it again with these scripts"
        )


def _check_part(
    path: Path,
    record: Mapping[str, Any],
    part: str,
    bounds: Mapping[str, tuple[type, float, float]],
    required: tuple[str, ...],
) -> None:
    """Check the numbers in a part of the record. Those not `required` may be absent: code elsewhere has defaults."""
    values = record.get(part)
    _expect(path, part, isinstance(values, dict), "an object")
    for name, (kind, least, most) in bounds.items():
        if name in required or name in values:  # type: ignore[operator]
            is_number = _is_number(values.get(name), kind, least, most)  # type: ignore[union-attr]
            _expect(path, f"{part}.{name}", is_number, f"a number from {least:g} to {most:g}")
    if part == "head":
        _expect(
            path,
            part,
            set(values or ()) == set(bounds),
            f"an object with {', '.join(bounds)} and nothing else",
        )


def _check_cache_records(path: Path, record: Mapping[str, Any]) -> None:
    caches = record.get("feature_records")
    is_each = isinstance(caches, dict) and set(caches) == set(record["inputs"])
    _expect(path, "feature_records", is_each, "an object with the same names as inputs")
    for name, cache in caches.items():  # type: ignore[union-attr]
        texts = (
            [cache.get(k) for k in ("backbone", "stream", "weights_sha256")]
            if isinstance(cache, dict)
            else [None]
        )
        is_record = all(isinstance(text, str) for text in texts)
        _expect(
            path, f"feature_records.{name}", is_record, "an object with backbone, stream and weights_sha256"
        )
    engines = record.get("feature_engines", {})
    is_engines = isinstance(engines, dict) and all(
        names == [] or _is_names(names) for names in engines.values()
    )
    _expect(path, "feature_engines", is_engines, "an object of lists of names")


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and _is_number(value[0], int, 1, _MOST_STEPS)
        and _is_number(value[1], int, 1, _MOST_CHANNELS)
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _is_number(value: Any, kind: type, least: float, most: float) -> bool:
    kinds = (int,) if kind is int else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most


def _expect(path: Path, name: str, is_right: object, what: str) -> None:
    if not is_right:
        raise UserError(
            f"{path}: {name} should be {what}. Copy the file again from where the model was trained, or train it again"
        )
