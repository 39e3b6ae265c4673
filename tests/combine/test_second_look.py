"""Scenes from one fixed camera are not taken for copies, however small the figures in them; altered copies are."""

from __future__ import annotations

import csv
import itertools
import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from violence_detection.combine import combine, duplicates, fingerprint, manifest, second_look
from violence_detection.combine.config import CombineConfig
from violence_detection.system import console

WIDTH, HEIGHT = 640, 360


def scene(share: float, seed: int, sway: float = 0.03, n_frames: int = 40) -> list[np.ndarray]:
    """Draw BGR frames of two figures that sway in a street, which is always the same.

    `share`: the part of the picture that both figures fill together. `seed`: sets their places and the rates of their
    motion. `sway`: how far they move, as a part of their height.
    """
    street = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    picture = cv2.resize(street, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(seed)
    height = int(np.sqrt(share * WIDTH * HEIGHT / 2 * 2.5))
    width = int(height / 2.5)
    places, rates = rng.uniform(0.25, 0.65, (2, 2)) * (WIDTH, HEIGHT), rng.uniform(0.3, 1.0, 2)
    frames = []
    for t in range(n_frames):
        frame = picture.astype(np.int16)
        for k, (place, rate) in enumerate(zip(places, rates, strict=True)):
            moved = height * sway * np.array([np.sin(rate * t + k), np.cos(1.3 * rate * t)])
            x, y = (place + moved).astype(int)
            frame[y : y + height, x : x + width] -= 20
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return frames


def write(
    path: Path, frames: list[np.ndarray], codec: str = "XVID", scale: float = 1.0, beta: int = 0
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = int(WIDTH * scale), int(HEIGHT * scale)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 20.0, size)
    assert writer.isOpened(), path
    for frame in frames:
        writer.write(cv2.resize(cv2.convertScaleAbs(frame, beta=beta), size, interpolation=cv2.INTER_AREA))
    writer.release()
    return path


def called_copies(a: Path, b: Path) -> bool:
    """Return whether fingerprints alone call the two clips the same clip."""
    pairs = duplicates.find_pairs([fingerprint.of_video(path)[1] for path in (a, b)])
    return bool(pairs) and pairs[0].same_clip


def same(a: Path, b: Path) -> bool:
    return second_look.compare(second_look.pictures(a), second_look.pictures(b)).same


@pytest.mark.parametrize(("share", "sway"), [(0.01, 0.06), (0.02, 0.03), (0.03, 0.03), (0.05, 0.02)])
def test_other_small_figures_before_one_camera_are_no_copies_and_altered_ones_are(
    tmp_path: Path, share: float, sway: float
) -> None:
    clips = [write(tmp_path / f"{k}.avi", scene(share, k, sway)) for k in range(4)]
    pairs = [pair for pair in itertools.combinations(clips, 2) if called_copies(*pair)]
    assert pairs, "fingerprints tell them apart, so this shows nothing"
    assert not any(same(*pair) for pair in pairs)
    for k, clip in enumerate(clips):
        copy = write(tmp_path / f"copy{k}.mp4", scene(share, k, sway)[:34], "mp4v", scale=0.5, beta=15)
        assert called_copies(clip, copy)
        assert same(clip, copy)


def test_recordings_in_which_nothing_moves_are_copies(tmp_path: Path) -> None:
    still = write(tmp_path / "a.avi", scene(0, 0))
    assert same(still, write(tmp_path / "b.mp4", scene(0, 0), "mp4v", scale=0.5, beta=10))
    assert same(still, write(tmp_path / "c.avi", scene(0, 0), "MJPG"))


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "combined_all" / "manifest.csv").open(newline="") as f:
        return list(csv.DictReader(f))


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """Own clips: three fights and three other scenes from one camera, an altered copy of one fight, and a clip of each
    class from another place.
    """
    for k in range(6):
        write(tmp_path / "clips" / ("fight" if k % 2 else "nonfight") / f"cam_{k}.avi", scene(0.02, k))
    write(tmp_path / "clips" / "fight" / "copy.avi", scene(0.02, 1), "MJPG", scale=0.5)
    for k, label in enumerate(("fight", "nonfight")):
        turned = [np.rot90(frame, 2).copy() for frame in scene(0.2, 90 + k, 0.5)]
        write(tmp_path / "clips" / label / "elsewhere.avi", turned)
    return tmp_path


def test_combining_keeps_all_scenes_of_one_camera_in_one_source_and_looks_at_a_pair_once(
    camera: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.log, "propagate", True)
    caplog.set_level(logging.INFO)
    config = CombineConfig(data_root=camera / "root", own=(f"mine={camera}/clips",))
    summary = combine.run(config).summary
    found = {Path(r["source_path"]).name: r for r in rows(camera / "root")}
    assert {f"cam_{k}.avi" for k in range(6)} <= set(found)
    assert len({found[f"cam_{k}.avi"]["source_group"] for k in range(6)}) == 1
    assert summary["duplicates_by_kind"]["near"] == 1
    assert "copy.avi" not in found
    assert "one camera's picture" in caplog.text
    monkeypatch.setattr(second_look, "_look", None)
    before = (camera / "root" / "combined_all" / "manifest.csv").read_bytes()
    combine.run(config)
    assert (camera / "root" / "combined_all" / "manifest.csv").read_bytes() == before


def test_the_scenes_of_a_camera_that_users_met_are_all_kept(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    scenes = Path(request.config.rootpath).parent / "shared" / "cases" / "static_camera"
    if not scenes.is_dir():
        pytest.skip("the small inputs that users met are not beside the repository")
    shutil.copytree(scenes, tmp_path / "clips")
    own = (f"camera={tmp_path / 'clips'}",)
    done = combine.run(
        CombineConfig(data_root=tmp_path, own=own, labels=("fight=fights", "nonfight=noFights"))
    )
    rows = manifest.read(tmp_path / "combined_all")
    assert len(rows) == 6
    assert done.summary["duplicates_removed"] == 0
    assert rows.source_group.nunique() == 1


def test_altered_copies_can_be_kept_and_stay_in_their_source(camera: Path) -> None:
    combine.run(CombineConfig(data_root=camera / "root", own=(f"mine={camera}/clips",), keep_near=True))
    frame = manifest.read(camera / "root" / "combined_all")
    assert len(frame) == 9
    group = frame.set_index(frame.source_path.map(lambda p: Path(p).name)).source_group
    assert group["copy.avi"] == group["cam_1.avi"]


def test_a_pair_that_cannot_be_looked_at_stays_and_is_looked_at_again(
    camera: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CombineConfig(data_root=camera / "root", own=(f"mine={camera}/clips",))
    with monkeypatch.context() as patch:
        patch.setattr(second_look, "_look", _give_up)
        combine.run(config)
    assert "copy.avi" in {Path(r["source_path"]).name for r in rows(camera / "root")}
    (camera / "root" / "combined_all" / combine.RECORD_NAME).unlink()
    combine.run(config)
    assert "copy.avi" not in {Path(r["source_path"]).name for r in rows(camera / "root")}


def _give_up(_: tuple[Path, Path]) -> second_look.SecondLook:
    return second_look.SecondLook(False, reason="cannot be read: Input/output error")
