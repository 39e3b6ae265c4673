"""What is wrong with the files of a training run, looked for before any work.

A file that is damaged or gone keeps a run from going on, and a finished one from being used. `--overwrite` then trains
anew in its place; a run with nothing wrong goes on with it as without.
"""

from __future__ import annotations

from pathlib import Path

from violence_detection.backbones import keras_archive
from violence_detection.errors import UserError
from violence_detection.training import checkpoint, run_folder
from violence_detection.training.config import PICTURES_OF


def fault(folder: Path) -> str | None:
    """Why the run in `folder` can neither be used nor gone on with; None where nothing is wrong, or there is none."""
    config, result = folder / run_folder.CONFIG_NAME, folder / run_folder.RESULT_NAME
    if not config.is_file():
        there = [path for path in (result, checkpoint.state_of(folder)) if path.is_file()]
        return f"{there[0]} is of a run whose settings are not known: {config} is gone" if there else None
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
    """What is said of a run with that fault, which is not to be replaced."""
    return UserError(f"{wrong}. Or give --overwrite to train anew in its place")


def _check_whole(weights: Path) -> None:
    """Raise UserError where the file of a trained model is not whole."""
    if weights.suffix != run_folder.WEIGHTS_SUFFIX:
        keras_archive.check_weights(weights)
        return
    import safetensors

    try:
        # which compares its length with what it says to hold
        with safetensors.safe_open(weights, framework="np"):
            pass
    except (safetensors.SafetensorError, OSError) as e:
        raise keras_archive.damaged(weights, e) from e


def _check_unfinished(folder: Path, chooses: bool) -> None:
    """Raise UserError where the state at the end of the last epoch cannot be used.

    `chooses`: whether the end takes the weights of the best epoch from the disk.
    """
    if not (found := checkpoint.read(folder)):
        return
    state, model = found
    # that of the last epoch is written anew
    needs_best = chooses and 0 <= state.best_epoch < state.epoch - 1
    for file in (model, *[folder / run_folder.BEST_NAME] * needs_best):
        if not file.is_file():
            raise UserError(f"{file}, with which training would go on, is gone")
        keras_archive.check_weights(file)
