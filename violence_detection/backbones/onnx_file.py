"""Read the arrays of an ONNX file by name; nothing of its graph is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from violence_detection.errors import UserError

#: What PyTorch's exporter calls arrays that it has rewritten, such as a linear layer's transposed weight.
_GENERATED = "onnx::"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The float arrays of an ONNX file, name -> array as stored.

    An array whose name the exporter made up is named after the node that takes it, `encoder/layer.0/mlp/fc1/MatMul`.
    Raises UserError if the file is no ONNX file, is damaged, or has arrays in other files.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    try:
        graph = onnx.load_model(path, format="protobuf", load_external_data=False).graph
        users = {name: node.name.strip("/") for node in graph.node for name in node.input}
        arrays: dict[str, np.ndarray] = {}
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise ValueError(f"the content of {tensor.name} lies in another file")
            generated = tensor.name.startswith(_GENERATED)
            name = users.get(tensor.name, tensor.name) if generated else tensor.name
            if tensor.data_type == onnx.TensorProto.FLOAT:
                arrays[name] = numpy_helper.to_array(tensor)
    except (DecodeError, ValueError, TypeError, OSError) as e:
        raise UserError(f"{path} is not a readable ONNX file ({e}). Fetch the file again") from e
    if not arrays:
        raise UserError(f"{path} is not a readable ONNX file (it holds no arrays). Fetch the file again")
    return arrays
