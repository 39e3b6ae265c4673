"""Models by name: those that come with the package, and those in a folder of the user's.

    violence_detection/models/shipped_models/<name>/   comes with the package, see shipping.py
    $VIOLENCE_MODELS/<name>/                          the user's own, found first
Each is a folder as training or shipping leaves it: a model folder, or an ensemble.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from violence_detection.errors import UserError
from violence_detection.system import settings
from violence_detection.training import run_folder

log = logging.getLogger(__name__)
_PACKAGED = Path(__file__).with_name("shipped_models")
#: What is used where no model is named: one's own, as train_ensemble_models.py leaves it, else a shipped one.
OWN, DEFAULT = Path("models_ensemble"), "accurate"


def list_models() -> list[str]:
    """The names that `load` takes, sorted."""
    return sorted(_models())


def find(model: Path | None) -> Path:
    """Where the model of that name lies; a path that exists, or is no name, is itself. None: the default.

    A folder with nothing of a model in it, such as that of `--output fast`, is not taken for the model of its name.
    Raises UserError for a name that there is not.
    """
    if model is None:
        return default()[0]
    suffixes = (run_folder.ARCHIVE_SUFFIX, run_folder.WEIGHTS_SUFFIX)
    if len(model.parts) != 1 or model.suffix in suffixes:
        return model
    known = _models()
    if model.exists():
        if model.name not in known or _has_part_of_a_model(model):
            return model
        log.debug("model: %s, by its name; the folder %s here holds no model", model, model)
    if model.name not in known:
        raise _unknown(f"no model at {model}, and none of that name")
    return known[model.name]


def default() -> tuple[Path, str]:
    """Where the model lies that is used where none is named, and why it is that one, in a line.

    Raises UserError where there is none.
    """
    if OWN.is_dir() and _has_part_of_a_model(OWN):
        return OWN, f"model: {OWN}, which is in this folder (without --model it comes before {DEFAULT})"
    found = _models().get(DEFAULT)
    if found is None:
        raise _unknown(f"no --model is named, there is no {OWN} in this folder, and no model {DEFAULT}")
    return (
        found,
        f"model: {DEFAULT}, the default (no {OWN} with a model in this folder; --model names another)",
    )


def home() -> Path:
    """Where models that are shipped from here are put: $VIOLENCE_MODELS, else among those of the package."""
    return settings.folder_of("VIOLENCE_MODELS", _PACKAGED)


def _unknown(what: str) -> UserError:
    return UserError(
        f"{what} (known by name: {', '.join(list_models()) or 'none'}). Train one with runpod_train_ultimate.py or "
        "train_ensemble_models.py, and give its folder, or a model file with its config.json beside it"
    )


def _has_part_of_a_model(path: Path) -> bool:
    """Whether it is a file, or a folder that a model or its folds were trained into, or are being trained into."""
    best = Path(run_folder.BEST_NAME)
    names = (run_folder.CONFIG_NAME, run_folder.ENSEMBLE_NAME, best.name, run_folder.weights_of(best).name)
    patterns = (f"{above}{name}" for above in ("", "*/", "*/*/") for name in names)
    return not path.is_dir() or any(True for pattern in patterns for _ in path.glob(pattern))


def _models() -> dict[str, Path]:
    """Every model by name."""
    best = Path(run_folder.BEST_NAME)
    names = (run_folder.ENSEMBLE_NAME, run_folder.weights_of(best).name, best.name)
    folders = [_PACKAGED]
    if os.environ.get("VIOLENCE_MODELS"):
        folders.append(home())
    found = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if any((path / name).is_file() for name in names):
                found[path.name] = path
    return found
