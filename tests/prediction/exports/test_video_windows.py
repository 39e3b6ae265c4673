"""The script that reads videos for an exported model sees what the package sees, and works without the package."""

from __future__ import annotations

import os
import shutil
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

from violence_detection.backbones import registry
from violence_detection.features import key
from violence_detection.features.config import FeatureConfig
from violence_detection.models import averaging
from violence_detection.models.trained_model import TrainedModel
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.exports import manifest, standalone, video_windows, whole_graph
from violence_detection.prediction.exports.whole_graph import PictureInput
from violence_detection.video import augment, decode, sampling, window_pictures
from violence_detection.video.window_pictures import Viewer


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> FeatureConfig:
    return tiny_networks.install(monkeypatch.setattr)


def _inputs_and_manifest(
    config: FeatureConfig, closer_look: bool = False
) -> tuple[list[PictureInput], dict[str, Any]]:
    inputs = whole_graph.picture_inputs(key.backbone_runs(config, None))
    model = TrainedModel(Path(), (), (), config, {}, closer_look=closer_look)
    return inputs, manifest.of_model(model, "", "made", inputs, PredictConfig(stride_s=1.0))


def _of_package(
    video: Path, config: FeatureConfig, inputs: list[PictureInput], view: str = augment.PLAIN
) -> Iterator[dict[str, np.ndarray]]:
    info = decode.probe(video)
    spans = sampling.sliding_windows(info, config.window_s, 1.0)
    runs = list({id(i.run): i.run for i in inputs}.values())
    viewers = [
        Viewer(tiny_networks.SIZE, run.config, view == augment.CLOSER, run.backbone.sampling.one_shot)
        for run in runs
    ]
    for seen in window_pictures.of_file(video, info, spans, viewers, "", [view]):
        of = {id(run): seen.pictures(number, view) for number, run in enumerate(runs)}
        yield {i.name: of[id(i.run)][i.stream] for i in inputs}


@pytest.mark.parametrize("focus", [0.0, 0.7])
def test_pictures_are_those_of_the_package(config: FeatureConfig, tmp_path: Path, focus: float) -> None:
    config = replace(config, focus=focus)
    video = small_videos.write(tmp_path / "clip.avi", 3, n_frames=50, width=160, height=120)
    inputs, described = _inputs_and_manifest(config)
    found = list(video_windows.windows(video, described))
    expected = list(_of_package(video, config, inputs))
    assert len(found) == len(expected) >= 3
    for (start_s, end_s, (seen,)), wanted in zip(found, expected, strict=True):
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
    found = [looks[0] for *_, looks in video_windows.windows(video, described)]
    for seen, wanted in zip(found, _of_package(video, config, inputs), strict=True):
        for name, images in wanted.items():
            np.testing.assert_array_equal(seen[name], images, err_msg=name)
    boxed = found[0]["tiny_clip_rgb"]
    beside = boxed[:, :, :3] if turned else boxed[:, :3]
    assert not beside.any()
    assert boxed.any()


@pytest.mark.parametrize("one_sees_all", [False, True])
def test_a_window_that_was_cut_shows_one_shot_as_in_the_package(
    config: FeatureConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_sees_all: bool
) -> None:
    """A window at the cut from a dark to a light shot shows only one, except to a backbone not limited to one shot."""
    if one_sees_all:
        clip = registry.get("tiny_clip")
        sampling_of_all = replace(clip.sampling, one_shot=False)
        monkeypatch.setitem(registry._backbones, "tiny_clip", replace(clip, sampling=sampling_of_all))
    config = replace(config, streams=("rgb", "motion"))
    dark, light = (small_videos.frames(seed, 60, 160, 96) for seed in (3, 4))
    shown = [f // 4 for f in dark] + [255 - f // 4 for f in light]
    video = timed_videos.write(tmp_path / "v.mp4", timed_videos.evenly(120, 25), pictures=shown)
    inputs, described = _inputs_and_manifest(config)
    with_all = ["tiny_clip_rgb"] if one_sees_all else []
    assert {i["name"]: i["one_shot"] for i in described["inputs"]} == {
        i.name: i.name not in with_all for i in inputs
    }
    found = [looks[0] for *_, looks in video_windows.windows(video, described)]
    assert len(found) > 2
    cut = []
    for seen, wanted in zip(found, _of_package(video, config, inputs), strict=True):
        for name, images in wanted.items():
            np.testing.assert_array_equal(seen[name], images, err_msg=name)
            if name.endswith("rgb"):
                means = images[:, 8:16, 8:16].mean(axis=(1, 2, 3))
                cut += [] if (means < 100).all() or (means > 150).all() else [name]
    assert set(cut) == set(with_all)


def test_a_closer_look_is_that_of_the_package(config: FeatureConfig, tmp_path: Path) -> None:
    """A large video of which only a part moves gets a closer look at it; one that moves everywhere gets none."""
    config = replace(config, streams=("rgb",))
    still = cv2.resize(numbered_videos.frame(7), (800, 480))
    shown = []
    for number in range(60):
        frame = still.copy()
        frame[300:380, 500 + 5 * (number % 4) : 620] = 30 * (number % 7)
        shown.append(frame)
    video = timed_videos.write(tmp_path / "v.mp4", [i / 25 for i in range(60)], pictures=shown)
    inputs, described = _inputs_and_manifest(config, closer_look=True)
    found = [looks for *_, looks in video_windows.windows(video, described)]
    wanted = list(_of_package(video, config, inputs, augment.CLOSER))
    assert len(found) == len(wanted)
    for (whole, closer), expected in zip(found, wanted, strict=True):
        for name, images in expected.items():
            np.testing.assert_array_equal(closer[name], images, err_msg=name)
            assert (whole[name] != images).any()
    all_moves = small_videos.write(tmp_path / "clip.avi", 3, n_frames=50, width=160, height=120)
    assert {len(looks) for *_, looks in video_windows.windows(all_moves, described)} == {1}


@pytest.mark.parametrize("in_logits", [False, True])
@pytest.mark.parametrize("below", [None, 0.2])
def test_what_the_script_makes_of_looks_is_what_the_package_does(
    in_logits: bool, below: float | None
) -> None:
    rng = np.random.default_rng(0)
    # logits by window, look and member
    raw = rng.normal(0, 1.5, (200, 2, 2))
    names, own, weights = ("first", "second"), (2.0, 0.5) if in_logits else (None, None), (0.3, 0.7)
    how = averaging.Averaging(in_logits, averaging.EarlyExit("first", below) if below else None)
    temperature = 1.7
    members = [
        {"name": n, "weight": w, "temperature": t} for n, w, t in zip(names, weights, own, strict=True)
    ]
    described = {
        "members": members,
        "judging": {"in_logits": in_logits, "early_exit": how.exit_record(), "temperature": temperature},
    }
    by_member = {
        name: averaging.over_views(
            averaging.scaled(1 / (1 + np.exp(-raw[:, :, i].T)), 1 / (own[i] or 1.0)), closer_look=True
        )
        for i, name in enumerate(names)
    }
    mean = averaging.together(by_member, weights, how)
    settled = how.settled(by_member)
    expected = averaging.scaled(mean, 1 / temperature)
    if settled is not None:
        assert settled.any()
        expected = np.where(settled, mean, expected)
    found = [video_windows.p_violent(list(looks), described) for looks in raw]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_frames_without_a_time_come_behind_the_others() -> None:
    stamps = np.array([0.08, 0.12, 0.16, 0.0, 0.0])
    np.testing.assert_allclose(video_windows._in_order(stamps, 0.04), [0.0, 0.04, 0.08, 0.12, 0.16])
    np.testing.assert_allclose(video_windows._in_order(np.zeros(3), 0.5), [0.0, 0.5, 1.0])
    between = np.array([0.0, 0.04, 0.0, 0.12, 0.16])
    np.testing.assert_allclose(video_windows._in_order(between, 0.04), [0.0, 0.04, 0.08, 0.12, 0.16])


@pytest.mark.parametrize("starts_s", [(0.0, 0.0), (1.0, 1.0), (0.0, 7200.0)])
def test_recordings_in_one_file_follow_each_other_as_in_the_package(
    config: FeatureConfig, tmp_path: Path, starts_s: tuple[float, float]
) -> None:
    """If a recorder's parts are joined with `cat`, times start again, or jump ahead if its clock was set in between."""
    config = replace(config, streams=("rgb",))
    parts = []
    for number, start_s in enumerate(starts_s):
        shown = [cv2.resize(numbered_videos.frame(80 * number + i), (160, 96)) for i in range(80)]
        times = timed_videos.evenly(80, 25, start_s)
        parts.append(timed_videos.write(tmp_path / f"{number}.ts", times, pictures=shown))
    video = tmp_path / "v.ts"
    video.write_bytes(b"".join(part.read_bytes() for part in parts))
    inputs, described = _inputs_and_manifest(config)
    found = [looks[0] for *_, looks in video_windows.windows(video, described)]
    wanted = list(_of_package(video, config, inputs))
    assert len(found) == len(wanted)
    moments = video_windows.MomentsOfVideo(video)
    assert moments.n_frames == decode.probe(video).n_frames == 160
    assert not moments.shortfall
    for seen, expected in zip(found, wanted, strict=True):
        for name, images in expected.items():
            np.testing.assert_array_equal(seen[name], images, err_msg=name)


@pytest.mark.parametrize("fps", [2, 5, 12])
def test_a_slow_recorder_that_begins_anew_goes_on_in_time(tmp_path: Path, fps: int) -> None:
    part = timed_videos.write(tmp_path / "part.ts", timed_videos.evenly(30, fps))
    video = tmp_path / "v.ts"
    video.write_bytes(2 * part.read_bytes())
    moments = video_windows.MomentsOfVideo(video)
    assert moments.n_frames / moments.fps == pytest.approx(60 / fps, abs=1.5 / fps)
    assert moments.distinct(0, moments.n_frames) == 60


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_clock_that_is_set_ahead_makes_no_video_longer(tmp_path: Path, suffix: str) -> None:
    times = [*timed_videos.evenly(80, 25), *timed_videos.evenly(80, 25, start_s=7200)]
    video = timed_videos.write(tmp_path / f"v{suffix}", times)
    moments = video_windows.MomentsOfVideo(video)
    assert moments.n_frames == decode.probe(video).n_frames == 160
    assert not moments.shortfall


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes the text before a colon for a protocol."""
    small_videos.write(tmp_path / "v.mp4", 1).rename(tmp_path / "12:30.mp4")
    monkeypatch.chdir(tmp_path)
    assert video_windows.MomentsOfVideo("12:30.mp4").n_frames == decode.probe(Path("12:30.mp4")).n_frames


def test_a_video_is_read_in_a_folder_whose_name_is_no_utf_8(tmp_path: Path) -> None:
    """This runs in a process of its own, since OpenCV crashes on such a path."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xfe"))
    folder.mkdir()
    small_videos.write(tmp_path / "v.mp4", 1).rename(folder / "v.mp4")
    program = (
        "from violence_detection.prediction.exports.video_windows import MomentsOfVideo\n"
        "assert MomentsOfVideo('v.mp4').n_frames"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(decode.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True, timeout=60)


def test_what_is_no_video_is_said(config: FeatureConfig, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    _, described = _inputs_and_manifest(config)
    with pytest.raises(video_windows.CannotJudge, match=r"text\.mp4: no such file, or not a video"):
        next(video_windows.windows(tmp_path / "text.mp4", described))
    odd = shutil.copy(tmp_path / "text.mp4", tmp_path / "caf\udce9.mp4")
    with pytest.raises(video_windows.CannotJudge, match="the path is not UTF-8"):
        next(video_windows.windows(odd, described))
    short = small_videos.write(tmp_path / "short.avi", 3, n_frames=5)
    with pytest.raises(video_windows.CannotJudge, match=r"short\.avi: only 5 of at least 8 frames decode"):
        next(video_windows.windows(short, described))


@pytest.mark.parametrize("options", [{"x264-params": "tff=1"}, {}], ids=["interlaced", "still"])
def test_frames_that_opencv_does_not_show_are_no_quiet_video(
    config: FeatureConfig, tmp_path: Path, options: dict[str, str]
) -> None:
    """For interlaced frames, some builds of OpenCV give black ones, which were once judged as a quiet video."""
    _, described = _inputs_and_manifest(config)
    pictures = small_videos.frames(3, 1 if not options else 24)
    video = timed_videos.write(
        tmp_path / "v.mp4",
        timed_videos.evenly(24, 12),
        pictures=pictures * (24 // len(pictures)),
        options=options,
    )
    if options and _shows_all(video):
        pytest.skip("this OpenCV shows interlaced frames")
    with pytest.raises(video_windows.CannotJudge, match=r"v\.mp4: all frames show the same.*interlaced"):
        next(video_windows.windows(video, described))


def _shows_all(video: Path) -> bool:
    capture = cv2.VideoCapture(str(video))
    _, first = capture.read()
    _, second = capture.read()
    return not np.array_equal(first, second)


def test_what_does_not_decode_is_said_behind_what_does(config: FeatureConfig, tmp_path: Path) -> None:
    _, described = _inputs_and_manifest(config)
    whole = small_videos.write(tmp_path / "whole.avi", 3, n_frames=50)
    assert list(video_windows.of_arguments(["example.py", str(whole)], described))
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    found = video_windows.of_arguments(["example.py", str(cut)], described)
    assert next(found)
    with pytest.raises(SystemExit, match=r"cut\.avi: only \d\d of 50 frames decode; the rest was not judged"):
        list(found)
    # a Matroska file of a part of a recording states when it ends, here after 602 s, which is not its length
    times = timed_videos.evenly(50, 25, start_s=600.0)
    part = timed_videos.write(tmp_path / "part.mkv", times)
    assert list(video_windows.of_arguments(["example.py", str(part)], described))


def test_the_script_stands_alone(tmp_path: Path) -> None:
    """It is one file that needs only numpy and cv2: it is imported without this package, and ruff checks its names."""
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
    # these names occur only in annotations, which are not evaluated
    assert {line.split("`")[1] for line in done.stdout.splitlines() if "F821" in line} <= {
        "VideoInfo",
        "Draw",
        "ClipConfig",
        "Span",
    }
