"""Train one head on cached features. A run that was killed is continued as if it had not been interrupted.

An epoch depends only on the state at its start, the seed, and its number: the order of clips, their variants and
dropout are drawn from these. The state at the end of each epoch is on disk: model, optimiser, schedule, early stopping
and history. If the device's memory is full, the epoch begins again from that state, with fewer clips on the device at a
time.

If the record has a number of steps (step_plan.py), the last epoch ends with the last step, and the model at that point
is kept. A run without a selection part needs this, since nothing can choose an epoch.

The files of a run are listed in run_folder.py.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from violence_detection.constants import CLASS_NAMES, __version__
from violence_detection.features import key
from violence_detection.features.config import FeatureConfig
from violence_detection.training import (
    activation_ranges,
    damaged_run,
    fine_tuning,
    given_weights,
    kernel_fit,
    micro_batches,
    run_folder,
    step_plan,
    trained_clips,
)
from violence_detection.training.config import KERNEL, PICTURES_OF, HeadConfig, TrainConfig
from violence_detection.training.run_folder import Trained
from violence_detection.training.training_data import Data
from violence_detection.training.training_run import TrainingRun

log = logging.getLogger(__name__)


def run_record(
    architecture: str, data: Data, features: FeatureConfig, augment: int, head: HeadConfig, train: TrainConfig
) -> dict[str, Any]:
    """Everything that decides the outcome of a run, and everything that prediction needs: saved as config.json."""
    asked = settings_record(architecture, features, augment, head, train)
    distinct = int(data.train.rows.clip_id.nunique())
    repeated = {} if distinct == len(data.train) else {run_folder.DISTINCT_KEY: distinct}
    plan = (
        {step_plan.RECORD_KEY: dataclasses.asdict(fine_tuning.plan(head))}
        if architecture in PICTURES_OF
        else {}
    )
    return {
        run_folder.VERSION_KEY: __version__,
        "classes": list(CLASS_NAMES),
        **asked,
        "inputs": {name: list(shape) for name, shape in sorted(data.train.shapes().items())},
        "feature_records": data.records,
        "feature_engines": data.engines,
        run_folder.MANIFEST_KEY: data.manifest_sha256,
        "clips": {"train": len(data.train), "selection": len(data.selection)},
        "generated_samples": data.generated,
        **repeated,
        **plan,
    }


def settings_record(
    architecture: str, features: FeatureConfig, augment: int, head: HeadConfig, train: TrainConfig
) -> dict[str, Any]:
    """The part of a run's record that is known before features are extracted."""
    if architecture in PICTURES_OF:
        train = fine_tuning.train_config(head, train)
    return {
        "architecture": architecture,
        "features": key.as_recorded(features),
        "augment": augment,
        "head": head.recorded(architecture),
        "train": dataclasses.asdict(train),
    }


def check_folder(folder: Path, known: Mapping[str, Any]) -> None:
    """Raise UserError if a run cannot be made in `folder`. Called before features are extracted, which may take hours.

    `known`: the part of the run's record that is known by then.
    """
    if wrong := damaged_run.fault(folder):
        raise damaged_run.refusal(wrong)
    if (config := folder / run_folder.CONFIG_NAME).is_file():
        record = {**run_folder.read_object(config), **known}
        if run_folder.holds_another(folder, record):
            raise run_folder.refusal(folder, record)


def log_settings(record: Mapping[str, Any]) -> None:
    """Log the settings of a run, with the values that config.json will have."""
    log.info("settings: preset %s, %s", record.get("preset", "none"), record["architecture"])
    for group in ("features", "head", "train"):
        log.info("  %s: %s", group, json.dumps(record[group], sort_keys=True))
    log.info("  augment: %s", record["augment"])


def check_batch(architecture: str, config: TrainConfig, clips: int, replicas: int) -> None:
    """Raise UserError if batches of `clips` train clips on `replicas` devices cannot be divided as `config` asks."""
    # the kernel head is not trained in batches
    if architecture != KERNEL:
        micro_batches.parts_of(min(config.batch_size, clips), replicas, config.accumulate)


def train(
    record: Mapping[str, Any],
    data: Data,
    folder: Path,
    strategy: Any,
    overwrite: bool = False,
    start: Path | None = None,
    usd_per_hour: float = 0.0,
    backbone_weights: Path | None = None,
) -> Trained:
    """Train the head that `record` describes in `folder`, or continue the run there if it was killed.

    A run that has finished is returned as it is. `start`: a model of the same architecture whose weights training
    starts from, instead of random ones. `usd_per_hour`: price of the machine, for the cost that remains, which the log
    shows. `backbone_weights`: the file of published weights from which a head with a whole network starts, by default
    the backbone's own.

    A head that is trained in epochs on data without a selection part needs a record with a step plan.

    Raises UserError if the folder holds a run with other settings, or one with damaged or lost files (`overwrite` then
    trains again from the beginning instead), if the loss becomes nan or infinite, or if a single clip at a time does
    not fit into the device's memory.
    """
    trained = _trained(record, data, folder, strategy, overwrite, start, usd_per_hour, backbone_weights)
    if record["architecture"] in PICTURES_OF:
        # also for a run that an earlier version finished, which has no ranges
        activation_ranges.ensure(folder, data.train)
    return trained


def _trained(
    record: Mapping[str, Any],
    data: Data,
    folder: Path,
    strategy: Any,
    overwrite: bool,
    start: Path | None,
    usd_per_hour: float,
    backbone_weights: Path | None,
) -> Trained:
    config = TrainConfig(**record["train"])
    # before config.json is written, which would claim the folder for these settings
    check_batch(record["architecture"], config, len(data.train), strategy.num_replicas_in_sync)
    wrong = damaged_run.fault(folder)
    if wrong and not overwrite:
        raise damaged_run.refusal(wrong)
    other = not wrong and run_folder.holds_another(folder, record)
    if other and not overwrite:
        raise run_folder.refusal(folder, record)
    is_to_train = wrong or other or not run_folder.finished(folder)
    # before an earlier run in the folder is removed
    weights = _weights_it_takes(record, folder, backbone_weights) if is_to_train else None
    if wrong:
        log.warning("%s. With --overwrite, training begins again in the same folder", wrong)
        run_folder.clear(folder)
    finished = run_folder.claim_folder(folder, record, overwrite)
    # also for a run that an earlier version finished, which has no table
    if not finished or not trained_clips.has_table(folder):
        by_role = {trained_clips.TRAIN: data.train.rows, trained_clips.SELECTION: data.selection.rows}
        trained_clips.write(folder, by_role, [start.parent] if start else [])
    if finished:
        log.info("%s: finished earlier, nothing to do", folder)
        return finished
    if record["architecture"] == KERNEL:
        return kernel_fit.fit(record, data, folder)
    if run_folder.GIVEN_KEY in record:
        return given_weights.take(record, data, folder)
    if not fine_tuning.is_tuned(record):
        return TrainingRun(record, data, folder, strategy, start, usd_per_hour, None).run()
    with fine_tuning.precision(config):
        return TrainingRun(record, data, folder, strategy, start, usd_per_hour, weights).run()


def _weights_it_takes(record: Mapping[str, Any], folder: Path, backbone_weights: Path | None) -> Path | None:
    """The file of published weights that a whole network starts from; None if weights are given, or for other heads.

    Raises UserError if the file is not available, or if given weights do not fit.
    """
    if run_folder.GIVEN_KEY in record:
        given_weights.check(record, folder)
    elif fine_tuning.is_tuned(record):
        return fine_tuning.published_weights(record, backbone_weights)
    return None
