"""A network is built once per machine; later starts load it from the cache, unless anything about it has changed."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from violence_detection.backbones import engines, stored_networks
from violence_detection.backbones.registry import Backbone, BackboneSampling
from violence_detection.system import machine

pytest.importorskip("openvino")


class Built:
    """Build a small network whose output is scaled by the number in its weights file, and count the builds."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, path: Path) -> Any:
        import keras
        from keras import layers

        self.times += 1
        frames = keras.Input((4, 4, 3))
        mean = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, kernel_initializer="ones")(frames))
        return keras.Model(frames, layers.Rescaling(float(path.read_text()))(mean))


@pytest.fixture
def built() -> Built:
    return Built()


@pytest.fixture
def backbone(built: Built) -> Backbone:
    none: Any = None
    return Backbone("means", 4, 2, "", none, built, BackboneSampling(together=True))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_text("0.5")
    return path


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIOLENCE_NETWORK_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def _features(backbone: Backbone, weights: Path) -> np.ndarray:
    images = np.arange(3 * 48, dtype=np.uint8).reshape(3, 4, 4, 3)
    made: np.ndarray = engines.create("openvino", backbone, weights, 3).submit(images).result()
    return made


def test_the_second_start_builds_nothing_unless_what_is_kept_is_damaged(
    backbone: Backbone, weights: Path, built: Built, kept: Path
) -> None:
    first = _features(backbone, weights)
    assert first.std() > 0
    np.testing.assert_array_equal(_features(backbone, weights), first)
    assert built.times == 1
    (xml,) = kept.glob("*/network.xml")
    xml.write_text("no network")
    for _ in range(2):
        np.testing.assert_array_equal(_features(backbone, weights), first)
        assert built.times == 2


def test_other_weights_and_other_sampling_are_another_network(
    backbone: Backbone, weights: Path, built: Built, kept: Path
) -> None:
    first = _features(backbone, weights)
    weights.write_text("0.25")
    np.testing.assert_allclose(_features(backbone, weights), first / 2, rtol=1e-6)
    _features(replace(backbone, sampling=replace(backbone.sampling, largest=3)), weights)
    assert built.times == len(list(kept.glob("*/network.xml"))) == 3


def test_the_home_folder_is_found_where_no_shell_has_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VIOLENCE_NETWORK_CACHE", "~/networks")
    assert stored_networks.folder() == tmp_path / "networks"


def test_a_cache_that_is_off_or_takes_nothing_costs_a_start_and_no_more(
    backbone: Backbone, weights: Path, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _features(backbone, weights)
    for place in ("off", str(weights / "no folder")):  # a folder below a file, which cannot exist
        monkeypatch.setenv("VIOLENCE_NETWORK_CACHE", place)
        np.testing.assert_array_equal(_features(backbone, weights), first)
        assert stored_networks.measured("k", lambda: 0.5) == 0.5
    assert built.times == 3


def test_a_kept_network_is_used_where_nothing_can_be_written(
    backbone: Backbone, weights: Path, built: Built, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _features(backbone, weights)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    np.testing.assert_array_equal(_features(backbone, weights), first)
    assert built.times == 1
    assert list(kept.glob("*/network.xml"))


def test_what_was_measured_is_measured_once(kept: Path) -> None:
    assert stored_networks.measured("k", lambda: 0.25) == 0.25
    assert stored_networks.measured("k", lambda: 0.75) == 0.25
    assert stored_networks.measured("other", lambda: 0.75) == 0.75


def test_what_another_processor_computes_is_measured_again(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several machines may share the volume with the home folder."""
    assert stored_networks.measured("k", lambda: 0.25) == 0.25
    monkeypatch.setattr(machine, "processor", lambda: "another")
    assert stored_networks.measured("k", lambda: 0.75) == 0.75


def test_what_a_killed_run_has_left_half_written_goes_and_what_is_being_written_stays(
    backbone: Backbone, weights: Path, kept: Path
) -> None:
    import openvino as ov

    left, now = kept / ".writing-left", kept / ".writing-now"
    for folder in (left, now):
        (folder / "whole").mkdir(parents=True)
    os.utime(left, (0, 0))
    given = ov.opset13.parameter([1], np.float32)
    stored_networks.network(backbone, weights, 3, lambda: ov.Model([ov.opset13.relu(given)], [given]))
    assert list(kept.glob("*/network.xml"))
    assert not left.exists()
    assert now.exists()


def test_a_name_of_a_strangers_model_stays_inside_the_cache(
    backbone: Backbone, weights: Path, kept: Path, tmp_path: Path
) -> None:
    """A whole network is named after its member in ensemble.json, and old networks next to a stored one are removed."""
    import openvino as ov

    theirs = tmp_path / "theirs" / "old"
    theirs.mkdir(parents=True)
    (theirs / "network.xml").touch()
    os.utime(theirs, (0, 0))
    given = ov.opset13.parameter([1], np.float32)
    for name in ("judged by x/../../theirs/", "judged by " + "n" * 300, "judged by a\0b"):
        made = replace(backbone, name=name)
        stored_networks.network(made, weights, 3, lambda: ov.Model([ov.opset13.relu(given)], [given]))
    assert len(list(kept.glob("*/network.xml"))) == 3
    assert list(tmp_path.glob("theirs/*")) == [theirs]


def test_networks_in_a_folder_of_others_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no home folder is writable, the cache is below the folder for temporary files, where anyone may make one."""
    for name in ("KERAS_HOME", stored_networks._FOLDER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    own = tmp_path / ".keras"
    assert stored_networks.folder() == own / "violence_detection"
    own.mkdir()
    assert stored_networks.folder() == own / "violence_detection"
    monkeypatch.setattr(os, "getuid", lambda: own.stat().st_uid + 1)
    assert stored_networks.folder() is None
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "mine"))
    assert stored_networks.folder() == tmp_path / "mine" / "violence_detection"
