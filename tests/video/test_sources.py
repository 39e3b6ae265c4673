"""Sources of frames: the same frames whichever way the footage comes, and errors that reveal no password."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import av
import numbered_videos
import numpy as np
import pytest
import streamed
import timed_videos
from timed_videos import evenly

from violence_detection.errors import SourceError, UnreadableVideo, UserError
from violence_detection.video import decode, demuxed_sources, growing_file, sources
from violence_detection.video.sources import is_stream, open_source


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 s of H.264 with frames that look ahead (B-frames), as cameras and phones write it."""
    path = tmp_path_factory.mktemp("recording") / "v.mp4"
    return timed_videos.write(path, evenly(300, 25), options={"bf": "2", "g": "50"})


@pytest.fixture(scope="module")
def transported(recording: Path) -> Path:
    path = recording.with_suffix(".ts")
    streamed.remux(recording, str(path))
    return path


def _frames(source: sources.Source) -> list[tuple[int, float]]:
    return [(numbered_videos.number_of(frame.picture), frame.time_s) for frame in source.frames()]


def test_footage_has_the_same_frames_and_times_whichever_way_it_comes(
    recording: Path, transported: Path, tmp_path: Path
) -> None:
    as_file = open_source(str(recording))
    frames = _frames(as_file)
    assert [number for number, _ in frames] == [i % 256 for i in range(300)]
    assert [time_s for _, time_s in frames] == pytest.approx(evenly(300, 25), abs=1e-6)
    with streamed.over_tcp(recording) as url:
        stream = open_source(url)
        sent = _frames(stream)
    with streamed.growing(transported, tmp_path / "grows.ts") as path:
        file = open_source(f"growing:{path}", still_s=1.0)
        grown = _frames(file)
    for got, source in ((sent, stream), (grown, file)):
        assert [number for number, _ in got] == [number for number, _ in frames]
        assert [time_s for _, time_s in got] == pytest.approx([time_s for _, time_s in frames], abs=1e-3)
        assert source.fps == pytest.approx(25.0)
    assert (as_file.live, stream.live, file.live) == (False, True, False)


def test_rtsp_has_the_frames_and_times_of_the_file(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an RTSP server here, the reader listens and the sender connects to it; the stream itself is the same."""
    monkeypatch.setitem(
        demuxed_sources._SCHEME_OPTIONS, "rtsp", {"rtsp_flags": "listen", "listen_timeout": "10"}
    )
    url = f"rtsp://127.0.0.1:{streamed.free_port()}/live"
    with subprocess.Popen([sys.executable, streamed.__file__, str(recording), url]) as sender:
        try:
            frames = _frames(open_source(url, read_limit_s=5))
        finally:
            sender.kill()
    assert [number for number, _ in frames] == [i % 256 for i in range(300)]
    assert [time_s for _, time_s in frames] == pytest.approx(evenly(300, 25), abs=1e-3)


def test_a_file_of_which_a_part_does_not_decode_keeps_the_times_of_the_rest(tmp_path: Path) -> None:
    path = timed_videos.write(
        tmp_path / "v.mkv", evenly(100, 25), pictures=timed_videos.noisy(100), options={"g": "10"}
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 30_000] = bytes(30_000)
    path.write_bytes(data)
    frames = list(open_source(str(path)).frames())
    assert 60 < len(frames) < 100
    for frame in frames[-10:]:
        middle = frame.picture[: 4 * numbered_videos.BLOCK * 2 : 4, ::2]
        assert numbered_videos.number_of(middle) == pytest.approx(frame.time_s * 25, abs=1)


def test_a_file_with_a_hole_has_its_frames_when_they_are_shown(tmp_path: Path) -> None:
    """Where a recorder lost packets, frames after the hole drop out without an error."""
    path = timed_videos.corner_moves(tmp_path / "v.ts", 6.0)
    data, packet = path.read_bytes(), 188
    begin = len(data) // 3 // packet * packet
    path.write_bytes(data[:begin] + data[begin + len(data) // 10 // packet * packet :])
    wanted = [time_s for time_s, *_ in decode.played(path, decode.probe(path))]
    assert decode.timing(path).n_decoded > len(wanted)
    assert [frame.time_s for frame in open_source(str(path)).frames()] == wanted


def test_a_file_with_a_pause_has_its_frames_when_they_are_shown(tmp_path: Path) -> None:
    """x264 looks ahead: in the file, the first frame after the pause comes before some that are shown earlier."""
    times = [i / 25 + (20 if i >= 103 else 0) for i in range(200)]
    path = timed_videos.write(tmp_path / "v.mp4", times, options={"b-adapt": "0"})
    frames = _frames(open_source(str(path)))
    assert [number for number, _ in frames] == list(range(200))
    assert [time_s for _, time_s in frames] == pytest.approx(times, abs=0.021)


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ("0", True), ("/dev/video1", True), ("rtsp://me:pw@host/1", True), ("https://x.org/live.m3u8", True),
        ("udp://@:5000", True), ("growing:/a/b.ts", True), ("tcp://127.0.0.1:80", True), ("video.mp4", False),
        ("RTSP://host/1", True), ("rtsp://[fe80::1]:554/s", True), ("//videos[1]/*.mp4", False),
        ("/videos/rtsp.mp4", False), ("c:/x.mp4", False), ("file:///x.mp4", False), ("100", False),
    ],
)  # fmt: skip
def test_what_is_a_stream(text: str, stream: bool) -> None:
    assert is_stream(text) is stream


def test_an_address_whose_password_has_a_bracket_is_refused_without_it() -> None:
    for means in (is_stream, open_source):
        with pytest.raises(
            UserError, match=r"the address rtsp://host/1 cannot be read.*percent-encoded"
        ) as e:
            means("rtsp://me:gehe[im@host/1")
        assert "gehe" not in str(e.value)
    assert is_stream("rtsp://me:gehe%5Bim@host/1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("udp://127.0.0.1:99999", "udp://127.0.0.1:99999"),
        ("rtsp://me:geheim@host:0/1", "rtsp://host:0/1"),
        ("http://host:80a/x.ts?token=geheim", "http://host:80a/x.ts?..."),
        ("rtsp://[fe80::1]:70000/1", "rtsp://[fe80::1]:70000/1"),
    ],
)
def test_an_impossible_port_is_named_before_anybody_waits_for_it(text: str, said: str) -> None:
    for means in (is_stream, open_source):
        with pytest.raises(UserError) as e:
            means(text)
        assert str(e.value) == f"the port of {said} is invalid: ports are numbers from 1 to 65535"


@pytest.mark.parametrize(
    "text", ["rtsp:///cam/1", "rtsp://", "http://:8080/x.ts", "RTMP:///live", "rtsp://me:geheim@/1"]
)
def test_an_address_without_a_host_is_refused_before_it_is_tried_for_ever(text: str) -> None:
    for means in (is_stream, open_source):
        with pytest.raises(UserError, match=r"names no host: write \w+://HOST/") as e:
            means(text)
        assert "geheim" not in str(e.value)


@pytest.mark.parametrize(
    "text", ["udp://:5000", "udp://@:5000", "srt://:9000?mode=listener", "tcp://:9000?listen=1"]
)
def test_a_machine_may_listen_for_whoever_sends(text: str) -> None:
    assert is_stream(text)


@pytest.mark.parametrize("text", ["rtsp://me:12345678/9@host/1", "rtsp://me:geheim/9@host/1"])
def test_a_password_that_looks_like_a_port_is_not_shown(text: str) -> None:
    with pytest.raises(UserError, match=r"the address rtsp://host/1 cannot be read.*percent-encoded") as e:
        open_source(text)
    assert not {"12345678", "geheim"} & set(str(e.value).replace("/", " ").split())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rtps://admin:s3cret@cam/x", "rtps://cam/x"),
        ("mms://admin:s3cret@cam/x", "mms://cam/x"),
        ("rtsp:/admin:s3cret@cam/x", "rtsp:/cam/x"),
        ("rstp//admin:s3cret@cam/x", "rstp//cam/x"),
        ("front=rtsp://admin:s3cret@cam/x", "front=rtsp://cam/x"),
        ("admin:s3cret@cam/x", "cam/x"),
        ("growing:rtsp://admin:s3cret@cam/x", "rtsp://cam/x"),
        ("file:///tmp/v.mp4", "file:///tmp/v.mp4"),
    ],
)
def test_a_mistyped_address_is_answered_with_those_there_are_and_no_password(text: str, said: str) -> None:
    """Such an address was once looked for as a file, and the error quoted it with its password."""
    with pytest.raises(UserError) as e:
        open_source(text)
    assert str(e.value).startswith(f"{said} is neither a file nor the address of a stream: ")
    assert "rtsp://, rtsps://" in str(e.value)


def test_a_file_that_is_called_like_a_mistyped_address_is_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cam:1@yard.mp4").touch()
    assert open_source("cam:1@yard.mp4").name == "cam:1@yard.mp4"
    for gone in ("not-there.mp4", "/data/pass=2/clip.mp4"):
        assert open_source(gone).name == gone


def test_a_file_of_a_cameras_name_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("0").touch()
    assert not is_stream("0")


def test_a_growing_list_of_segments_fetches_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1)
        segment = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        path = tmp_path / "a.m3u8"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{segment}\n#EXT-X-ENDLIST\n")
        with pytest.raises(SourceError):
            next(open_source(f"growing:{path}", still_s=0.2).frames())
        with pytest.raises(TimeoutError):
            server.accept()


def test_nothing_that_is_said_of_a_stream_has_its_password(capfd: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{streamed.free_port()}"
    for url in (
        f"rtsp://me:s3cret@{address}/a?pwd=s3cret",
        f"http://me:s3cret@{address}/user=a_password=s3cret.ts",
    ):
        source = open_source(url, open_limit_s=5)
        with pytest.raises(SourceError, match="cannot be opened: connection refused") as e:
            next(source.frames())
        assert address in source.name == e.value.path
        told = "".join(traceback.TracebackException.from_exception(e.value).format())
        assert "s3cret" not in f"{source.name} {told}"
    assert "s3cret" not in "".join(capfd.readouterr())


def test_a_stream_that_does_not_answer_and_one_that_stops_are_named_in_time(transported: Path) -> None:
    with streamed.server_that_says() as port:
        began_s = time.monotonic()
        with pytest.raises(SourceError, match=r"did not answer within 0\.3 s"):
            next(open_source(f"tcp://127.0.0.1:{port}", open_limit_s=0.3).frames())
        assert time.monotonic() - began_s < 5
    half = transported.read_bytes()[: transported.stat().st_size // 2]
    with streamed.server_that_says(half) as port:
        frames = open_source(f"tcp://127.0.0.1:{port}", 10.0, read_limit_s=0.5).frames()
        got = [next(frames)]
        with pytest.raises(SourceError, match=r"nothing arrived for 0\.5 s"):
            got += frames
        assert len(got) > 100


def test_a_host_that_nobody_knows_and_a_protocol_that_is_not_there_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FFmpeg's own messages, `input/output error` and `protocol not found`, do not say what is wrong."""
    for scheme in ("rtsp", "http"):
        with pytest.raises(SourceError, match=r"opened: unknown host no-such-host\.invalid") as e:
            next(open_source(f"{scheme}://me:geheim@no-such-host.invalid/x").frames())
        assert "geheim" not in str(e.value)

    def built_without(*args: object, **kwargs: object) -> None:
        raise av.ProtocolNotFoundError(1, "Protocol not found")

    monkeypatch.setattr(av, "open", built_without)
    with pytest.raises(SourceError, match=rf"PyAV {av.__version__} was built without srt\..*-i srt://"):
        next(open_source("srt://127.0.0.1:9").frames())


def test_a_stream_ends_when_it_is_closed_from_elsewhere(transported: Path) -> None:
    with streamed.server_that_says(transported.read_bytes()[:-5000]) as port:
        source = open_source(f"tcp://127.0.0.1:{port}", read_limit_s=1.0)
        threading.Timer(0.2, source.close).start()
        got = 0
        for _ in source.frames():
            time.sleep(0.02)
            got += 1
        assert 0 < got < 200


def test_sound_that_goes_on_without_pictures_does_not_keep_a_stream_alive() -> None:
    with streamed.sound_that_goes_on(pictures=40) as url:
        frames, began_s = open_source(url, read_limit_s=1.0).frames(), time.monotonic()
        got = [next(frames)]
        with pytest.raises(SourceError, match=r"no picture for \d s, though it sends sound"):
            got += frames
        assert len(got) > 30
        assert time.monotonic() - began_s < 20
    with streamed.sound_that_goes_on(pictures=40) as url:
        source = open_source(url, read_limit_s=60.0)
        frames = source.frames()
        next(frames)
        threading.Timer(0.5, source.close).start()
        began_s = time.monotonic()
        assert sum(1 for _ in frames) < 40
        assert time.monotonic() - began_s < 20


def test_pictures_of_which_none_decodes_do_not_keep_a_stream_alive() -> None:
    with streamed.pictures_that_do_not_decode(pictures=40) as url:
        frames = open_source(url, read_limit_s=0.5).frames()
        got = [next(frames)]
        with pytest.raises(SourceError, match=r"no picture that can be decoded for \d s"):
            got += frames
        assert len(got) > 30


@pytest.mark.parametrize("name", ["live.m3u8", "live"])
def test_a_segment_of_a_playlist_may_be_waited_for_longer_than_a_packet(
    recording: Path, tmp_path: Path, name: str
) -> None:
    """A segment of 10 s arrives as a whole every 10 s. Under the limit for packets the stream was lost each time."""
    with streamed.playlist(recording, tmp_path, name, after_s=3.0) as url:
        source = open_source(url, read_limit_s=1.5)
        frames = _frames(source)  # begins at the third last segment of the list as it was then
        assert frames[-1][0] == 299 % 256
        assert source.live


def test_a_playlist_to_which_nothing_comes_is_lost_when_its_time_is_up(
    recording: Path, tmp_path: Path
) -> None:
    """At its time limit FFmpeg delivers the frames that it had held back, and the source then waited as long again."""
    with streamed.playlist(recording, tmp_path, "live.m3u8", after_s=60.0) as url:
        frames = open_source(url, read_limit_s=1.0).frames()
        came_s: list[float] = []
        with pytest.raises(SourceError, match="nothing arrived for 3 s"):
            came_s += (time.monotonic() for _ in frames)
    assert time.monotonic() - came_s[50] < 5.0


def test_of_several_renditions_the_one_that_is_looked_at_is_fetched(tmp_path: Path) -> None:
    """The small and the large pictures of a camera, each with its sound, were once fetched all the time."""
    master = "#EXTM3U\n"
    for name, scale in (("small", 1), ("large", 2)):
        pictures = [
            np.repeat(np.repeat(numbered_videos.frame(n % 256), scale, 0), scale, 1) for n in range(500)
        ]
        timed_videos.write(
            tmp_path / f"{name}.m3u8",
            evenly(500, 25),
            pictures=pictures,
            codec="libx264",
            options={"g": "50"},
            sound=True,
        )
        master += f"#EXT-X-STREAM-INF:BANDWIDTH={scale * 100_000}\n{name}.m3u8\n"
    (tmp_path / "master.m3u8").write_text(master)
    asked: list[str] = []
    with streamed.served(tmp_path, asked) as url:
        frames = open_source(f"{url}/master.m3u8").frames()
        shape = next(frames).picture.shape
        for_opening = asked.copy()
        assert sum(1 for _ in frames) > 200
    assert shape[:2] == tuple(2 * n for n in numbered_videos.frame(0).shape[:2])
    assert any(name.startswith("small") for name in for_opening)
    fetched = asked[len(for_opening) :]
    assert fetched
    assert all(name.startswith("large") for name in fetched), fetched


def test_a_scheme_may_be_written_in_capitals(recording: Path) -> None:
    """FFmpeg accepts the names of protocols in lower case only."""
    with streamed.over_tcp(recording) as url:
        assert len(_frames(open_source(url.replace("tcp", "TCP")))) == 300


def test_a_sender_that_was_started_anew_goes_on_when_its_frames_come(transported: Path) -> None:
    """Over UDP a restart goes unnoticed. All times after it were too early by the pause, and more with each restart."""
    with streamed.begun_again(transported, pause_s=1.5) as url:
        source = open_source(url)
        times_s = [frame.time_s for frame, _ in zip(source.frames(), range(600), strict=False)]
        source.close()
    assert len(times_s) == 600
    assert max(np.diff(times_s)) == pytest.approx(1.5, abs=0.7)
    assert np.median(np.diff(times_s)) == pytest.approx(0.04, abs=0.001)


def test_a_sender_that_goes_on_in_another_track_is_read_on(tmp_path: Path) -> None:
    """PyAV would drop packets of the new track in a loop that checks neither the time limit nor a request to stop."""
    parts = streamed.of_two_recorders(tmp_path)
    with streamed.one_after_another(parts) as url:
        source = open_source(url, read_limit_s=5.0)
        came = [frame.time_s for frame in source.frames()]
    assert len(came) > 1900
    assert came[-1] == pytest.approx(80, abs=1.0)


def test_a_sender_that_adds_a_track_in_front_of_the_others_is_lost_and_not_waited_for_forever() -> None:
    """PyAV drops the packets of the new tracks in a loop of its own that checks no time limit."""
    # more pictures than FFmpeg looks at before the first frame
    with streamed.with_sound_added(pictures=140) as url:
        frames = open_source(url, read_limit_s=1.0).frames()
        got = [next(frames)]
        began_s = time.monotonic()
        with pytest.raises(SourceError, match=r"no packets of its tracks for 1 s"):
            got += frames
        assert len(got) > 100
        assert time.monotonic() - began_s < 20


def test_segments_whose_tracks_have_other_numbers_are_read_on(tmp_path: Path) -> None:
    parts = streamed.of_two_recorders(tmp_path)
    with streamed.playlist_that_goes_on(parts, tmp_path, after_s=1.0) as url:
        came = [frame.time_s for frame in open_source(url, read_limit_s=5.0).frames()]
    # the last three segments of the first part, each of 10 s or less, and the whole second part
    assert len(came) > 1400
    assert came[-1] > 59


@pytest.mark.parametrize("way", ["raw", "http"])
def test_pictures_without_times_have_those_of_their_arrival(way: str) -> None:
    """FFmpeg would count 25 frames a second. Only one connection is made: some cameras accept no second one."""
    rate, connections = 50, [0]
    sent = streamed.raw_h264(rate, connections) if way == "raw" else streamed.webcam(rate, connections)
    with sent as url:
        source = open_source(url)
        frames = source.frames()
        times_s = [frame.time_s for frame, _ in zip(frames, range(75), strict=False)]
        source.close()
    assert connections == [1]
    assert times_s[0] == 0
    assert (times_s[-1] - times_s[5]) / 69 == pytest.approx(1 / rate, rel=0.25)
    assert min(np.diff(times_s)) > 0
    assert source.fps == 0


def test_a_live_stamp_that_jumps_ahead_is_no_pause_and_that_of_a_growing_file_is(tmp_path: Path) -> None:
    times_s = [*evenly(100, 25), *evenly(100, 25, start_s=64.0)]
    path = timed_videos.write(tmp_path / "v.ts", times_s)
    with streamed.over_tcp(path) as url:
        sent = [frame.time_s for frame in open_source(url).frames()]
    grown = [frame.time_s for frame in open_source(f"growing:{path}", still_s=0.2).frames()]
    assert len(sent) == len(grown) == 200
    assert max(np.diff(sent)) < 0.1
    assert max(np.diff(grown)) == pytest.approx(60.0, abs=0.1)


def test_a_wave_is_the_home_folder_and_that_of_nobody_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind in ("", "growing:"):
        assert open_source(f"{kind}~/night.ts").name == str(tmp_path / "night.ts")
        assert open_source(f"{kind}~nobody-here/night.ts").name == "~nobody-here/night.ts"


def test_a_picture_that_is_said_to_stand_on_ends_no_stream(tmp_path: Path) -> None:
    path = timed_videos.holding(tmp_path / "v.nut", [i if i % 3 == 0 else None for i in range(150)])
    times = [frame.time_s for frame in open_source(f"growing:{path}", still_s=0.2).frames()]
    assert times == pytest.approx([i / 25 for i in range(0, 150, 3)], abs=1e-3)


def test_a_growing_file_is_given_back_at_its_end_and_where_somebody_stops_early(transported: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        assert sum(1 for _ in open_source(f"growing:{transported}", still_s=0.1).frames()) == 300
        frames = open_source(f"growing:{transported}", still_s=0.1).frames()
        next(frames)
        del frames
        gc.collect()
    assert not [w for w in told if str(transported) in str(w.message)]


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_growing_file_that_is_begun_anew_says_so(
    transported: Path, tmp_path: Path, is_replaced: bool
) -> None:
    """New content before the reader's position was once never seen, as if the file had merely stopped growing."""
    into, data = tmp_path / "recording.ts", transported.read_bytes()
    into.write_bytes(data[: len(data) // 2])
    frames = open_source(f"growing:{into}", still_s=0.5).frames()
    got = [next(frames)]
    if is_replaced:
        into.unlink()
    threading.Timer(0.2, into.write_bytes, [data[:2000]]).start()
    with pytest.raises(SourceError, match="was rewritten or replaced while it was read"):
        got += frames
    assert len(got) > 100, "what was there before is whole"


def test_a_growing_file_that_may_not_be_read_says_so(
    transported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(growing_file, "check_readable_meanwhile", refused)
    with pytest.raises(SourceError, match="permission denied"):
        next(open_source(f"growing:{transported}", still_s=0.1).frames())


def test_what_is_no_video_says_so(tmp_path: Path) -> None:
    text = tmp_path / "notes.ts"
    text.write_text("nothing to see")
    with pytest.raises(SourceError, match="not a video that can be read while it grows"):
        next(open_source(f"growing:{text}", still_s=0.1).frames())
    with pytest.raises(SourceError, match=r"no such file appeared within 0\.1 s"):
        next(open_source(f"growing:{tmp_path / 'none.ts'}", still_s=0.1).frames())
    with pytest.raises(UnreadableVideo, match="not a video"):
        next(open_source(str(text)).frames())
    with pytest.raises(SourceError, match="camera 77: cannot be opened"):
        next(open_source("77").frames())


def test_an_mp4_that_can_be_read_when_complete_alone_says_so_at_once(recording: Path) -> None:
    with pytest.raises(SourceError, match="index at the end"):
        next(open_source(f"growing:{recording}", still_s=60).frames())


def test_an_mp4_that_is_being_written_says_so_at_once(tmp_path: Path) -> None:
    """FFmpeg leaves the size of the picture data empty until it has written all of it."""
    path, rng = tmp_path / "now.mp4", np.random.default_rng(0)
    with av.open(path, "w") as container:
        stream = container.add_stream(
            "mpeg4", rate=25, width=96, height=64, pix_fmt="yuv420p", bit_rate=10**7
        )
        while not (path.is_file() and path.stat().st_size):
            noise = rng.integers(0, 255, (64, 96, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise)))
        with pytest.raises(SourceError, match="index at the end"):
            next(open_source(f"growing:{path}", still_s=5).frames())


def test_times_go_on_whatever_the_stamps_do() -> None:
    """The clock restarts, then jumps ahead by a day; a frame has no stamp, and one has the stamp of the one before."""
    clock = demuxed_sources.StreamClock(10.0, 0.04)
    stamps: list[float | None] = [
        10.0,
        10.04,
        10.08,
        0.0,
        0.04,
        90_000.0,
        90_000.04,
        None,
        90_000.08,
        90_000.16,
    ]
    expected = [0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.24, 0.28, 0.281, 0.36]
    assert [clock.time_s(stamp) for stamp in stamps] == pytest.approx(expected, abs=1e-6)
    clock = demuxed_sources.StreamClock(0.071, 0.04)
    stamps = [None, None, 0.151, 0.191]
    assert [clock.time_s(stamp) for stamp in stamps] == pytest.approx([0.0, 0.04, 0.08, 0.12], abs=1e-6)


@pytest.mark.parametrize(
    ("picture", "time_s", "said"),
    [
        (np.zeros((90, 120), np.uint8), 0.0, r"Received: \(90, 120\) of uint8\. cv2\.cvtColor"),
        (np.zeros((90, 120, 4), np.uint8), 0.0, r"Received: \(90, 120, 4\) of uint8"),
        (np.zeros((90, 120, 3), np.float32), 0.0, r"Received: \(90, 120, 3\) of float32"),
        (np.zeros((0, 120, 3), np.uint8), 0.0, r"Received: \(0, 120, 3\)"),
        (None, 0.0, r"Received: \(\) of NoneType"),
        (
            np.zeros((90, 120, 3), np.uint8),
            float("nan"),
            "number of seconds from the beginning of its source",
        ),
    ],
)
def test_a_frame_of_a_source_of_ones_own_is_refused_where_it_is_none(
    picture: Any, time_s: float, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        sources.TimedFrame(time_s, picture)
