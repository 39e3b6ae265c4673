"""Models by name: those that come with the package, and those in a folder of the user's.

    violence_detection/models/shipped_models/<name>/   comes with the package
    $VIOLENCE_MODELS/<name>/                          the user's own, found first
Each is a folder as training leaves it: a model folder, or an ensemble.
"""

from __future__ import annotations

import os
from pathlib import Path

from violence_detection.errors import UserError
from violence_detection.system import settings
from violence_detection.training import run_folder

_PACKAGED = Path(__file__).with_name("shipped_models")


def list_models() -> list[str]:
    """The names that `load` takes, sorted."""
    return sorted(_models())


def find(model: Path) -> Path:
    """Where the model of that name lies; a path that exists, or is no name, is itself.

    Raises UserError for a name that there is not.
    """
    suffixes = (run_folder.ARCHIVE_SUFFIX, run_folder.WEIGHTS_SUFFIX)
    if model.exists() or len(model.parts) != 1 or model.suffix in suffixes:
        return model
    known = _models()
    if model.name not in known:
        raise UserError(
            f"no model at {model}, and none of that name (known by name: {', '.join(sorted(known)) or 'none'}). Train "
            "one with runpod_train_ultimate.py or train_ensemble_models.py, and give its folder, or a model file with "
            "its config.json beside it"
        )
    return known[model.name]


def _models() -> dict[str, Path]:
    """Every model by name."""
    best = Path(run_folder.BEST_NAME)
    names = (run_folder.ENSEMBLE_NAME, run_folder.weights_of(best).name, best.name)
    folders = [_PACKAGED]
    if own := os.environ.get("VIOLENCE_MODELS"):
        folders.append(settings.expanded(own))
    found = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if any((path / name).is_file() for name in names):
                found[path.name] = path
    return found
