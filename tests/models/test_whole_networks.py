"""A head that is a whole network gives the same on an engine as with Keras on the cached pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import seeded_i3d
import small_videos

from violence_detection.backbones import eight_bits
from violence_detection.errors import UserError
from violence_detection.features import key
from violence_detection.features.config import FeatureConfig
from violence_detection.models import averaging, model_files, trained_model, whole_networks
from violence_detection.models.averaging import EarlyExit
from violence_detection.models.calibration import Calibration
from violence_detection.prediction import camera_profile
from violence_detection.prediction.camera_profile import CameraProfile
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.detector import Detector
from violence_detection.prediction.events import Verdict
from violence_detection.training import activation_ranges, heads, saved_heads
from violence_detection.training.config import HeadConfig
from violence_detection.video import pictures
from violence_detection.video.sources import open_source

pytest.importorskip("openvino")

SIDE, FRAMES, NAME = 24, 8, "i3d_pictures.rgb"
CONFIG = FeatureConfig(backbone=(seeded_i3d.PICTURES,), streams=("rgb",))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make pictures and the network small; the fixture is the file of its weights."""
    with seeded_i3d.small_pictures(tmp_path_factory.mktemp("weights"), SIDE, FRAMES) as path:
        yield path


@pytest.fixture(scope="module")
def model(published: Path, tmp_path_factory: pytest.TempPathFactory) -> trained_model.TrainedModel:
    """A model of one head with random weights, which gives the clips clearly different probabilities."""
    head = heads.build("i3d_tuned", {NAME: (FRAMES, SIDE * SIDE * 3)}, HeadConfig())
    rng = np.random.default_rng(0)
    head.set_weights([rng.normal(0, 0.1, w.shape) if "float" in w.dtype else w for w in head.weights])
    folder = tmp_path_factory.mktemp("i3d_tuned")
    saved_heads.save(head, folder / "best_model.keras")
    record = {
        "architecture": "i3d_tuned",
        "head": HeadConfig().recorded("i3d_tuned"),
        "inputs": {NAME: [FRAMES, SIDE * SIDE * 3]},
        "feature_records": {NAME: key.record(CONFIG, seeded_i3d.PICTURES, "rgb", published)},
        "feature_engines": {NAME: ["openvino-float32"]},
    }
    member = trained_model.Member("i3d_tuned", head, 1.0, None, folder / "best_model.safetensors")
    return trained_model.TrainedModel(folder, (folder,), (member,), CONFIG, record, (record,))


def test_file_and_stream_give_what_keras_says_of_the_cached_pictures(
    model: trained_model.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_model, "load", lambda *_: model)
    paths = [small_videos.write(tmp_path / f"{i}.avi", i) for i in range(3)]
    own = key.for_backbone(CONFIG, seeded_i3d.PICTURES)
    shown = [dict(pictures.clip_variants(path, "c", ("v0",), SIDE, own))["v0"]["rgb"] for path in paths]
    cached = np.array(shown).reshape(3, FRAMES, -1).astype(np.float16)
    expected = heads.predict(model.members[0].model, {NAME: cached.astype(np.float32)})
    assert np.ptp(expected) > 0.01, "or anything would agree"
    judge = Detector(PredictConfig(model=tmp_path, engine="openvino", precision="float32"))
    assert judge.model.features.backbone == (), "no published weights are asked for"
    seen = [judge.judge(path) for path in paths]
    np.testing.assert_allclose([v.p_violent for v in seen], expected, atol=1e-3)
    assert [tuple(judge.watch(open_source(str(path)))) for path in paths] == [v.windows for v in seen]


def test_it_judges_in_8_bits_where_it_says_how_and_the_cpu_is_fast_at_that(
    model: trained_model.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_model, "load", lambda *_: model)
    monkeypatch.setenv("VIOLENCE_NETWORK_CACHE", str(tmp_path / "kept"))
    (member,) = model.members
    assert member.file
    paths = [small_videos.write(tmp_path / f"{i}.avi", i) for i in range(3)]
    own = key.for_backbone(CONFIG, seeded_i3d.PICTURES)
    shown = [dict(pictures.clip_variants(path, "c", ("v0",), SIDE, own))["v0"]["rgb"] for path in paths]

    def judged(precision: str = "auto") -> tuple[str, np.ndarray]:
        judge = Detector(PredictConfig(model=tmp_path, engine="openvino", precision=precision))
        found = [judge.judge(path) for path in paths]
        return found[0].judged_with, np.array([v.p_violent for v in found])

    activation_ranges.write(member.file.parent, member.model, (some.reshape(1, FRAMES, -1) for some in shown))
    exact = judged("float32")
    monkeypatch.setattr(eight_bits, "fast_here", lambda: True)
    name, p = judged()
    assert (name, exact[0]) == ("openvino-int8", "openvino-float32")
    np.testing.assert_allclose(p, exact[1], atol=0.005)
    assert np.ptp(exact[1]) > 0.02, "or anything would agree"
    assert judged("bfloat16")[0] != name
    ranges = member.file.parent / "activation_ranges.json"
    ranges.write_text('{"convolutions": [[1, 0, 1]]}')
    assert judged()[0] != name, "of another network"
    ranges.write_text("{}")
    with pytest.raises(UserError, match=r"activation_ranges\.json cannot be used .* Remove it"):
        judged()
    ranges.unlink()


def test_others_see_only_the_windows_of_which_the_first_member_is_not_sure(
    model: trained_model.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = model.members
    other = replace(first, name="other", temperature=0.5)
    every = replace(model, members=(replace(first, temperature=1.0), other), records=model.records * 2)
    paths = [small_videos.write(tmp_path / f"{i}.avi", i) for i in range(3)]

    monkeypatch.setattr(trained_model, "load", lambda *_: every)
    judge = Detector(PredictConfig(model=tmp_path, engine="openvino", precision="float32"))

    def judged(exits: EarlyExit | None) -> tuple[list[Verdict], dict[str, int]]:
        judge.model = replace(judge.model, early_exit=exits)
        judge._first_runs, judge._other_runs = judge._runs_in_turn()
        for engine in judge._engines:
            engine.images_done = 0
        found = [judge.judge(path) for path in paths]
        return found, {run.name: e.images_done for run, e in zip(judge.runs, judge._engines, strict=True)}

    both = [v.p_violent for v in judged(None)[0]]
    alone = [v.p_violent for v in judged(EarlyExit(first.name, 0.4999))[0]]
    lowest = sorted(alone)
    below = (lowest[0] + lowest[1]) / 2
    verdicts, seen_by = judged(EarlyExit(first.name, below))
    expected = [a if a < below else b for a, b in zip(alone, both, strict=True)]
    assert [v.p_violent for v in verdicts] == expected
    assert np.abs(np.subtract(alone, both)).min() > 0.001, "or it would make no difference"
    assert seen_by == {f"judged by {first.name}": 3 * FRAMES, "judged by other": 2 * FRAMES}
    assert [tuple(judge.watch(open_source(str(path)))) for path in paths] == [v.windows for v in verdicts]


def test_at_a_threshold_where_the_first_would_decide_all_see_every_window(
    model: trained_model.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = model.members
    other = replace(first, name="other", temperature=0.5)
    every = replace(
        model,
        members=(replace(first, temperature=1.0), other),
        records=model.records * 2,
        calibration=Calibration(None, without_exit=Calibration(0.5, {"what": "", "n": 1, "n_groups": 1})),
        early_exit=EarlyExit(first.name, 0.4999),
    )
    path = small_videos.write(tmp_path / "0.avi", 0)
    monkeypatch.setattr(trained_model, "load", lambda *_: every)
    monkeypatch.setattr(model_files, "identity", lambda _: "made")
    camera_profile.write(tmp_path / "p.json", CameraProfile("made", 0.7, early_exit=False))
    judge = Detector(
        PredictConfig(model=tmp_path, engine="openvino", precision="float32", profile=tmp_path / "p.json")
    )
    judged = {"profile": judge.judge(path)}
    for name, threshold in {"threshold": 0.4, "point": 0.5}.items():
        judge.model = judge.model.at("balanced", threshold)
        judge._first_runs, judge._other_runs = judge._runs_in_turn()
        judged[name] = judge.judge(path)
        assert tuple(judge.watch(open_source(str(path)))) == judged[name].windows
    by_first = judged["point"].p_violent
    mean = averaging.scaled(np.array([by_first]), 1.5)  # the mean of the logit and twice the logit
    assert judged["threshold"].p_violent == pytest.approx(averaging.scaled(mean, 2)[0], abs=2e-3)
    assert judged["profile"].p_violent == judged["threshold"].p_violent != by_first
    assert {name: v.early_exit for name, v in judged.items()} == {
        "point": True,
        "threshold": False,
        "profile": False,
    }
    assert judged["threshold"].summary()["early_exit"] is False
    assert judged["threshold"].calibrated
    assert not judged["point"].calibrated


def test_pictures_made_otherwise_than_in_training_are_refused(model: trained_model.TrainedModel) -> None:
    other = {NAME: {**model.record["feature_records"][NAME], "frames": 16}}
    with pytest.raises(UserError, match="on features made differently"):
        whole_networks.taken_out(replace(model, record={**model.record, "feature_records": other}))
