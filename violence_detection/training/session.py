"""What the two training scripts share: settings from flags, devices, data, and how they end."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection import cli
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.system import storage
from violence_detection.training import devices, trainer, training_data
from violence_detection.training.config import HeadConfig, TrainConfig
from violence_detection.training.training_data import Data

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """One run of a training script."""

    where: ExtractConfig
    features: FeatureConfig
    head: HeadConfig
    train: TrainConfig
    strategy: Any
    data: Data

    def record(self, architecture: str) -> dict[str, Any]:
        """The config.json of a head of that architecture trained in this session."""
        return trainer.run_record(
            architecture, self.data, self.features, self.where.augment, self.head, self.train
        )

    def finish(self, output: Path) -> int:
        """Write the failures file; the exit code says whether there were failures."""
        storage.write_failures(output / "failures.csv", self.data.failures)
        return cli.exit_code(self.data.failures)


def prepare(args: argparse.Namespace) -> Session:
    """Start devices first (TensorFlow cannot change them later), then extract what is missing and load it."""
    where, features = cli.build(ExtractConfig, args), cli.build(FeatureConfig, args)
    head, train = cli.build(HeadConfig, args), cli.build(TrainConfig, args)
    training_data.check(features, where)
    trainer.check(train)
    strategy = devices.set_up(train)
    data = training_data.prepare(features, where, train.selection_fraction, train.seed)
    return Session(where, features, head, train, strategy, data)


def log_settings(record: Mapping[str, Any]) -> None:
    """Print what decides the outcome of a run, as config.json will hold it."""
    log.info("settings: preset %s, %s", record.get("preset", "none"), record["architecture"])
    for group in ("features", "head", "train"):
        log.info("  %s: %s", group, json.dumps(record[group], sort_keys=True))
    log.info("  augment: %s", record["augment"])
