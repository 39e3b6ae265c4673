"""One second is one second of the video: variable and odd rates, gaps, damage, several tracks, edit lists."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numbered_videos
import numpy as np
import pytest
import streamed
import timed_videos
from timed_videos import evenly, noisy

from violence_detection.errors import UnreadableVideo
from violence_detection.video import augment, browser_video, decode, pictures, sampling, sources
from violence_detection.video.config import ClipConfig

#: 20 s at 2 frames a second, then 10 s at 25.
SLOW_THEN_FAST = [*evenly(40, 2), *evenly(250, 25, start_s=20.0)]


def _shown_at(path: Path, *seconds: float) -> list[int]:
    """The numbers of the frames that a player shows at these seconds."""
    info, frames = decode.read(path, lambda i: [int((s - i.start_s) * i.fps + 1e-6) for s in seconds])
    wanted = [int((s - info.start_s) * info.fps + 1e-6) for s in seconds]
    return [numbered_videos.number_of(frames[i]) for i in wanted]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_variable_rate_keeps_its_times(tmp_path: Path, suffix: str) -> None:
    path = timed_videos.write(tmp_path / f"v{suffix}", SLOW_THEN_FAST)
    info = decode.probe(path)
    assert info.duration_s == pytest.approx(30.0, abs=0.1)
    assert info.read_s == pytest.approx(info.duration_s)
    assert info.n_decoded == len(SLOW_THEN_FAST)
    assert info.fps == pytest.approx(25, rel=0.03)
    assert not info.as_stated
    assert _shown_at(path, 0.25, 3.2, 19.9, 20.02, 24.02) == [0, 6, 39, 40, 140]
    for window in sampling.sliding_windows(info, 5.0, 2.5)[:-1]:
        assert window.length / info.fps == pytest.approx(5.0)


@pytest.mark.parametrize(("fps", "count"), [(300, 1200), (1 / 2, 60), (29.97, 300), (60, 100)])
def test_any_constant_rate_is_what_it_is(tmp_path: Path, fps: float, count: int) -> None:
    path = timed_videos.write(tmp_path / "v.mp4", evenly(count, fps))
    info = decode.probe(path)
    assert info.fps == pytest.approx(fps, rel=max(1e-3, 1.5 / count))
    assert info.duration_s == pytest.approx(count / fps, rel=max(1e-3, 1.5 / count))
    assert info.shown is None
    assert info.as_stated == (1 <= fps <= 240)


def test_a_long_recording_does_not_drift_where_its_rate_has_no_whole_thousandths(tmp_path: Path) -> None:
    """Two hours at 25/3 frames a second end 0.29 s late if counted at 8.333. Short videos keep the rounded rate."""
    one = timed_videos.write(
        tmp_path / "one.mov", [0.0], codec="mjpeg", pictures=[np.zeros((32, 32, 3), np.uint8)]
    )
    with av.open(str(one)) as container:
        picture = bytes(next(container.demux(video=0)))

    def written(count: int) -> Path:
        path = tmp_path / f"{count}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mjpeg", rate=Fraction(25, 3))
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
            for number in range(count):
                packet = av.Packet(picture)
                packet.stream, packet.time_base, packet.duration = stream, Fraction(3, 25), 1
                packet.pts = packet.dts = number
                container.mux(packet)
        return path

    long, short = written(60_000), decode.timing(written(300))
    for info in (decode.timing(long), decode.header(long)):
        assert info.duration_s == pytest.approx(7200, abs=0.01)
        assert info.as_stated
        assert info.shown is None
    assert (short.fps, short.shown) == (8.333, None)
    assert decode.probe(tmp_path / "300.mp4") == short


def test_a_browsers_recording_with_a_base_of_milliseconds(tmp_path: Path) -> None:
    """Frames come about every 41 ms, while the file states a rate of 1000, or none."""
    rng = np.random.default_rng(0)
    times = np.round(np.cumsum(rng.uniform(0.036, 0.046, 240)), 3).tolist()
    path = timed_videos.write(tmp_path / "v.webm", times, rate=1000)
    info = decode.probe(path)
    assert info.duration_s == pytest.approx(times[-1] - times[0] + 0.04, abs=0.1)
    assert _shown_at(path, times[100] - times[0] + 0.015, times[200] - times[0] + 0.015) == [100, 200]


def test_pauses_are_not_squeezed_out_of_motion(tmp_path: Path) -> None:
    """Motion compares moments 0.08 s apart, not successive frames."""
    config = ClipConfig(frames=8, window_s=5.0)
    path = timed_videos.write(tmp_path / "v.mp4", SLOW_THEN_FAST)
    info = decode.probe(path)
    sample = sampling.sample(info, sampling.Window(0.0, 5.0 * info.fps), augment.Draw(), config)
    shown = np.vectorize(info.decoded)(sample.motion)
    assert (np.ptp(shown, axis=1) <= 1).all(), "a quarter of a second at two frames a second"
    late = sampling.sample(info, sampling.Window(22.0 * info.fps, 5.0 * info.fps), augment.Draw(), config)
    assert (np.diff(np.vectorize(info.decoded)(late.motion), axis=1) == 2).all()


def test_too_few_frames_to_judge_movement_are_said(tmp_path: Path) -> None:
    path = timed_videos.write(tmp_path / "v.mp4", evenly(60, 0.5))
    with pytest.raises(UnreadableVideo, match=r"v\.mp4.*too seldom to judge movement"):
        list(pictures.clip_variants(path, "clip", ("v0",), 32, ClipConfig()))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_picture_an_hour_is_a_rate_too(tmp_path: Path, suffix: str) -> None:
    """Rounded to a thousandth, such a rate was 0, and dividing by it crashed the caller."""
    path = timed_videos.write(tmp_path / f"v{suffix}", [3600.0 * i for i in range(12)])
    for info in (decode.timing(path), decode.probe(path)):
        assert info.fps == pytest.approx(1 / 3600, rel=1.5 / 12)
        assert (info.n_frames, info.duration_s) == (12, pytest.approx(12 * 3600, rel=1.5 / 12))
    with pytest.raises(UnreadableVideo, match="too seldom to judge movement"):
        list(pictures.clip_variants(path, "clip", ("v0",), 32, ClipConfig()))


def _zero(path: Path, share: float, size: int) -> None:
    data = bytearray(path.read_bytes())
    start = int(len(data) * share)
    data[start : start + size] = bytes(size)
    path.write_bytes(data)


def _number(picture: np.ndarray) -> int:
    return numbered_videos.number_of(cv2.resize(picture, (128, 32), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".webm"])
def test_times_after_a_damaged_stretch_stay_right_and_what_is_lost_is_said(
    tmp_path: Path, suffix: str
) -> None:
    """A stretch in the middle is zeroed: from the next key frame on, all frames keep their times."""
    whole = timed_videos.write(
        tmp_path / f"v{suffix}", evenly(250, 25), pictures=noisy(250), options={"g": "25", "keyint": "25"}
    )
    before = decode.probe(whole)
    assert before.lost == ()
    _zero(whole, 0.45, int(0.08 * whole.stat().st_size))
    info, frames = decode.read(whole, lambda i: range(min(i.n_frames, 250)))
    assert 0.2 <= info.duration_s - info.read_s <= 3.0
    assert info.duration_s == pytest.approx(10.0, abs=0.1)
    assert "s decode" in info.shortfall()
    for number in (10, 60, 240):
        assert _number(frames[number]) == number
    start, end = info.lost[0][0], info.lost[-1][1]
    assert 3.0 < start < end < 7.5


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".wmv", ".mp4", ".ts"])
def test_a_part_of_a_recording_that_counts_from_its_beginning_is_whole(tmp_path: Path, suffix: str) -> None:
    """`ffmpeg -f segment` writes such parts. Matroska and ASF state the time of a file's end, not its duration."""
    path = timed_videos.write(tmp_path / f"v{suffix}", evenly(100, 25, start_s=600.0), pictures=noisy(100))
    info = decode.probe(path)
    assert (info.start_s, info.lost, info.shortfall()) == (0.0, (), "")
    assert info.duration_s == info.read_s == pytest.approx(4.0, abs=0.05)
    assert decode.header(path).n_frames == 100
    assert decode.timing(path) == info
    assert not browser_video.plays(path), "browsers would count from the recording's beginning"
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    if suffix in (".mkv", ".webm"):
        cut = decode.probe(path)
        assert cut.duration_s == pytest.approx(4.0, abs=0.05)
        assert cut.read_s < 3.0


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".wmv"])
def test_a_short_clip_that_begins_a_little_late_is_whole(tmp_path: Path, suffix: str) -> None:
    path = timed_videos.write(tmp_path / f"v{suffix}", evenly(25, 25, start_s=0.15))
    info = decode.probe(path)
    assert (info.n_frames, info.lost) == (25, ())
    assert decode.timing(path) == info


@pytest.mark.parametrize("start_s", [0.0, 600.0])
def test_a_short_flash_video_whose_frames_look_ahead_is_whole(tmp_path: Path, start_s: float) -> None:
    """The length stated in a Flash video counts from when decoding begins, 0.08 s before the first frame is shown."""
    path = timed_videos.write(tmp_path / "v.flv", evenly(25, 25, start_s), pictures=noisy(25))
    info = decode.probe(path)
    assert (info.n_frames, info.lost) == (25, ())
    assert decode.timing(path) == info
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert decode.probe(path).shortfall()


def test_a_part_of_a_recording_with_sound_that_was_cut_short_is_named(tmp_path: Path) -> None:
    times = evenly(250, 25, start_s=600.0)
    path = timed_videos.write(tmp_path / "v.mkv", times, pictures=noisy(250), sound=True, sound_start_s=600.0)
    assert decode.probe(path).shortfall() == ""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "of 10.0 s decode" in decode.probe(path).shortfall()


def test_half_a_download_says_how_much_there_is(tmp_path: Path) -> None:
    path = timed_videos.write(tmp_path / "v.mp4", evenly(250, 25), pictures=noisy(250), options={"g": "25"})
    faststart = tmp_path / "f.mp4"
    with (
        av.open(str(path)) as source,
        av.open(str(faststart), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    faststart.write_bytes(faststart.read_bytes()[: int(0.6 * faststart.stat().st_size)])
    info = decode.probe(faststart)
    assert info.duration_s == pytest.approx(10.0, abs=0.1)
    assert info.read_s == pytest.approx(6.0, abs=0.5)
    assert info.lost[-1][1] == pytest.approx(10.0, abs=0.1)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("look", [decode.probe, decode.timing])
def test_a_last_picture_that_is_said_to_stand_for_long_is_no_damage(
    tmp_path: Path, suffix: str, look: Callable[[Path], decode.VideoInfo]
) -> None:
    """Screen recordings end with such a picture. If the file was cut short, the missing end must still be reported."""
    even = timed_videos.write(tmp_path / "v.mp4", evenly(100, 25), pictures=noisy(100), options={"bf": "0"})
    path = tmp_path / f"long{suffix}"
    with (
        av.open(str(even)) as source,
        av.open(str(path), "w", options={"movflags": "faststart"} if suffix == ".mp4" else {}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        packets[-1].duration = 100 * (packets[-1].duration or 0)
        for packet in packets:
            packet.stream = stream
            target.mux(packet)
    info = look(path)
    assert info.stated_s == pytest.approx(8.0, abs=0.1)
    assert (info.n_frames, info.lost, info.shortfall()) == (100, (), "")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert look(path).shortfall().startswith("only 2.0 of 8.0 s decode")


def test_sound_that_lasts_longer_is_no_damage(tmp_path: Path) -> None:
    """Matroska states one length for all tracks of a file."""
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 128, 32, "yuv420p"
        audio = container.add_stream("aac", rate=16_000)
        for i in range(50):
            container.mux(video.encode(av.VideoFrame.from_ndarray(numbered_videos.frame(i), format="bgr24")))
        for i in range(80):
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate, silence.pts = 16_000, 1024 * i
            container.mux(audio.encode(silence))
        container.mux(video.encode())
        container.mux(audio.encode())
    info = decode.probe(path)
    assert info.lost == ()
    assert info.duration_s == pytest.approx(2.0, abs=0.05)


def test_an_edit_list_is_no_damage(tmp_path: Path) -> None:
    """Cut at no key frame, without encoding, the file contains frames that are not to be shown."""
    path = timed_videos.write(tmp_path / "v.mp4", evenly(200, 25), options={"g": "50"})
    cut = tmp_path / "cut.mp4"
    start_s = 3.3
    with av.open(str(path)) as source, av.open(str(cut), "w") as target:
        inside = source.streams.video[0]
        stream = target.add_stream_from_template(inside)
        assert inside.time_base is not None
        first = round(start_s / inside.time_base)
        for packet in source.demux(inside):
            if packet.size and packet.pts and packet.dts and packet.pts >= round(2.0 / inside.time_base):
                packet.pts -= first
                packet.dts -= first
                packet.stream = stream
                target.mux(packet)
    info = decode.probe(cut)
    assert info.lost == ()
    assert info.shortfall() == ""
    assert info.duration_s == pytest.approx(8.0 - start_s, abs=0.1)
    assert abs(_shown_at(cut, 1.01)[0] - (start_s + 1.01) * 25) < 1.5


def test_av1_is_read(tmp_path: Path) -> None:
    path = timed_videos.write(tmp_path / "v.mp4", evenly(50, 25), codec="libsvtav1", options={"preset": "12"})
    assert (decode.probe(path).codec, decode.probe(path).lost) == ("av1", ())
    assert _shown_at(path, 0.5, 1.5) == [12, 37]


def test_of_two_video_tracks_the_larger_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for track, scale in zip(tracks, (1, 2), strict=True):
            track.width, track.height, track.pix_fmt = 128 * scale, 32 * scale, "yuv420p"
        for i in range(40):
            for track, scale in zip(tracks, (1, 2), strict=True):
                picture = np.kron(numbered_videos.frame(i), np.ones((scale, scale, 1), np.uint8))
                container.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        for track in tracks:
            container.mux(track.encode())
    assert (decode.probe(path).width, decode.probe(path).height) == (256, 64)
    assert not browser_video.plays(path), "browsers show the first"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_larger_track_of_one_picture_is_a_cover(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v{suffix}"
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for track, scale in zip(tracks, (1, 2), strict=True):
            track.width, track.height, track.pix_fmt = 128 * scale, 32 * scale, "yuv420p"
        for i in range(40):
            for track, scale in zip(tracks[: 2 if i == 0 else 1], (1, 2), strict=False):
                picture = np.kron(numbered_videos.frame(i), np.ones((scale, scale, 1), np.uint8))
                container.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        for track in tracks:
            container.mux(track.encode())
    assert (decode.probe(path).width, decode.probe(path).n_frames) == (128, 40)


def test_a_phones_turned_video_is_turned_upright(tmp_path: Path) -> None:
    path = timed_videos.write(tmp_path / "v.mp4", evenly(30, 25))
    turned = timed_videos.turned(path, tmp_path / "turned.mp4")
    (upright,) = decode.read(path, lambda _: [3])[1].values()
    info, frames = decode.read(turned, lambda _: [3])
    capture = cv2.VideoCapture(str(turned))
    by_opencv = [capture.read()[1] for _ in range(4)][3]
    np.testing.assert_array_equal(frames[3], cv2.cvtColor(by_opencv, cv2.COLOR_BGR2RGB))
    assert frames[3].shape == (upright.shape[1], upright.shape[0], 3)
    assert (info.width, info.height) == (32, 128)
    probed = decode.probe(turned)
    assert (probed.width, probed.height) == (32, 128), "where no frame is shown, too"


@pytest.mark.parametrize("name", ["a:b.mp4", "rtsp:x.mp4", "%d.mp4", "ünïcode ✓.mp4"])
def test_a_name_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    timed_videos.write(tmp_path / "plain.mp4", evenly(30, 25)).rename(tmp_path / name)
    assert decode.probe(Path(name)).n_frames == 30


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = Path(f"{tmp_path}/\udcff\udcfe.mp4")
    timed_videos.write(tmp_path / "plain.mp4", evenly(30, 25)).rename(path)
    assert decode.probe(path).n_frames == 30


def test_without_permission_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = timed_videos.write(tmp_path / "v.mp4", evenly(30, 25))

    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UnreadableVideo, match="no permission to read it"):
        decode.probe(path)


@pytest.mark.parametrize(
    "said",
    [
        av.error.PermissionError(1, "Input/output error"),
        av.error.InvalidDataError(1, "Invalid data found when processing input"),
    ],
)
def test_a_disk_that_does_not_answer_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Exception
) -> None:
    path = timed_videos.write(tmp_path / "v.mp4", evenly(30, 25))

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(decode, "_check_disk", fail)
    monkeypatch.setattr(decode.av, "open", _raising(said))
    with pytest.raises(OSError, match="Input/output"):
        decode.probe(path)


def _raising(error: Exception):  # type: ignore[no-untyped-def]
    def raise_it(*_: object, **__: object) -> None:
        raise error

    return raise_it


def test_only_sound_is_said(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=16_000)
        for i in range(20):
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate, silence.pts = 16_000, 1024 * i
            container.mux(audio.encode(silence))
        container.mux(audio.encode())
    with pytest.raises(UnreadableVideo, match="no video track"):
        decode.probe(path)


def test_a_recorder_that_begins_anew_goes_on_in_time(tmp_path: Path) -> None:
    """Of two transport streams, one after the other, the second starts its time stamps again."""
    parts = [timed_videos.write(tmp_path / f"{i}.ts", evenly(100, 25)) for i in range(2)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(p.read_bytes() for p in parts))
    info = decode.probe(joined)
    assert info.n_decoded == 200
    assert info.duration_s == pytest.approx(8.0, abs=0.3)


@pytest.mark.parametrize("fps", [2, 5, 12])
def test_a_slow_recorder_that_begins_anew_goes_on_in_time(tmp_path: Path, fps: int) -> None:
    """The recorder's 30 frames last longer than the 2 s by which stamps may go back within a recording."""
    part = timed_videos.write(tmp_path / "part.ts", evenly(30, fps))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(2 * part.read_bytes())
    info = decode.probe(joined)
    assert (info.n_frames, info.fps, info.shown, info.lost) == (60, fps, None, ())
    assert decode.packet_timing(joined).agrees(info)


@pytest.mark.parametrize(
    ("first_s", "second_s"), [(100, 0), (7200, 0), (0, 7200)], ids=["back", "far back", "ahead"]
)
def test_stamps_that_jump_where_another_recording_begins_are_no_loss(
    tmp_path: Path, first_s: float, second_s: float
) -> None:
    """FFmpeg takes stamps that go back for stamps that have wrapped around, as they do every 26 hours."""
    parts = [
        timed_videos.write(tmp_path / f"{start_s}.ts", evenly(100, 25, start_s=start_s))
        for start_s in (first_s, second_s)
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(p.read_bytes() for p in parts))
    info = decode.probe(joined)
    assert info.n_decoded == 200
    assert info.lost == ()
    assert info.duration_s == info.read_s == pytest.approx(8.0, abs=0.3)
    assert decode.packet_timing(joined).agrees(info)


def test_sound_that_begins_midway_is_no_reason_not_to_read_a_recording(tmp_path: Path) -> None:
    """The sound ends early, too: FFmpeg finds the tracks of a file in its first and last seconds, so not this one."""
    parts = [
        timed_videos.write(
            tmp_path / f"{start_s}.ts",
            evenly(count, 25, start_s=start_s),
            sound=start_s == 60,
            sound_start_s=start_s,
        )
        for count, start_s in ((1500, 0), (250, 60), (1500, 70))
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(p.read_bytes() for p in parts))
    for info in (decode.probe(joined), decode.timing(joined)):
        assert (info.n_decoded, info.lost) == (3250, ())
    assert len(list(sources.open_source(f"growing:{joined}", still_s=0.1).frames())) == 3250


@pytest.mark.parametrize("look", [decode.probe, decode.timing])
def test_what_follows_in_another_track_is_said(
    tmp_path: Path, look: Callable[[Path], decode.VideoInfo]
) -> None:
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(p.read_bytes() for p in streamed.of_two_recorders(tmp_path)))
    info = look(joined)
    assert (info.n_decoded, info.read_s, info.played_s) == (1000, 40.0, 40.0)
    assert info.shortfall().startswith(
        "only 40.0 of 80.0 s decode (nothing at 40.0-80.0 s): the rest is in another video track"
    )
    assert "-map 0:v:1 " in info.shortfall()


@pytest.mark.parametrize("look", [decode.probe, decode.timing])
@pytest.mark.parametrize("begins_s", [0, 4])
def test_what_stands_in_a_smaller_track_before_the_one_that_is_read_is_said(
    tmp_path: Path, look: Callable[[Path], decode.VideoInfo], begins_s: int
) -> None:
    """A sound track that is announced but silent keeps FFmpeg looking for it until the larger picture has begun."""
    parts = []
    for pid, width, first_s in ((256, 64, 0), (336, 128, begins_s)):
        parts.append(tmp_path / f"{pid}.ts")
        with av.open(str(parts[-1]), "w", options={"mpegts_start_pid": str(pid)}) as container:
            track = container.add_stream("libx264", rate=25)
            track.width, track.height, track.pix_fmt = width, width * 3 // 4, "yuv420p"
            if pid == 256:
                container.add_stream("mp2", rate=44100)
            for number in range(100):
                picture = np.full((track.height, track.width, 3), number, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = first_s * 25 + number, Fraction(1, 25)
                container.mux(track.encode(frame))
            container.mux(track.encode())
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(p.read_bytes() for p in parts))
    info = look(joined)
    assert (info.width, info.start_s, info.read_s, info.lost) == (128, 4.0, 4.0, ((0.0, 4.0),))
    assert info.shortfall().startswith(
        "only 4.0 of 8.0 s decode (nothing at 0.0-4.0 s): the rest is in another video track"
    )
    assert "-map 0:v:0 " in info.shortfall()


@pytest.mark.parametrize("spans", [((0, 20), (0, 24)), ((0, 24), (0, 20)), ((0, 20), (10, 24))])
def test_a_camera_beside_another_that_ends_later_is_whole(
    tmp_path: Path, spans: tuple[tuple[int, int], ...]
) -> None:
    path = tmp_path / "v.ts"
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("libx264", rate=25) for _ in spans]
        for track in tracks:
            track.width, track.height, track.pix_fmt = 128, 32, "yuv420p"
        for number in range(600):
            for track, (begins_s, ends_s) in zip(tracks, spans, strict=True):
                if begins_s <= number / 25 < ends_s:
                    frame = av.VideoFrame.from_ndarray(numbered_videos.frame(number % 256), format="bgr24")
                    frame.pts, frame.time_base = number, Fraction(1, 25)
                    container.mux(track.encode(frame))
        for track in tracks:
            container.mux(track.encode())
    info = decode.probe(path)
    assert (info.read_s, info.shortfall()) == (spans[0][1], "")
    assert decode.timing(path) == info


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_camera_whose_clock_is_set_ahead_while_it_records_has_lost_nothing(
    tmp_path: Path, suffix: str
) -> None:
    """Containers state the end of the last frame as their length, and so include the jump."""
    path = timed_videos.write(tmp_path / f"v{suffix}", [*evenly(100, 25), *evenly(100, 25, start_s=7200)])
    info = decode.probe(path)
    assert info.lost == ()
    assert info.duration_s == info.read_s == pytest.approx(8.0, abs=0.3)
    assert decode.packet_timing(path).agrees(info)


def test_of_a_damaged_recording_a_slower_rate_is_no_loss_and_what_is_missing_there_is(
    tmp_path: Path,
) -> None:
    """A camera sends fewer pictures at night. Where its recordings meet, packet counters restart, a sign of damage."""
    day = timed_videos.write(tmp_path / "day.ts", evenly(100, 25))
    night = timed_videos.write(tmp_path / "night.ts", evenly(100, 10, start_s=4))
    gap = timed_videos.write(tmp_path / "gap.ts", [*evenly(50, 10, start_s=4), *evenly(50, 10, start_s=11)])
    whole, lacking = tmp_path / "whole.ts", tmp_path / "lacking.ts"
    whole.write_bytes(day.read_bytes() + night.read_bytes())
    lacking.write_bytes(day.read_bytes() + gap.read_bytes())
    info = decode.probe(whole)
    assert info.damaged
    assert info.lost == ()
    assert info.read_s == info.duration_s == pytest.approx(14.0, abs=0.3)
    assert decode.probe(lacking).lost == (pytest.approx((9.0, 11.0), abs=0.3),)


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
def test_packets_that_do_not_decode_are_a_loss_and_no_slower_rate(tmp_path: Path, suffix: str) -> None:
    """In a part of a video in which every frame stands alone, two of three packets are zeroed."""
    path = timed_videos.write(tmp_path / f"v{suffix}", evenly(250, 25), codec="mjpeg", pictures=noisy(250))
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content = path.read_bytes()
    for number, packet in enumerate(packets):
        if 50 <= number < 200 and number % 3:
            content = content.replace(packet, bytes(len(packet)))
    path.write_bytes(content)
    info = decode.probe(path)
    assert info.damaged
    assert info.n_decoded == 150
    assert info.read_s == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize(
    ("fps", "said"),
    [
        (25, "only 3.96 of 4.00 s decode (nothing at 2.00-2.04 s): "),
        (10, "only 9.9 of 10.0 s decode (nothing at 5.0-5.1 s): "),
    ],
)
def test_a_single_frame_that_does_not_decode_is_said_in_figures_that_tell_it(
    tmp_path: Path, fps: int, said: str
) -> None:
    path = timed_videos.write(
        tmp_path / "v.avi", evenly(100, fps), rate=fps, codec="mjpeg", pictures=noisy(100)
    )
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes().replace(packets[50], bytes(len(packets[50]))))
    assert decode.probe(path).shortfall().startswith(said)


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
def test_a_constant_rate_gives_the_frames_that_opencv_gives(tmp_path: Path, suffix: str) -> None:
    """The frames must be the same bit for bit, so that features made when OpenCV did the decoding stay valid."""
    path = timed_videos.write(tmp_path / f"v{suffix}", evenly(60, 25), pictures=noisy(60))
    info, frames = decode.read(path, lambda i: range(i.n_frames), threads=1)
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.grab():
        np.testing.assert_array_equal(frames[count], cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
        count += 1
    assert count == info.n_frames == 60
    assert info.as_stated


@pytest.mark.parametrize("layout", [*sorted(decode._SAME_IN_RGB), "yuv420p10le", "yuv411p", "nv12"])
@pytest.mark.parametrize("size", [(320, 240), (321, 239), (64, 48), (1280, 720)])
def test_whatever_the_layout_colours_are_those_of_bgr(layout: str, size: tuple[int, int]) -> None:
    """Features on disk were made from OpenCV's BGR; FFmpeg converts some layouts to RGB with other values."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=layout)
    by_opencv = frame.reformat(format="bgr24", threads=1).to_ndarray()[..., ::-1]
    np.testing.assert_array_equal(decode.RgbFrames().picture(frame), by_opencv)


def test_times_and_numbers_agree_where_stamps_are_shuffled(tmp_path: Path) -> None:
    """AVI has no time stamps of its own; with frames that look ahead they come out of order."""
    path = timed_videos.write(tmp_path / "v.avi", evenly(100, 25), codec="mpeg4", options={"bf": "2"})
    info, frames = decode.read(path, lambda i: range(0, i.n_frames, 9))
    assert info.as_stated
    assert {i: numbered_videos.number_of(f) for i, f in frames.items()} == {i: i for i in range(0, 100, 9)}


@pytest.mark.parametrize("suffix", [".avi", ".nut"])
@pytest.mark.parametrize("has_one", [lambda i: i % 3 == 0, lambda i: i % 2 == 0, lambda i: i % 10 != 5])
def test_a_picture_that_is_said_to_stand_on_is_no_loss(
    tmp_path: Path, suffix: str, has_one: Callable[[int], bool]
) -> None:
    """Recorders and capture programs write an empty packet for a frame that they drop."""
    numbers = [i if has_one(i) else None for i in range(250)]
    path = timed_videos.holding(tmp_path / f"v{suffix}", numbers)
    info = decode.probe(path)
    assert info.n_decoded == sum(number is not None for number in numbers)
    assert info.duration_s == pytest.approx(10.0, abs=0.1)
    assert info.read_s == info.duration_s
    assert info.shortfall() == ""
    assert decode.packet_timing(path).agrees(info)
    stands = {
        moment: max(i for i in range(moment + 1) if numbers[i] is not None) for moment in (0, 122, 125, 249)
    }
    assert _shown_at(path, *((moment + 0.5) / 25 for moment in stands)) == list(stands.values())


def test_a_picture_that_stands_on_to_the_end_is_shown_to_the_end(tmp_path: Path) -> None:
    path = timed_videos.holding(tmp_path / "v.nut", [*range(100), *[None] * 150])
    info = decode.probe(path)
    assert info.duration_s == pytest.approx(10.0)
    assert info.shortfall() == ""
    assert _shown_at(path, 3.9, 9.9) == [97, 99]


def test_what_is_asked_for_by_its_time_is_there_where_pictures_begin_behind_the_sound(tmp_path: Path) -> None:
    """The header does not say that they begin later, and frames are chosen before anything is decoded."""
    path = timed_videos.write(tmp_path / "late.mp4", evenly(100, 25, start_s=3.0), sound=True)
    info, frames = decode.read(path, lambda i: [sampling.moment_at(i, 5.01)])
    assert info.start_s == pytest.approx(3.0)
    assert numbered_videos.number_of(frames[sampling.moment_at(info, 5.01)]) == 50


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("late_s", [0.3, 3.0])
@pytest.mark.parametrize("look", [decode.probe, decode.timing])
def test_pictures_that_begin_behind_the_sound_are_no_damage(
    tmp_path: Path, suffix: str, late_s: float, look: Callable[[Path], decode.VideoInfo]
) -> None:
    path = timed_videos.write(tmp_path / f"v{suffix}", evenly(100, 25, start_s=late_s), sound=True)
    info = look(path)
    assert info.shortfall() == ""
    assert (info.start_s, info.read_s) == (pytest.approx(late_s, abs=0.1), pytest.approx(4.0, abs=0.05))
    pause = [*evenly(50, 25, start_s=late_s), *evenly(50, 25, start_s=late_s + 4.0)]
    paused = look(timed_videos.write(tmp_path / f"paused{suffix}", pause, sound=True))
    assert paused.shortfall().startswith("only 4.0 of 6.0 s decode (nothing at ")
    assert "nothing at 0.0" not in paused.shortfall()


@pytest.mark.parametrize("look", [decode.probe, decode.timing])
def test_a_clip_that_was_trimmed_in_place_is_as_long_as_it_is_shown(
    tmp_path: Path, look: Callable[[Path], decode.VideoInfo]
) -> None:
    """The frames that were trimmed off are still in the file, and were once reported as lost."""
    whole = timed_videos.write(tmp_path / "whole.mp4", evenly(200, 25), options={"g": "25"})
    for start_s, length_s in ((0.0, 3.0), (2.0, 3.0), (2.0, 5.6)):
        info = look(timed_videos.trimmed(whole, tmp_path / "v.mp4", start_s, length_s))
        assert (info.shortfall(), info.n_frames) == ("", pytest.approx(25 * length_s, abs=1))
        assert info.duration_s == pytest.approx(length_s, abs=0.05)


def test_a_trimmed_clip_that_was_cut_short_is_named(tmp_path: Path) -> None:
    whole = timed_videos.write(tmp_path / "whole.mp4", evenly(200, 25), options={"g": "25"})
    data = bytearray(timed_videos.trimmed(whole, tmp_path / "v.mp4", 1.0, 6.0).read_bytes())
    media = data.index(b"mdat")
    size = int.from_bytes(data[media - 4 : media], "big")
    data[media + size // 2 : media + size - 4] = bytes(size - size // 2 - 4)
    (tmp_path / "v.mp4").write_bytes(data)
    assert "of 6.0 s decode" in decode.probe(tmp_path / "v.mp4").shortfall()


def test_a_beginning_that_does_not_decode_is_said(tmp_path: Path) -> None:
    """A recording that begins within a group of pictures: what precedes its first key frame does not decode."""
    options = {"g": "50", "sc_threshold": "0", "bf": "0"}
    whole = timed_videos.write(tmp_path / "whole.mkv", evenly(200, 25), options=options, sound=True)
    path = tmp_path / "v.ts"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.pts is not None and packet.pts * packet.time_base >= 2.4:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    assert decode.probe(path).shortfall().startswith("only 4.0 of 5.6 s decode (nothing at 0.0-1.6 s)")


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> Path:
    folder = Path(request.config.rootpath).parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip("the small inputs that users met are not beside the repository")
    return folder


@pytest.mark.parametrize(
    ("name", "duration_s", "read_s"),
    [
        ("recording.mp4", 40.0, 40.0),
        ("damaged.mp4", 40.0, 39.8),
        ("half.mp4", 40.0, 21.0),
        ("vfr.mp4", 30.0, 30.0),
        ("fps300.mp4", 4.0, 4.0),
        ("fps0.5.mp4", 120.0, 120.0),
        ("av1.mp4", 3.0, 3.0),
        ("cctv.ts", 3.0, 3.0),
        ("CAM2.MTS", 3.0, 3.0),
        ("raw.h264", 3.0, 3.0),
        ("t.ogv", 3.0, 3.0),
    ],
)
def test_small_inputs_that_users_met(
    cases: Path, tmp_path: Path, name: str, duration_s: float, read_s: float
) -> None:
    path = Path(shutil.copy(cases / name, tmp_path))
    info = decode.probe(path)
    assert info.duration_s == pytest.approx(duration_s, abs=0.1)
    assert info.read_s == pytest.approx(read_s, abs=0.3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recording.mp4", ""),
        (
            "half.mp4",
            r"only 20\.9 of 40\.0 s decode \(nothing at 20\.9-40\.0 s\): it is damaged or was cut short\.",
        ),
        (
            "damaged.mp4",
            r"only 39\.\d of 40\.0 s decode \(nothing at 17\.\d-17\.\d, 17\.\d-17\.\d s\): it is damaged",
        ),
        ("vfr.mp4", ""),
        ("fps0.5.mp4", ""),
    ],
)
def test_what_of_these_does_not_decode_is_said_and_nothing_of_the_others(
    cases: Path, name: str, said: str
) -> None:
    shortfall = decode.probe(cases / name).shortfall()
    assert re.match(said, shortfall) if said else shortfall == ""


def test_windows_of_a_changing_rate_are_as_long_as_asked(cases: Path) -> None:
    info = decode.probe(cases / "vfr.mp4")
    windows = sampling.sliding_windows(info, 5.0, 2.5)
    assert [w.length / info.fps for w in windows[:-1]] == pytest.approx([5.0] * 10)
    assert all(sampling.shows_movement(info, w) for w in windows)


def test_a_frame_in_two_seconds_shows_no_movement_and_is_not_judged(cases: Path) -> None:
    info = decode.probe(cases / "fps0.5.mp4")
    assert not any(sampling.shows_movement(info, w) for w in sampling.sliding_windows(info, 5.0, 2.5))
    with pytest.raises(
        UnreadableVideo, match=r"too seldom to judge movement: 60 in 120\.0 s, and 5 s need 8"
    ):
        list(pictures.clip_variants(cases / "fps0.5.mp4", "clip", ("v0",), 32, ClipConfig(window_s=5.0)))


def test_a_scene_change_after_damage_stays_where_it_was(cases: Path) -> None:
    def changes(path: Path) -> float:
        info, frames = decode.read(
            path, lambda i: range(i.n_frames), lambda f: cv2.resize(f, (16, 16)).astype(np.int16)
        )
        steps = [
            np.abs(frames[i + 1] - frames[i]).mean() for i in range(int(28 * info.fps), info.n_frames - 1)
        ]
        return (int(28 * info.fps) + int(np.argmax(steps)) + 1) / info.fps

    assert changes(cases / "recording.mp4") == pytest.approx(30.0, abs=0.05)
    assert changes(cases / "damaged.mp4") == pytest.approx(30.0, abs=0.05)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
@pytest.mark.parametrize("pauses", [{100: 10.0}, {100: 10.0, 101: 20.0}, {119: 10.0}])
def test_packets_tell_of_a_pause_what_decoding_tells_wherever_the_look_ahead_stands(
    tmp_path: Path, suffix: str, pauses: dict[int, float]
) -> None:
    """In the file, the first frame after a pause precedes some that are shown before it: not another recording."""
    options = {"bf": "2"} if suffix == ".avi" else {"b-adapt": "0"}
    for later in range(5):
        times = [i / 25 + sum(s for at, s in pauses.items() if i >= at + later) for i in range(120 + later)]
        path = timed_videos.write(tmp_path / f"{later}{suffix}", times, options=options)
        packets, info = decode.packet_timing(path), decode.probe(path)
        assert packets.agrees(info), later
        assert info.n_decoded == len(times)


def test_packets_tell_of_a_gap_of_more_than_an_hour_what_decoding_tells(tmp_path: Path) -> None:
    times = [i / 25 + (4000 if i >= 62 else 0) for i in range(120)]
    path = timed_videos.write(tmp_path / "v.mkv", times, options={"b-adapt": "0"})
    assert decode.packet_timing(path).agrees(decode.probe(path))


def test_packets_tell_of_a_recorder_that_begins_anew_what_decoding_tells(tmp_path: Path) -> None:
    parts = [timed_videos.write(tmp_path / f"{i}.ts", evenly(120, 25)) for i in range(2)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(p.read_bytes() for p in parts))
    assert decode.packet_timing(joined).agrees(decode.probe(joined))
