"""Networks of Keras and TensorFlow as OpenVINO has them."""

from __future__ import annotations

import warnings
from typing import Any


def converted(model: Any) -> Any:
    """A Keras model, or a function that TensorFlow has traced, as an openvino.Model with weights of its own."""
    import openvino as ov

    _import_nothing_by_statement()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The structure of `inputs`")  # it is traced with a tuple
        # a copy of the weights: those that it would share with the Keras model go when that is collected
        return ov.convert_model(model, share_weights=False)


def _import_nothing_by_statement() -> None:
    """Have OpenVINO not run `exec("import tensorflow")` and `exec("del tensorflow")`, with which it asks for a version.

    From Python 3.13 on (PEP 667) the second finds nothing to delete, and OpenVINO 2026.4 converts no model.
    """
    import tensorflow  # noqa: F401 - where OpenVINO looks for it, in sys.modules
    from openvino.frontend.tensorflow import utils

    utils.exec = lambda _statement: None
