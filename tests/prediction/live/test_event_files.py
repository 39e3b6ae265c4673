"""Snapshots and clips on a disk that is slow or does not answer."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from violence_detection.prediction.event_follower import END, NEW, UPDATE, EventNews
from violence_detection.prediction.events import Event
from violence_detection.prediction.live import event_files
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.event_publisher import EventPublisher
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs import outbox
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.prediction.live.recent_footage import RecentFootage
from violence_detection.system import storage
from violence_detection.system.own_files import WrittenFiles


class _RecordingOutbox(Outbox):
    """Keeps each message, and whether the files that it names were there."""

    name = "told"

    def __init__(self) -> None:
        self.messages: list[tuple[EventMessage, bool]] = []
        super().__init__()

    def deliver(self, message: EventMessage) -> None:
        there = [path.is_file() for path in (message.snapshot, message.clip) if path is not None]
        self.messages.append((message, all(there)))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The disk answers once this is set. A memory card under load may take seconds, a share that is away for ever."""
    answers, sync = threading.Event(), storage.sync_file

    def slow(path: Path) -> None:
        answers.wait(20)
        sync(path)

    monkeypatch.setattr(storage, "sync_file", slow)
    yield answers
    answers.set()


def _footage() -> RecentFootage:
    footage = RecentFootage(60.0)
    for number in range(100):
        if kept := footage.kept(number / 10, np.full((48, 64, 3), number, np.uint8)):
            footage.keep(kept)
    return footage


def _publish(publisher: EventPublisher, camera: CameraState, footage: RecentFootage, *kinds: str) -> None:
    for number, kind in enumerate(kinds):
        event = Event(3.0, 5.0 + number, 0.8 + number / 50, 4.0 + number)
        publisher.publish(camera, footage, True, EventNews(kind, f"{camera.name}-1", event))


def test_judging_waits_for_no_disk_and_news_for_their_files(tmp_path: Path, answers: threading.Event) -> None:
    """Judging once waited for the disk, and windows of all cameras were dropped meanwhile."""
    recorder, camera, footage = _RecordingOutbox(), CameraState("front", "rtsp://host/s"), _footage()
    publisher = EventPublisher([recorder], 0.5, tmp_path, 1.0, 60.0, 1.0)
    began_s = time.monotonic()
    _publish(publisher, camera, footage, NEW, UPDATE, UPDATE, END)
    assert time.monotonic() - began_s < 10
    assert camera.events == 1
    assert not recorder.messages
    answers.set()
    publisher.wait(threading.Event())
    publisher.close(5)
    recorder.close(5)
    kinds = [message.news.kind for message, _ in recorder.messages]
    assert (kinds[0], kinds[-1]) == (NEW, END)
    assert all(are_there for _, are_there in recorder.messages)
    snapshot, clip = tmp_path / "front-1.jpg", tmp_path / "front-1.mp4"
    assert all(message.snapshot == snapshot for message, _ in recorder.messages)
    assert recorder.messages[-1][0].clip == clip
    shown = footage.nearest(7.0)
    assert shown is not None
    assert snapshot.read_bytes() == shown.jpeg, "the last picture was of the most violent moment"


def test_a_disk_that_does_not_answer_keeps_nobody_from_ending(
    tmp_path: Path, answers: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, publisher = _RecordingOutbox(), EventPublisher([], 0.5, tmp_path, 1.0, 60.0, 1.0)
    for name in ("front", "back"):
        _publish(publisher, CameraState(name, "rtsp://host/s"), _footage(), NEW, END)
    began_s = time.monotonic()
    publisher.close(2.0)
    recorder.close(1)
    assert time.monotonic() - began_s < 10
    assert "clips: 4 messages were not sent in time" in caplog.text


def _soon(is_so: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + 10
    while not is_so() and time.monotonic() < until_s:
        time.sleep(0.02)
    return is_so()


def test_news_that_wait_too_long_for_a_disk_go_without_their_files(
    tmp_path: Path, answers: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were once given up, first of all the ends of events already told as begun: `ON` stayed on the broker."""
    monkeypatch.setattr(outbox, "_MOST_WAITING", 6)
    recorder, footage = _RecordingOutbox(), _footage()
    publisher = EventPublisher([recorder], 0.5, tmp_path, 1.0, 60.0, 1.0)

    def publish(name: str, *kinds: str) -> None:
        _publish(publisher, CameraState(name, "rtsp://host/s"), footage, *kinds)

    def said() -> list[tuple[str, str]]:
        return [(message.camera, message.news.kind) for message, _ in recorder.messages]

    answers.set()
    publish("front", NEW)
    assert _soon(lambda: said() == [("front", NEW)])
    answers.clear()
    publish("back", NEW)
    files = publisher._files
    assert files is not None
    assert _soon(lambda: not files._waiting), "the disk has it"
    publish("front", END)
    publish("back", END)
    others = [f"other{number}" for number in range(4)]
    for name in others:
        publish(name, NEW, END)
    assert _soon(lambda: len(recorder.messages) == 5)
    assert said()[1:] == [("front", END), *itertools.product(others[:1], (NEW, END)), ("other1", NEW)]
    assert recorder.messages[1][0].snapshot == tmp_path / "front-1.jpg"
    assert recorder.messages[1][0].clip is None
    answers.set()
    publisher.wait(threading.Event())
    publisher.close(5)
    recorder.close(5)
    names = ["front", "back", *others]
    assert sorted(said()) == sorted(itertools.product(names, (NEW, END)))
    assert all(said().index((name, NEW)) < said().index((name, END)) for name in names)
    assert all(are_there for _, are_there in recorder.messages)
    assert (files.failed, files._open, files._footage) == (0, {}, {})
    assert {path.name for path in tmp_path.glob("*.mp4")} == {
        f"{name}-1.mp4" for name in ("front", "back", "other2", "other3")
    }


def test_a_folder_that_cannot_be_looked_at_costs_no_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, camera = _RecordingOutbox(), CameraState("front", "rtsp://host/s")
    publisher = EventPublisher([recorder], 0.5, tmp_path / "clips", 1.0, 60.0, 1.0)

    def is_away(*about: object) -> bool:
        raise OSError("the share is away")

    monkeypatch.setattr(WrittenFiles, "may_replace", is_away)
    _publish(publisher, camera, _footage(), NEW, END)
    publisher.wait(threading.Event())
    publisher.close(5)
    recorder.close(5)
    assert [(m.news.kind, m.snapshot, m.clip) for m, _ in recorder.messages] == [
        (NEW, None, None),
        (END, None, None),
    ]
    assert "cannot be written to: the share is away" in caplog.text


def _judged_in(folder: Path, address: str, footage: RecentFootage) -> list[str]:
    """Publish an event of a recording; return the names of all the files that the folder then has for its clips."""
    recorder, camera = _RecordingOutbox(), CameraState("night", address)
    publisher = EventPublisher([recorder], 0.5, folder, 1.0, 60.0, 1.0)
    for kind in (NEW, END):
        publisher.publish(camera, footage, False, EventNews(kind, "night-1", Event(3.0, 5.0, 0.8, 4.0)))
    footage.end()
    publisher.wait(threading.Event())
    publisher.close(5)
    recorder.close(5)
    return sorted(path.name for path in folder.glob("night*"))


@pytest.mark.parametrize("address", ["growing:~/night.ts", "http://nas/night.mp4"])
def test_a_recording_that_is_judged_again_from_elsewhere_replaces_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Judged from another folder, it was once taken for another recording, and each clip was there twice."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "night.ts").write_bytes(bytes(range(256)) * 400)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        there = _judged_in(tmp_path / "clips", address, _footage())
        with (tmp_path / "night.ts").open("ab") as growing:
            growing.write(b"more")
    assert there == ["night-1.jpg", "night-1.mp4"]


def test_the_next_nights_recording_of_the_same_name_leaves_the_clips_of_the_last(tmp_path: Path) -> None:
    file = tmp_path / "night.ts"
    file.write_bytes(b"monday" * 20_000)
    _judged_in(tmp_path / "clips", f"growing:{file}", _footage())
    before = {path: path.read_bytes() for path in (tmp_path / "clips").glob("night*")}
    file.write_bytes(b"tuesday" * 20_000)
    there = _judged_in(tmp_path / "clips", f"growing:{file}", _footage())
    assert len(there) == 4
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.parametrize("container", ["matroska", "flv", "avi"])
def test_a_recording_is_the_same_when_its_container_is_closed(tmp_path: Path, container: str) -> None:
    """Closing it writes its length and the place of its index at the beginning, so each clip was once there twice."""
    file, rng, grown = tmp_path / "night.rec", np.random.default_rng(0), b""
    with av.open(str(file), "w", format=container, options={"flush_packets": "1"}) as out:
        video = out.add_stream("flv1" if container == "flv" else "mpeg4", rate=25)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt, video.bit_rate = 160, 96, "yuv420p", 10**6
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (96, 160, 3), np.uint8))
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
            if number == 50:
                grown = file.read_bytes()
        out.mux(video.encode())
    whole = file.read_bytes()
    assert whole[: len(grown)] != grown
    for data in (grown, whole):
        file.write_bytes(data)
        there = _judged_in(tmp_path / "clips", f"growing:{file}", _footage())
        assert there == ["night-1.jpg", "night-1.mp4"]


def test_room_that_is_kept_for_an_index_does_not_make_two_nights_one(tmp_path: Path) -> None:
    """`ffmpeg -reserve_index_space 50k` leaves such room, which looks the same in all files."""
    nights = [tmp_path / name for name in ("monday.mkv", "tuesday.mkv")]
    for seed, file in enumerate(nights):
        rng = np.random.default_rng(seed)
        with av.open(str(file), "w", options={"reserve_index_space": "50000"}) as out:
            video = out.add_stream("mpeg4", rate=25)
            assert isinstance(video, av.VideoStream)
            video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
            for _ in range(10):
                out.mux(
                    video.encode(av.VideoFrame.from_ndarray(rng.integers(0, 255, (96, 160, 3), np.uint8)))
                )
            out.mux(video.encode())
    assert event_files._begins(nights[0]) != event_files._begins(nights[1])
