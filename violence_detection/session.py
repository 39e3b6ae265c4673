"""What the two training scripts share: settings from flags, devices, data, and how they end."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection import cli, devices, storage, training, training_data
from violence_detection.config import ExtractConfig, FeatureConfig, HeadConfig, TrainConfig
from violence_detection.training_data import Data


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
        return training.run_record(
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
    strategy = devices.set_up(train)
    data = training_data.prepare(features, where, train.selection_fraction, train.seed)
    return Session(where, features, head, train, strategy, data)
