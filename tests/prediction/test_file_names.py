"""A video's output files get a name that replaces nothing of other videos, of earlier runs or of people."""

from __future__ import annotations

import errno
import logging
import tempfile
from pathlib import Path

import pytest

from violence_detection.errors import UserError
from violence_detection.prediction import file_names
from violence_detection.prediction.file_names import FilePlace, names_in
from violence_detection.prediction.formats import names_of
from violence_detection.system.own_files import WrittenFiles

DAY1, DAY2 = "day1/cam1.mp4", "day2/cam1.mp4"


def _clips(folder: Path) -> FilePlace:
    return FilePlace("--clips", folder, file_names.CLIP_ENDINGS)


def _srt(folder: Path) -> FilePlace:
    return FilePlace("--format", folder, r"\.srt", refuses=True)


def _write(folder: Path, name: str, video: str) -> Path:
    WrittenFiles(folder).write_text(folder / name, video, f"of {video}")
    return folder / name


def test_a_recording_called_as_the_second_part_of_anothers_edit_list_keeps_its_name(tmp_path: Path) -> None:
    place = FilePlace("--format", tmp_path, r"(\.part\d+)?\.edl", refuses=True)
    names = names_in(place, ["night.mp4", "night.part2.mp4"])
    for video, name in names.items():
        _write(tmp_path, f"{name}.edl", video)
    assert names_in(place, list(names)) == names
    assert names_in(_srt(tmp_path / "srt"), list(names)) == {v: Path(v).stem for v in names}, (
        "which has no parts"
    )


def test_an_earlier_video_of_the_name_keeps_its_files_and_each_keeps_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = _clips(tmp_path)
    with caplog.at_level(logging.INFO):
        assert names_in(place, [DAY1]) == {DAY1: "cam1"}
        first = _write(tmp_path, "cam1.event001.mp4", DAY1)
        assert not caplog.text
        (second,) = names_in(place, [DAY2]).values()
    assert second.startswith("cam1~")
    assert f"{DAY2}: --clips {tmp_path} has files named cam1 that do not belong to this video" in caplog.text
    _write(tmp_path, f"{second}.event001.mp4", DAY2)
    for _ in range(2):
        assert names_in(place, [DAY1]) == {DAY1: "cam1"}
        assert names_in(place, [DAY2]) == {DAY2: second}
    assert names_in(place, [DAY1, DAY2]) == {DAY1: "cam1", DAY2: second}, "in one run, too"
    first.unlink()
    assert names_in(place, [DAY2]) == {DAY2: second}, "no second copy where the name has become free"


def test_from_whatever_folder_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs in three folders each call their video `cam1.mp4`."""
    found = []
    for day in ("day1", "day2", "day3"):
        (tmp_path / day).mkdir()
        monkeypatch.chdir(tmp_path / day)
        (name,) = names_in(_clips(tmp_path), ["cam1.mp4"]).values()
        _write(tmp_path, f"{name}.event001.mp4", "cam1.mp4")
        assert names_in(_clips(tmp_path), ["cam1.mp4"]) == {"cam1.mp4": name}
        assert names_in(_clips(tmp_path), [str(tmp_path / day / "cam1.mp4")]).popitem()[1] == name
        found.append(name)
    assert len(set(found)) == 3
    assert found[0] == "cam1"


def test_videos_of_one_name_in_a_run_are_called_as_ever(tmp_path: Path) -> None:
    videos = [DAY1, DAY2, "verdicts.mp4", "other.mp4"]
    assert names_in(_clips(tmp_path), videos, "verdicts") == names_of(videos, "verdicts")
    assert names_in(_clips(tmp_path / "none"), videos) == names_of(videos)


def test_videos_of_one_name_in_a_run_keep_their_names_however_they_are_named_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suffixes that tell them apart come from the paths of the first run, whatever paths a later run is given."""
    for day in ("day1", "day2"):
        (tmp_path / day).mkdir()
    monkeypatch.chdir(tmp_path)
    place = _clips(tmp_path / "clips")
    first = names_in(place, [DAY1, DAY2])
    for video, name in first.items():
        _write(place.folder, f"{name}.event001.mp4", video)
    monkeypatch.chdir(tmp_path / "day1")
    for given in (
        [str(tmp_path / DAY1), str(tmp_path / DAY2)],
        ["cam1.mp4"],
        ["cam1.mp4", "../day2/cam1.mp4"],
    ):
        assert list(names_in(place, given).values()) == list(first.values())[: len(given)]


def test_other_files_and_longer_names_do_not_count(tmp_path: Path) -> None:
    for name in ("cam1.mp4", "cam1.txt", "cam1.event001.srt", "cam12.event001.mp4", "cam1.event01.jpg"):
        (tmp_path / name).write_text("mine")
    assert names_in(_clips(tmp_path), [DAY1]) == {DAY1: "cam1"}
    (tmp_path / "CAM1.event001.jpg").write_text("mine")
    assert names_in(_clips(tmp_path), [DAY1])[DAY1].startswith("cam1~"), "one name on some disks"


def test_where_a_place_refuses_what_is_nobodys_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "b.srt", "there/b.mp4")
    _write(tmp_path, "c.srt", "c.mp4").write_text("corrected by hand")
    (tmp_path / "a.srt").write_text("mine")
    (tmp_path / "d.srt").touch()
    with pytest.raises(
        UserError,
        match=r"--format would replace \S*a\.srt, \S*c\.srt\. These files were not written for the video",
    ):
        names_in(_srt(tmp_path), ["a.mp4", "b.mp4", "c.mp4", "d.mp4"])
    names = names_in(_srt(tmp_path), ["b.mp4", "d.mp4"])
    assert names["b.mp4"].startswith("b~"), "another video's is known, and no fault of the user's"
    assert names["d.mp4"] == "d", "with an empty file nothing is lost"
    (tmp_path / f"{names['b.mp4']}.srt").write_text("mine")
    with pytest.raises(UserError, match=r"b~\w+\.srt"):
        names_in(_srt(tmp_path), ["b.mp4"])


def test_many_files_that_are_in_the_way_are_counted(tmp_path: Path) -> None:
    videos = [f"{i}.mp4" for i in range(6)]
    for i in range(6):
        (tmp_path / f"{i}.srt").write_text("mine")
    with pytest.raises(UserError, match=r"2\.srt and 3 more"):
        names_in(_srt(tmp_path), videos)


def test_a_video_and_its_own_event_clip_take_nothing_from_each_other(tmp_path: Path) -> None:
    """On a page, the picture of f's first event and that of its clip `f.event001` would both be `f.event001.jpg`."""
    video, clip = "in/f.mp4", "in/clips/F.event001.mp4"
    place = FilePlace("--timeline", tmp_path, file_names.MEDIA_ENDINGS)
    for given in ([video, clip], [clip, video]):
        names = names_in(place, given)
        assert names[video] == "f"
        assert names[clip].startswith("F.event001~")
    assert names_in(place, [clip]) == {clip: "F.event001"}
    _write(tmp_path, "F.event001.jpg", clip)
    names = names_in(place, [video, clip])
    assert all("~" in name for name in names.values()), "of a run before, without the video"


def test_two_videos_whose_marks_are_the_same_have_names_of_their_own(tmp_path: Path) -> None:
    videos = ["/mnt/archive/case_026497/clip.mp4", "/mnt/archive/case_032866/clip.mp4"]
    for place in (_srt(tmp_path / "srt"), _clips(tmp_path / "clips")):
        names = names_in(place, videos)
        assert len(set(names.values())) == 2
        for video, name in names.items():
            _write(place.folder, f"{name}.srt", video)
            _write(place.folder, f"{name}.event001.mp4", video)
        assert names_in(place, videos) == names


def test_a_video_whose_mark_another_run_has_given_away_has_a_longer_one(tmp_path: Path) -> None:
    first, second = "/mnt/archive/case_026497/clip.mp4", "/mnt/archive/case_032866/clip.mp4"
    place = _srt(tmp_path)
    _write(tmp_path, "clip.srt", DAY1)
    names: dict[str, str] = {}
    for video in (first, second):
        names |= names_in(place, [video])
        _write(tmp_path, f"{names[video]}.srt", video)
    assert names[second].startswith(f"{names[first]}"), "the longer one begins as the other"
    for video, name in names.items():
        assert names_in(place, [video]) == {video: name}
    assert names_in(place, [first, second]) == names


def test_a_disk_that_does_not_take_a_videos_name_is_told_before_anything_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT disks accept no colon, and some recorders put the time of day into file names."""

    def as_on_fat(**_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", as_on_fat)
    assert names_in(_clips(tmp_path), [DAY1]) == {DAY1: "cam1"}
    with pytest.raises(
        UserError, match=r"--clips: .* does not accept a file named cam1 22:15 .*rename the video"
    ):
        names_in(_clips(tmp_path / "new"), [DAY1, "night/cam1 22:15.mp4"])
