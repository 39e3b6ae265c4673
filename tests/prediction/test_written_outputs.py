"""Annotated videos and clips of events: they show the right moments, are complete, and are written only once."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numbered_videos
import numpy as np
import pytest
import record_lines
import small_videos
import timed_videos

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction import annotated_video, event_clips, written_outputs
from violence_detection.prediction.config import EventConfig, OutputConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.system import disks, storage
from violence_detection.system.own_files import RECORD_NAME
from violence_detection.system.supervised import SupervisedWorker
from violence_detection.video import decode, writer

FPS = 10.0


def _verdict(path: Path, ps: list[float], duration_s: float) -> Verdict:
    """Windows of 2 s, one a second."""
    windows = tuple(JudgedWindow(float(i), min(i + 2.0, duration_s), p) for i, p in enumerate(ps))
    return Verdict(str(path), windows, EventConfig(merge_gap_s=0.0), duration_s, duration_s, fps=FPS)


def _numbered(path: Path, n_frames: int = 120) -> Path:
    return numbered_videos.write(path, n_frames, FPS)


def _numbers(path: Path) -> list[int]:
    """Return the numbers that a clip's frames show."""
    info, frames = decode.read(path, lambda info: range(info.n_frames))
    return [numbered_videos.number_of(frames[i]) for i in range(info.n_frames)]


def test_a_clip_has_its_event_and_what_stands_before_and_after(tmp_path: Path) -> None:
    video = _numbered(tmp_path / "v.avi")
    ps = [0.9, 0.1, 0.1, 0.1, 0.1, 0.8, 0.9, 0.1, 0.1, 0.1, 0.7]
    verdict = _verdict(video, ps, 12.0)
    assert [(e.start_s, e.end_s) for e in verdict.events] == [(0.0, 1.5), (5.5, 7.5), (10.5, 12.0)]
    clips = event_clips.write(verdict, tmp_path / "clips", "v", 2.5, "made of this")
    assert [p.name for p in clips] == ["v.event001.mp4", "v.event002.mp4", "v.event003.mp4"]
    assert _numbers(clips[0]) == list(range(0, 40))
    assert _numbers(clips[1]) == list(range(30, 100))
    assert _numbers(clips[2]) == list(range(80, 120))
    peaks = [numbered_videos.number_of(cv2.imread(str(p.with_suffix(".jpg")))) for p in clips]
    assert peaks == [10, 70, 110]
    assert writer.comment_of(clips[2]) == "made of this"
    fewer = _verdict(video, ps[:10], 12.0)
    event_clips.write(fewer, tmp_path / "clips", "v", 0.0)
    names = sorted(p.name for p in (tmp_path / "clips").iterdir() if p.name != RECORD_NAME)
    assert names == ["v.event001.jpg", "v.event001.mp4", "v.event002.jpg", "v.event002.mp4"]
    assert _numbers(clips[1]) == list(range(55, 75))


def test_pictures_are_there_before_the_first_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = _verdict(_numbered(tmp_path / "v.avi", 30), [0.9], 2.0)

    def full(*_: object) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(writer, "_check_arrived", full)
    with pytest.raises(UserError, match="the disk is full"):
        event_clips.write(verdict, tmp_path / "clips", "v", 1.0)
    names = {p.name for p in (tmp_path / "clips").iterdir()}
    assert names == {"v.event001.jpg", RECORD_NAME}, "and no half clip"


def test_pictures_of_a_run_that_was_killed_before_its_clips_do_not_stay_under_those_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = _verdict(_numbered(tmp_path / "v.avi", 60), [0.8, 0.1, 0.1, 0.9, 0.1], 6.0)
    stricter = dataclasses.replace(verdict, events_by=EventConfig(0.85, merge_gap_s=0.0))
    config = OutputConfig(clips=tmp_path / "clips", clip_margin_s=0.0)
    show = written_outputs.load_shower(config, {"--clips": {verdict.path: "v"}})
    assert len(show(verdict)) == 2
    before = _content_of(tmp_path / "clips")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(event_clips, "_write_clips", killed)
        with pytest.raises(KeyboardInterrupt):
            show(stricter)
    assert _content_of(tmp_path / "clips") != before
    show(verdict)
    assert _content_of(tmp_path / "clips") == before


def test_the_record_of_a_folder_is_read_once_for_all_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading it for each of 20,000 videos took most of an hour, even in a run that had nothing to write."""
    videos = [_numbered(tmp_path / f"{n}.avi", 30) for n in range(6)]
    read = record_lines.counted(monkeypatch.setattr)
    lines = []
    # the last of these runs has the folders of the one before it, and nothing to write
    for number in (2, 6, 6):
        to = tmp_path / f"of {number}"
        config = OutputConfig(annotate=to / "marked", clips=to / "clips", timeline=to / "page")
        folders = [to / "marked", to / "clips", to / "page" / "media"]
        for folder in folders if not to.is_dir() else ():
            record_lines.of_others(folder, 100)
        verdicts = [_verdict(video, [0.1 if n % 2 else 0.9], 3.0) for n, video in enumerate(videos[:number])]
        names = {v.path: Path(v.path).stem for v in verdicts}
        show = written_outputs.load_shower(
            config, dict.fromkeys(("--annotate", "--clips", "--timeline"), names)
        )
        read.clear()
        wrote = [show(verdict) for verdict in verdicts]
        lines.append((len(read), sum(map(len, wrote))))
    assert [wrote for _, wrote in lines] == [8, 24, 0]
    assert all(read < 100 for read, _ in lines), "what they themselves wrote, at most"


def test_clips_that_another_run_has_written_meanwhile_are_known(tmp_path: Path) -> None:
    verdict = _verdict(_numbered(tmp_path / "v.avi", 60), [0.8, 0.1, 0.1, 0.9, 0.1], 6.0)
    stricter = dataclasses.replace(verdict, events_by=EventConfig(0.85, merge_gap_s=0.0))
    show = written_outputs.load_shower(
        OutputConfig(clips=tmp_path / "clips"), {"--clips": {verdict.path: "v"}}
    )
    assert len(event_clips.write(verdict, tmp_path / "clips", "v", 0.0)) == 2
    show(stricter)
    assert {path.name for path in _content_of(tmp_path / "clips")} == {"v.event001.jpg", "v.event001.mp4"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_finds_the_disk_full_says_so(tmp_path: Path, suffix: str) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    writer.picture(tmp_path / f"there{suffix}", frame)
    assert cv2.imwrite(str(tmp_path / f"as before{suffix}"), frame[..., ::-1].copy())
    assert (tmp_path / f"there{suffix}").read_bytes() == (tmp_path / f"as before{suffix}").read_bytes()
    (tmp_path / f"full{suffix}").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as e:
        writer.picture(tmp_path / f"full{suffix}", frame)
    assert "No space left" in (disks.disk_trouble(e.value) or "")


def test_an_annotated_video_shows_each_moment_with_its_score(tmp_path: Path) -> None:
    video = small_videos.write(tmp_path / "v.avi", 1, n_frames=60)  # 5 s, 96 x 64
    verdict = _verdict(video, [0.1, 0.2, 0.9, 0.3], 5.0)
    annotated_video.write(verdict, tmp_path / "a.mp4")
    info, frames = decode.read(tmp_path / "a.mp4", lambda info: range(info.n_frames))
    before, original = decode.read(video, lambda info: range(info.n_frames))
    assert (info.n_frames, info.fps, info.codec) == (60, 12.0, "h264")
    assert info.width == 4 * before.width >= 320
    panel = annotated_video.Panel(verdict, info.width)
    assert info.height == 4 * before.height + panel.height
    for number in (0, 20, 40, 59):
        shown = cv2.resize(frames[number][: 4 * before.height], (before.width, before.height))
        assert np.abs(shown.astype(int) - original[number]).mean() < 12
        below = frames[number][4 * before.height :].astype(int)
        assert np.abs(below - panel.at(number / 12.0)).mean() < 6
    assert [panel.score(s) for s in (0.0, 1.49, 2.6, 4.9)] == [0.1, 0.1, 0.9, 0.3]


def test_a_recording_whose_size_changes_is_annotated_in_its_first_one(tmp_path: Path) -> None:
    video = tmp_path / "v.ts"
    parts = []
    for name, size in (("a", (320, 240)), ("b", (640, 480))):
        part = tmp_path / f"{name}.ts"
        with av.open(part, "w") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for number in range(50):
                picture = np.full((size[1], size[0], 3), 3 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        parts.append(part.read_bytes())
    video.write_bytes(b"".join(parts))
    info = decode.probe(video)
    shapes = {frame.shape for _, frame in decode.moments(video, info, range(info.n_frames))}
    assert shapes == {(240, 320, 3), (480, 640, 3)}
    annotated_video.write(_verdict(video, [0.1, 0.9], info.duration_s), tmp_path / "a.mp4")
    assert decode.probe(tmp_path / "a.mp4").width == 320


def test_the_panel_says_where_nothing_was_judged() -> None:
    windows = (JudgedWindow(0, 2, 0.2), JudgedWindow(6, 8, 0.9))
    panel = annotated_video.Panel(Verdict("v", windows, EventConfig(), 8.0, 4.0), 640)
    assert [panel.score(s) for s in (1.0, 3.0, 7.0)] == [0.2, None, 0.9]
    pictures = [panel.at(s) for s in (1.0, 3.0, 7.0)]
    assert {p.shape for p in pictures} == {(72, 640, 3)}
    bar = [(p[12:20, 128:498] == annotated_video._VIOLENT).all(axis=-1).mean() for p in pictures]
    assert bar[:2] == [0.0, 0.0]
    assert bar[2] == pytest.approx(0.9, abs=0.05)


def _begins_late(path: Path) -> Path:
    """Write 8 s of silence with a bright picture from 3 s on, at 10 frames a second."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=16_000)
        video = container.add_stream("libx264", rate=10)
        assert isinstance(audio, av.AudioStream)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 128, 32, "yuv420p"
        for i in range(125):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 16_000, 1024 * i
            container.mux(audio.encode(sound))
        container.mux(audio.encode())
        for i in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((32, 128, 3), 200, np.uint8), format="bgr24")
            frame.pts, frame.time_base = 30 + i, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


def _bright(path: Path) -> tuple[decode.VideoInfo, list[bool]]:
    """Return a video's properties and, for each frame, whether the picture above the panel is bright."""
    info, frames = decode.read(path, lambda info: range(info.n_frames))
    return info, [frames[i][:60].mean() > 100 for i in range(info.n_frames)]


def test_a_video_that_begins_late_keeps_its_times(tmp_path: Path) -> None:
    """The annotated video is black until the footage begins. A clip cannot begin before that."""
    video = _begins_late(tmp_path / "v.mkv")
    info = decode.probe(video)
    assert info.start_s == pytest.approx(3.0, abs=0.05)
    windows = (JudgedWindow(info.start_s, 6.0, 0.9),)
    verdict = Verdict(str(video), windows, EventConfig(), info.duration_s, info.read_s, fps=info.fps)
    annotated_video.write(verdict, tmp_path / "a.mp4")
    shown, bright = _bright(tmp_path / "a.mp4")
    assert shown.duration_s == pytest.approx(8.0, abs=0.11)
    assert bright == [False] * 30 + [True] * 50
    (clip,) = event_clips.write(verdict, tmp_path, "v", 1.0)
    assert decode.probe(clip).duration_s == pytest.approx(4.0, abs=0.11)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_an_annotated_video_of_a_changing_rate_has_the_times_of_the_video(
    tmp_path: Path, suffix: str
) -> None:
    """At two frames a second for 4 s, then at 25, each picture comes at the time that it has in the video."""
    times = [*timed_videos.evenly(8, 2), *timed_videos.evenly(50, 25, start_s=4.0)]
    video = timed_videos.write(tmp_path / f"v{suffix}", times)
    duration_s = decode.probe(video).duration_s
    annotated_video.write(_verdict(video, [0.9], duration_s), tmp_path / "a.mp4")
    begins: dict[int, float] = {}
    with av.open(str(tmp_path / "a.mp4")) as container:
        for frame in container.decode(video=0):
            height, width = numbered_videos.frame(0).shape[:2]
            times_larger = frame.width // width
            above = frame.to_ndarray(format="bgr24")[: height * times_larger : times_larger, ::times_larger]
            begins.setdefault(numbered_videos.number_of(above), float(frame.time or 0))
    assert list(begins) == list(range(58))
    assert np.abs(np.array(list(begins.values())) - times).max() <= 0.02 + 1e-6


def test_what_follows_a_damaged_part_keeps_its_time(tmp_path: Path) -> None:
    """There are no frames from 4 to 7 s; from 8 s on the picture is bright."""
    times = [*timed_videos.evenly(40, 10), *timed_videos.evenly(30, 10, start_s=7.0)]
    pictures = [np.full((32, 128, 3), 200 if time_s > 7.95 else 20, np.uint8) for time_s in times]
    video = timed_videos.write(tmp_path / "v.mp4", times, pictures=pictures, rate=10)
    info = decode.probe(video)
    assert info.lost == ((4.0, 7.0),)
    windows = (JudgedWindow(0, 4, 0.1), JudgedWindow(7.5, 10, 0.9))
    verdict = Verdict(str(video), windows, EventConfig(), info.duration_s, info.read_s, fps=info.fps)
    annotated_video.write(verdict, tmp_path / "a.mp4")
    shown, bright = _bright(tmp_path / "a.mp4")
    assert shown.duration_s == pytest.approx(10.0, abs=0.11)
    assert bright.index(True) == pytest.approx(80, abs=1)
    (clip,) = event_clips.write(verdict, tmp_path, "v", 0.0)
    found, frames = decode.read(clip, lambda info: range(info.n_frames))
    assert found.duration_s == pytest.approx(2.5, abs=0.11)
    assert [frames[i].mean() > 100 for i in (0, 3, 6, 20)] == [False, False, True, True]


def test_a_run_writes_all_and_a_second_nothing_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    video = _numbered(tmp_path / "v.avi", 60)
    verdict = _verdict(video, [0.1, 0.9, 0.1, 0.1, 0.1], 6.0)
    gone = _verdict(tmp_path / "gone.avi", [0.9], 2.0)
    config = OutputConfig(("table", "srt"), tmp_path / "a", tmp_path / "c", tmp_path / "t", clip_margin_s=1.0)
    output = tmp_path / "out" / "verdicts.json"
    # what a killed run left: no process has the number in these names
    for folder in ("a", "c", "t", "t/media"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f".v.{storage.machine()}.99999999-1.tmp.mp4").write_bytes(b"half")

    def run() -> list[str]:
        with written_outputs.outputs(config, output, [verdict.path, gone.path]) as written:
            failures = [f for v in (verdict, gone) for f in written.add(v)]
            written.finish([verdict, gone], failures)
        return [f"{f.path}: {f.reason}" for f in failures]

    with caplog.at_level(logging.INFO, logger="violence_detection"):
        (failure,) = run()
    assert failure.startswith(f"{gone.path}: was judged, but cannot be shown: No such file")
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [failure]
    assert "verdicts:\nverdict  P(violent)" in caplog.text
    made = {
        tmp_path / "a" / "v.annotated.mp4", tmp_path / "c" / "v.event001.mp4", tmp_path / "c" / "v.event001.jpg",
        tmp_path / "out" / "v.srt", tmp_path / "out" / "gone.srt", tmp_path / "out" / "verdicts.txt",
        tmp_path / "t" / "index.html",
        *(tmp_path / "t" / "media" / name for name in ("v.jpg", "v.event001.jpg", "v.mp4", "v.made.json")),
    }  # fmt: skip
    assert {p for p in tmp_path.rglob("*.*") if p.parent != tmp_path and p.name != RECORD_NAME} == made
    page = (tmp_path / "t" / "index.html").read_text()
    assert "Not shown: its pictures could not be made" in page
    assert "cannot be shown: No such file" in page
    shown = [p for p in made if p.suffix in (".mp4", ".jpg")]
    for path in shown:
        os.utime(path, (1, 1))
    run()
    assert {p.stat().st_mtime for p in shown} == {1.0}
    os.utime(video, (2, 2))
    run()
    assert min(p.stat().st_mtime for p in shown) > 1.0, "the video has changed"


def test_a_page_that_is_too_large_for_browsers_says_how_to_have_it_in_parts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = [_verdict(tmp_path / f"{n}.avi", [0.1, 0.9] * 500, 1001.0) for n in range(2)]

    def finish(to: Path, of: list[Verdict]) -> None:
        names = written_outputs.names_of(OutputConfig(timeline=to), None, [v.path for v in of])
        written_outputs.Outputs(OutputConfig(timeline=to), None, names, {}).finish(of)

    finish(tmp_path / "small", verdicts)
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]
    monkeypatch.setattr(written_outputs, "_LARGE_PAGE_BYTES", 50_000)
    finish(tmp_path / "large", verdicts)
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert said.startswith(f"{tmp_path / 'large' / 'index.html'} has 0.")
    assert "MB for 2 videos, which makes browsers slow. --rejudge FILE --timeline DIR makes a page of" in said
    caplog.clear()
    monkeypatch.setattr(written_outputs, "_LARGE_PAGE_BYTES", 25_000)
    finish(tmp_path / "long", verdicts[:1])
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "MB for 1 video, which makes browsers slow. Judge the recording in parts (ffmpeg -i OLD -c" in said
    assert "--rejudge" not in said, "it would make the same page"


def _fails_at_bad(kind: type[Exception]) -> Callable[[Verdict], list[str]]:
    def make(verdict: Verdict) -> list[str]:
        if "bad" in verdict.path:
            raise kind(28, "No space left on device") if kind is OSError else kind("nobody foresaw this")
        return []

    return make


def test_what_nobody_foresees_costs_one_video_its_pictures_and_a_full_disk_ends_the_run(
    tmp_path: Path,
) -> None:
    good, bad = (_verdict(tmp_path / name, [0.9], 2.0) for name in ("good.avi", "bad.avi"))
    for kind in (KeyError, OSError):
        load = functools.partial(_fails_at_bad, kind)
        with SupervisedWorker[Verdict, list[str]](load, 60.0) as worker:
            written = written_outputs.Outputs(OutputConfig(), None, {}, {"shown": worker})
            if kind is OSError:
                with pytest.raises(OSError, match="No space left"):
                    written.add(bad)
                continue
            (failure,) = written.add(bad)
            assert failure.path == bad.path
            assert (
                "was judged, but cannot be shown: internal error, please report it: KeyError"
                in failure.reason
            )
            assert written.add(good) == []


def test_closing_a_very_large_annotated_video_is_no_standstill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg then reads and writes the whole file again in one silent call: 22 minutes for 40 GB at 30 MB/s."""
    limits_s: list[float] = []
    begin = SupervisedWorker.__init__

    def noted(self: SupervisedWorker[Any, Any], load: Callable[[], Any], silence_s: float) -> None:
        limits_s.append(silence_s)
        begin(self, load, silence_s)

    monkeypatch.setattr(SupervisedWorker, "__init__", noted)
    with written_outputs.outputs(OutputConfig(annotate=tmp_path), None, []):
        assert min(limits_s) > 40_000 / 30


def _into(flag: str, folder: Path) -> OutputConfig:
    settings: dict[str, Any] = {flag: folder, "clip_margin_s": 0.0}
    return OutputConfig(**settings)


def _judge(config: OutputConfig, verdict: Verdict) -> None:
    with written_outputs.outputs(config, None, [verdict.path]) as written:
        assert written.add(verdict) == []
        written.finish([verdict])


def _content_of(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != RECORD_NAME}


@pytest.mark.parametrize("other", [{"duration_s": 12.5}, {"fps": 12.5}])
def test_another_video_that_has_the_path_of_the_judged_one_is_not_taken_for_it(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    verdict = _verdict(_numbered(tmp_path / "v.avi"), [0.9, 0.1], 12.0)
    show = written_outputs.load_shower(
        OutputConfig(clips=tmp_path / "clips"), {"--clips": {verdict.path: "v"}}
    )
    with pytest.raises(UnreadableVideo, match=r"not the video that was judged.*this one has 12 s at 10\."):
        show(dataclasses.replace(verdict, **other))
    assert not (tmp_path / "clips").exists()
    assert show(verdict)


def test_a_video_whose_packets_say_otherwise_is_known_by_what_decodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judging such a video found the difference, so that the verdict has the length that decodes."""
    verdict = _verdict(_numbered(tmp_path / "v.avi"), [0.9, 0.1], 12.0)
    packets = decode.packet_timing(Path(verdict.path))
    wrong = dataclasses.replace(packets, info=dataclasses.replace(packets.info, n_frames=140))
    monkeypatch.setattr(decode, "packet_timing", lambda path: wrong)
    written_outputs._check_is_judged(verdict)
    with pytest.raises(UnreadableVideo, match="has 12 s at 10"):
        written_outputs._check_is_judged(dataclasses.replace(verdict, duration_s=14.0 - 0.1))


def test_windows_kept_when_rates_were_rounded_are_of_the_same_video(monkeypatch: pytest.MonkeyPatch) -> None:
    info = decode.VideoInfo(60_000, 25 / 3, 32, 32, "h264")
    monkeypatch.setattr(decode, "packet_timing", lambda _: SimpleNamespace(info=info))
    monkeypatch.setattr(decode, "probe", lambda _: info)
    kept = Verdict("v.mp4", (JudgedWindow(0, 5, 0.1),), EventConfig(), 7200.29, 7200.29, fps=8.333)
    written_outputs._check_is_judged(kept)
    written_outputs._check_is_judged(dataclasses.replace(kept, duration_s=7200.0))
    with pytest.raises(UnreadableVideo, match="not the video that was judged"):
        written_outputs._check_is_judged(dataclasses.replace(kept, duration_s=7201.0))


@pytest.mark.parametrize("flag", ["annotate", "clips", "timeline"])
def test_a_video_of_another_day_takes_nothing_from_one_of_the_same_name(tmp_path: Path, flag: str) -> None:
    """Not even if the later video has fewer events, or none."""
    place = tmp_path / "out"
    config = _into(flag, place)
    days = []
    for day, ps in (("day1", [0.9, 0.1, 0.1, 0.1, 0.8]), ("day2", [0.1, 0.1, 0.9]), ("day3", [0.1])):
        (tmp_path / day).mkdir()
        days.append(_verdict(_numbered(tmp_path / day / "cam1.avi", 60), ps, 6.0))
    seen: dict[Path, bytes] = {}
    for verdict in days:
        _judge(config, verdict)
        now = _content_of(place)
        assert {p: now.get(p) for p in seen if p.name != "index.html"} == {
            p: content for p, content in seen.items() if p.name != "index.html"
        }
        seen = now
    for verdict in days:
        _judge(config, verdict)
        assert set(_content_of(place)) == set(seen), "the same again makes no copies"
    if flag == "clips":
        assert len(seen) == 2 * 3
        _judge(config, dataclasses.replace(days[0], events_by=EventConfig(0.85, merge_gap_s=0.0)))
        assert set(seen) - set(_content_of(place)) == {
            place / "cam1.event002.jpg",
            place / "cam1.event002.mp4",
        }


@pytest.mark.parametrize(
    ("flag", "name"),
    [("annotate", "v.annotated.mp4"), ("clips", "v.event002.mp4"), ("timeline", "media/v.mp4")],
)
def test_what_somebody_put_there_under_such_a_name_stays(tmp_path: Path, flag: str, name: str) -> None:
    """A clip cut by hand, for example, is neither replaced nor removed as that of an event that is gone."""
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    verdict = _verdict(_numbered(tmp_path / "v.avi", 30), [0.9], 3.0)
    for _ in range(2):
        _judge(_into(flag, tmp_path / "out"), verdict)
        assert mine.read_bytes() == b"mine"
        assert {p.name for p in _content_of(tmp_path / "out") if p.name.startswith("v~")}


def test_a_recording_in_the_folder_of_the_page_stays(tmp_path: Path) -> None:
    """The page plays such a recording itself if browsers can: a copy for the page would have the same name."""
    video = tmp_path / "media" / "night.mp4"
    video.parent.mkdir()
    with writer.h264(video, FPS) as put:
        for number in range(30):
            put(numbered_videos.frame(number))
    before = video.read_bytes()
    _judge(OutputConfig(timeline=tmp_path), _verdict(video, [0.9], 3.0))
    assert video.read_bytes() == before
    assert 'src="./media/night.mp4"' in (tmp_path / "index.html").read_text()


def test_what_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--format srt needs a place"):
        written_outputs.check(OutputConfig(("table", "srt")), None)
    written_outputs.check(OutputConfig(("table",)), None)
    with pytest.raises(UserError, match=r"--clips .* is a file\. Name a folder"):
        written_outputs.check(OutputConfig(clips=tmp_path / "file"), None)
    with pytest.raises(UserError, match="Name the --model"):
        written_outputs.check(OutputConfig(explain=tmp_path / "why"), None)
