"""The script that reads videos for an exported model sees what the package sees, and stands alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numbered_videos
import numpy as np
import pytest
import small_videos
import timed_videos
import tiny_networks

from violence_detection.features import key
from violence_detection.features.config import FeatureConfig
from violence_detection.models.trained_model import TrainedModel
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.exports import manifest, standalone, video_windows, whole_graph
from violence_detection.prediction.exports.whole_graph import PictureInput
from violence_detection.video import augment, decode, sampling, window_pictures
from violence_detection.video.window_pictures import Viewer


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> FeatureConfig:
    return tiny_networks.install(monkeypatch.setattr)


def _inputs_and_manifest(config: FeatureConfig) -> tuple[list[PictureInput], dict[str, Any]]:
    inputs = whole_graph.picture_inputs(key.backbone_runs(config, None))
    model = TrainedModel(Path(), (), (), config, {})
    return inputs, manifest.of_model(model, "", "made", inputs, PredictConfig(stride_s=1.0))


def _of_package(
    video: Path, config: FeatureConfig, inputs: list[PictureInput]
) -> Iterator[dict[str, np.ndarray]]:
    info = decode.probe(video)
    spans = sampling.sliding_windows(info, config.window_s, 1.0)
    runs = list({id(i.run): i.run for i in inputs}.values())
    viewers = [Viewer(tiny_networks.SIZE, run.config) for run in runs]
    for seen in window_pictures.of_file(video, info, spans, viewers, "", [augment.PLAIN]):
        of = {id(run): seen.pictures(number, augment.PLAIN) for number, run in enumerate(runs)}
        yield {i.name: of[id(i.run)][i.stream] for i in inputs}


@pytest.mark.parametrize("focus", [0.0, 0.7])
def test_pictures_are_those_of_the_package(config: FeatureConfig, tmp_path: Path, focus: float) -> None:
    config = replace(config, focus=focus)
    video = small_videos.write(tmp_path / "clip.avi", 3, n_frames=50, width=160, height=120)
    inputs, described = _inputs_and_manifest(config)
    found = list(video_windows.windows(video, described))
    expected = list(_of_package(video, config, inputs))
    assert len(found) == len(expected) >= 3
    for (start_s, end_s, seen), wanted in zip(found, expected, strict=True):
        assert end_s > start_s
        assert set(seen) == set(wanted) == {i.name for i in inputs}
        for name, images in wanted.items():
            np.testing.assert_array_equal(seen[name], images, err_msg=name)


@pytest.mark.parametrize("turned", [False, True])
def test_a_telephones_upright_video_is_letterboxed_as_the_package_does(
    config: FeatureConfig, tmp_path: Path, turned: bool
) -> None:
    shown = [cv2.resize(numbered_videos.frame(i), (160, 96)) for i in range(60)]
    video = timed_videos.write(tmp_path / "v.mp4", [i / 25 for i in range(60)], pictures=shown)
    video = timed_videos.turned(video, tmp_path / "turned.mp4") if turned else video
    inputs, described = _inputs_and_manifest(config)
    assert any(i["letterbox"] for i in described["inputs"])
    found = [seen for *_, seen in video_windows.windows(video, described)]
    for seen, wanted in zip(found, _of_package(video, config, inputs), strict=True):
        for name, images in wanted.items():
            np.testing.assert_array_equal(seen[name], images, err_msg=name)
    boxed = found[0]["tiny_clip_rgb"]
    beside = boxed[:, :, :3] if turned else boxed[:, :3]
    assert not beside.any()
    assert boxed.any()


def test_frames_without_a_time_come_behind_the_others() -> None:
    stamps = np.array([0.08, 0.12, 0.16, 0.0, 0.0])
    np.testing.assert_allclose(video_windows._in_order(stamps, 0.04), [0.0, 0.04, 0.08, 0.12, 0.16])
    np.testing.assert_allclose(video_windows._in_order(np.zeros(3), 0.5), [0.0, 0.5, 1.0])


def test_what_is_no_video_is_said(config: FeatureConfig, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    _, described = _inputs_and_manifest(config)
    with pytest.raises(video_windows.CannotJudge, match=r"text\.mp4: no such file, or not a video"):
        next(video_windows.windows(tmp_path / "text.mp4", described))
    short = small_videos.write(tmp_path / "short.avi", 3, n_frames=5)
    with pytest.raises(video_windows.CannotJudge, match=r"short\.avi: only 5 of at least 8 frames decode"):
        next(video_windows.windows(short, described))


def test_the_script_stands_alone(tmp_path: Path) -> None:
    """One file with numpy and cv2, every name in it known: checked by ruff, and imported without this package."""
    file = tmp_path / standalone.WINDOWS_NAME
    file.write_text(standalone.windows_source(), encoding="utf-8")
    program = (
        "import sys\nsys.modules['violence_detection'] = None\nsys.path.insert(0, '.')\nimport video_windows"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed: names are not checked")
    done = subprocess.run(
        [ruff, "check", "--isolated", "--no-cache", "--select", "F821,F822,F823", file], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    # names in annotations are not evaluated
    assert {line.split("`")[1] for line in done.stdout.splitlines() if "F821" in line} <= {
        "VideoInfo",
        "Draw",
        "ClipConfig",
        "Span",
    }
