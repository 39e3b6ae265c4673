"""The files of a trained model, and what tells one model from another; nothing of it is loaded."""

from __future__ import annotations

from pathlib import Path

from violence_detection.errors import UserError
from violence_detection.system import storage
from violence_detection.training import run_folder


def listed(path: Path) -> list[tuple[str, Path, float]]:
    """Name, `.keras` file and weight of each member of a model: a `.keras` file, a model folder or an ensemble folder.

    Raises UserError, with the command that makes one, if there is no model.
    """
    if (path / run_folder.ENSEMBLE_NAME).is_file():
        members = storage.read_json(path / run_folder.ENSEMBLE_NAME)["members"]
        files = [(m["name"], path / m["model"], float(m["weight"])) for m in members]
    else:
        file = path if path.suffix == ".keras" else path / run_folder.BEST_NAME
        files = [(file.parent.name if path.suffix != ".keras" else file.stem, file, 1.0)]
        if path.suffix != ".keras" and file.is_file() and not (path / run_folder.RESULT_NAME).is_file():
            raise UserError(
                f"{path} has not finished training: the same command goes on with it. To use it as it is, give {file}"
            )
    missing = [file for _, file, _ in files if not file.is_file()]
    if missing:
        raise UserError(
            f"no model at {missing[0]}. Train one with runpod_train_ultimate.py or train_ensemble_models.py, and give "
            "its folder, or a .keras file with its config.json beside it"
        )
    return files


def record_path(model_file: Path) -> Path:
    """The record beside a `.keras` file. Raises UserError if there is none."""
    path = model_file.parent / run_folder.CONFIG_NAME
    if not path.is_file():
        raise UserError(f"{model_file} has no {path.name} beside it, which says how its input is prepared. "
                        "Copy it from where the model was trained")  # fmt: skip
    return path


def identity(path: Path) -> str:
    """Hash of all that decides what a model says: its members' files, records and weights. Raises UserError as above.

    Where it lies and what its members are called does not count. The records name the weights of the backbones.
    """
    return storage.stable_hash(
        [
            [storage.sha256_file(file), storage.sha256_file(record_path(file)), weight]
            for _, file, weight in listed(path)
        ],
        digits=32,
    )
