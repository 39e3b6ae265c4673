"""Patterns and lists are expanded as documented, and a file that has such a name is taken as that file."""

from __future__ import annotations

from pathlib import Path

import pytest

from violence_detection.errors import UserError
from violence_detection.video.video_lists import expanded


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.mp4", "a.mp4", "clips/c.mkv", "clips/deep/d.mkv", "x[1].mp4", "@home.mp4"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


def test_patterns_are_sorted_and_nothing_comes_twice(folder: Path) -> None:
    assert expanded(["b.mp4", "[ab].mp4", "clips/**/*.mkv"]) == [
        "b.mp4", "a.mp4", "clips/c.mkv", "clips/deep/d.mkv",
    ]  # fmt: skip


def test_a_file_that_is_there_by_that_name_is_meant(folder: Path) -> None:
    assert expanded(["x[1].mp4", "@home.mp4", "clips"]) == ["x[1].mp4", "@home.mp4", "clips"]


def test_a_list_has_a_path_pattern_or_stream_a_line_from_its_own_folder_on(folder: Path) -> None:
    text = "#EXTM3U\n#EXTINF:3,c\nc.mkv\n\n  deep/*.mkv  \nrtsp://me:pw@host/1\ngrowing:new.ts\n"
    for name in ("l.m3u", "l.txt", "list"):
        (folder / "clips" / name).write_text(text, encoding="utf-8-sig")
    meant = ["clips/c.mkv", "clips/deep/d.mkv", "rtsp://me:pw@host/1", "growing:clips/new.ts"]
    assert expanded(["clips/l.m3u"]) == expanded(["clips/l.txt"]) == expanded(["@clips/list"]) == meant


def test_a_list_may_end_its_lines_as_any_system_does_and_nowhere_else(folder: Path) -> None:
    (folder / "a\u2028b.mp4").touch()
    for end in ("\n", "\r\n", "\r"):
        (folder / "l.txt").write_bytes(end.join(["a.mp4", "", "a\u2028b.mp4", "b.mp4", ""]).encode())
        assert expanded(["l.txt"]) == ["a.mp4", "a\u2028b.mp4", "b.mp4"]


@pytest.mark.parametrize("text", ["", "# front=rtsp://host/1\n\n"])
def test_a_list_that_names_nothing_says_so_as_an_empty_folder_does(folder: Path, text: str) -> None:
    """A list whose cameras were all commented out, or that is empty, once led to an empty run without a word."""
    (folder / "cameras.txt").write_text(text)
    with pytest.raises(UserError, match=r"^cameras\.txt names no video and no camera"):
        expanded(["cameras.txt"])


def test_a_stream_of_a_list_keeps_the_name_before_it(folder: Path) -> None:
    """A growing file is relative to the list's folder; an existing file that is named like a stream is that file."""
    long = f"door=https://host/live.m3u8?{'x' * 5000}"
    lines = ["front=rtsp://me:pw@host/1", "yard=growing:deep/new.ts", "gate=0", long, "a=growing:b"]
    (folder / "clips" / "a=growing:b").touch()
    (folder / "clips" / "l.txt").write_text("\n".join(lines))
    meant = [lines[0], "yard=growing:clips/deep/new.ts", "gate=0", long, "clips/a=growing:b"]
    assert expanded(["clips/l.txt"]) == meant


def test_a_folder_of_a_list_that_is_called_as_a_camera_is_that_folder_wherever_the_run_begins(
    folder: Path,
) -> None:
    """With one folder of recordings per camera, named by its number, this machine's cameras were opened instead."""
    (folder / "clips" / "01").mkdir()
    (folder / "clips" / "l.txt").write_text("01\n02\n/dev/video0\n")
    assert expanded(["clips/l.txt"]) == ["clips/01", "02", "/dev/video0"]


def test_a_wave_is_the_home_folder_in_a_list_and_that_of_nobody_a_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "clips" / "~nobody-here.mp4").touch()
    (folder / "clips" / "l.txt").write_text("~/a.mp4\nyard=growing:~/new.ts\n~nobody-here.mp4\n")
    meant = [f"{folder}/a.mp4", f"yard=growing:{folder}/new.ts", "clips/~nobody-here.mp4"]
    assert expanded(["clips/l.txt"]) == meant


@pytest.mark.parametrize(
    "login", ["admin:S3cretPw@", "S3cretPw@", ":S3c/retPw@", "admin:S3c'r\"et<Pw@", "x:S3 [c@Pw@"]
)
@pytest.mark.parametrize("name", ["", "front="])
@pytest.mark.parametrize(
    "scheme", ["rtps://", "rtsp//", "rtsp:/", "rtsp;//", "rstp:///", "ftp://", "rtsp://[", ""]
)
def test_no_refusal_shows_a_login(folder: Path, scheme: str, name: str, login: str) -> None:
    """In a list and without one. A word before @ that nothing marks as an address is part of a file's name."""
    entry = f"{name}{scheme}{login}10.0.0.5/s1?token=S3cretPw"
    (folder / "cameras.txt").write_text(f"a.mp4\n{entry}\n")
    for given in ("cameras.txt", "@cameras.txt", entry):
        with pytest.raises(UserError) as e:
            expanded([given])
        said = str(e.value)
        assert "10.0.0.5/s1" in said
        assert given == entry or "cameras.txt, line 2: " in said
        secrets = ("S3c", "ret", "Pw", "admin") if scheme or ":" in login else ("token=S3c",)
        assert not [secret for secret in secrets if secret in said], said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("none*.mp4", "no file or folder matches"),
        ("none.mp4", "no file or folder at none.mp4"),
        ("@none", "no list of videos at none"),
        ("bad.txt", "bad.txt, line 2: nothing at gone.mp4"),
        (
            "worse.txt",
            r"worse.txt, line 1: nothing at clips/b@c: d.mp4 \(paths are relative to the list's folder\)",
        ),
        ("film.txt", "is not a text file"),
        ("cameras.txt", "cameras.txt, line 2: the address rtsp://host/1 cannot be read"),
        ("behind.txt", "behind.txt, line 1: a comment must be on a line of its own"),
        ("ftp://me:s3cr[et@host/a", "no file or folder matches ftp://host/a"),
        ("ftp://me:s3cret@host/a", "no file or folder at ftp://host/a"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, given: str, said: str) -> None:
    (folder / "bad.txt").write_text("a.mp4\ngone.mp4\n")
    (folder / "worse.txt").write_text("clips/b@c: d.mp4\n")
    (folder / "cameras.txt").write_text("rtsp://host/0\nrtsp://me:s3cr[et@host/1\n")
    (folder / "behind.txt").write_text("front=rtsp://host/0  # at the front\n")
    (folder / "film.txt").write_bytes(b"\x00\x00\x01\xb3")
    with pytest.raises(UserError, match=said):
        expanded([given])


def test_all_that_is_not_there_is_named_at_once(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"no file or folder at gone\.mp4; no file or folder matches none\*\.avi"
    ):
        expanded(["a.mp4", "gone.mp4", "none*.avi"])


@pytest.mark.timeout(60)
def test_links_that_lead_back_do_not_repeat_what_a_pattern_finds(folder: Path) -> None:
    (folder / "clips" / "again").symlink_to(".")
    (folder / "clips" / "deep" / "up").symlink_to("..")
    (folder / "clips" / ".hidden").mkdir()
    (folder / "clips" / ".hidden" / "e.mkv").touch()
    elsewhere = folder.with_name(f"{folder.name}-elsewhere")
    elsewhere.mkdir()
    (elsewhere / "f.mkv").touch()
    (folder / "clips" / "linked").symlink_to(elsewhere)
    found = ["clips/c.mkv", "clips/deep/d.mkv", "clips/linked/f.mkv"]
    assert expanded(["clips/**/*.mkv"]) == found
    assert expanded(["cl*/**/d*/d.mkv"]) == ["clips/deep/d.mkv"]
    assert "clips/deep/d.mkv" in expanded(["cl*/**/d*/**/*.mkv"])
    assert expanded([f"{folder}/clips/**/d.mkv"]) == [f"{folder}/clips/deep/d.mkv"]
    assert set(found) < set(expanded(["clips/**"]))
    assert "b.mp4" in expanded(["**/*.mp4"])
