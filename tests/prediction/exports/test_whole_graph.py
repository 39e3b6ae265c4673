"""The exported graph computes from its members' logits the same probability as the model."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import synthetic

from violence_detection.models.calibration import Calibration
from violence_detection.models.trained_model import Member, TrainedModel
from violence_detection.prediction.exports import portable_layers, whole_graph
from violence_detection.training import heads


def test_members_are_averaged_as_in_the_model() -> None:
    keras.utils.set_random_seed(0)
    shapes = {"a.rgb": (6, 12)}
    built = [heads.build("average", shapes, synthetic.HEAD) for _ in range(2)]
    logits = [portable_layers.unrolled_logits(model) for model in built]
    values = np.random.default_rng(0).normal(0, 3, (6, 12)).astype(np.float16).astype(np.float32)
    seen = set()
    for own, temperature in (
        ((None, None), None),
        ((None, None), 0.6),
        ((0.4, 2.5), None),
        ((0.4, 2.5), 0.6),
    ):
        members = tuple(
            Member(name, head, weight, t)
            for name, head, weight, t in zip(("one", "other"), built, (0.25, 0.75), own, strict=True)
        )
        found = Calibration(temperature)
        model = TrainedModel(Path(), (), members, synthetic.FEATURES, {}, calibration=found)
        p = whole_graph._judged(model, whole_graph._logits(logits, {"a.rgb": values}))
        expected = model.average(model.predict({"a.rgb": values[None]}))
        np.testing.assert_allclose(np.asarray(p)[0], expected, rtol=1e-5)
        seen.add(round(float(expected[0]), 4))
    assert len(seen) == 4, "each way gives another"
