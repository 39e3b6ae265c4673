"""A run replaces a file only if an earlier run wrote it for the same source and nobody has changed it since."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import record_lines

from violence_detection.errors import UserError
from violence_detection.system import own_files, storage
from violence_detection.system.own_files import RECORD_NAME, WrittenFiles


def _write(folder: Path, name: str, source: str, text: str) -> Path:
    WrittenFiles(folder).write_text(folder / name, source, text)
    return folder / name


def test_a_file_is_of_the_source_that_it_was_written_for_as_it_was_written(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.srt", "day1/a.mp4", "one")
    written = WrittenFiles(tmp_path)
    assert written.source_of(path) == os.path.realpath("day1/a.mp4")
    assert written.may_replace(path, "day1/../day1/a.mp4")
    assert not written.may_replace(path, "day2/a.mp4")
    _write(tmp_path, "a.srt", "day1/a.mp4", "two")
    assert path.read_text() == "two"
    with pytest.raises(
        UserError, match=r"a\.srt would be replaced, but is not what an earlier run wrote for day2/a\.mp4"
    ):
        _write(tmp_path, "a.srt", "day2/a.mp4", "three")
    written.remove(path, "day2/a.mp4")
    assert path.read_text() == "two"
    WrittenFiles(tmp_path).remove(path, "day1/a.mp4")
    assert not path.exists()


def test_a_named_pipe_is_nobodys_and_is_not_waited_for(tmp_path: Path) -> None:
    _write(tmp_path, "live.ts", "a.mp4", "one").unlink()
    os.mkfifo(tmp_path / "live.ts")
    asked = f"own_files.WrittenFiles(Path({str(tmp_path)!r})).source_of(Path({str(tmp_path / 'live.ts')!r}))"
    code = f"from pathlib import Path; from violence_detection.system import own_files; print({asked})"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert said.stdout == "None\n"


def test_a_file_that_the_system_says_nothing_of_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file is, for example, a link into a folder that may not be entered."""
    path, is_file = _write(tmp_path, "a.srt", "a.mp4", "one"), Path.is_file

    def refuse(asked: Path) -> bool:
        if asked == path:
            raise PermissionError(13, "Permission denied", str(asked))
        return is_file(asked)

    monkeypatch.setattr(Path, "is_file", refuse)
    monkeypatch.setattr(os.path, "isfile", lambda asked: asked != path)
    assert WrittenFiles(tmp_path).source_of(path) is None
    with pytest.raises(UserError, match="Move it away"):
        _write(tmp_path, "a.srt", "a.mp4", "two")


@pytest.mark.parametrize("text", ["TWO", "two\n", "by hand"])
def test_what_somebody_changed_or_put_there_stays(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path, "a.srt", "a.mp4", "two")
    path.write_text(text)
    with pytest.raises(UserError, match="Move it away"):
        _write(tmp_path, "a.srt", "a.mp4", "three")
    WrittenFiles(tmp_path).remove(path, "a.mp4")
    assert path.read_text() == text


def test_of_a_large_file_a_change_at_either_end_or_of_its_size_is_seen(tmp_path: Path) -> None:
    path, content = tmp_path / "a.mp4", bytes(3 * own_files._END_BYTES)
    with WrittenFiles(tmp_path).replacing(path, "v") as temporary:
        temporary.write_bytes(content)
    for changed in (b"x" + content[1:], content[:-1] + b"x", content + b"x"):
        path.write_bytes(changed)
        assert WrittenFiles(tmp_path).source_of(path) is None
    path.write_bytes(content)
    assert WrittenFiles(tmp_path).source_of(path) == os.path.realpath("v")


def test_an_empty_file_is_nobodys_and_a_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    _write(tmp_path, "a", "v", "text")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="Move it away"):
        _write(tmp_path, "b", "v", "text")


def test_what_comes_while_a_file_is_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def write() -> None:
        with WrittenFiles(tmp_path).replacing(path, "v") as temporary:
            temporary.write_text("ours")
            path.write_text("theirs")

    with pytest.raises(UserError, match="Move it away"):
        write()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "theirs")]


def test_the_same_content_again_makes_the_record_no_longer(tmp_path: Path) -> None:
    _write(tmp_path, "a", "v", "text")
    size = (tmp_path / RECORD_NAME).stat().st_size
    _write(tmp_path, "a", "v", "text")
    assert (tmp_path / RECORD_NAME).stat().st_size == size


def test_a_run_knows_what_another_wrote_meanwhile(tmp_path: Path) -> None:
    first = WrittenFiles(tmp_path)
    path = _write(tmp_path, "a", "v", "text")
    assert first.source_of(path) == os.path.realpath("v")


def test_no_file_is_read_whose_name_nobody_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a megabyte of each of 20,000 videos was once read and hashed before the first video was judged."""
    first, video = WrittenFiles(tmp_path), tmp_path / "night.mp4"
    video.write_bytes(b"the night")
    _write(tmp_path, "night.annotated.mp4", "night.mp4", "text")
    key_of = own_files._key

    def none(*_: object) -> str:
        raise AssertionError("the video is read")

    monkeypatch.setattr(own_files, "_key", none)
    for written in (first, WrittenFiles(tmp_path), WrittenFiles(tmp_path / "without a record")):
        assert written.source_of(video) is None
    monkeypatch.setattr(own_files, "_key", key_of)
    _write(tmp_path, "NIGHT.txt", "night.mp4", "text")
    (tmp_path / "NIGHT.txt").rename(tmp_path / "night.txt")
    assert first.source_of(tmp_path / "night.txt") == os.path.realpath("night.mp4"), "one name on some disks"


def test_of_what_is_recorded_later_no_more_is_read_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = WrittenFiles(tmp_path), WrittenFiles(tmp_path)
    read, record = record_lines.counted(monkeypatch.setattr), tmp_path / RECORD_NAME
    for number in range(20):
        for written in (first, second):
            name = f"{number}.{'first' if written is first else 'second'}.jpg"
            written.write_text(tmp_path / name, "front", name)
        assert first.names_of(os.path.realpath("front")) == {p.name for p in tmp_path.glob("*.jpg")}
    assert len(read) <= 2 * 40, "each line once by each of them"
    line = record.read_bytes().splitlines(keepends=True)[-1].replace(b"19.second", b"late")
    for part in (line[:30], line[30:]):
        assert "late.jpg" not in first.names_of(os.path.realpath("front"))
        with record.open("ab") as out:
            out.write(part)
    assert "late.jpg" in first.names_of(os.path.realpath("front")), "that was read while half of it was there"
    record.unlink()
    assert not first.names_of(os.path.realpath("front"))


def test_the_rest_of_a_line_that_comes_while_it_is_read_is_no_line_of_its_own(tmp_path: Path) -> None:
    """Of 60,000 lines that another run wrote meanwhile, four were once lost in this way."""
    written, line = WrittenFiles(tmp_path), b'{"key": "1", "file": "a", "source": "v"}\n'
    assert list(written._whole(iter([line, line[:20], line[20:], line]))) == [line]
    assert written._read_bytes == len(line)


def test_files_that_somebody_deleted_are_forgotten_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this, the record of a camera's clips and every reader's memory of it would grow for ever."""
    monkeypatch.setattr(own_files, "_NEWEST_LINES", 3)
    written = WrittenFiles(tmp_path)
    for number in range(30):
        written.write_text(tmp_path / f"{number}.jpg", "front", str(number))
    written.forget_gone()
    record = tmp_path / RECORD_NAME
    assert len(record.read_text().splitlines()) == 30, "as long as they are there"
    for number in range(2, 29):
        (tmp_path / f"{number}.jpg").unlink()
    with record.open("a") as out:
        out.write('{"key": ')  # a run was killed here
    written.forget_gone()
    assert len(record.read_text().splitlines()) == 5, "what is there, and the newest lines"
    _write(tmp_path, "new.jpg", "front", "text")
    for known in (written, WrittenFiles(tmp_path)):
        assert [known.source_of(path) for path in sorted(tmp_path.glob("*.jpg"))] == [
            os.path.realpath("front")
        ] * 4


def test_while_most_of_the_files_are_there_their_record_is_not_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking through a month's record of 64 cameras took a minute, every 1,000 events, and clips had to wait."""
    monkeypatch.setattr(own_files, "_NEWEST_LINES", 3)
    seen: list[bytes] = []
    file_in = own_files._file_in

    def looked_at(line: bytes) -> str | None:
        seen.append(line)
        return file_in(line)

    monkeypatch.setattr(own_files, "_file_in", looked_at)
    written = WrittenFiles(tmp_path)
    for number in range(30):
        written.write_text(tmp_path / f"{number}.jpg", "front", str(number))
    for number in range(30):
        written.forget_gone()
        assert bool(seen) == (number >= 15)
        (tmp_path / f"{number}.jpg").unlink()
    WrittenFiles(tmp_path / "without a record").forget_gone()


def test_what_another_run_writes_while_the_record_is_made_shorter_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_files, "_NEWEST_LINES", 3)
    written, other = WrittenFiles(tmp_path), WrittenFiles(tmp_path)
    for number in range(30):
        written.write_text(tmp_path / f"{number}.jpg", "front", str(number))
    for number in range(29):
        (tmp_path / f"{number}.jpg").unlink()
    sync_file = storage.sync_file

    def meanwhile(path: Path) -> None:
        """Write a file in another run while the shorter record is complete but not renamed yet."""
        monkeypatch.setattr(storage, "sync_file", sync_file)
        other.write_text(tmp_path / "late.jpg", "back", "late")
        sync_file(path)

    monkeypatch.setattr(storage, "sync_file", meanwhile)
    written.forget_gone()
    assert len((tmp_path / RECORD_NAME).read_text().splitlines()) < 10
    for known in (written, WrittenFiles(tmp_path)):
        assert known.source_of(tmp_path / "late.jpg") == os.path.realpath("back")
        assert known.source_of(tmp_path / "29.jpg") == os.path.realpath("front")


def test_a_folder_that_was_copied_is_still_known(tmp_path: Path) -> None:
    _write(tmp_path / "one", "a", "v", "text")
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    assert WrittenFiles(tmp_path / "two").may_replace(tmp_path / "two" / "a", "v")


def test_killed_between_the_record_and_the_file_it_knows_what_is_there(tmp_path: Path) -> None:
    path = _write(tmp_path, "a", "v", "one")
    program = f"""
import os, pathlib
from violence_detection.system.own_files import WrittenFiles
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), {int(signal.SIGKILL)})
WrittenFiles(pathlib.Path({str(tmp_path)!r})).write_text(pathlib.Path({str(path)!r}), "v", "two")
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert path.read_text() == "one"
    storage.remove_abandoned(tmp_path)
    _write(tmp_path, "a", "v", "three")
    assert path.read_text() == "three"


def test_a_named_file_is_refused_unless_it_is_of_its_kind(tmp_path: Path) -> None:
    def check(name: str) -> None:
        own_files.check_file(
            tmp_path / name, "--to", "a list", lambda p: p.read_text() == "[]", "Name another"
        )

    check("new")
    (tmp_path / "empty").touch()
    check("empty")
    (tmp_path / "list").write_text("[]")
    check("list")
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match=r"--to .*notes already exists and is not a list.*Name another"):
        check("notes")
    with pytest.raises(UserError, match="is a folder"):
        check(".")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is not a list"):
        check("pipe")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match="is not a list"):
        check("link")


def test_no_large_file_is_read_to_see_that_it_is_no_json(tmp_path: Path) -> None:
    with (tmp_path / "video").open("wb") as f:
        f.truncate(1 << 42)
    assert own_files.json_object(tmp_path / "video") == {}
    (tmp_path / "half").write_text('{"a": ')
    assert own_files.json_object(tmp_path / "half") == {}
    (tmp_path / "whole").write_text('\ufeff {"a": 1}')
    assert own_files.json_object(tmp_path / "whole") == {"a": 1}
