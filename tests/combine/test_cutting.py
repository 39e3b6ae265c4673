"""Untrimmed videos are cut into clips with the right frames of the right class, once, even after an interruption."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numbered_videos
import pytest
import small_videos
import timed_videos
from timed_videos import evenly
from untrimmed_videos import (
    ABUSE,
    ARSON,
    CCTV,
    CCTV_FIGHT,
    FIGHTING,
    FIGHTS,
    FILM,
    FILM_MIXED,
    FILM_NORMAL,
    FPS,
    GARBLED,
    LEFT_OUT,
    NORMAL,
    UBI_FIGHT,
    UBI_NORMAL,
    UCF,
    XD,
    check_spans,
    numbered,
    publish,
    spans,
    table,
)

from violence_detection.combine import combine, manifest
from violence_detection.combine.config import CombineConfig, CutConfig
from violence_detection.combine.cut import cutting, window_files
from violence_detection.combine.cut.cutting import CutResult
from violence_detection.errors import UserError
from violence_detection.find import find, inventory
from violence_detection.find.config import FindConfig
from violence_detection.system import processes, storage
from violence_detection.video import decode, video_files
from violence_detection.video.video_files import WINDOWS_JOURNAL

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with all untrimmed data sets; tests copy it."""
    root = tmp_path_factory.mktemp("published")
    publish(root)
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "root"))


#: The video of CCTV-Fights has 25 frames a second, because MPEG-1 does not allow 8. With windows of 1.6 s and a margin
#: of 0.64 s, its windows are 40 frames and its margin is 16 frames, like those of the other videos.
CONFIG = CutConfig()
CCTV_CONFIG = CutConfig(window_s=1.6, margin_s=0.64)


def cut(root: Path, config: CutConfig = CONFIG, below: str = "raw") -> CutResult:
    result = cutting.cut(inventory.discover([root / below]), config, root, workers=2)
    cutting.remove(result.left_over)
    return result


@pytest.fixture(scope="module")
def done(published: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CutResult]:
    """A data root whose videos were cut once, and the result; tests only read it."""
    root = Path(shutil.copytree(published, tmp_path_factory.mktemp("done") / "root"))
    return root, cut(root)


def running(session: int) -> bool:
    """Return whether any process of the session still runs."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has ended meanwhile
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                return True
    return False


def files(root: Path) -> dict[str, bytes]:
    """Return the content of all windows by path."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in (root / "windows").rglob("*.mp4")}


def test_windows_hold_just_the_frames_of_their_class(done: tuple[Path, CutResult]) -> None:
    found = spans(done[0])
    for name in set(FIGHTS) - {CCTV_FIGHT}:
        check_spans(found, name)
    assert set(found) == set(FIGHTS) - {CCTV_FIGHT}  # its fights are shorter than a window


def test_a_program_stream_with_segments_in_seconds_is_cut_to_the_frame(root: Path) -> None:
    result = cut(root, CCTV_CONFIG, CCTV)
    assert {c.official_split for c in result.clips} == {"val"}
    found = spans(root)
    assert set(found) == {CCTV_FIGHT}
    check_spans(found, CCTV_FIGHT)


def test_a_window_is_named_by_its_time_and_keeps_rate_and_size(done: tuple[Path, CutResult]) -> None:
    root, _ = done
    for row in table(root):
        path = root / row["path"]
        start, end = (round(float(row[k]) * 1000) for k in ("start_s", "end_s"))
        assert path.name == f"{Path(row['video']).stem}__{start}-{end}.mp4"
        info, original = decode.probe(path), decode.probe(root / row["video"])
        assert (info.width, info.height, info.codec) == (original.width, original.height, "FMP4")
        assert info.fps == original.fps
        assert row["path"].startswith(f"windows/{row['dataset']}/")


def test_clips_of_both_classes_belong_to_their_videos_source(done: tuple[Path, CutResult]) -> None:
    root, result = done
    groups: dict[str, set[str]] = defaultdict(set)
    videos = {row["path"]: row["video"] for row in table(root)}
    labels = {row["path"]: row["label"] for row in table(root)}
    assert {inventory.source_path(c.path, root): c.label for c in result.clips} == labels
    for clip in result.clips:
        groups[videos[inventory.source_path(clip.path, root)]].add(clip.source_group)
        assert clip.path.is_file()
    assert all(len(g) == 1 for g in groups.values())
    assert groups[FILM] == groups[FILM_NORMAL]  # two scenes of one film
    assert {c.label for c in result.clips} == {"fight", "nonfight"}


def test_what_gives_nothing_is_named_with_the_reason(done: tuple[Path, CutResult]) -> None:
    root, result = done
    reasons = {row["path"]: row["reason"] for row in result.left_out}
    assert "without temporal annotation" in reasons[ABUSE]
    assert "--cut-unannotated" in reasons[ABUSE]
    assert "not understood" in reasons[GARBLED]
    (failure,) = result.failures
    assert failure["path"] == f"{UCF}/Temporal_Anomaly_Annotation_for_Testing_Videos.txt:4"
    assert not set(LEFT_OUT) & set(spans(root))
    excluded = {p for d in inventory.discover([root / "raw"]).datasets for p in d.excluded}
    assert excluded == {root / ARSON, root / FILM_MIXED}


def test_videos_without_annotation_can_be_admitted_as_a_guess(
    root: Path, done: tuple[Path, CutResult]
) -> None:
    shutil.copytree(done[0] / "windows", root / "windows")
    cut(root, CutConfig(cut_unannotated=True))
    found = spans(root)
    assert set(found[ABUSE]) == {"fight"}
    assert GARBLED not in found


def test_a_second_run_cuts_nothing_and_says_the_same(
    done: tuple[Path, CutResult], caplog: pytest.LogCaptureFixture
) -> None:
    root, first = done
    before = {p: p.stat().st_mtime_ns for p in (root / "windows").rglob("*.mp4")}
    with_log(caplog)
    assert cut(root) == first
    assert "0 to cut" in caplog.text
    assert {p: p.stat().st_mtime_ns for p in (root / "windows").rglob("*.mp4")} == before


def with_log(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("violence_detection").propagate = True
    caplog.set_level(logging.INFO, "violence_detection")


def test_a_video_added_a_window_lost_and_an_annotation_mended_cost_only_themselves(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut(root)
    numbered(root / UCF / "Fighting" / "Fighting007_x264.mp4")
    next((root / "windows" / "ubi_fights").glob("N_*")).unlink()
    path = root / UCF / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt"
    path.write_text(
        path.read_text().replace("from  150", "100 150 -1 -1") + "Fighting007_x264.mp4 Fighting 1 60 -1 -1\n"
    )
    with_log(caplog)
    result = cut(root)
    assert "3 to cut" in caplog.text
    assert result.failures == []
    assert {"Fighting007_x264", "Robbery001_x264"} <= {Path(r["video"]).stem for r in table(root)}


def test_a_changed_annotation_moves_the_windows_of_a_known_video(root: Path) -> None:
    cut(root, below=UCF)
    path = root / UCF / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt"
    path.write_text(path.read_text().replace("60  150", "160  230"))
    cut(root, below=UCF)
    (fight,) = spans(root)[FIGHTING]["fight"]
    assert fight[0] >= 160
    assert all(w[-1] < 144 for w in spans(root)[FIGHTING]["nonfight"])


def test_other_settings_leave_no_window_of_the_former(root: Path) -> None:
    cut(root)
    result = cut(root, CutConfig(window_s=3.0, windows_per_video=2))
    assert set(files(root)) == {inventory.source_path(c.path, root) for c in result.clips}


def test_killed_in_the_middle_it_goes_on_and_ends_the_same(root: Path, done: tuple[Path, CutResult]) -> None:
    command = [sys.executable, "-c", KILLED, str(root)]
    journal = root / "windows" / WINDOWS_JOURNAL
    first = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True)
    while not journal.is_file() or journal.read_bytes().count(b"\n") < 2:
        assert first.poll() is None
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    first.wait()
    known = journal.read_bytes().count(b"\n")
    assert known < len(FIGHTS)
    while running(first.pid):  # workers end shortly after their parent
        time.sleep(0.01)
    (root / "windows" / "xd_violence").mkdir(exist_ok=True)
    half = root / "windows" / "xd_violence" / f".{Path(FILM).stem}__0-5000.{storage.machine()}.1-1.tmp.mp4"
    half.write_bytes(b"left by a killed run")
    result = cut(root)
    assert files(root) == files(done[0])
    assert not half.exists()
    assert table(root) == table(done[0])
    assert [c.rel for c in result.clips] == [c.rel for c in done[1].clips]


KILLED = """
import sys
from pathlib import Path
from violence_detection.combine.config import CutConfig
from violence_detection.combine.cut import cutting
from violence_detection.find import inventory
if __name__ == "__main__":
    root = Path(sys.argv[1])
    cutting.cut(inventory.discover([root / "raw"]), CutConfig(), root, workers=1)
"""


def test_damaged_and_short_videos_are_named_and_the_rest_is_cut(root: Path) -> None:
    (root / NORMAL).write_bytes(b"no video")
    whole = (root / FILM_NORMAL).read_bytes()
    (root / FILM_NORMAL).write_bytes(whole[: len(whole) // 2])  # an MP4 without its index
    numbered(root / UBI_NORMAL, n_frames=30)
    numbered(root / FIGHTING, n_frames=50)  # shorter than its annotation says
    result = cut(root)
    reasons = {f["path"]: f["reason"] for f in result.failures}
    assert {NORMAL, FILM_NORMAL, FIGHTING} <= set(reasons)
    assert "another version" in reasons[FIGHTING]
    assert result.wrong_annotations == 2, "of that video, and the line that is not understood"
    assert "no stretch of 5 s" in {r["path"]: r["reason"] for r in result.left_out}[UBI_NORMAL]
    assert {FILM, UBI_FIGHT} <= set(spans(root))


def test_a_wrong_line_counts_once_in_however_many_folders_the_videos_lie(tmp_path: Path) -> None:
    for folder in ("1-1004", "1005-2004", "2005-2804"):
        numbered(tmp_path / XD / folder / f"Bad.Film.{folder}__#00-01-00_00-01-30_label_A.mp4", n_frames=60)
    (tmp_path / XD / "annotations.txt").write_text(
        "Bad.Film.1995__#00-26-51_00-27-53_label_B2-0-0 100 190 250\n"
    )
    found = inventory.discover([tmp_path / "raw"])
    assert len([d for d in found.datasets if d.needs_cutting]) == 3
    result = cutting.forecast(found, CONFIG, tmp_path, workers=1)
    assert [f["path"] for f in result.failures] == [f"{XD}/annotations.txt:1"]
    assert result.wrong_annotations == 1


@pytest.mark.parametrize("stage", ["plan", "cut"])
def test_what_takes_too_long_is_named_and_tried_again_by_the_next_run(
    root: Path, done: tuple[Path, CutResult], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    with monkeypatch.context() as patch:
        if stage == "cut":
            found = inventory.discover([root / "raw"])
            plans = [(job, window_files.plan_job(job)) for job in cutting._jobs(found, CONFIG, root)[0]]
            patch.setattr(cutting, "_plan_all", lambda *_: plans)
        patch.setattr(video_files, "TIME_LIMIT_S", 0.0)
        result = cut(root)
    assert {f["path"] for f in result.failures if "takes more than" in f["reason"]} >= {NORMAL, FIGHTING}
    assert files(root) == {}
    assert cut(root).by_dataset == done[1].by_dataset
    assert files(root) == files(done[0])


@pytest.mark.parametrize("reason", [video_files.CRASHED, "cannot be read: Input/output error"])
def test_faults_that_an_earlier_version_remembered_are_not_believed(
    root: Path, done: tuple[Path, CutResult], reason: str
) -> None:
    found = inventory.discover([root / "raw"])
    job = next(j for j in cutting._jobs(found, CONFIG, root)[0] if j.clip.path == root / FIGHTING)
    with storage.appending_journal(root / "windows" / ".cut.jsonl") as record:
        record(cutting._key(job, root), {"windows": [], "reason": reason})
    assert cut(root).by_dataset == done[1].by_dataset


def test_a_video_whose_process_dies_is_tried_twice_and_by_the_next_run(
    root: Path,
    done: tuple[Path, CutResult],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with_log(caplog)
    with monkeypatch.context() as patch:
        patch.setattr(cutting, "cut_job", _die_at_the_normal_one)
        result = cut(root)
    assert {f["path"]: f["reason"] for f in result.failures}[NORMAL] == video_files.CRASHED
    assert "1 videos could not be cut now" in caplog.text
    assert (root / "died").read_text() == "xx"
    assert cut(root).by_dataset == done[1].by_dataset


def _die_at_the_normal_one(item: tuple[window_files.CutJob, window_files.CutPlan]) -> dict[str, object]:
    path = item[0].clip.path
    if path.name == Path(NORMAL).name:
        with (item[0].folder.parents[1] / "died").open("a") as f:
            f.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return window_files.cut_job(item)


def test_a_link_to_a_video_that_is_gone_is_named_and_stops_nothing(
    root: Path, done: tuple[Path, CutResult]
) -> None:
    cut(root)
    windows = {p: p.stat().st_mtime_ns for p in (root / "windows").rglob("*.mp4")}
    (root / NORMAL).rename(root / "away.mp4")
    (root / NORMAL).symlink_to(root / "gone.mp4")
    result = cut(root)
    assert NORMAL in {f["path"] for f in result.failures}
    assert not result.left_over, "a disk that is away today costs no window"
    (root / NORMAL).unlink()
    (root / "away.mp4").rename(root / NORMAL)
    assert cut(root).by_dataset == done[1].by_dataset
    assert {p: p.stat().st_mtime_ns for p in (root / "windows").rglob("*.mp4")} == windows


@pytest.mark.parametrize("version", cutting._VERSIONS_BEFORE)
@pytest.mark.parametrize("unknown_then", [set(), {"shortfall"}, {"shortfall", "by_time"}])
def test_windows_of_earlier_versions_are_cut_anew_where_they_may_lie_otherwise_today(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    unknown_then: set[str],
    version: str,
) -> None:
    """The windows of a video of variable frame rate may show other pictures today, so they also get new ids. Those of a
    video of constant rate are kept with the ids in the journal.
    """
    slow_then_fast = [*evenly(100, 5), *evenly(500, 25, start_s=20.0)]
    videos = {"v": timed_videos.write(tmp_path / "v.mkv", slow_then_fast),
              "c": timed_videos.write(tmp_path / "c.mkv", evenly(1000, 25))}  # fmt: skip
    own = tmp_path / "own.csv"
    own.write_text("path,label,start_s,end_s\n" + "".join(f"{p.name},fight,2,7\n{p.name},nonfight,30,35\n"
                                                          for p in videos.values()))  # fmt: skip
    (tmp_path / "root").mkdir()
    config = CombineConfig(data_root=tmp_path / "root", own=(f"mine={own}",), workers=1)

    def run() -> dict[tuple[str, str], str]:
        found = find.discover(config, CONFIG)
        return {
            (c.path.name[0], c.label): c.clip_id
            for c in cutting.cut(found, CONFIG, config.data_root, 1).clips
        }

    by_time = run()
    journal = tmp_path / "root" / "windows" / WINDOWS_JOURNAL
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["by_time"] for line in lines].count(True) == 1
    jobs, _ = cutting._jobs(find.discover(config, CONFIG), CONFIG, config.data_root)
    then = {cutting._key(j, config.data_root): cutting._key(j, config.data_root, version) for j in jobs}
    for line in lines:  # rewrite the lines as that version wrote them
        line["key"] = then[line["key"]]
        for name in unknown_then:
            del line[name]
        for window in line["windows"]:
            window["clip_id"] = "0" * 16
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with_log(caplog)
    again = run()
    assert "2 videos known from an earlier version: checking them against their packets" in caplog.text
    assert {again[key] for key in again if key[0] == "c"} == {"0" * 16}, "known"
    assert {key: again[key] for key in again if key[0] == "v"} == {
        k: by_time[k] for k in by_time if k[0] == "v"
    }
    monkeypatch.setattr(cutting, "as_before", None)
    assert run() == again, "said once"


def test_what_an_earlier_version_found_short_and_today_is_whole_is_cut_anew(tmp_path: Path) -> None:
    video = timed_videos.write(tmp_path / "v.mkv", evenly(1000, 25))
    (tmp_path / "own.csv").write_text(f"path,label,start_s,end_s\n{video.name},fight,2,7\n")
    (tmp_path / "root").mkdir()
    config = CombineConfig(data_root=tmp_path / "root", own=(f"mine={tmp_path / 'own.csv'}",), workers=1)
    found = find.discover(config, CONFIG)
    clips = cutting.cut(found, CONFIG, config.data_root, 1).clips
    journal = tmp_path / "root" / "windows" / WINDOWS_JOURNAL
    (line,) = [json.loads(line) for line in journal.read_text().splitlines()]
    (job,), _ = cutting._jobs(found, CONFIG, config.data_root)
    line["key"] = cutting._key(job, config.data_root, cutting._VERSIONS_BEFORE[0])
    line["shortfall"] = "only 4.0 of 604.0 s decode"
    journal.write_text(json.dumps(line) + "\n")
    again = cutting.cut(found, CONFIG, config.data_root, 1)
    assert again.cut_short == []
    assert again.clips == clips
    assert [json.loads(line)["shortfall"] for line in journal.read_text().splitlines()][1:] == [""]


def test_a_folder_of_windows_that_is_somebody_elses_is_refused(root: Path) -> None:
    root = root.rename(root.with_name("my drive"))
    (root / "windows").mkdir()
    (root / "windows" / "mine.mp4").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"windows contains files.*mv ") as raised:
        cut(root)
    assert [p.name for p in (root / "windows").iterdir()] == ["mine.mp4"]
    subprocess.run(str(raised.value).partition("Move your files away: ")[2], shell=True, check=True)
    assert (root / "my_windows" / "mine.mp4").is_file()


def test_windows_of_other_settings_stay_until_nothing_points_to_them(root: Path) -> None:
    found = inventory.discover([root / "raw"])
    before = {c.path for c in cutting.cut(found, CONFIG, root, workers=2).clips}
    result = cutting.cut(found, CutConfig(window_s=4.0), root, workers=2)
    old = before - {c.path for c in result.clips}
    assert old
    assert old == set(result.left_over)
    assert all(path.is_file() for path in old)
    cutting.remove(result.left_over)
    assert set((root / "windows").rglob("*.mp4")) == {c.path for c in result.clips}


def test_a_video_shorter_than_its_header_says_is_cut_by_what_is_there(tmp_path: Path) -> None:
    name = "raw/ucf/Normal_Videos/Normal_Videos003_x264.avi"
    numbered_videos.write(tmp_path / name, n_frames=190, fps=FPS)
    numbered_videos.claim_frames(tmp_path / name, 400)
    cut(tmp_path, CutConfig(normal_windows=8))
    windows = spans(tmp_path)[name]["nonfight"]
    assert len(windows) == 4
    # no file is left of windows that were placed by the header's frame count
    assert len(list((tmp_path / "windows").rglob("*.mp4"))) == 4
    assert all(w == list(range(w[0], w[0] + 40)) for w in windows)


def test_videos_of_one_name_do_not_share_windows(root: Path) -> None:
    name = Path(FILM_NORMAL).name
    numbered(root / XD / "again/train" / name, n_frames=120)
    alike = (root / FILM_NORMAL).read_bytes() + b"another size"
    (root / XD / "train").mkdir()
    (root / XD / "train" / name).write_bytes(alike)
    cut(root)
    rows = [r for r in table(root) if Path(r["video"]).name == name]
    assert len({r["video"] for r in rows}) == 3
    assert len({r["path"] for r in rows}) == len(rows)
    check_spans(spans(root), FILM_NORMAL)


def test_the_longest_names_are_cut_too(tmp_path: Path) -> None:
    title = "Ein.sehr.langer.Fümtitel." * 9
    names = [f"{title}__#0{k}_label_A.mp4" for k in range(2)]
    for name in names:
        numbered(tmp_path / "raw" / name, n_frames=60)
    cut(tmp_path)
    assert {Path(row["video"]).name for row in table(tmp_path)} == set(names)
    assert all(len(os.fsencode(Path(row["path"]).name)) < 200 for row in table(tmp_path))


def test_a_full_disk_is_said_before_anything_is_cut(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "free_bytes_of", lambda _: 1000)
    with pytest.raises(UserError, match=r"--windows-per-video of combine_all_datasets\.py"):
        cut(root)
    assert files(root) == {}


def test_the_estimate_of_the_disk_is_of_the_right_size(root: Path) -> None:
    name = "raw/ucf/Normal_Videos/Normal_Videos004_x264.mp4"
    small_videos.write(root / name, 5, n_frames=120, width=320, height=240)
    jobs, _ = cutting._jobs(inventory.discover([root / "raw"]), CONFIG, root)
    job = next(j for j in jobs if j.clip.path == root / name)
    plan = window_files.plan_job(job)
    written = sum(w["size_bytes"] for w in window_files.cut_job((job, plan))["windows"])
    assert plan.windows
    assert plan.size_bytes / 5 < written < plan.size_bytes * 3


def test_find_tells_how_many_without_cutting(root: Path, done: tuple[Path, CutResult]) -> None:
    result = find.run(
        FindConfig(data_root=root, workers=2), forecast=lambda found: cutting.forecast(found, CONFIG, root, 2)
    )
    expected = {key: dict(sorted(n.items())) for key, n in sorted(done[1].by_dataset.items())}
    assert result.summary["windows"] == expected
    assert not (root / "windows").exists()
    written = json.loads((root / "inventory.json").read_text())
    assert written["windows"] == expected
    assert {row["path"] for row in written["not_cut"]} >= {ABUSE, GARBLED}
    assert [result.summary[k] for k in ("unreadable", "wrong_annotations")] == [0, 1]


def test_an_unwritable_folder_is_a_mistake_with_a_remedy_not_a_damaged_video(root: Path) -> None:
    (root / "windows").mkdir()
    (root / "windows" / ".cut.jsonl").touch()
    (root / "windows" / "ucf_crime").write_text("in the way")
    with pytest.raises(UserError, match=r"windows/ucf_crime.*run the same command again"):
        cut(root)


def textured(root: Path) -> None:
    """Write untrimmed UCF-Crime videos with distinct pictures, so that combining takes none for a copy of another."""
    lines = []
    for k in range(12):
        small_videos.write(root / UCF / "Fighting" / f"Fighting{k:03}_x264.mp4", 10 + k, n_frames=360)
        small_videos.write(
            root / UCF / "Normal_Videos" / f"Normal_Videos{k:03}_x264.mp4", 40 + k, n_frames=130
        )
        lines.append(f"Fighting{k:03}_x264.mp4  Fighting  100  230  -1  -1\n")
    (root / UCF / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt").write_text("".join(lines))
    small_videos.write(root / UCF / "Shooting" / "Shooting001_x264.mp4", 99, n_frames=130)
    small_videos.write(root / UCF / "Arson" / "Arson001_x264.mp4", 98, n_frames=130)


def test_one_command_goes_from_untrimmed_videos_to_a_split_without_a_leak(tmp_path: Path) -> None:
    textured(tmp_path)
    command = [sys.executable, "combine_all_datasets.py", "--data-root", str(tmp_path), "--workers", "2"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    summary = json.loads(run.stdout)
    frame = manifest.read(tmp_path / "combined_all")
    assert summary["windows"]["ucf_crime"] == {"fight": 24, "nonfight": 48}
    assert len(frame) == summary["train"] + summary["val"]
    assert set(frame.label) == {"fight", "nonfight"}
    assert frame.source_path.str.startswith("windows/ucf_crime/").all()
    assert (frame.duration_s == 5.0).all()
    videos = frame.source_path.str.extract(r"/([^/]+)__\d+-\d+\.mp4$")[0]
    assert frame.split.groupby(videos).nunique().max() == 1
    assert frame.source_group.groupby(videos).nunique().max() == 1
    assert frame.split.groupby([frame.label]).nunique().min() == 2
    left_out = (tmp_path / "combined_all" / "unlabelled.csv").read_text()
    assert "Shooting001" in left_out
    assert "Arson001" in left_out
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "nothing has changed since" in again.stderr
    assert json.loads(again.stdout) == summary
    (tmp_path / UCF / "Normal_Videos" / "Normal_Videos000_x264.mp4").write_bytes(b"no video")
    result = combine.run(CombineConfig(data_root=tmp_path, seed=1))
    (failure,) = result.failures
    assert failure["path"].endswith("Normal_Videos000_x264.mp4")
    assert result.summary["windows"]["ucf_crime"] == {"fight": 24, "nonfight": 46}


def test_windows_are_not_taken_for_published_clips_where_there_is_no_raw(tmp_path: Path) -> None:
    textured(tmp_path)
    (tmp_path / UCF).rename(tmp_path / "ucf")
    (tmp_path / "raw").rmdir()
    made = cutting.cut(inventory.discover([tmp_path]), CONFIG, tmp_path, workers=2)
    assert made.clips
    found = inventory.discover([tmp_path])
    assert found.unknown == {}
    published = {clip.path for dataset in found.datasets for clip in dataset.clips}
    assert not published & {clip.path for clip in made.clips}


def test_a_windows_id_says_what_was_cut_not_how_it_was_encoded(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Builds of OpenCV encode differently, but the split, which depends on the ids, must be the same with all."""
    clips = cut(root).clips
    ids = {c.path.name: c.clip_id for c in clips}
    assert len(set(ids.values())) == len({storage.sha256_file(c.path) for c in clips}), "copies have one id"
    assert all(len(clip_id) == 16 for clip_id in ids.values())
    other = Path(shutil.copytree(root, tmp_path / "other", ignore=shutil.ignore_patterns("windows")))
    encode = window_files.writer.write
    monkeypatch.setattr(processes, "map_unordered", lambda f, items, *_, **__: ((i, f(i)) for i in items))
    monkeypatch.setattr(
        window_files.writer,
        "write",
        lambda path, fps, frames, codec: encode(path, fps, (255 - frame for frame in frames), codec),
    )
    again = cut(other)
    assert {c.path.name: c.clip_id for c in again.clips} == ids
    contents = [
        (storage.sha256_file(c.path), storage.sha256_file(root / c.path.relative_to(other)))
        for c in again.clips
    ]
    assert all(a != b for a, b in contents)
    summary = combine.run(CombineConfig(data_root=other)).summary
    assert [summary[k] for k in ("unreadable", "wrong_annotations")] == [0, 1]
    rows = manifest.read(other / "combined_all")
    assert set(rows.clip_id) <= set(ids.values())
    assert not set(rows.clip_id) & set(rows.sha256.str[:16])
