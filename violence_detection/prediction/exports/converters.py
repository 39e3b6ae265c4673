"""Convert a traced graph to the file of each format, with the converter that the format's makers or Keras use."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.backbones import openvino_conversion
from violence_detection.errors import UserError
from violence_detection.system import disks, storage

#: The version of the ONNX operator set.
ONNX_OPSET = 18


@dataclass(frozen=True)
class ExportFormat:
    """How a format is written.

    `files`: names of the files; a runtime opens the first. `packages`: what must be installed to write and to run the
    format, name of the import -> name for pip. `write`: writes a graph to a path. `two_dimensional`: see
    whole_graph.trace.
    """

    files: tuple[str, ...]
    packages: Mapping[str, str]
    write: Callable[[Any, Path], None]
    two_dimensional: bool = False


def write(name: str, graph: Any, folder: Path) -> Path:
    """Write a graph of whole_graph.trace to `folder` in format `name`; return the file that a runtime opens.

    Raises UserError if the format cannot hold the graph.
    """
    path = folder / FORMATS[name].files[0]
    try:
        FORMATS[name].write(graph, path)
    except Exception as e:
        if disks.disk_trouble(e):
            raise
        reason = " ".join(str(e).split())[:600] or type(e).__name__
        others = ", ".join(other for other in FORMATS if other != name)
        raise UserError(
            f"this model cannot be written as {name}: {reason}. Try another format: {others}"
        ) from e
    return path


def check_installed(name: str) -> None:
    """Raise UserError if a package that the format needs is missing."""
    packages = FORMATS[name].packages
    missing = [pip for module, pip in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(
            f"--export {name} needs packages that are not installed. Run: pip install {' '.join(missing)}"
        )


def _write_onnx(graph: Any, path: Path) -> None:
    import onnx
    import tensorflow as tf
    import tf2onnx

    _, by_name = graph.structured_input_signature
    # the converter passes arguments by position, the graph takes them by name
    by_place = tf.function(
        lambda *pictures: graph(**dict(zip(by_name, pictures, strict=True))),
        input_signature=list(by_name.values()),
    )
    converted, _ = tf2onnx.convert.from_function(
        by_place, by_place.input_signature, opset=ONNX_OPSET, custom_op_handlers={"Erfc": (_one_less_erf, [])}
    )
    # the converter leaves operations that it does not know as they are; the check finds them
    onnx.checker.check_model(converted)
    with storage.atomic_path(path) as temporary:
        temporary.write_bytes(converted.SerializeToString())


def _one_less_erf(graph: Any, node: Any, *_: Any) -> None:
    """Replace TensorFlow's Erfc, which its GELU uses and ONNX lacks, by 1 - Erf."""
    shape, dtype = graph.get_shape(node.output[0]), graph.get_dtype(node.output[0])
    one = graph.make_const(f"{node.name}/one", np.ones((), np.float32))
    erf = graph.make_node("Erf", node.input, shapes=[shape], dtypes=[dtype])
    graph.remove_node(node.name)
    operands = [one.output[0], erf.output[0]]
    graph.make_node("Sub", operands, outputs=node.output, shapes=[shape], dtypes=[dtype])


def _write_openvino(graph: Any, path: Path) -> None:
    import openvino as ov

    converted = openvino_conversion.converted(graph)
    # by default save_model stores float32 weights as float16
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        ov.save_model(converted, Path(folder) / path.name, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            (Path(folder) / path.name).with_suffix(suffix).replace(path.with_suffix(suffix))


def _write_tflite(graph: Any, path: Path) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], graph.owner)
    # no operations that need TensorFlow at run time
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    with storage.atomic_path(path) as temporary:
        temporary.write_bytes(converter.convert())


FORMATS: Mapping[str, ExportFormat] = {
    "onnx": ExportFormat(("model.onnx",), {"tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime"}, _write_onnx),
    "openvino": ExportFormat(("model.xml", "model.bin"), {"openvino": "openvino"}, _write_openvino),
    "tflite": ExportFormat(
        ("model.tflite",), {"ai_edge_litert": "ai-edge-litert"}, _write_tflite, two_dimensional=True
    ),
}
