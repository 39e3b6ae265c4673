"""test_violence_model.py with a model that judges by brightness, for a test of the code around the model."""

from __future__ import annotations

import live_parts

import test_violence_model
from violence_detection import cli
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.live import live_model


def load(config: PredictConfig) -> live_parts.BrightnessModel:
    return live_parts.BrightnessModel()


if __name__ == "__main__":
    live_model.load = load
    cli.run_main(test_violence_model.main)
