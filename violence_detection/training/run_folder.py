"""The folder of a training run: what stands in it under which name, and whose it is.

<folder>/config.json            settings and preprocessing, written first
<folder>/trained_on.csv         the clips it was made with, see trained_clips.py
<folder>/training_log.csv       a row an epoch
<folder>/tensorboard_logs/      train/ and selection/
<folder>/checkpoint/            the state at the end of the last epoch
<folder>/best_model.safetensors, .keras    the epoch with the lowest selection loss; with `--keep last`, or without a
                                           selection part, the last; of a fine-tuned network the average that
                                           fine_tuning.py makes at the end
<folder>/final_model.safetensors, .keras   the last epoch
<folder>/result.json            the completion record, written last
<folder>/activation_ranges.json of a whole network, for judging in 8 bits: see activation_ranges.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

from violence_detection.errors import UserError
from violence_detection.system import storage

BEST_NAME, FINAL_NAME = "best_model.keras", "final_model.keras"
CONFIG_NAME, RESULT_NAME, LOG_NAME = "config.json", "result.json", "training_log.csv"
CLIPS_NAME = "trained_on.csv"
#: Of a whole network, see training/activation_ranges.py.
RANGES_NAME = "activation_ranges.json"
#: What stands beside a member's file of weights and goes wherever it goes, as far as it is there.
BESIDE = (CONFIG_NAME, RESULT_NAME, CLIPS_NAME, RANGES_NAME)
#: Of a model's two files the one that is loaded, and the other.
WEIGHTS_SUFFIX, ARCHIVE_SUFFIX = ".safetensors", ".keras"
#: Beside the folders of an ensemble's members: which they are, and their weights.
ENSEMBLE_NAME = "ensemble.json"
#: Where ensemble.json, or config.json of a single model, has temperature and thresholds; see models/calibration.py.
CALIBRATION_KEY = "calibration"
BOARD_NAME, CHECKPOINT_FOLDER = "tensorboard_logs", "checkpoint"
#: Below an ensemble's folder: the figures of its folds, the ensemble of members tuned on hard clips, and the final fit.
FOLDS_RECORD_NAME, TUNED_FOLDER, FINAL_FOLDER = "cross_validation.json", "hard", "final"
#: How many folds a cross-validation has that was begun and has not yet its record.
FOLDS_BEGUN_NAME = "cross_validation_begun.json"
#: In the record of the folds, where the members' logits are averaged: by member the mean of the temperatures that they
#: gave it.
FOLD_TEMPERATURES_KEY = "member_temperatures"
#: In the records of the folds and of data sets left out: the command that had them judged.
FOLD_COMMAND_KEY = "command"
#: In ensemble.json: the data sets that it selects and is measured on, without those that were added to train on alone.
MEASURED_KEY = "measured_datasets"
#: Beside an ensemble: what leaving out a data set gave, see ensemble/leave_one_out.py.
LEFT_OUT_NAME = "leave_one_dataset_out.json"
#: Where ensemble.json of a final fit says what its folds chose and what they gave; see ensemble/final_fit.py.
EVERY_CLIP_KEY = "trained_on_every_clip"
FINAL_KEY = "final_fit"
#: And there, that data sets left out chose, not folds by source.
BY_LEFT_OUT_KEY = "by_left_out"
#: Where config.json has the SHA-256 of weights that were given and not trained; see training/given_weights.py.
GIVEN_KEY = "given_weights_sha256"
#: Where config.json of an ensemble's member has the hash of all that decides its outcome.
JOB_KEY = "job"
#: Where config.json of a member, and the record of the folds, have the hash of what the clips were taken for.
LABELS_KEY = "labels_sha256"
#: Where config.json has the hash of the manifest.
MANIFEST_KEY = "manifest_sha256"
#: Where config.json has the version of this package that trains.
VERSION_KEY = "version"
#: Where config.json has the number of clips trained on, if some are drawn several times an epoch; `clips` counts draws.
DISTINCT_KEY = "distinct_train_clips"
#: What of config.json does not decide the outcome, see `_outcome`.
_NO_OUTCOME = ("feature_engines", CALIBRATION_KEY, LABELS_KEY, DISTINCT_KEY)
#: What makes a record again, where that takes more, or does less, than the command that trained the model.
_MADE_BY = {
    FOLDS_BEGUN_NAME: "the command that began it and --cross-validate K, the number of its folds",
    ENSEMBLE_NAME: "the command that made it; train_ensemble_models.py trains nothing again",
    FOLDS_RECORD_NAME: "the train_ensemble_models.py command that trained the model and --cross-validate K, the number "
    "of its folds: they are judged anew, none that is there is trained again, and --overwrite has no part in it",
    LEFT_OUT_NAME: "the train_ensemble_models.py command with --leave-one-dataset-out that made it, which trains "
    "nothing again",
    CLIPS_NAME: "the command that trained the model, which trains nothing again",
}
#: So many differences of two records are told, and so many characters of a value.
_TOLD, _TOLD_CHARACTERS = 5, 60
#: No record of ours is nearly as large.
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Trained:
    """A finished training run. `selection_accuracy`: None where there was no selection part."""

    folder: Path
    selection_accuracy: float | None
    best_epoch: int
    epochs_run: int
    samples_per_second: float

    @property
    def model_path(self) -> Path:
        return self.folder / BEST_NAME

    def write(self) -> None:
        """Write result.json, the completion record."""
        values = {k: v for k, v in asdict(self).items() if k != "folder"}
        storage.write_json(self.folder / RESULT_NAME, values)


def finished(folder: Path) -> Trained | None:
    """The result of the run in `folder`; None if it has not come to its end."""
    path = folder / RESULT_NAME
    return read_result(path) if path.is_file() else None


def read_result(path: Path) -> Trained:
    """The finished run that result.json tells of. Raises UserError naming the file if it is damaged."""
    values = read_object(path)
    try:
        found = Trained(folder=path.parent, **values)
    except TypeError as e:
        raise damaged(path, str(e)) from e
    share = found.selection_accuracy
    wrong = {
        "selection_accuracy": share is not None and not (_is_number(share) and share <= 1),
        "best_epoch": not is_count(found.best_epoch),
        "epochs_run": not is_count(found.epochs_run),
        "samples_per_second": not _is_number(found.samples_per_second),
    }
    if odd := [name for name, is_wrong in wrong.items() if is_wrong]:
        raise damaged(path, "; ".join(f"{name} is {_short(values[name])}" for name in odd))
    return found


def is_count(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number, and not below 0."""
    return isinstance(value, int) and _is_number(value)


def _is_number(value: Any) -> bool:
    """Whether it is a finite one, and not below 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def weights_of(model: Path) -> Path:
    """The `.safetensors` file that stands beside a `.keras` file."""
    return model.with_suffix(WEIGHTS_SUFFIX)


def stored(model: Path) -> Path:
    """Of a model's two files the one to load: a model made before there were two has a `.keras` file alone."""
    weights = weights_of(model)
    return weights if weights.is_file() else model


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises UserError naming it if it does not."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES >> 20} MB")
        value = storage.read_json(path)
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__} where an object belongs")
    except (OSError, ValueError, RecursionError) as e:
        raise damaged(path, str(e)) from e
    return value


def damaged(path: Path, why: str) -> UserError:
    """What is said of a record that cannot be used: which, what is wrong, and what makes it again."""
    again = _MADE_BY.get(path.name, "the command that trained the model")
    return UserError(
        f"{path} cannot be used ({why}). Copy it again from where it was made, or make it again with {again}"
    )


def require_room_for(folder: Path, ensemble: bool) -> None:
    """Raise UserError where the folder of a single model is to take an ensemble, or the other way round.

    Of the two the ensemble would be used, under the name, the card and the calibration of both.
    """
    there = CONFIG_NAME if ensemble else ENSEMBLE_NAME
    if (folder / there).is_file():
        holds, made = ("a single model", "ensemble") if ensemble else ("an ensemble", "single model")
        raise UserError(
            f"{folder} holds {holds} ({there}) and takes no {made} beside it. Give another --output"
        )


def holds_another(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether a run with another outcome than that of `record` has the folder."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        return False
    there = _where_it_counts(read_object(path), record)
    if (folder / RESULT_NAME).is_file():  # what an earlier version has ended is used as it is
        there = {**there, VERSION_KEY: record.get(VERSION_KEY)}
    return _outcome(there) != _outcome(record)


def _where_it_counts(there: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """A run's record with the manifest of another, where it is of the same clips and labels.

    A member's key and labels say which clips it has and what they are: other rows of the manifest do not matter.
    """
    labels = record.get(LABELS_KEY)  # an earlier version's has none
    if JOB_KEY in record and labels is not None and there.get(LABELS_KEY) == labels:
        return {**there, MANIFEST_KEY: record.get(MANIFEST_KEY)}
    return dict(there)


def refusal(folder: Path, record: Mapping[str, Any] | None = None) -> UserError:
    """What is said where a folder holds another run, which is not to be replaced; `record`: of the one asked for."""
    config = folder / CONFIG_NAME
    others = _differences(_where_it_counts(read_object(config), record), record) if record else []
    # not the hash of what the others say
    others = [other for other in others if not other.startswith(f"{JOB_KEY} ")]
    told = (
        f" Different: {'; '.join(others[:_TOLD])}{' ...' if len(others) > _TOLD else ''}." if others else ""
    )
    if [other.partition(" ")[0] for other in others] == [VERSION_KEY]:
        began, this = read_object(config).get(VERSION_KEY), record and record[VERSION_KEY]
        return UserError(
            f"{folder} holds a training run that version {began} of this package began "
            f"and did not end ({config}); this is version {this}. Half a model of each would be "
            "neither's. End it with that version, or give another --output, or --overwrite to train anew in its place"
        )
    return UserError(
        f"{folder} holds a model trained with other settings or data ({config}).{told} "
        "Give another --output, or --overwrite to train anew in its place"
    )


def _differences(there: Mapping[str, Any], asked: Mapping[str, Any], within: str = "") -> list[str]:
    """`train.epochs 40 there, 60 asked for` for each value that decides the outcome and is not the same."""
    found = []
    for name in sorted({*there, *asked} - ({*_NO_OUTCOME} if not within else set())):
        one, other, full = there.get(name), asked.get(name), f"{within}{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += _differences(one, other, f"{full}.")
        elif storage.as_json(one) != storage.as_json(other):
            found.append(f"{full} {_short(one)} there, {_short(other)} asked for")
    return found


def _short(value: Any) -> str:
    text = storage.as_json(value)
    return text if len(text) <= _TOLD_CHARACTERS else text[:_TOLD_CHARACTERS] + "..."


def claim_folder(folder: Path, record: Mapping[str, Any], overwrite: bool) -> Trained | None:
    """Start or continue a run in `folder`; the finished run if it is there already."""
    path = folder / CONFIG_NAME
    if holds_another(folder, record):
        if not overwrite:
            raise refusal(folder, record)
        clear(folder)
    for below in (folder, folder / CHECKPOINT_FOLDER):  # what runs that were killed have left half written
        storage.remove_abandoned(below)
    # also of a run that goes on: an engine may have joined meanwhile; that of a finished one has its calibration
    if not (folder / RESULT_NAME).is_file():
        storage.write_json(path, record)
    return finished(folder)


def clear(folder: Path) -> None:
    """Remove what the run in `folder` has made, its completion record first and its settings last."""
    models = [name for model in (BEST_NAME, FINAL_NAME) for name in (str(weights_of(Path(model))), model)]
    stale = (RESULT_NAME, *models, CLIPS_NAME, "checkpoint/state.json", LOG_NAME, RANGES_NAME)
    events = sorted((folder / BOARD_NAME).rglob("events.out.*"))
    for path in (*(folder / name for name in stale), *events, folder / CONFIG_NAME):
        path.unlink(missing_ok=True)


def _outcome(record: Mapping[str, Any]) -> str:
    """Hash of what decides a run's outcome. Engines that share a cache are alike: one may join between two starts.

    The calibration is added when training has ended; labels are those of the manifest, whose hash counts where a
    single model is trained.
    """
    return storage.stable_hash({k: v for k, v in record.items() if k not in _NO_OUTCOME})
