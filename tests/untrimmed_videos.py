"""Small untrimmed videos in each published layout, and what the windows cut from them contain, read from the frames."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import cv2
import numbered_videos

from violence_detection.video import decode

FPS = 8.0  # a window is 40 frames, and the margin is 16
UCF, CCTV, XD, UBI = "raw/ucf", "raw/cctv", "raw/XD", "raw/ubi/UBI_FIGHTS"
FIGHTING = f"{UCF}/Anomaly-Videos-Part-1/Fighting/Fighting003_x264.mp4"
ABUSE = f"{UCF}/Anomaly-Videos-Part-1/Abuse/Abuse001_x264.mp4"
ARSON = f"{UCF}/Anomaly-Videos-Part-1/Arson/Arson001_x264.mp4"
NORMAL = f"{UCF}/Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4"
GARBLED = f"{UCF}/Anomaly-Videos-Part-1/Robbery/Robbery001_x264.mp4"
CCTV_FIGHT = f"{CCTV}/CCTV_DATA/testing/fight_0001.mpeg"
FILM = f"{XD}/videos/Bad.Film.1995__#00-26-51_00-27-53_label_B2-0-0.mp4"
FILM_NORMAL = f"{XD}/videos/Bad.Film.1995__#01-00-00_01-00-30_label_A.mp4"
FILM_MIXED = f"{XD}/videos/Bad.Film.1995__#00-30-00_00-30-30_label_B2-G-0.mp4"
UBI_FIGHT, UBI_NORMAL = f"{UBI}/videos/fight/F_0_1_0_0_0.mp4", f"{UBI}/videos/normal/N_0_0_0_1_0.mp4"
#: video -> the frames that are annotated as fights
FIGHTS = {
    FIGHTING: [(60, 150)],
    CCTV_FIGHT: [(50, 130), (230, 240)],
    FILM: [(100, 190)],
    UBI_FIGHT: [(0, 50), (120, 170)],
    NORMAL: [],
    FILM_NORMAL: [],
    UBI_NORMAL: [],
}
LEFT_OUT = (ABUSE, ARSON, GARBLED, FILM_MIXED)


def numbered(path: Path, n_frames: int = 240, fps: float = FPS) -> None:
    """Write a video of numbered frames, 30 s at FPS. `.mpeg` is MPEG-1 in a program stream, as in CCTV-Fights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {".mp4": "mp4v", ".mpeg": "PIM1"}[path.suffix]
    height, width = numbered_videos.frame(0).shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened(), path
    for number in range(n_frames):
        writer.write(numbered_videos.frame(number))
    writer.release()


def publish(root: Path) -> None:
    """Write each untrimmed data set in its layout, with its annotations, below `root`."""
    for name in (*FIGHTS, *LEFT_OUT):
        numbered(root / name, fps=25.0 if name == CCTV_FIGHT else FPS)
    (root / UCF / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt").write_text(
        "Fighting003_x264.mp4  Fighting  60  150  -1  -1  \n"
        "Arson001_x264.mp4  Arson  100  150  -1  -1  \n"
        "Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \n"
        "Robbery001_x264.mp4  Robbery  from  150\n"
    )
    segments = [{"segment": [2.0, 5.2], "label": "Fight"}, {"segment": ["9.2", "9.6"], "label": "Fight"}]
    database = {"fight_0001": {"subset": "testing", "annotations": segments}}
    (root / CCTV / "NON_CCTV_DATA").mkdir(parents=True)
    (root / CCTV / "ground-truth.json").write_text(json.dumps({"database": database}))
    (root / XD / "annotations.txt").write_text(f"{Path(FILM).stem} 100 190\n{Path(FILM_MIXED).stem} 10 90\n")
    (root / UBI / "annotation").mkdir()
    flags = [1] * 50 + [0] * 70 + [1] * 50 + [0] * 70
    (root / UBI / "annotation" / "F_0_1_0_0_0.csv").write_text("".join(f"{flag}\n" for flag in flags))
    (root / UBI / "annotation" / "N_0_0_0_1_0.csv").write_text("0\n" * 240)


def table(root: Path) -> list[dict[str, str]]:
    with (root / "windows" / "windows.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def numbers(path: Path) -> list[int]:
    """Return the numbers that a clip's frames show."""
    _, frames = decode.read(path, lambda info: range(info.n_frames))
    return [numbered_videos.number_of(frames[k]) for k in sorted(frames)]


def spans(root: Path) -> dict[str, dict[str, list[list[int]]]]:
    """Return video -> class -> the frames of each window, as numbered in the pictures."""
    found: dict[str, dict[str, list[list[int]]]] = defaultdict(lambda: defaultdict(list))
    for row in table(root):
        found[row["video"]][row["label"]].append(numbers(root / row["path"]))
    return found


def check_spans(found: dict[str, dict[str, list[list[int]]]], name: str) -> None:
    fights = FIGHTS[name]
    assert found[name]["fight"] or not fights
    assert found[name]["nonfight"]
    seen: set[int] = set()
    for label, windows in found[name].items():
        for window in windows:
            assert window == list(range(window[0], window[0] + 40))
            assert not seen & set(window)
            seen |= set(window)
            if label == "fight":
                assert any(first <= window[0] and window[-1] < end for first, end in fights)
            else:
                assert all(window[-1] < first - 15 or window[0] >= end + 16 for first, end in fights)
