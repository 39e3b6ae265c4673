"""How far features may differ for the sake of speed: one measurement decides, and 8 bits have a limit of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import seeded_i3d

from violence_detection.backbones import eight_bits, engines, precision, registry
from violence_detection.backbones.eight_bits import ActivationRange
from violence_detection.backbones.engines import Engine
from violence_detection.backbones.registry import Backbone

RANGES = (ActivationRange(1.0, 0.0, 1.0),)


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Backbone, Path]:
    """A backbone that is never run, and a file of weights."""
    monkeypatch.setenv("VIOLENCE_NETWORK_CACHE", str(tmp_path / "kept"))
    weights = tmp_path / "weights"
    weights.write_bytes(b"any")
    return replace(registry.get("i3d_actions"), ranges=RANGES), weights


def _off_by(error: float, asked: list[str]) -> Callable[[str], Engine]:
    """Return a function that makes engines. Features of all but the float32 engine have this relative error."""
    exact = np.linspace(1, 2, 400, dtype=np.float32)[None]

    def engine(dtype: str) -> Engine:
        asked.append(dtype)
        values = exact if dtype == "float32" else exact * np.float32(1 + error)
        return Engine(dtype, [lambda _: values])

    return engine


@pytest.mark.parametrize(
    ("dtype", "error", "kept"),
    [("bfloat16", 0.04, True), ("bfloat16", 0.07, False), ("int8", 0.07, True), ("int8", 0.12, False)],
)
def test_features_in_8_bits_may_be_further_off_than_in_16(
    backbone: tuple[Backbone, Path], dtype: str, error: float, kept: bool
) -> None:
    asked: list[str] = []
    assert precision.keeps(*backbone, 4, _off_by(error, asked), dtype) == kept
    assert asked == [dtype, "float32"]
    assert precision.keeps(*backbone, 4, _off_by(0.0, asked), dtype) == kept
    assert len(asked) == 2, "it is measured once a machine"


def test_other_ranges_are_measured_anew(backbone: tuple[Backbone, Path]) -> None:
    asked: list[str] = []
    one, weights = backbone
    assert not precision.keeps(one, weights, 4, _off_by(0.3, asked), "int8")
    wider = replace(one, ranges=(replace(RANGES[0], largest=2.0),))
    assert precision.keeps(wider, weights, 4, _off_by(0.01, asked), "int8")


def test_i3d_has_a_range_for_each_of_its_convolutions_and_others_of_its_trunk_have_none(
    tmp_path: Path,
) -> None:
    pytest.importorskip("openvino")
    published = registry.get("i3d_actions")
    network = engines._converted(published.build(seeded_i3d.write(tmp_path / "weights")))
    assert len(published.ranges) == len(eight_bits.convolutions(network)) == 57
    assert all(r.smallest >= 0 for r in published.ranges[1:]), "behind a rectifier"
    together = registry.together([published, registry.get("i3d_steady")])
    assert together.ranges == (), "i3d_steady was not measured"
    with pytest.raises(ValueError, match="no range is known"):  # weights other than the published
        eight_bits.quantised(network, published.ranges)
