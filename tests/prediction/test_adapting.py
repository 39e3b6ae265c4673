"""--adapt, from footage to a model that judges: interrupted, repeated, and with files that are not videos."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import small_videos
import stand_in
import synthetic

import test_violence_model
from violence_detection.combine import fingerprint
from violence_detection.errors import UserError
from violence_detection.evaluation import training_overlap
from violence_detection.models import adapted_model, trained_model
from violence_detection.prediction import detector
from violence_detection.prediction.config import PredictConfig
from violence_detection.system import storage
from violence_detection.training.config import KERNEL

BRIGHT, FRAMES = 90, 180


@pytest.fixture(scope="module")
def asked() -> list[Callable[[], None]]:
    """Functions that a test adds; the stand-in backbone calls each once before it computes features."""
    return []


@pytest.fixture(scope="module", autouse=True)
def backbone(asked: list[Callable[[], None]]) -> Iterator[None]:
    def runner(images: np.ndarray) -> np.ndarray:
        if asked:
            asked.pop()()
        return stand_in.features_of(images)

    with pytest.MonkeyPatch.context() as patch:
        stand_in.install(patch.setattr, runner)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel head trained on clips of which the bright ones are fights."""
    root = tmp_path_factory.mktemp("root")
    for seed in range(8):
        for label, brightness in (("fight", BRIGHT), ("nonfight", -BRIGHT)):
            small_videos.write(
                root / "raw/mine" / label / f"{seed}.avi", seed + brightness + 90, brightness=brightness
            )
    synthetic.train_on_clips(root, root / "model", architecture=KERNEL)
    return root / "model"


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two videos of 15 seconds and a file that is not a video."""
    folder = tmp_path_factory.mktemp("footage")
    small_videos.write(folder / "a.avi", 1001, n_frames=FRAMES, brightness=BRIGHT - 30)
    small_videos.write(folder / "b.avi", 1002, n_frames=FRAMES, brightness=30 - BRIGHT)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def _adapt(model: Path, footage: Path, to: Path, *more: str) -> int:
    given = ["--model", str(model), "--adapt", str(footage), "--save-model", str(to), "--stride-s", "1"]
    return test_violence_model.main([*given, *more])


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_stopped_and_repeated_it_ends_as_if_nothing_had_happened(
    model: Path,
    footage: Path,
    tmp_path: Path,
    asked: list[Callable[[], None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    # this one surfaces where the main thread waits for features; a real signal may arrive anywhere
    def ctrl_c() -> None:
        raise KeyboardInterrupt

    asked.append(ctrl_c)
    with pytest.raises(
        KeyboardInterrupt, match=r"nothing was written, and the same command starts from the beginning$"
    ):
        _adapt(model, footage, tmp_path / "stopped")
    assert [p.name for p in tmp_path.iterdir()] == [".stopped.lock"]
    # the remains of a run that was killed while it wrote the model
    shutil.copytree(model, tmp_path / ".stopped.making")
    capsys.readouterr()
    assert _adapt(model, footage, tmp_path / "stopped") == 1, "a file of the footage could not be judged"
    said = json.loads(capsys.readouterr().out)
    assert [Path(v).name for v in said["videos"]] == ["a.avi", "b.avi"]
    assert [Path(f["path"]).name for f in said["failures"]] == ["broken.mp4"]
    assert said["labelled_quiet"]
    assert said["labelled_fight"]
    assert _adapt(model, footage, tmp_path / "at_once") == 1
    assert _files(tmp_path / "stopped") == _files(tmp_path / "at_once")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["at_once", "stopped"]


def test_a_second_run_into_the_same_folder_is_refused_and_leaves_the_first_alone(
    model: Path, footage: Path, tmp_path: Path, asked: list[Callable[[], None]]
) -> None:
    said = []

    def second() -> None:
        with pytest.raises(UserError) as refused:
            _adapt(model, footage, tmp_path / "place")
        said.append(str(refused.value))

    asked.append(second)
    _adapt(model, footage, tmp_path / "place")
    assert said == [
        f"another run is writing {tmp_path}/place. Wait until it ends, or give --save-model another folder"
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["place"]
    assert trained_model.load(tmp_path / "place").members
    with pytest.raises(UserError, match="already exists"), adapted_model.place(model, tmp_path / "place"):
        pass


def test_a_file_that_cannot_be_read_costs_the_others_nothing(
    model: Path,
    footage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hashed = storage.sha256_file

    def refused(path: Path) -> str:
        if path.name == "b.avi":
            raise PermissionError(13, "Permission denied", str(path))
        return hashed(path)

    monkeypatch.setattr(storage, "sha256_file", refused)
    assert _adapt(model, footage, tmp_path / "place", "--stride-s", "0.5") == 1
    said = json.loads(capsys.readouterr().out)
    assert [Path(v).name for v in said["videos"]] == ["a.avi"]
    reasons = {Path(f["path"]).name: f["reason"] for f in said["failures"]}
    assert reasons["b.avi"] == "cannot be read: Permission denied"


def test_footage_that_decodes_in_part_counts_and_is_named(
    model: Path, footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "footage"
    half.mkdir()
    shutil.copy(footage / "a.avi", half)
    data = (footage / "b.avi").read_bytes()
    (half / "b.avi").write_bytes(data[: len(data) * 2 // 3])
    assert _adapt(model, half, tmp_path / "place", "--stride-s", "0.5") == 1
    said = json.loads(capsys.readouterr().out)
    assert [Path(v).name for v in said["videos"]] == ["a.avi", "b.avi"]
    ((path, reason),) = [(Path(f["path"]).name, f["reason"]) for f in said["failures"]]
    assert path == "b.avi"
    assert "s decode" in reason


def test_the_model_judges_and_knows_the_footage_again(model: Path, footage: Path, tmp_path: Path) -> None:
    to = tmp_path / "place"
    _adapt(model, footage, to)
    judged = [
        detector.Detector(PredictConfig(model=m, stride_s=1.0)).judge(footage / "a.avi").p_violent
        for m in (model, to)
    ]
    assert judged[0] != judged[1]
    # 4 seconds from the middle of a.avi, encoded again
    frames = small_videos.frames(1001, FRAMES)[67:115]
    cut = tmp_path / "cut.mp4"
    writer = cv2.VideoWriter(str(cut), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (96, 64))
    for frame in frames:
        writer.write(cv2.convertScaleAbs(frame, beta=BRIGHT - 30))
    writer.release()
    clips = [footage / "a.avi", cut, small_videos.write(tmp_path / "other.avi", 2000)]
    rows = pd.DataFrame(
        {
            "clip_id": [storage.sha256_file(c)[:16] for c in clips],
            "dataset": "own",
            "source_group": [f"own:{c.stem}" for c in clips],
            "fingerprint": [fingerprint.of_video(c)[1] for c in clips],
        }
    )
    before, after = (training_overlap.compare(trained_model.load(m), rows, "") for m in (model, to))
    assert before.touched == 0
    assert (after.same_clip.found, dict(after.roles)) == (1, {"adapted": 1})
    assert (after.near_copy.found, after.near_copy.why_not) == (2, "")
    assert storage.read_json(to / "result.json")["selection_accuracy"] is None


def test_what_cannot_be_done_is_said_before_or_with_its_reason(
    model: Path, footage: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="the model to be adapted"):
        _adapt(model, footage, model / "place")
    with pytest.raises(UserError, match=r"needs a model with exactly one kernel head, and .*fast has none"):
        _adapt(Path("fast"), footage, tmp_path / "new" / "place")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="leave out --skip-still"):
        _adapt(model, footage, tmp_path / "place", "--skip-still")
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="already exists"):
        _adapt(model, footage, tmp_path / "there")
    with pytest.raises(UserError, match=r"0 windows.*the first .*broken\.mp4: "):
        _adapt(model, footage / "broken.mp4", tmp_path / "place")
    spoilt = Path(shutil.copytree(model, tmp_path / "spoilt"))
    weights = spoilt / "best_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"best_model\.safetensors"):
        adapted_model.kernel_of(spoilt)


def test_a_copy_of_a_video_or_a_link_to_it_is_no_other_footage(
    model: Path, footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(footage, tmp_path / "footage"))
    (folder / "broken.mp4").unlink()
    (folder / "c.avi").hardlink_to(folder / "a.avi")
    (folder / "d.avi").symlink_to("b.avi")
    shutil.copy(folder / "b.avi", folder / "e.avi")
    assert _adapt(model, folder, tmp_path / "place") == 0
    told = capsys.readouterr()
    assert [Path(v).name for v in json.loads(told.out)["videos"]] == ["a.avi", "b.avi"]
    for name, same in (("c.avi", "a.avi"), ("e.avi", "b.avi")):
        assert f"{folder / name}: left out, because it is the same file as {folder / same}" in told.err
    assert f"{folder / 'd.avi'} is {folder / 'b.avi'}" in told.err
