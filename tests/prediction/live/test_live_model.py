"""A model that cameras share gives the same windows and probabilities as for the same footage in a file."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import keras
import pytest
import stand_in
import timed_videos

from violence_detection.models import trained_model
from violence_detection.prediction.config import OutputConfig, PredictConfig
from violence_detection.prediction.detector import Detector
from violence_detection.prediction.events import JudgedWindow
from violence_detection.prediction.live import camera_names, watch
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.prediction.live.live_model import DetectorModel, PlacedWindow
from violence_detection.training import heads
from violence_detection.training.config import HeadConfig
from violence_detection.video import sources


class _Noted(DetectorModel):
    """Keeps what it has judged, by camera."""

    def __init__(self, detector: Detector):
        super().__init__(detector)
        self.judged: dict[str, list[JudgedWindow]] = {}

    def judge(self, camera: str, window: PlacedWindow) -> JudgedWindow:
        judged = super().judge(camera, window)
        self.judged.setdefault(camera, []).append(judged)
        return judged


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Detector:
    stand_in.install(monkeypatch.setattr, stand_in.features_of)
    keras.utils.set_random_seed(0)
    head = heads.build("average", {"stand_in.rgb": (5, 4)}, HeadConfig())
    member = trained_model.Member("average", head, 1.0)
    config = replace(stand_in.CONFIG, streams=("rgb",))
    model = trained_model.TrainedModel(tmp_path, (tmp_path,), (member,), config, {"feature_engines": {}})
    monkeypatch.setattr(trained_model, "load", lambda *_: model)
    for check in ("check_weights", "check_features"):
        monkeypatch.setattr(trained_model, check, lambda *_: None)
    return Detector(PredictConfig(model=tmp_path, stride_s=1.0, threshold=0.9))


def test_cameras_that_share_a_model_are_judged_as_their_files_are(tmp_path: Path, detector: Detector) -> None:
    pictures = timed_videos.noisy(110)
    forwards = timed_videos.write(tmp_path / "a.ts", timed_videos.evenly(110, 25), pictures=pictures)
    backwards = timed_videos.write(
        tmp_path / "b.ts", timed_videos.evenly(85, 25), pictures=pictures[::-1][:85]
    )
    model = _Noted(detector)
    cameras = camera_names.among([f"a=growing:{forwards}", f"b=growing:{backwards}"])
    found = watch.run(
        cameras,
        model,
        LiveConfig(),
        OutputConfig(),
        threading.Event(),
        lambda text: sources.open_source(text, still_s=0.3),
    )
    assert [camera["state"] for camera in found["cameras"]] == ["ended", "ended"]
    for name, path in (("a", forwards), ("b", backwards)):
        windows = detector.judge(path).windows
        assert len({w.p_violent for w in windows}) >= 3
        of_camera = model.judged[name]
        assert [(w.start_s, w.end_s) for w in of_camera] == [(w.start_s, w.end_s) for w in windows]
        assert [w.p_violent for w in of_camera] == pytest.approx([w.p_violent for w in windows], abs=1e-4)
