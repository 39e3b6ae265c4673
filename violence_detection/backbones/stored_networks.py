"""Networks converted to OpenVINO, kept in the user's cache so that later runs need not build them with Keras.

    $KERAS_HOME/violence_detection/<backbone>-<key>/network.xml, network.bin    (KERAS_HOME: ~/.keras where not set)
    $KERAS_HOME/violence_detection/precision-<key>.json    how far bfloat16 or int8 was off on this kind of processor,
                                                           see precision.py

The key covers all that a network depends on: the backbone's name, input size and sampling, the number of frames, the
hash of the weights, the code of the networks and the versions of the packages that convert it. VIOLENCE_NETWORK_CACHE
names another folder; `off` keeps nothing.
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
#: Characters that are replaced in a folder's name: names of members may come from a stranger's file.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")
#: Most characters of such a name, before the key.
_MOST_NAME_CHARACTERS = 80
#: A network that has not been used for this long is removed when another is kept.
_UNUSED_S = 30 * 24 * 3600.0
#: Prefix of the folders in which networks are being written.
_WRITING = ".writing-"
#: Such a folder that is older than this was left behind by a killed run, and is removed.
_ABANDONED_S = 3600.0
#: Packages on whose versions a converted network depends.
_PACKAGES = ("openvino", "keras", "tensorflow")
#: Folders on whose code it depends.
_CODE = (Path(__file__).parent / "networks", Path(__file__).parents[1] / "training")


def folder() -> Path | None:
    """The folder in which networks are kept; None if they are not kept."""
    if os.environ.get(_FOLDER) == "off":
        return None
    keras = weights_files.cache_folder().parent
    if _FOLDER not in os.environ and keras.parent == disks.temporary_folder() and _is_of_others(keras):
        # Anybody may have made that folder, and the key of a network does not vouch for its content.
        return None
    return settings.folder_of(_FOLDER, keras / "violence_detection")


def _is_of_others(path: Path) -> bool:
    return path.exists() and path.stat().st_uid != os.getuid()


def key_of(backbone: Backbone, weights: Path, frames: int) -> str:
    """The key that tells this network from any other."""
    # Backbones that registry.together combines are told apart by their joined name; the rest they have in common.
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
    """The openvino.Model in the cache; else the one that `convert` makes, which is put into the cache.

    If the cache cannot be written to, the next start takes longer, and that is all.
    """
    import openvino as ov

    home = folder()
    if home is None:
        return convert()
    name = _NOT_IN_NAMES.sub("_", backbone.name)[:_MOST_NAME_CHARACTERS]
    kept = home / f"{name}-{key_of(backbone, weights, frames)}" / _NAME
    if kept.is_file():
        try:
            model = ov.Core().read_model(kept)
        except (RuntimeError, OSError) as e:
            log.warning(
                "%s cannot be read (%s), so the network is converted again", kept, str(e).splitlines()[0]
            )
            shutil.rmtree(kept.parent, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # the cache cannot be written to
                os.utime(kept.parent)
            return model
    model = convert()
    try:
        _keep(model, kept)
    except (OSError, RuntimeError) as e:
        log.info("cannot keep %s for the next start (%s)", kept, str(e).splitlines()[0])
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
            if not path.is_file():  # otherwise another process was faster
                raise


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def measured(key: str, measure: Callable[[], float]) -> float:
    """The number measured on a processor like this one and kept under `key`; measured and kept now if there is none.

    Several machines may share the home folder, and a number from one kind of processor says nothing about another.
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
        log.info("cannot keep %s for the next start (%s)", path, e.strerror)
    return found
