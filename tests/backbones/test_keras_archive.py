"""Weights files that refer to other files, or claim more than they contain, are refused before Keras opens them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from violence_detection.backbones import keras_archive, weights
from violence_detection.errors import UserError


def _external_link(f: h5py.File, secret: Path) -> None:
    f["layers/a"] = h5py.ExternalLink(str(secret), "/a")


def _soft_link(f: h5py.File, _: Path) -> None:
    f["layers/a"] = h5py.SoftLink("/whole")


def _external_content(f: h5py.File, secret: Path) -> None:
    f.create_dataset("layers/a", (4,), np.uint8, external=[(str(secret), 0, 4)])


def _virtual(f: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(str(secret), "a", (4,))
    f.create_virtual_dataset("layers/a", layout)


def _bomb(f: h5py.File, _: Path) -> None:
    f.create_dataset("layers/a", (10**6, 10**6), np.float32, chunks=(1000, 1000))


def _text(f: h5py.File, _: Path) -> None:
    f["layers/a"] = "text"


def _loop(f: h5py.File, _: Path) -> None:
    f["layers/a"] = f["layers"]


PLANTED = [_external_link, _soft_link, _external_content, _virtual, _bomb, _text, _loop]


def _write(path: Path, plant: Callable[[h5py.File, Path], None] | None) -> None:
    secret = path.with_name("secret")
    secret.write_bytes(b"password")
    with h5py.File(path, "w") as f:
        f["whole"] = np.ones(1000, np.float32)
        f.create_group("layers")
        if plant:
            plant(f, secret)


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_file_is_refused(tmp_path: Path, plant: Callable[[h5py.File, Path], None]) -> None:
    _write(tmp_path / "w.h5", plant)
    with pytest.raises(UserError, match=r"w\.h5 is not loaded"):
        keras_archive.check_weights(tmp_path / "w.h5")
    with pytest.raises(UserError, match=r"w\.h5 is not loaded"):
        weights.load_keras_weights(None, tmp_path / "w.h5", "vgg19")


def _archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_the_archive_of_a_model_holds_config_and_weights_and_nothing_else(tmp_path: Path) -> None:
    _write(tmp_path / "w.h5", None)
    keras_archive.check_weights(tmp_path / "w.h5")
    good = {
        "metadata.json": b"{}",
        "config.json": b"[]",
        "model.weights.h5": (tmp_path / "w.h5").read_bytes(),
    }
    assert keras_archive.read_config(_archive(tmp_path / "m.keras", good)) == b"[]"
    for more in ("assets/x", "../x", "model.weights.npz"):
        with pytest.raises(UserError, match=r"m\.keras is not loaded: it contains"):
            keras_archive.read_config(_archive(tmp_path / "m.keras", {**good, more: b""}))
    with pytest.raises(UserError, match="compressed"):
        keras_archive.read_config(_archive(tmp_path / "m.keras", good, zipfile.ZIP_DEFLATED))
    _write(tmp_path / "w.h5", _external_content)
    planted = _archive(tmp_path / "m.keras", {**good, "model.weights.h5": (tmp_path / "w.h5").read_bytes()})
    with pytest.raises(UserError, match=r"content of its entry .* is in another file"):
        keras_archive.read_config(planted)


def test_a_damaged_file_is_there_but_damaged(tmp_path: Path) -> None:
    _write(tmp_path / "w.h5", None)
    content = (tmp_path / "w.h5").read_bytes()
    for path in (tmp_path / "cut.h5", tmp_path / "cut.keras"):
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match="is there, but is damaged"):
            keras_archive.check_weights(path)
    with pytest.raises(UserError, match="is not a Keras weights file"):
        keras_archive.check_weights(tmp_path / "w.npz")
