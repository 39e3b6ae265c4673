"""What a training run reports as the time and the money left."""

from __future__ import annotations

import pytest

from violence_detection.training import training_pace


@pytest.mark.parametrize(
    ("epochs", "said"), [(1, "at most 1 min left"), (120, "at most 16 min left"), (0, "0 min")]
)
def test_less_than_a_minute_is_not_nothing(epochs: int, said: str) -> None:
    pace = training_pace.Pace(usd_per_hour=0.0)
    pace.epoch(samples=100, fit_s=5.0, epoch_s=8.0)
    assert said in pace.line(epochs)
    assert "20 samples/s" in pace.line(epochs)
    assert "USD" not in pace.line(epochs)


def test_what_is_left_has_its_price() -> None:
    pace = training_pace.Pace(usd_per_hour=0.5)
    pace.epoch(samples=100, fit_s=5.0, epoch_s=36.0)
    assert pace.line(200).endswith("at most 120 min left  1.00 USD left")
