"""Which arguments are cameras, and how cameras are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from violence_detection.errors import UserError
from violence_detection.prediction.live import camera_names
from violence_detection.video import sources


def test_cameras_have_short_names_without_passwords() -> None:
    cameras = camera_names.among(
        [
            "rtsp://me:geheim@10.0.0.5:554/stream1?token=abc",
            "yard=rtsp://me:geheim@10.0.0.6/s",
            "0",
            "growing:/a/night.ts",
        ]
    )
    assert [c.name for c in cameras] == ["10-0-0-5-554-stream1", "yard", "camera0", "night-ts"]
    assert cameras[1].text == "rtsp://me:geheim@10.0.0.6/s"
    assert [c.address for c in cameras[:2]] == ["rtsp://10.0.0.5:554/stream1?token=...", "rtsp://10.0.0.6/s"]
    assert "geheim" not in str([(c.name, c.address) for c in cameras])


@pytest.mark.parametrize("secret", ["ge'heim", 'ge"heim', "ge<heim", "ge>heim", "ge)heim", "g@e'heim"])
@pytest.mark.parametrize("form", ["rtsp://me:{}@10.0.0.6/s", "rtsp://10.0.0.6/s?password={}&channel=1"])
def test_no_part_of_a_password_is_shown_whatever_stands_in_it(form: str, secret: str) -> None:
    """Within a text an address ends at a quote or a bracket; an address given by itself goes on after it."""
    (camera,) = camera_names.among([f"yard={form.format(secret)}"])
    source = sources.open_source(camera.text)
    for shown in (camera.address, source.name, camera_names.named([camera.text])[0].name):
        assert "heim" not in shown
        assert "10" in shown
    with pytest.raises(UserError) as e:
        camera_names.among([form.format(secret).replace("10.0.0.6", "10.0.0.6:99999")])
    assert "heim" not in str(e.value)
    with pytest.raises(UserError) as e:
        sources.open_source(form.format(secret).replace("rtsp", "rtps"))
    assert "heim" not in str(e.value)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("rtsp://me:geheim@a/ch(1)/main", "a-ch-1-main"),
        ("rtsp://me:ge'heim@a/ch(1)/main", "a-ch-1-main"),
        ("rtsp://a/Streaming Channels/1", "a-Streaming-Channels-1"),
        ("rtsp://a/it's", "a-it-s"),
        ("rtsp://a/it's?password=ge'heim", "a-it-s"),
    ],
)
def test_what_ends_an_address_in_a_text_is_one_dash_in_a_name(address: str, name: str) -> None:
    """Other programs subscribe to MQTT topics with these names, so the names must not change."""
    assert [camera.name for camera in camera_names.named([address])] == [name]


def test_two_cameras_never_share_a_name(caplog: pytest.LogCaptureFixture) -> None:
    """Channels of a recorder are numbered by their place in the list. That may change, which was once not logged."""
    cameras = camera_names.among(["rtsp://a/s?channel=1", "b=rtsp://b/s", "rtsp://u:x@a/s?channel=2"])
    assert [c.name for c in cameras] == ["a-s", "b", "a-s-2"]
    assert [r.getMessage() for r in caplog.records] == [
        "a-s-2: the number is the camera's position among those named a-s, so it may change when the list does. "
        "Give each camera its own name: NAME=ADDRESS"
    ]
    caplog.clear()
    camera_names.among(["a-s=rtsp://a/s?channel=1", "a-s-2=rtsp://a/s?channel=2"])
    assert not caplog.records
    with pytest.raises(UserError, match="two cameras are named door"):
        camera_names.among(["door=rtsp://a/s", "door=rtsp://b/s"])


@pytest.mark.parametrize("behind", ["gehe[im@10.0.0.6/s", "gehe]im@10.0.0.6/s", "gehe/im@[10.0.0.6/s"])
def test_a_camera_whose_address_cannot_be_read_is_refused_without_its_password(
    tmp_path: Path, behind: str
) -> None:
    address, cameras = f"rtsp://me:{behind}", tmp_path / "cameras.txt"
    named = tmp_path / "named.txt"
    cameras.write_text(f"rtsp://a/one\n{address}\n")
    named.write_text(f"yard={address}\n")
    for given in (address, f"yard={address}", str(cameras), str(named)):
        with pytest.raises(UserError, match=r"cannot be read.*must be percent-encoded") as e:
            camera_names.among([given])
        assert "gehe" not in str(e.value)
        assert "im@" not in str(e.value)


def test_spaces_before_an_address_do_not_belong_to_it() -> None:
    (camera,) = camera_names.among(["front=  rtsp://a/s"])
    assert (camera.name, camera.text) == ("front", "rtsp://a/s")


@pytest.mark.parametrize(
    "text", ["my yard=growing:x.ts", "my yard=0", "my yard=/dev/video1", "my yard=rtsp://a/s"]
)
def test_a_name_with_a_space_is_refused_whatever_the_source_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"'my yard' cannot be the name of a camera.*: my_yard=\.\.\."):
        camera_names.among([text])
    if "/" not in text:
        (tmp_path / text).touch()
        assert camera_names.among([text]) == []


def test_videos_are_no_cameras_and_both_together_are_refused(tmp_path: Path) -> None:
    video = tmp_path / "a=b.mp4"
    video.touch()
    (tmp_path / "cameras.txt").write_text("rtsp://a/one\nrtsp://a/two\n")
    assert camera_names.among([str(video), str(tmp_path)]) == []
    assert [c.name for c in camera_names.among([str(tmp_path / "cameras.txt")])] == ["a-one", "a-two"]
    with pytest.raises(UserError, match=r"a=b\.mp4 is not a camera"):
        camera_names.among(["rtsp://a/s", str(video)])


def test_cameras_of_a_list_have_the_names_before_them(tmp_path: Path) -> None:
    (tmp_path / "cameras.txt").write_text(
        "front=rtsp://me:geheim@a/s\nyard=growing:new.ts\ngate=0\nrtsp://b/s\n"
    )
    cameras = camera_names.among([f"@{tmp_path / 'cameras.txt'}"])
    assert [(c.name, c.text, c.address) for c in cameras] == [
        ("front", "rtsp://me:geheim@a/s", "rtsp://a/s"),
        ("yard", f"growing:{tmp_path / 'new.ts'}", f"growing:{tmp_path / 'new.ts'}"),
        ("gate", "0", "0"),
        ("b-s", "rtsp://b/s", "rtsp://b/s"),
    ]
    with pytest.raises(UserError, match="two cameras are named front"):
        camera_names.among(["front=rtsp://c/s", str(tmp_path / "cameras.txt")])


@pytest.mark.parametrize(
    ("name", "better"), [("front door", "front_door"), ("yard ", "yard"), ("ü" * 76, "ü" * 20), ("", "front")]
)
def test_what_is_no_name_for_a_camera_is_refused_with_one_that_is(
    tmp_path: Path, name: str, better: str
) -> None:
    """Such an argument was once looked for as a file, and no file can be called after a name that is too long."""
    (tmp_path / "cameras.txt").write_text(f"rtsp://a/s\n{name}=rtsp://me:geheim@b/s\n")
    for given in (f"{name}=rtsp://me:geheim@b/s", str(tmp_path / "cameras.txt")):
        with pytest.raises(UserError, match=rf"cannot be the name of a camera.*: {better}=\.\.\.") as e:
            camera_names.among([given])
        assert "geheim" not in str(e.value)
    assert camera_names.among([f"{better}=rtsp://b/s"])[0].name == better


def test_an_address_may_be_longer_than_any_path() -> None:
    assert [c.name for c in camera_names.among([f"front=https://host/live.m3u8?{'x' * 5000}"])] == ["front"]
