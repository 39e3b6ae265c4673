"""The folder of a training run: the files in it, and which run the folder belongs to.

<folder>/config.json            settings and preprocessing, written first
<folder>/trained_on.csv         the clips that the model was made with, see trained_clips.py
<folder>/training_log.csv       a row per epoch
<folder>/tensorboard_logs/      event files, with train/ and selection/, see training_board.py
<folder>/checkpoint/            the state at the end of the last epoch, see checkpoint.py
<folder>/best_model.safetensors, .keras    the model after the epoch with the lowest selection loss; with `--keep last`,
                                           or without a selection part, after the last epoch; for a fine-tuned network,
                                           the average that fine_tuning.py computes at the end
<folder>/final_model.safetensors, .keras   the model after the last epoch
<folder>/result.json            the completion record, written when training has ended
<folder>/activation_ranges.json only of a whole network, for judging in 8 bits, see activation_ranges.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

from violence_detection.errors import UnusableRecord, UserError
from violence_detection.system import storage

BEST_NAME, FINAL_NAME = "best_model.keras", "final_model.keras"
CONFIG_NAME, RESULT_NAME, LOG_NAME = "config.json", "result.json", "training_log.csv"
CLIPS_NAME = "trained_on.csv"
#: Only of a whole network, see training/activation_ranges.py.
RANGES_NAME = "activation_ranges.json"
#: The files beside a member's weights that are copied along with them, if they exist.
BESIDE = (CONFIG_NAME, RESULT_NAME, CLIPS_NAME, RANGES_NAME)
#: A model is stored in two files: the weights, which are loaded here, and an archive for whoever uses Keras.
WEIGHTS_SUFFIX, ARCHIVE_SUFFIX = ".safetensors", ".keras"
#: In an ensemble's folder: the list of its members and their weights in the average.
ENSEMBLE_NAME = "ensemble.json"
#: Key in ensemble.json, or in config.json of a single model: temperature and thresholds, see models/calibration.py.
CALIBRATION_KEY = "calibration"
BOARD_NAME, CHECKPOINT_FOLDER = "tensorboard_logs", "checkpoint"
#: In an ensemble's folder: the figures of its folds, the ensemble with members tuned on hard clips, and the final fit.
FOLDS_RECORD_NAME, TUNED_FOLDER, FINAL_FOLDER = "cross_validation.json", "hard", "final"
#: The number of folds of a cross-validation that was begun but has not finished.
FOLDS_BEGUN_NAME = "cross_validation_begun.json"
#: Key in the record of the folds: each member's temperature, the geometric mean of those of the folds; null if
#: probabilities are averaged, not logits. The record of data sets left out has a list of these, one per seed.
FOLD_TEMPERATURES_KEY = "member_temperatures"
#: Key in the records of the folds and of data sets left out: the command that judged them.
FOLD_COMMAND_KEY = "command"
#: Key in ensemble.json: the data sets that the ensemble is selected and measured on, without those added for training
#: only.
MEASURED_KEY = "measured_datasets"
#: In an ensemble's folder: the figures of leaving out one data set at a time, see ensemble/leave_one_out.py.
LEFT_OUT_NAME = "leave_one_dataset_out.json"
#: Key in ensemble.json of a final fit that was adapted to footage: true. It replaces FINAL_KEY, whose figures are those
#: of the model before.
EVERY_CLIP_KEY = "trained_on_every_clip"
#: Key in ensemble.json of a final fit: what its folds chose, and their figures, see ensemble/final_fit.py.
FINAL_KEY = "final_fit"
#: Key within the value of FINAL_KEY: true if data sets left out made the choices, not folds by source.
BY_LEFT_OUT_KEY = "by_left_out"
#: Key in config.json: the SHA-256 of weights that were given and not trained here, see training/given_weights.py.
GIVEN_KEY = "given_weights_sha256"
#: Key in config.json of an ensemble's member: the hash of everything that decides its outcome.
JOB_KEY = "job"
#: Key in config.json of a member, and in the record of the folds: the hash of the clips' labels, with their data sets
#: and source groups where these matter.
LABELS_KEY = "labels_sha256"
#: Key in config.json: the hash of the manifest.
MANIFEST_KEY = "manifest_sha256"
#: Key in config.json: the version of this package that trained the model.
VERSION_KEY = "version"
#: Key in config.json: the number of different train clips, if some are drawn several times an epoch. `clips` counts
#: draws.
DISTINCT_KEY = "distinct_train_clips"
#: Keys of config.json that do not decide the outcome, see `_outcome`.
_NO_OUTCOME = ("feature_engines", CALIBRATION_KEY, LABELS_KEY, DISTINCT_KEY)
#: How to make a record again, where the command that trained the model needs a flag added, or does not train again.
_MADE_BY = {
    FOLDS_BEGUN_NAME: "the command that began it and --cross-validate K, where K is the number of its folds",
    ENSEMBLE_NAME: "the command that made it; train_ensemble_models.py then trains nothing again",
    FOLDS_RECORD_NAME: "the train_ensemble_models.py command that trained the model and --cross-validate K, where K is "
    "the number of its folds: the folds are judged again, no trained fold is trained again, and --overwrite is not "
    "needed",
    LEFT_OUT_NAME: "the train_ensemble_models.py command with --leave-one-dataset-out that made it, which trains "
    "nothing again",
    CLIPS_NAME: "the command that trained the model, which trains nothing again",
}
#: At most this many differences between two records are named in a message.
_MOST_DIFFERENCES = 5
#: A value longer than this is cut off in a message.
_MOST_CHARACTERS = 60
#: A larger file is refused. No record comes near this size.
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Trained:
    """A finished training run. `selection_accuracy` is None if there was no selection part."""

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
    """The result of the run in `folder`; None if it has not finished."""
    path = folder / RESULT_NAME
    return read_result(path) if path.is_file() else None


def read_result(path: Path) -> Trained:
    """Read the finished run from its result.json. Raises UserError naming the file if it is damaged."""
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
    """Whether `value` is a whole number of at least 0."""
    return isinstance(value, int) and _is_number(value)


def _is_number(value: Any) -> bool:
    """Whether `value` is a finite number of at least 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def weights_of(model: Path) -> Path:
    """The path of the `.safetensors` file beside a `.keras` file."""
    return model.with_suffix(WEIGHTS_SUFFIX)


def stored(model: Path) -> Path:
    """Which of a model's two files to load: the weights, or the `.keras` file of models that have no other."""
    weights = weights_of(model)
    return weights if weights.is_file() else model


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that contains an object. Raises UnusableRecord if it cannot be read as one."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MB")
        value = storage.read_json(path)
        if not isinstance(value, dict):
            raise ValueError(f"it contains a {type(value).__name__} instead of an object")
    except (OSError, ValueError, RecursionError) as e:
        raise damaged(path, str(e)) from e
    return value


def damaged(path: Path, why: str) -> UnusableRecord:
    """The error for a record that cannot be used: the file, what is wrong, and how to make it again."""
    again = _MADE_BY.get(path.name, "the command that trained the model")
    return UnusableRecord(
        f"{path} cannot be used ({why})",
        f"Copy it again from where it was made, or make it again with {again}",
    )


def require_room_for(folder: Path, ensemble: bool) -> None:
    """Raise UserError if an ensemble is to be made in the folder of a single model, or the other way round.

    If a folder contained both, the ensemble would be used, and the two would overwrite each other's card.
    """
    there = CONFIG_NAME if ensemble else ENSEMBLE_NAME
    if (folder / there).is_file():
        holds, made = ("a single model", "an ensemble") if ensemble else ("an ensemble", "a single model")
        raise UserError(
            f"{folder} holds {holds} ({there}), so it cannot hold {made} as well. Give another --output"
        )


def holds_another(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether `folder` belongs to a run whose outcome differs from that of the run with `record`."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        return False
    there = _where_it_counts(read_object(path), record)
    # a finished run of an earlier version is used as it is
    if (folder / RESULT_NAME).is_file():
        there = {**there, VERSION_KEY: record.get(VERSION_KEY)}
    return _outcome(there) != _outcome(record)


def _where_it_counts(there: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """The record `there`, with the manifest's hash of `record` if both are members with the same labels.

    A member's key and the hash of its labels fix its clips and their labels, so other rows of the manifest do not
    matter.
    """
    # a record of an earlier version has no hash of labels
    labels = record.get(LABELS_KEY)
    if JOB_KEY in record and labels is not None and there.get(LABELS_KEY) == labels:
        return {**there, MANIFEST_KEY: record.get(MANIFEST_KEY)}
    return dict(there)


def refusal(folder: Path, record: Mapping[str, Any] | None = None) -> UserError:
    """The error for a folder that belongs to another run, without --overwrite. `record`: of the run asked for."""
    config = folder / CONFIG_NAME
    others = _differences(_where_it_counts(read_object(config), record), record) if record else []
    # the member's key is a hash of the other settings and says nothing to a reader
    others = [other for other in others if not other.startswith(f"{JOB_KEY} ")]
    told = (
        f" Different: {'; '.join(others[:_MOST_DIFFERENCES])}{' ...' if len(others) > _MOST_DIFFERENCES else ''}."
        if others
        else ""
    )
    if [other.partition(" ")[0] for other in others] == [VERSION_KEY]:
        began, this = read_object(config).get(VERSION_KEY), record and record[VERSION_KEY]
        return UserError(
            f"{folder} holds a training run that version {began} of this package began "
            f"and did not finish ({config}); this is version {this}. A run cannot be continued by another version. "
            "Finish it with that version, or give another --output. To train again from the beginning in the same "
            "folder, give --overwrite"
        )
    return UserError(
        f"{folder} holds a model trained with other settings or data ({config}).{told} "
        "Give another --output. To train again from the beginning in the same folder, give --overwrite"
    )


def _differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any], within: str = "") -> list[str]:
    """Text such as `train.epochs 40 there, 60 asked for`, for each value that decides the outcome and differs."""
    found = []
    for name in sorted({*recorded, *wanted} - ({*_NO_OUTCOME} if not within else set())):
        recorded_value, wanted_value, full = recorded.get(name), wanted.get(name), f"{within}{name}"
        if isinstance(recorded_value, Mapping) and isinstance(wanted_value, Mapping):
            found += _differences(recorded_value, wanted_value, f"{full}.")
        elif storage.as_json(recorded_value) != storage.as_json(wanted_value):
            found.append(f"{full} {_short(recorded_value)} there, {_short(wanted_value)} asked for")
    return found


def _short(value: Any) -> str:
    text = storage.as_json(value)
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "..."


def claim_folder(folder: Path, record: Mapping[str, Any], overwrite: bool) -> Trained | None:
    """Make `folder` that of the run with `record`, new or to be continued; return the run if it has finished already.

    If the folder belongs to a run with another outcome, that run is removed with `overwrite`, and UserError is raised
    without it.
    """
    path = folder / CONFIG_NAME
    if holds_another(folder, record):
        if not overwrite:
            raise refusal(folder, record)
        clear(folder)
    # files half written by killed runs
    for below in (folder, folder / CHECKPOINT_FOLDER):
        storage.remove_abandoned(below)
    # a continued run's record is written again, since another engine may have added features to the cache meanwhile;
    # a finished run's is not, since the calibration has been added to it
    if not (folder / RESULT_NAME).is_file():
        storage.write_json(path, record)
    return finished(folder)


def clear(folder: Path) -> None:
    """Remove what the run in `folder` has made: its completion record first, its settings last.

    The checkpoint's model stays until the next epoch replaces it: without state.json it counts for nothing.
    """
    models = [name for model in (BEST_NAME, FINAL_NAME) for name in (str(weights_of(Path(model))), model)]
    stale = (RESULT_NAME, *models, CLIPS_NAME, "checkpoint/state.json", LOG_NAME, RANGES_NAME)
    events = sorted((folder / BOARD_NAME).rglob("events.out.*"))
    for path in (*(folder / name for name in stale), *events, folder / CONFIG_NAME):
        path.unlink(missing_ok=True)


def _outcome(record: Mapping[str, Any]) -> str:
    """The hash of what decides a run's outcome.

    Engines are left out: those that share a cache give the same features, and one may be added between two starts. The
    calibration is left out since it is added after training, and the labels' hash since the manifest's hash counts for
    a single model, and `_where_it_counts` compares labels for a member.
    """
    return storage.stable_hash({k: v for k, v in record.items() if k not in _NO_OUTCOME})
