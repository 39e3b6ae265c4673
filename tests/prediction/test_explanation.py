"""Explanations find the place and the moment that matter to a model whose answer is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
import record_lines
import stand_in
import timed_videos

from violence_detection.backbones import registry
from violence_detection.models import trained_model
from violence_detection.prediction import explanation, explanation_picture, written_outputs
from violence_detection.prediction.config import EventConfig, OutputConfig, PredictConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.prediction.review import review_media
from violence_detection.training import heads
from violence_detection.training.config import HeadConfig
from violence_detection.video import occlusion

FPS, SECONDS = 16, 4
#: The place that the model looks at, called the corner below: its row and column among 4 x 4, counted from 0.
ROW, COLUMN = 3, 1
#: When the corner is bright, in seconds of each window of 2 s.
BRIGHT_S = (1.0, 1.5)


def _bright_corner(path: Path) -> Path:
    """Write a grey video of 4 s in which the corner is bright for half a second in every two."""
    out = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 64))
    for number in range(FPS * SECONDS):
        picture = np.full((64, 64, 3), 60, np.uint8)
        if BRIGHT_S[0] <= number / FPS % 2 < BRIGHT_S[1]:
            picture[48:, 16:32] = 255
        out.write(picture)
    out.release()
    return path


def _corner(images: np.ndarray) -> np.ndarray:
    """(T, 16, 16, 3) to (T, 4): how bright the corner is."""
    bright = images[:, 12:, 4:8].reshape(len(images), -1).mean(axis=1) / 255
    return np.stack([bright] * 4, axis=1).astype(np.float32)


@pytest.fixture
def explainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> explanation.Explainer:
    """An explainer of a member that judges by the corner's brightness and one of weight 0 that pools by attention."""
    stand_in.install(monkeypatch.setattr, _corner)
    return _explainer(tmp_path, monkeypatch)


def _explainer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> explanation.Explainer:
    config = replace(stand_in.CONFIG, streams=("rgb",), frames=16)
    given = {"stand_in.rgb": keras.Input((16, 4), name="stand_in.rgb")}
    mean = keras.layers.GlobalAveragePooling1D()(given["stand_in.rgb"])
    p = keras.layers.Dense(1, "sigmoid", kernel_initializer=keras.initializers.Constant(4.0),
                           bias_initializer=keras.initializers.Constant(-5.5))(mean)  # fmt: skip
    members = (
        trained_model.Member("corner", keras.Model(given, p), 1.0),
        trained_model.Member(
            "attentive", heads.build("attention", {"stand_in.rgb": (16, 4)}, HeadConfig()), 0.0
        ),
    )
    model = trained_model.TrainedModel(folder, (folder,), members, config, {"feature_engines": {}})
    monkeypatch.setattr(trained_model, "load", lambda *_: model)
    for check in ("check_weights", "check_features"):
        monkeypatch.setattr(trained_model, check, lambda *_: None)
    return explanation.Explainer(PredictConfig(model=folder, stride_s=2.0, tta=3))


def test_it_finds_the_place_and_the_moment(tmp_path: Path, explainer: explanation.Explainer) -> None:
    video = _bright_corner(tmp_path / "v.avi")
    windows = [JudgedWindow(2.0, 4.0, 0.5), JudgedWindow(0.0, 2.0, 0.5)]
    first, second = explainer.explain(video, windows)
    assert (first.window, second.window) == (windows[1], windows[0]), "in order of time"
    for found in (first, second):
        others = np.delete(found.places.ravel(), ROW * explanation.PLACES + COLUMN)
        assert found.places[ROW, COLUMN] > 0.5
        assert np.abs(others).max() < 0.1
        assert found.p_without_places[ROW, COLUMN] == found.p_without_places.min() < found.p - 0.1
        # a covered moment of 0.25 s shows the frame before it: at 4 the corner stays dark longer, at 6 bright longer
        assert (np.argmax(found.moments), np.argmin(found.moments)) == (4, 6)
        assert found.moments[4] > 0.3
        assert found.moments[6] < -0.3
        assert [frame.shape for frame in found.frames] == [(64, 64, 3)] * explanation.MOMENTS
        (share,) = found.attention.values()
        assert share.shape == (16,)
        assert share.sum() == pytest.approx(1.0, abs=1e-5)
    assert second.times_s == pytest.approx([2.0 + 0.25 * i + 0.125 for i in range(8)], abs=0.07)
    assert first.p == pytest.approx(second.p, abs=0.01)


def test_of_a_telephones_upright_video_it_covers_the_place_that_letterboxed_pictures_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # letterboxed, 64 x 32 becomes 8 columns in the middle of 16 x 16, of which the place has columns 2 and 3
    pictures = []
    for number in range(FPS * SECONDS):
        upright = np.full((64, 32, 3), 60, np.uint8)
        if BRIGHT_S[0] <= number / FPS % 2 < BRIGHT_S[1]:
            upright[48:, 8:16] = 255
        pictures.append(np.ascontiguousarray(np.rot90(upright)))
    stored = timed_videos.write(
        tmp_path / "stored.mp4", [n / FPS for n in range(len(pictures))], pictures=pictures, rate=FPS
    )
    stand_in.install(monkeypatch.setattr, lambda images: _corner(np.roll(images, -2, axis=2)))
    letterboxing = registry.BackboneSampling(letterbox=True)
    monkeypatch.setitem(
        registry._backbones, stand_in.NAME, replace(registry.get(stand_in.NAME), sampling=letterboxing)
    )
    explainer = _explainer(tmp_path, monkeypatch)
    video, window = timed_videos.turned(stored, tmp_path / "v.mp4"), JudgedWindow(0.0, 2.0, 0.5)
    (found,) = explainer.explain(video, [window])
    assert found.frames[0].shape == (64, 32, 3)
    assert np.unravel_index(np.argmax(found.places), found.places.shape) == (ROW, COLUMN)
    assert found.places[ROW, COLUMN] > 0.5
    (p,) = explainer.without_places(video, window, [[occlusion.grid(4, 4)[4 * ROW + COLUMN]]])
    assert p == pytest.approx(found.p_without_places[ROW, COLUMN])


def test_covering_what_matters_lowers_p_more(tmp_path: Path, explainer: explanation.Explainer) -> None:
    """The deletion check: the four places that matter most are covered together, and the four that matter least."""
    video, window = _bright_corner(tmp_path / "v.avi"), JudgedWindow(0.0, 2.0, 0.5)
    (found,) = explainer.explain(video, [window])
    order = np.argsort(-found.places.ravel())
    parts = occlusion.grid(explanation.PLACES, explanation.PLACES)
    most, least = ([parts[i] for i in chosen] for chosen in (order[:4], order[-4:]))
    p_most, p_least = explainer.without_places(video, window, [most, least])
    assert p_most < p_least - 0.1
    assert p_least == pytest.approx(found.p, abs=0.02)


def test_pictures_and_figures_are_written_once(
    tmp_path: Path, explainer: explanation.Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = _bright_corner(tmp_path / "$x_{1}$.avi")
    ps = (0.9, 0.2, 0.7)
    windows = tuple(JudgedWindow(1.0 * i, 1.0 * i + 2, p) for i, p in enumerate(ps))
    verdict = Verdict(str(video), windows, EventConfig(merge_gap_s=0.0), 4.0, 4.0)
    assert [name for name, _ in explanation.explained_windows(verdict, 1)] == ["event001"]
    quiet = replace(verdict, events_by=EventConfig(0.95))
    assert explanation.explained_windows(quiet, 5) == [("highest", windows[0])]
    monkeypatch.setattr(explanation, "Explainer", lambda _: explainer)
    monkeypatch.setattr(written_outputs, "_identity", lambda _: "m")
    config = OutputConfig(explain=tmp_path / "why")
    explain = written_outputs.load_explainer(config, PredictConfig(), {verdict.path: "v"})
    assert [Path(path).name for path in explain(verdict)] == [
        "v.event001.explained.jpg", "v.event002.explained.jpg",
    ]  # fmt: skip
    picture = cv2.imread(str(tmp_path / "why" / "v.event001.explained.jpg"))
    assert picture is not None
    assert picture.shape[1] > 1000
    record: dict[str, Any] = json.loads((tmp_path / "why" / "v.event001.explained.json").read_text())
    assert np.unravel_index(np.argmin(record["p_without_place"]), (4, 4)) == (ROW, COLUMN)
    assert (record["start_s"], record["end_s"], record["path"]) == (0.0, 2.0, str(video))
    assert explain(verdict) == []
    # a full disk leaves an empty file
    (tmp_path / "why" / "v.event001.explained.json").write_text("")
    assert [Path(path).name for path in explain(verdict)] == ["v.event001.explained.jpg"]
    assert explain(verdict) == []

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    other = replace(verdict, events_by=EventConfig(0.6, merge_gap_s=0.0))
    with monkeypatch.context() as patched:
        patched.setattr(written_outputs.WrittenFiles, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            explain(other)
    assert len(explain(verdict)) == 1, "the picture may be of another event than its record says"
    second = written_outputs.load_explainer(
        OutputConfig(explain=tmp_path / "why", explain_most=1), PredictConfig(), {verdict.path: "v"}
    )
    (tmp_path / "page" / "media").mkdir(parents=True)
    (tmp_path / "page" / "media" / "v.made.json").write_text('{"made_of": "x", "is_copy": true}')
    seen = review_media.read(verdict, tmp_path / "page", "v", tmp_path / "why")
    assert seen.why == ("./../why/v.event001.explained.jpg", "./../why/v.event002.explained.jpg")
    assert second(verdict) == []
    assert review_media.read(verdict, tmp_path / "page", "v", tmp_path / "why").why[1] == ""
    later = replace(
        verdict, windows=tuple(replace(w, start_s=w.start_s + 9, end_s=w.end_s + 9) for w in windows)
    )
    assert review_media.read(later, tmp_path / "page", "v", tmp_path / "why").why == ("", ""), (
        "of other moments"
    )


def test_the_record_of_explanations_is_read_once_for_all_videos(
    tmp_path: Path, explainer: explanation.Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation, "Explainer", lambda _: explainer)
    monkeypatch.setattr(written_outputs, "_identity", lambda _: "m")
    read = record_lines.counted(monkeypatch.setattr)
    videos = [str(_bright_corner(tmp_path / f"{n}.avi")) for n in range(3)]
    record_lines.of_others(tmp_path / "why", 100)
    config = OutputConfig(explain=tmp_path / "why")
    explain = written_outputs.load_explainer(config, PredictConfig(), {v: Path(v).stem for v in videos})
    read.clear()
    for wrote in (1, 0):
        for video in videos:
            verdict = Verdict(video, (JudgedWindow(0.0, 2.0, 0.9),), EventConfig(), 4.0, 4.0)
            assert len(explain(verdict)) == wrote
    assert len(read) < 100, "what it has itself written, at most"


def test_explanations_of_another_video_of_the_name_stay(
    tmp_path: Path, explainer: explanation.Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation, "Explainer", lambda _: explainer)
    monkeypatch.setattr(written_outputs, "_identity", lambda _: "m")
    config = OutputConfig(explain=tmp_path / "why")

    def explain(day: str, *ps: float) -> set[str]:
        (tmp_path / day).mkdir(exist_ok=True)
        video = _bright_corner(tmp_path / day / "v.avi")
        windows = tuple(JudgedWindow(1.0 * i, 1.0 * i + 2, p) for i, p in enumerate(ps))
        verdict = Verdict(str(video), windows, EventConfig(merge_gap_s=0.0), 4.0, 4.0)
        names = written_outputs.names_of(config, None, [verdict.path])["--explain"]
        written_outputs.load_explainer(config, PredictConfig(), names)(verdict)
        return {p.name for p in (tmp_path / "why").glob("*.*ed.*")}

    first = explain("day1", 0.9, 0.2, 0.7)
    both = explain("day2", 0.1)
    assert first < both
    assert [name.partition(".")[2] for name in sorted(both - first)] == [
        "highest.explained.jpg",
        "highest.explained.json",
    ]
    assert explain("day1", 0.1) == {"v.highest.explained.jpg", "v.highest.explained.json"} | (both - first)


def test_a_name_in_letters_that_the_font_lacks_says_nothing_beside_the_log(
    tmp_path: Path, explainer: explanation.Explainer, recwarn: pytest.WarningsRecorder
) -> None:
    video = _bright_corner(tmp_path / "夜\tna\nme.avi")
    (found,) = explainer.explain(video, [JudgedWindow(0.0, 2.0, 0.9)])
    explanation_picture.write(found, tmp_path / "why.jpg", video)
    assert not [str(w.message) for w in recwarn if "Glyph" in str(w.message)]
    title = explanation_picture._drawn(found, video.name).get_suptitle()
    assert title.startswith("夜_na_me.avi   ")


def test_the_frames_show_through_where_nothing_matters() -> None:
    frames = tuple(np.full((60, 80, 3), 200, np.uint8) for _ in range(8))
    without = np.full((4, 4), 0.5)
    without[0, 0], without[3, 3] = 0.1, 0.9
    times_s = tuple(0.5 * i for i in range(8))
    found = explanation.Explanation(
        JudgedWindow(0, 5, 0.5), 0.5, without, np.full(8, 0.5), {}, times_s, frames
    )
    figure = explanation_picture._drawn(found, "v.mp4")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    red = (drawn[..., 0] - drawn[..., 2] > 60).sum()
    blue = (drawn[..., 2] - drawn[..., 0] > 60).sum()
    assert red > 8 * 100
    assert blue > 8 * 100
    assert red == pytest.approx(blue, rel=0.5)
