"""Read the arrays of an ONNX file by name. Its graph is not run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from violence_detection.errors import UserError

#: Prefix of the names that PyTorch's exporter makes up for arrays that it has rewritten, such as a linear layer's
#: transposed weight.
_GENERATED = "onnx::"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the float32 arrays of an ONNX file, name -> array as stored.

    An array whose name the exporter made up is named after the node that uses it: `encoder/layer.0/mlp/fc1/MatMul`.
    Raises UserError if the file is not an ONNX file, is damaged, has arrays in other files, or has no such arrays.
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
                raise ValueError(f"the content of {tensor.name} is in another file")
            generated = tensor.name.startswith(_GENERATED)
            name = users.get(tensor.name, tensor.name) if generated else tensor.name
            if tensor.data_type == onnx.TensorProto.FLOAT:
                arrays[name] = numpy_helper.to_array(tensor)
    except (DecodeError, ValueError, TypeError, OSError) as e:
        raise UserError(f"{path} is not a readable ONNX file ({e}). Fetch the file again") from e
    if not arrays:
        raise UserError(
            f"{path} is not a readable ONNX file (it contains no float32 arrays). Fetch the file again"
        )
    return arrays
