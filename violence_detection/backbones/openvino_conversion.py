"""Convert networks of Keras and TensorFlow to OpenVINO."""

from __future__ import annotations

import warnings
from typing import Any


def converted(model: Any) -> Any:
    """Convert a Keras model, or a function traced by TensorFlow, to an openvino.Model with a copy of the weights."""
    import openvino as ov

    _import_nothing_by_statement()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The structure of `inputs`")  # traced with a tuple
        # Weights shared with the Keras model would be freed when that is garbage-collected.
        return ov.convert_model(model, share_weights=False)


def _import_nothing_by_statement() -> None:
    """Keep OpenVINO from running `exec("import tensorflow")` and `exec("del tensorflow")` to learn a version.

    From Python 3.13 on (PEP 667) the second statement finds nothing to delete, so that OpenVINO 2026.4 converts no
    model.
    """
    import tensorflow  # noqa: F401 - OpenVINO looks for it in sys.modules
    from openvino.frontend.tensorflow import utils

    utils.exec = lambda _statement: None
