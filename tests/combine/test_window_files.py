"""Windows show the right frames, by the numbers in their pictures, despite pauses, damage and late tracks."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import cv2
import numbered_videos
import numpy as np
import pytest
import timed_videos
from timed_videos import evenly, noisy
from untrimmed_videos import UBI, table

from violence_detection.combine import combine
from violence_detection.combine.config import CombineConfig, CutConfig
from violence_detection.combine.cut import cutting, window_files, windows
from violence_detection.combine.cut.cutting import CutResult
from violence_detection.datasets.annotations import Segments
from violence_detection.find import find, inventory
from violence_detection.system import storage
from violence_detection.video import decode

FIGHT, PEACE = f"{UBI}/videos/fight/F_0_1_0_0_0.mp4", f"{UBI}/videos/normal/N_0_0_0_1_0.mp4"
#: At 25 frames a second, a window is 40 frames and the margin 10.
CONFIG = CutConfig(window_s=1.6, margin_s=0.4, normal_windows=4)
#: Makes x264 reorder frames in a fixed pattern, whatever the pictures show.
LOOKS_AHEAD = {"b-adapt": "0"}
OWN_HEADER = "path,label,start_s,end_s\n"


def with_pause(at: int, pause_s: float, count: int = 250) -> list[float]:
    """Return the times of frames from a recorder that runs at 25 frames a second and pauses before frame `at`."""
    return [i / 25 + (pause_s if i >= at else 0.0) for i in range(count)]


def publish_ubi(root: Path, name: str, flags: list[int]) -> None:
    """Write the annotation of a UBI-Fights video: one line per frame, 1 in a fight and 0 elsewhere."""
    path = root / UBI / "annotation" / f"{Path(name).stem}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{flag}\n" for flag in flags))


def cut_published(root: Path) -> CutResult:
    for name in (FIGHT, PEACE):  # the data set is recognised only if both folders exist
        if not (root / name).exists():
            timed_videos.write(root / name, evenly(20, 25))
            publish_ubi(root, name, [0] * 20)
    return cutting.cut(inventory.discover([root / "raw"]), CONFIG, root, workers=1)


def cut_own(root: Path, *rows: str) -> CutResult:
    """Cut stretches of videos that are beside `root`. Each row is a line of the list: path,label,start_s,end_s."""
    (root.parent / "own.csv").write_text(OWN_HEADER + "".join(f"{row}\n" for row in rows))
    root.mkdir(exist_ok=True)
    config = CombineConfig(data_root=root, own=(f"mine={root.parent / 'own.csv'}",), workers=1)
    return cutting.cut(find.discover(config, CONFIG), CONFIG, root, 1)


def number(picture: np.ndarray) -> int:
    """Read the number off a frame of any size."""
    return numbered_videos.number_of(cv2.resize(picture, (128, 32), interpolation=cv2.INTER_AREA))


def shown(root: Path) -> dict[str, list[list[int]]]:
    """Map each class to its windows, each as the numbers read off its frames."""
    found: dict[str, list[list[int]]] = defaultdict(list)
    for row in table(root):
        _, frames = decode.read(root / row["path"], lambda info: range(info.n_frames))
        found[row["label"]].append([number(frames[k]) for k in sorted(frames)])
    return found


def check_running(numbers: list[int]) -> None:
    """Assert that the numbers are consecutive."""
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize("pause_s", [0.5, 4.0])
def test_annotated_frames_are_counted_as_they_decode_whatever_pause_lies_before(
    tmp_path: Path, pause_s: float
) -> None:
    timed_videos.write(tmp_path / FIGHT, with_pause(120, pause_s), options=LOOKS_AHEAD)
    publish_ubi(tmp_path, FIGHT, [0] * 130 + [1] * 120)
    result = cut_published(tmp_path)
    assert result.failures == []
    found = shown(tmp_path)
    assert len(found["fight"]) == 3
    assert all(min(window) >= 130 for window in found["fight"])
    assert found["nonfight"]
    assert all(max(window) < 120 for window in found["nonfight"])


def test_a_segment_behind_the_last_frame_is_of_another_version_however_long_the_pauses_are(
    tmp_path: Path,
) -> None:
    timed_videos.write(tmp_path / FIGHT, with_pause(120, 4.0))
    publish_ubi(tmp_path, FIGHT, [0] * 260 + [1] * 50)
    (failure,) = cut_published(tmp_path).failures
    assert "speaks of frame 260, but it has 250 frames" in failure["reason"]


def damaged(path: Path) -> Path:
    """Write a video of 250 frames of which some in the middle do not decode, although its packets look complete."""
    timed_videos.write(path, evenly(250, 25), pictures=noisy(250), options={"g": "25", "keyint": "25"})
    data = bytearray(path.read_bytes())
    start, size = int(0.45 * len(data)), int(0.08 * len(data))
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    packets, info = decode.timing(path), decode.probe(path)
    assert packets.n_decoded == 250
    assert 200 < info.n_decoded < 245
    return path


def test_stretches_behind_damage_show_what_was_labelled(tmp_path: Path) -> None:
    damaged(tmp_path / "v.mp4")
    result = cut_own(tmp_path / "root", "v.mp4,nonfight,1,2", "v.mp4,fight,7,8.6", "v.mp4,nonfight,4,6")
    found = shown(tmp_path / "root")
    assert found["fight"] == [list(range(175, 215))]
    assert found["nonfight"][0] == list(range(25, 50))
    (short,) = result.cut_short
    assert "s decode (nothing at 4." in short["reason"]


def test_an_annotation_in_frames_is_believed_up_to_the_damage(tmp_path: Path) -> None:
    damaged(tmp_path / FIGHT)
    publish_ubi(tmp_path, FIGHT, [0] * 20 + [1] * 60 + [0] * 170)
    assert cut_published(tmp_path).failures == []
    found = shown(tmp_path)
    assert [(min(w) >= 20, max(w) < 80) for w in found["fight"]] == [(True, True)]
    assert max(max(window) for window in found["nonfight"]) > 200
    publish_ubi(tmp_path, FIGHT, [0] * 180 + [1] * 60 + [0] * 10)
    result = cut_published(tmp_path)
    (failure,) = result.failures
    assert "nobody knows which are meant: only" in failure["reason"]
    assert result.clips == []


def test_a_pause_in_a_video_whose_encoder_looks_ahead_moves_no_stretch(tmp_path: Path) -> None:
    for later in range(4):
        folder = tmp_path / str(later)
        timed_videos.write(folder / "v.mp4", with_pause(103 + later, 20.0), options=LOOKS_AHEAD)
        cut_own(folder / "root", "v.mp4,nonfight,1,2.6", "v.mp4,fight,26,27.6")
        found = shown(folder / "root")
        assert found == {"nonfight": [list(range(25, 65))], "fight": [list(range(150, 190))]}, later


def uneven(count: int) -> list[float]:
    """Return irregular times of frames, so that a pause does not count as lost frames."""
    return np.cumsum(np.random.default_rng(0).uniform(0.02, 0.08, count)).round(3).tolist()


@pytest.mark.parametrize("rate", ["even", "uneven"])
def test_no_clip_is_cut_where_nothing_comes(tmp_path: Path, rate: str) -> None:
    times = evenly(250, 25) if rate == "even" else uneven(250)
    paused = [t + (60.0 if i >= 125 else 0.0) for i, t in enumerate(times)]
    timed_videos.write(tmp_path / PEACE, paused)
    publish_ubi(tmp_path, PEACE, [0] * 250)
    result = cut_published(tmp_path)
    found = shown(tmp_path)["nonfight"]
    assert len(found) == 4
    for window in found:
        assert np.max(np.diff(window)) <= 2, "no jump"
        assert max(np.bincount(window)) <= 4, "and none that stands"
    assert {max(window) < 125 for window in found} == {True, False}, "of both sides of the pause"
    assert bool(result.cut_short) == (rate == "even")


def test_a_fight_that_the_recorder_missed_in_part_is_cut_where_it_is_seen(tmp_path: Path) -> None:
    info = decode.probe(timed_videos.write(tmp_path / "v.mp4", with_pause(125, 30.0)))
    found = windows.plan(info, "fight", Segments(((4.0, 37.0),), in_seconds=True), CONFIG)
    seconds = defaultdict(list)
    for window in found:
        seconds[window.label].append((window.first / 25, window.end / 25))
    assert seconds["fight"] == [(35.2, 36.8)]
    assert all(end <= 3.6 or start >= 37.4 for start, end in seconds["nonfight"])
    assert all(info.distinct(w.first, w.end) == 40 for w in found)


def test_stretches_of_a_pause_are_refused_with_the_reason(tmp_path: Path) -> None:
    timed_videos.write(tmp_path / "v.mp4", with_pause(100, 20.0))
    timed_videos.write(tmp_path / "slow.mp4", [*evenly(40, 2), *evenly(250, 25, start_s=20.0)])
    result = cut_own(tmp_path / "root", "v.mp4,fight,8,9.6", "v.mp4,fight,3,4.6", "v.mp4,fight,5,20",
                     "v.mp4,fight,25,26.6", "slow.mp4,nonfight,4,5.6", "v.mp4,fight,2,30")  # fmt: skip
    reasons = {f["path"].rpartition(":")[2]: f["reason"].rpartition("/")[2] for f in result.failures}
    assert reasons == {
        "2": "v.mp4: has no 1.6 s in which pictures come: there are none at 4.0-24.0 s",
        "3": "v.mp4: has no 1.6 s in which pictures come: there are none at 4.0-24.0 s",
        "4": "v.mp4: has no 1.6 s in which pictures come: there are none at 4.0-24.0 s",
        "6": "slow.mp4: has 4 different frames in 1.6 s, fewer than the 8 that a clip needs",
    }
    found = shown(tmp_path / "root")["fight"]
    assert list(range(125, 165)) in found
    assert len(found) > 2
    for window in found:
        check_running(window)


def test_a_video_track_that_begins_late_is_cut_by_the_files_own_time(tmp_path: Path) -> None:
    path = timed_videos.write(tmp_path / "late.mkv", evenly(250, 25, start_s=3.0), sound=True)
    info = decode.probe(path)
    assert info.start_s == pytest.approx(3.0, abs=0.01)
    result = cut_own(tmp_path / "root", "late.mkv,nonfight,4,5.6", "late.mkv,fight,10,11.6", "late.mkv,fight,1,2",
                     "late.mkv,nonfight,2,3.8", "late.mkv,fight,14,15")  # fmt: skip
    assert shown(tmp_path / "root") == {
        "nonfight": [list(range(20)), list(range(25, 65))],
        "fight": [list(range(175, 215))],
    }
    reasons = {f["path"].rpartition(":")[2]: f["reason"] for f in result.failures}
    assert "starts before the pictures do: at 1 s, and they begin at 3.0" in reasons["4"]
    assert "starts at 14 s, but the video ends after 13.0" in reasons["6"]
    rows = {(round(float(r["start_s"]), 1), round(float(r["end_s"]), 1)) for r in table(tmp_path / "root")}
    assert rows == {(4.0, 5.6), (10.0, 11.6), (3.0, 3.8)}
    assert {Path(r["path"]).name for r in table(tmp_path / "root")} >= {"late__4000-5600.mp4"}


def test_seconds_of_an_annotation_are_the_files_own_where_the_track_begins_late(tmp_path: Path) -> None:
    info = decode.probe(timed_videos.write(tmp_path / "v.mkv", evenly(250, 25, start_s=3.0), sound=True))
    segments = Segments(((1.0, 2.5), (2.88, 3.2), (8.0, 11.0)), in_seconds=True)
    assert windows.fights(info, segments) == [(-50, -12), (-3, 5), (125, 200)]
    found = windows.plan(info, "fight", segments, CONFIG)
    assert {w.label: (w.first, w.end) for w in found if w.label == "fight"} == {"fight": (142, 182)}
    assert [(w.first, w.end) for w in found if w.label == "nonfight"] == [(20, 60), (70, 110), (210, 250)]
    with pytest.raises(ValueError, match=r"speaks of 14 s, but it ends after 13\.0.*another version"):
        windows.fights(info, Segments(((14.0, 15.0),), in_seconds=True))


def test_windows_of_a_changing_rate_without_a_pause_keep_their_ids(tmp_path: Path) -> None:
    """Earlier versions found other pictures by the same numbers after a pause, so windows there get new ids."""
    window = windows.CutWindow(50, 90, "fight")
    kept = storage.stable_hash(["a" * 64, 50, 90, "mp4v", ".mp4", "by time"], digits=16)
    ids = {}
    for name, times in {
        "uneven": uneven(250),
        "pause": with_pause(120, 4.0),
        "even": evenly(250, 25),
    }.items():
        info = decode.timing(timed_videos.write(tmp_path / f"{name}.mp4", times))
        ids[name] = window_files.window_id("a" * 64, window, window_files._marks(info))
    assert ids["uneven"] == kept
    assert ids["even"] == storage.stable_hash(["a" * 64, 50, 90, "mp4v", ".mp4"], digits=16)
    assert len(set(ids.values())) == 3


def test_a_long_video_of_which_a_part_does_not_decode_is_among_the_warnings(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    (tmp_path / "own").mkdir()
    rows = []
    for k in range(6):
        still = noise.integers(0, 255, (64, 96, 3), np.uint8)
        pictures = [np.roll(still, 3 * i, axis=1) for i in range(200)]
        times = with_pause(100, 20.0 if k == 0 else 0.0, count=200)
        timed_videos.write(tmp_path / f"v{k}.mp4", times, pictures=pictures)
        rows += [f"v{k}.mp4,{('fight', 'nonfight')[k % 2]},1,3"]
    (tmp_path / "own.csv").write_text(OWN_HEADER + "\n".join(rows) + "\n")
    (tmp_path / "root").mkdir()
    config = CombineConfig(data_root=tmp_path / "root", own=(f"mine={tmp_path / 'own.csv'}",), workers=1)
    result = combine.run(config, CutConfig())
    (warning,) = storage.read_csv(tmp_path / "root" / "combined_all" / "warnings.csv")
    assert Path(warning["path"]).name == "v0.mp4"
    assert warning["reason"].startswith("only 8.0 of 28.0 s decode (nothing at 4.0-24.0 s)")
    assert result.summary["cut_short"] == 1
