"""Models by name: those that come with the package, and those in the user's folder $VIOLENCE_MODELS.

    violence_detection/models/shipped_models/<name>/   comes with the package, see shipping.py
    $VIOLENCE_MODELS/<name>/                           the user's own; used if both have the name
Each is a model folder or an ensemble folder, as training or shipping writes it.
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
#: The default model: this folder below the current one, where train_ensemble_models.py puts a model.
OWN = Path("models_ensemble")
#: The default model if OWN has none: this name.
DEFAULT = "accurate"


def list_models() -> list[str]:
    """The names of all models, which `load` accepts, sorted."""
    return sorted(_models())


def find(model: Path | None) -> Path:
    """The path of a model given by name or path; None: the default model.

    A path with several parts, one with the suffix of a model file, and one that exists are returned as they are. But an
    existing folder without any part of a model, such as that of `--output fast`, does not hide the model of that name.
    Raises UserError if there is neither such a path nor such a name.
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
        log.debug("model: %s, by its name; the folder %s here does not contain a model", model, model)
    if model.name not in known:
        raise _unknown(f"no model at {model}, and no model of that name")
    return known[model.name]


def default() -> tuple[Path, str]:
    """The path of the model that is used if none is named, and a line that says why it is that one.

    Raises UserError if there is none.
    """
    if OWN.is_dir() and _has_part_of_a_model(OWN):
        return OWN, f"model: {OWN}, found in this folder (without --model it takes precedence over {DEFAULT})"
    found = _models().get(DEFAULT)
    if found is None:
        raise _unknown(
            f"no --model is given, and there is neither a {OWN} in this folder nor a model {DEFAULT}"
        )
    return (
        found,
        f"model: {DEFAULT}, the default (no {OWN} with a model in this folder; give another with --model)",
    )


def home() -> Path:
    """The folder that --ship writes models into: $VIOLENCE_MODELS if set, otherwise that of the package."""
    return settings.folder_of("VIOLENCE_MODELS", _PACKAGED)


def _unknown(what: str) -> UserError:
    return UserError(
        f"{what} (known by name: {', '.join(list_models()) or 'none'}). Train one with runpod_train_ultimate.py or "
        "train_ensemble_models.py and give its folder, or give a model file that has its config.json beside it"
    )


def _has_part_of_a_model(path: Path) -> bool:
    """Whether it is a file, or a folder that a model or its folds were trained into, finished or not."""
    best = Path(run_folder.BEST_NAME)
    names = (run_folder.CONFIG_NAME, run_folder.ENSEMBLE_NAME, best.name, run_folder.weights_of(best).name)
    patterns = (f"{above}{name}" for above in ("", "*/", "*/*/") for name in names)
    return not path.is_dir() or any(True for pattern in patterns for _ in path.glob(pattern))


def _models() -> dict[str, Path]:
    """The folder of every model by name."""
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
