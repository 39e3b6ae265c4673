"""Find what is wrong with the files of a training run, before any work begins.

A run with a damaged or missing file cannot be continued or, if it has finished, used. `--overwrite` then trains again
from the beginning in the same folder. A run with nothing wrong is continued or used, with or without the flag.
"""

from __future__ import annotations

from pathlib import Path

from violence_detection.backbones import keras_archive
from violence_detection.errors import UserError
from violence_detection.training import checkpoint, run_folder
from violence_detection.training.config import PICTURES_OF


def fault(folder: Path) -> str | None:
    """Why the run in `folder` can be neither used nor continued; None if nothing is wrong, or there is no run."""
    config, result = folder / run_folder.CONFIG_NAME, folder / run_folder.RESULT_NAME
    if not config.is_file():
        there = [path for path in (result, checkpoint.state_of(folder)) if path.is_file()]
        return (
            f"{there[0]} belongs to a run whose settings are not known: {config} is gone" if there else None
        )
    try:
        architecture = run_folder.read_object(config).get("architecture", "")
        if not isinstance(architecture, str):
            raise run_folder.damaged(config, f"its architecture is {architecture!r}")
        if run_folder.finished(folder):
            best = run_folder.stored(folder / run_folder.BEST_NAME)
            if not best.is_file():
                return f"{result} says that training has ended, but {best} is gone"
            _check_whole(best)
            return None
        _check_unfinished(folder, chooses=architecture not in PICTURES_OF)
    except UserError as e:
        return str(e)
    return None


def refusal(wrong: str) -> UserError:
    """The error for a run with the fault `wrong`, where --overwrite was not given."""
    return UserError(f"{wrong}. To train again from the beginning in the same folder, give --overwrite")


def _check_whole(weights: Path) -> None:
    """Raise UserError if the weights file of a trained model is damaged or incomplete."""
    if weights.suffix != run_folder.WEIGHTS_SUFFIX:
        keras_archive.check_weights(weights)
        return
    import safetensors

    try:
        # opening it compares the file's length with what its header announces
        with safetensors.safe_open(weights, framework="np"):
            pass
    except (safetensors.SafetensorError, OSError) as e:
        raise keras_archive.damaged(weights, e) from e


def _check_unfinished(folder: Path, chooses: bool) -> None:
    """Raise UserError if the run cannot be continued from the end of its last epoch.

    `chooses`: whether training ends by reading the weights of the best epoch from disk.
    """
    if not (found := checkpoint.read(folder)):
        return
    state, model = found
    # if the last epoch is the best, the best model is written again from the checkpoint
    needs_best = chooses and 0 <= state.best_epoch < state.epoch - 1
    for file in (model, *[folder / run_folder.BEST_NAME] * needs_best):
        if not file.is_file():
            raise UserError(f"{file}, from which training would continue, is gone")
        keras_archive.check_weights(file)
