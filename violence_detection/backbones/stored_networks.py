"""Networks as OpenVINO has them, kept in the user's cache, so that a second run builds none with Keras.

    $KERAS_HOME/violence_detection/<backbone>-<key>/network.xml, network.bin    (KERAS_HOME: ~/.keras where not set)
    $KERAS_HOME/violence_detection/precision-<key>.json    what was measured of bfloat16 on this kind of processor, see
                                                           precision.py

The key holds what a network depends on: its weights' hash, its sampling, the code of the networks and the versions of
what converts it. VIOLENCE_NETWORK_CACHE names another folder; `off` keeps nothing.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from violence_detection.backbones import weights as weights_files
from violence_detection.backbones.registry import Backbone
from violence_detection.system import disks, machine, settings, storage

log = logging.getLogger(__name__)

_FOLDER = "VIOLENCE_NETWORK_CACHE"
_NAME = "network.xml"
#: What no part of a folder's name is, and how long such a part may be: members are called as a stranger's file says.
_NO_NAME, _NAME_CHARACTERS = re.compile(r"[^A-Za-z0-9_.-]"), 80
#: A network that nobody has used for so long makes room when another is kept.
_UNUSED_S = 30 * 24 * 3600.0
#: What a run that was killed has left half written goes when it is so old.
_WRITING, _ABANDONED_S = ".writing-", 3600.0
#: What the converted network depends on.
_PACKAGES = ("openvino", "keras", "tensorflow")
_CODE = (Path(__file__).parent / "networks", Path(__file__).parents[1] / "training")


def folder() -> Path | None:
    """Where networks are kept; None where they are not."""
    if os.environ.get(_FOLDER) == "off":
        return None
    keras = weights_files.cache_folder().parent
    if _FOLDER not in os.environ and keras.parent == disks.temporary_folder() and _is_of_others(keras):
        return None  # anybody may have put it there, and networks are known by what they are made of alone
    return settings.folder_of(_FOLDER, keras / "violence_detection")


def _is_of_others(path: Path) -> bool:
    return path.exists() and path.stat().st_uid != os.getuid()


def key_of(backbone: Backbone, weights: Path, frames: int) -> str:
    """What tells the network from any other."""
    # each part of `together` has the name, the size and the sampling of its own; the weights are common
    return storage.stable_hash(
        [
            backbone.name,
            storage.sha256_file(weights),
            frames,
            backbone.input_size,
            repr(backbone.sampling),
            _made_by(),
        ],
        digits=24,
    )


@functools.cache
def _made_by() -> list[Any]:
    files = [path for folder in _CODE for path in sorted(folder.glob("*.py"))]
    versions = [importlib.metadata.version(name) for name in _PACKAGES]
    return [versions, [storage.sha256_file(path) for path in files]]


def network(backbone: Backbone, weights: Path, frames: int, convert: Callable[[], Any]) -> Any:
    """The openvino.Model that is kept, else the one that `convert` makes, which is kept from now on.

    A cache that takes nothing costs time at the next start and nothing else.
    """
    import openvino as ov

    home = folder()
    if home is None:
        return convert()
    name = _NO_NAME.sub("_", backbone.name)[:_NAME_CHARACTERS]
    kept = home / f"{name}-{key_of(backbone, weights, frames)}" / _NAME
    if kept.is_file():
        try:
            model = ov.Core().read_model(kept)
        except (RuntimeError, OSError) as e:
            log.warning("%s cannot be read (%s): made again", kept, str(e).splitlines()[0])
            shutil.rmtree(kept.parent, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # a cache that takes nothing
                os.utime(kept.parent)
            return model
    model = convert()
    try:
        _keep(model, kept)
    except (OSError, RuntimeError) as e:
        log.info("not kept for the next start: %s (%s)", kept, str(e).splitlines()[0])
    return model


def _keep(model: Any, path: Path) -> None:
    import openvino as ov

    home = path.parent.parent
    home.mkdir(parents=True, exist_ok=True)
    for old in home.glob(f"*/{_NAME}"):
        if _age_s(old.parent) > _UNUSED_S:
            shutil.rmtree(old.parent, ignore_errors=True)
    for left in home.glob(f"{_WRITING}*"):
        if _age_s(left) > _ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=_WRITING) as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        ov.save_model(model, whole / _NAME, compress_to_fp16=False)
        storage.sync_files(sorted(whole.iterdir()))
        try:
            whole.rename(path.parent)
        except OSError:
            if not path.is_file():  # else another process was first
                raise


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def measured(key: str, measure: Callable[[], float]) -> float:
    """A number that was measured once on a processor like this, under that key; measured now where it was not.

    Several machines may share the home folder, and what one computes says nothing of another.
    """
    home = folder()
    if home is None:
        return measure()
    path = home / f"precision-{storage.stable_hash([key, machine.processor()], digits=24)}.json"
    try:
        return float(storage.read_json(path)["relative_error"])
    except (OSError, ValueError, KeyError, TypeError):
        found = measure()
    try:
        storage.write_json(path, {"relative_error": found})
    except OSError as e:
        log.info("not kept for the next start: %s (%s)", path, e.strerror)
    return found
