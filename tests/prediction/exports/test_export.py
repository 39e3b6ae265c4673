"""An exported model gives what the package gives, and judges a video without the package and without TensorFlow."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import small_videos
import tiny_networks

from violence_detection.errors import UserError
from violence_detection.models import model_files, trained_model
from violence_detection.models.averaging import EarlyExit
from violence_detection.models.calibration import Calibration
from violence_detection.prediction import detector
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.exports import converters, export, parity, runtimes
from violence_detection.system import locks, storage
from violence_detection.training import heads
from violence_detection.training.config import HeadConfig

_PACKAGES = ("onnxruntime", "tf2onnx", "openvino", "ai_edge_litert")
# not imported here, which would take seconds in every process that collects tests
pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, _PACKAGES)), reason=f"needs {', '.join(_PACKAGES)}"
)

FORMATS = ("onnx", "openvino", "tflite")
TAKEN = ("tiny_images.crop", "tiny_images.moving", "tiny_clip.moving")
POINT = "low-false-alarm"
#: The exported point is for probabilities without the early exit, high_recall for those with it.
POINTS = {"high_recall": {"threshold": 0.2}, "low_false_alarm": {"threshold": 0.8, "early_exit": False}}


@dataclass(frozen=True)
class Exported:
    """A folder of exports, the script's exit code and summary, and the package's P(violent) of the video's windows."""

    folder: Path
    video: Path
    code: int
    summary: dict[str, Any]
    p_package: list[float]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """Two members on two networks, exported by the script in all formats at a point without their early exit."""
    folder = tmp_path_factory.mktemp("exported")
    video = small_videos.write(folder / "clip.avi", 3, n_frames=50, width=160, height=120)
    with pytest.MonkeyPatch.context() as patch:
        config = replace(tiny_networks.install(patch.setattr), streams=("crop", "moving"))
        shapes = {name: shape for name, shape in tiny_networks.SHAPES.items() if name in TAKEN}
        keras.utils.set_random_seed(5)
        head = HeadConfig(units=8, projection=6, landmarks=5)
        members = tuple(
            trained_model.Member(name, heads.build(name, shapes, head), weight)
            for name, weight in (("lstm", 0.75), ("kernel", 0.25))
        )
        vectors = members[1].model.get_layer("tiny_clip.moving.similarity")
        vectors.set_weights([np.eye(5, 8, dtype=np.float32), np.ones(1, np.float32)])
        made = {"n": 9, "n_groups": 3, "what": "a test"}
        model = trained_model.TrainedModel(
            folder, (folder,), members, config, {"feature_engines": {}},
            calibration=Calibration(7.0, made, POINTS, without_exit=Calibration(0.1, made)),
            early_exit=EarlyExit("lstm", 0.49),
        )  # fmt: skip
        patch.setattr(trained_model, "load", lambda *_: model)
        patch.setattr(model_files, "identity", lambda _: "made")
        for check in ("check_weights", "check_features"):
            patch.setattr(trained_model, check, lambda *_: None)
        said: list[dict[str, Any]] = []
        script = importlib.import_module("test_violence_model")
        patch.setattr(script.cli, "print_summary", said.append)
        flags = [
            "--model",
            str(folder),
            "--operating-point",
            POINT,
            "--stride-s",
            "1",
            "--engine",
            "tensorflow",
        ]
        code = script.main([str(video), *flags, "--export", ",".join(FORMATS), str(folder / "out")])
        config_ = PredictConfig(model=folder, stride_s=1.0, engine="tensorflow", operating_point=POINT)
        verdict = detector.Detector(config_).judge(video)
        yield Exported(folder / "out", video, code, said[0], [w.p_violent for w in verdict.windows])


def test_every_format_agrees_with_the_package(exported: Exported) -> None:
    assert exported.code == 0, exported.summary
    report = json.loads((exported.folder / "parity.json").read_text())
    assert set(report["formats"]) == set(FORMATS)
    for of_format in report["formats"].values():
        assert of_format["max_difference"] <= 1e-4
        assert {name: m["windows"] > 0 for name, m in of_format["members"].items()} == {
            "lstm": True,
            "kernel": True,
        }
        p = [window["p_package"] for window in of_format["windows"]]
        assert max(p) - min(p) > 0.05, "windows that differ"
        assert any("clip.avi" in window["source"] for window in of_format["windows"])
        assert any("made" in window["source"] for window in of_format["windows"])


def test_the_manifest_says_what_goes_in_and_what_comes_out(exported: Exported) -> None:
    manifest = json.loads((exported.folder / "manifest.json").read_text())
    shapes = {i["name"]: tuple(i["shape"]) for i in manifest["inputs"]}
    assert shapes == {
        "tiny_images_rgb": (3, 24, 24, 3),
        "tiny_images_crop": (3, 24, 24, 3),
        "tiny_clip_rgb": (9, 24, 24, 3),
    }
    assert manifest["threshold"] == manifest["thresholds"]["low-false-alarm"] == 0.8
    assert manifest["thresholds"] == {"balanced": 0.5, "low-false-alarm": 0.8}
    assert manifest["early_exit"] is False
    assert {b["name"]: b["licence"] for b in manifest["backbones"]} == {
        "tiny_images": "MIT (made for tests)",
        "tiny_clip": "MIT (made for tests)",
    }
    for of_format in manifest["formats"].values():
        for name, sha256 in of_format["files"].items():
            assert storage.sha256_file(exported.folder / name) == sha256


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_judges_a_video_where_neither_package_nor_tensorflow_is(
    exported: Exported, name: str
) -> None:
    script = exported.folder / f"example_{name}.py"
    assert len(script.read_text().strip().splitlines()) <= 12
    done = _run_alone(script, str(exported.video))
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [
        re.fullmatch(r"(\d+\.\d\d)-(\d+\.\d\d) s: ([01]\.\d{4}) ?(violent)?", li)
        for li in done.stdout.splitlines()
    ]
    assert all(lines)
    found = [float(line[3]) for line in lines if line]
    assert found == pytest.approx(exported.p_package, abs=2e-4)
    assert all((line[4] is not None) == (float(line[3]) >= 0.8) for line in lines if line)
    assert len(found) >= 3
    assert len(set(found)) > 1


def test_the_example_says_in_a_line_what_it_cannot_judge(exported: Exported, tmp_path: Path) -> None:
    script = exported.folder / "example_onnx.py"
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\2\0isommp42")
    short = small_videos.write(tmp_path / "short.avi", 3, n_frames=5)
    for video, said in (
        (tmp_path / "text.mp4", "no such file, or not a video that OpenCV can open"),
        (tmp_path / "cut.mp4", "no such file, or not a video that OpenCV can open"),
        (tmp_path / "none.mp4", "no such file, or not a video that OpenCV can open"),
        (short, "only 5 of at least 8 frames decode"),
    ):
        done = _run_alone(script, str(video))
        assert (done.returncode, done.stdout) == (1, "")
        *by_ffmpeg, last = done.stderr.splitlines()
        assert last == f"cannot judge {video}: {said}"
        assert not any("Traceback" in line for line in by_ffmpeg)
    done = _run_alone(script)
    assert (done.returncode, done.stderr) == (1, "usage: python example_onnx.py VIDEO\n")


def _run_alone(script: Path, *given: str) -> subprocess.CompletedProcess[str]:
    """Run the example in a process that can import neither the package nor TensorFlow."""
    without = (
        "import runpy, sys\n"
        "for name in ('tensorflow', 'keras', 'violence_detection', 'av', 'scipy'): sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(script.parent)!r})\n"
        f"sys.argv = ['example', *{given!r}]\n"
        f"runpy.run_path({str(script)!r})\n"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", without], cwd=script.parent, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def test_a_folder_that_holds_an_export_is_left_as_it_is(exported: Exported, tmp_path: Path) -> None:
    before = {path: storage.sha256_file(path) for path in exported.folder.iterdir() if path.is_file()}
    config = PredictConfig(model=exported.folder.parent, engine="tensorflow")
    said = rf"^{re.escape(str(exported.folder))} has .*manifest\.json.*name another folder"
    with pytest.raises(UserError, match=said):
        export.run(config, ["onnx"], exported.folder, [])
    assert before == {path: storage.sha256_file(path) for path in exported.folder.iterdir() if path.is_file()}
    # files of an export without its manifest are left alone, too
    (tmp_path / "model.tflite").write_bytes(b"of another run")
    with pytest.raises(UserError, match=r"model\.tflite already"):
        export.run(config, ["openvino"], tmp_path, [])


def test_where_the_second_format_fails_the_first_is_not_there_either(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def refuses(graph: Any, path: Path) -> None:
        written.extend(path.parent.glob("model.*"))
        raise RuntimeError("no such operation")

    refusing = replace(converters.FORMATS["tflite"], write=refuses)
    monkeypatch.setattr(converters, "FORMATS", {**converters.FORMATS, "tflite": refusing})
    (tmp_path / "notes.txt").touch()
    # a killed run leaves this folder behind
    (tmp_path / ".making").mkdir()
    (tmp_path / ".making" / "model.onnx").write_bytes(b"half")
    config = PredictConfig(model=exported.folder.parent, engine="tensorflow")
    with pytest.raises(UserError, match="cannot be written as tflite"):
        export.run(config, ["tflite", "openvino"], tmp_path, [])
    assert {path.name for path in written} == {"model.xml", "model.bin"}
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", locks.ONLY_ONE_NAME}
    with (
        locks.only_one(tmp_path, "an export"),
        pytest.raises(UserError, match=r"an export .* is working in this folder"),
    ):
        export.run(config, ["openvino"], tmp_path, [])


def test_what_cannot_be_read_of_the_videos_counts_and_costs_the_others_nothing(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, closed = tmp_path / "videos", tmp_path / "videos" / "closed"
    closed.mkdir(parents=True)
    shutil.copy(exported.video, videos)
    (videos / "broken.mp4").write_bytes(b"no video")
    scandir = os.scandir

    def refuse(folder: str) -> Any:
        if folder == str(closed):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    said: list[dict[str, Any]] = []
    script = importlib.import_module("test_violence_model")
    monkeypatch.setattr(script.cli, "print_summary", said.append)
    flags = ["--model", str(exported.folder.parent), "--engine", "tensorflow"]
    code = script.main([str(videos), *flags, "--export", "openvino", str(tmp_path / "out")])
    assert code == 1
    assert [Path(failure["path"]).name for failure in said[0]["failures"]] == ["closed", "broken.mp4"]
    assert "cannot be listed" in said[0]["failures"][0]["reason"]
    compared = json.loads((tmp_path / "out" / "parity.json").read_text())["formats"]["openvino"]["windows"]
    assert any("clip.avi" in window["source"] for window in compared)


def _compared(here: float, there: float, *logits: tuple[float, float]) -> parity.ComparedWindow:
    of_package, of_export = zip(*logits, strict=True)
    return parity.ComparedWindow(
        "a clip", runtimes.ModelOutput(here, of_package), runtimes.ModelOutput(there, of_export)
    )


def test_a_format_that_differs_is_a_failure_with_its_figure() -> None:
    same = (1.0, 1.001)
    for window, said in (
        (_compared(0.5, 0.5004, same), None),
        (_compared(0.5, 0.502, same), "P(violent) differs by 0.002"),
        (_compared(float("nan"), 0.5, same), "P(violent) differs by inf"),
        (_compared(0.002, 0.0029, (-6.2126, -5.8402)), "the logit of lstm differs by 0.372"),
        (_compared(0.5, 0.5, (0.0, float("nan"))), "the logit of lstm differs by inf"),
    ):
        report = parity.report([_compared(0.3, 0.3, same), window], ["lstm"])
        assert report["passed"] == (said is None)
        assert (said or "None") in str(parity.failure(report))


def test_a_member_that_is_sure_of_every_window_is_not_shown_to_be_the_same() -> None:
    windows = [_compared(p, p, (0.1, 0.101), (logit, logit)) for p, logit in ((0.0, -12.0), (1.0, 20.0))]
    report = parity.report(windows, ["one", "other"])
    assert not report["passed"]
    assert report["members"]["one"] == {"max_logit_difference": pytest.approx(0.001), "windows": 2}
    assert "the logits of other are beyond 9 in all windows" in (parity.failure(report) or "")
    report = parity.report([*windows, _compared(0.2, 0.2, (0.0, 0.0), (-8.0, -8.001))], ["one", "other"])
    assert report["passed"]
    assert report["p_package"] == {"lowest": 0.0, "highest": 1.0}


def test_a_stride_beyond_the_window_is_refused_as_in_judging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record: dict[str, Any] = {"feature_records": {}}
    model = trained_model.TrainedModel(tmp_path, (tmp_path,), (), tiny_networks.CONFIG, record)
    monkeypatch.setattr(trained_model, "load", lambda *_: model)
    (tmp_path / "model.safetensors").touch()
    given = PredictConfig(model=tmp_path / "model.safetensors", stride_s=20)
    with pytest.raises(UserError, match=r"--stride-s\) must be at most the model's window"):
        export.run(given, ["onnx"], tmp_path / "out", [])
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Received: torch"):
        export.check(["onnx", "torch"])
    for config in (
        PredictConfig(tta=2),
        PredictConfig(skip_still=True),
        PredictConfig(profile=tmp_path / "door.json"),
    ):
        with pytest.raises(UserError, match="leave out"):
            export.run(config, ["onnx"], tmp_path / "out", [])

    def refuses(graph: Any, path: Path) -> None:
        raise RuntimeError("no such   operation: Erf")

    refusing = converters.ExportFormat(("model.x",), {}, refuses)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converters, "FORMATS", {"x": refusing, **converters.FORMATS})
        with pytest.raises(UserError, match="cannot be written as x: no such operation: Erf"):
            converters.write("x", None, tmp_path)
