"""Whatever an archive contains, nothing is written outside its folder, nothing is overwritten, and nothing is lost."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from violence_detection.download import archives, completion
from violence_detection.download.archive_names import Names, UnsafeName, safe_parts

CLIP = random.Random(0).randbytes(40_000)


def make_zip(path: Path, files: Mapping[str, bytes], *, mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture
def arena(tmp_path: Path) -> Path:
    """A folder with a neighbouring file that must stay untouched."""
    (tmp_path / "neighbour.txt").write_text("mine")
    (tmp_path / "in").mkdir()
    return tmp_path


def assert_refused(arena: Path, archive: Path, error: type[Exception], match: str) -> None:
    """Assert that both `verify` and `unpack` refuse the archive, and that nothing was written outside the target."""
    target = arena / "in" / "target"
    with pytest.raises(error, match=match) as raised:
        archives.verify(archive)
    assert str(archive) in str(raised.value), "the message names the archive"
    with pytest.raises(error, match=match):
        archives.unpack(archive, target)
    outside = [p for p in arena.rglob("*") if p.is_file() and target not in p.parents and p != archive]
    assert outside == [arena / "neighbour.txt"]
    assert (arena / "neighbour.txt").read_text() == "mine"
    assert not [p for p in arena.rglob("*") if p.is_symlink()]


def test_zip_comes_out_as_published(arena: Path) -> None:
    files = {"RWF-2000/train/Fight/a_0.avi": CLIP, "RWF-2000/train/NonFight/ü b.avi": b"b", "videos.txt": b""}
    archive = make_zip(arena / "a.zip", files)
    assert [e.name for e in archives.verify(archive)] == list(files)
    listed, renamed = archives.unpack(archive, arena / "out")
    assert tree(arena / "out") == files
    assert {f.path: (f.size_bytes, f.sha256) for f in listed} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()
    }
    assert renamed == {}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_of_each_compression_comes_out_as_published(arena: Path, mode: str) -> None:
    members = [(tar_member("./d", tarfile.DIRTYPE), b""), (tar_member("./d/a.avi"), CLIP)]
    archive = make_tar(arena / "any-name", members, mode)
    archives.verify(archive)
    archives.unpack(archive, arena / "out")
    assert tree(arena / "out") == {"d/a.avi": CLIP}


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/tmp/evil", "//evil", "C:\\evil", "..\\evil", "a\\..\\..\\evil", "a\nb"],
)
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_names_that_lead_outside_are_refused(arena: Path, name: str, form: str) -> None:
    if form == "zip":
        archive = make_zip(arena / "a.zip", {"good.avi": CLIP, name: b"evil"})
    else:
        archive = make_tar(arena / "a.tgz", [(tar_member("good.avi"), CLIP), (tar_member(name), b"evil")])
    assert_refused(arena, archive, archives.HarmfulArchive, "absolute|outside|control")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(arena: Path, kind: bytes) -> None:
    link = (tar_member("sub", kind, link="../.."), b"")
    archive = make_tar(arena / "a.tgz", [link, (tar_member("sub/neighbour.txt"), b"evil")])
    assert_refused(arena, archive, archives.HarmfulArchive, "link or a device")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused(arena: Path, mode: int) -> None:
    archive = make_zip(arena / "a.zip", {"sub": b"../.."}, mode=mode | 0o777)
    assert_refused(arena, archive, archives.HarmfulArchive, "link or a device")


def test_a_thousandfold_bomb_is_refused_before_it_is_written(arena: Path) -> None:
    archive = make_zip(arena / "a.zip", {"zeros.avi": bytes(20 << 20)})
    assert archive.stat().st_size * 900 < 20 << 20
    assert_refused(arena, archive, archives.HarmfulArchive, "decompression bomb")
    assert tree(arena / "in") == {}


def test_a_bomb_in_many_small_entries_is_refused(arena: Path) -> None:
    archive = make_zip(arena / "a.zip", {f"{i}.avi": bytes(2 << 20) for i in range(10)})
    assert_refused(arena, archive, archives.HarmfulArchive, "decompression bomb")


def test_a_tar_bomb_is_refused(arena: Path) -> None:
    archive = make_tar(arena / "a.tgz", [(tar_member("zeros.avi"), bytes(20 << 20))])
    assert_refused(arena, archive, archives.HarmfulArchive, "decompression bomb")


def test_a_tar_header_that_fills_the_memory_is_refused(arena: Path) -> None:
    member = tar_member("a.avi")
    member.pax_headers = {"comment": "x" * (8 << 20)}
    archive = make_tar(arena / "a.tgz", [(member, CLIP)])
    assert_refused(arena, archive, archives.HarmfulArchive, "header of")


def test_headers_of_headers_without_end_are_damage(arena: Path) -> None:
    """tarfile reads such headers recursively: an archive of 2.6 kB once ended step 1 for all data sets."""
    header = tar_member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    header.size = 1
    packed = gzip.compress((header.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * 600 + bytes(1024))
    archive = arena / "a.tar.gz"
    archive.write_bytes(packed)
    assert_refused(arena, archive, archives.CorruptArchive, "damaged")


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_folders_in_folders_without_end_are_refused(arena: Path, form: str) -> None:
    name = "a/" * 1200 + "f.avi"
    archive = arena / f"a.{form}"
    if form == "zip":
        make_zip(archive, {name: CLIP})
    else:
        make_tar(archive, [(tar_member(name), CLIP)])
    assert_refused(arena, archive, archives.HarmfulArchive, "nested too deeply")
    assert len(safe_parts("a/" * 99 + "f.avi")) == 100


def test_files_named_like_our_records_are_kept_apart(arena: Path) -> None:
    files = {".complete.json": b"theirs", ".FILES.csv": b"theirs too", "d/.complete.json": b"below"}
    _, renamed = archives.unpack(make_zip(arena / "a.zip", files), arena / "out")
    written = tree(arena / "out")
    assert {renamed.get(path, path): content for path, content in written.items()} == files
    assert ".complete.json" not in written
    assert "d/.complete.json" in written


def test_a_zip_that_declares_less_than_it_holds_is_refused(arena: Path) -> None:
    archive = make_zip(arena / "a.zip", {"a.avi": bytes(100_000)})
    content = bytearray(archive.read_bytes())
    content[22:26] = content[content.rindex(b"PK\x01\x02") + 24 :][:4] = (50).to_bytes(4, "little")
    central = content.rindex(b"PK\x01\x02") + 24
    content[central : central + 4] = (50).to_bytes(4, "little")
    archive.write_bytes(content)
    assert_refused(arena, archive, archives.CorruptArchive, "CRC|damaged")


def test_more_than_the_disk_has_free_is_refused(arena: Path) -> None:
    archive = make_zip(arena / "a.zip", {"a.avi": CLIP})
    with pytest.raises(archives.NoSpace, match="--data-root"):
        archives.verify(archive, free_bytes=archives.DISK_RESERVE_BYTES + len(CLIP) - 1)
    archives.verify(archive, free_bytes=archives.DISK_RESERVE_BYTES + len(CLIP))


def test_names_of_300_bytes_keep_both_ends_and_can_be_undone(arena: Path) -> None:
    long_names = [f"crowd__{letter * 300}__uploader__-dQw4w9WgXcQ.avi" for letter in "aé"]
    archive = make_zip(arena / "a.zip", {f"1/Violence/{name}": name.encode() for name in long_names})
    _, renamed = archives.unpack(archive, arena / "out")
    written = tree(arena / "out")
    assert {renamed[path]: content.decode() for path, content in written.items()} == {
        f"1/Violence/{name}": name for name in long_names
    }
    for path in written:
        name = path.rpartition("/")[2]
        assert len(name.encode()) <= 255
        assert name.startswith("crowd__")
        assert name.endswith("__uploader__-dQw4w9WgXcQ.avi")


def test_names_that_differ_only_in_case_both_come_out(arena: Path) -> None:
    files = {"d/A.avi": b"1", "d/a.avi": b"2", "D/a.AVI": b"3", "d/e\u0301.avi": b"4", "d/\u00e9.avi": b"5"}
    archive = make_zip(arena / "a.zip", files)
    _, renamed = archives.unpack(archive, arena / "out")
    written = tree(arena / "out")
    assert {renamed.get(path, path): content for path, content in written.items()} == files
    assert len({unicodedata.normalize("NFC", path).casefold() for path in written}) == len(files)
    again, _ = archives.unpack(archive, arena / "again")
    assert sorted(f.path for f in again) == sorted(written), "the names do not depend on the run"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice_loses_neither(arena: Path) -> None:
    with zipfile.ZipFile(arena / "a.zip", "w") as archive:
        archive.writestr("a.avi", b"1")
        archive.writestr("a.avi", b"2")
    archives.unpack(arena / "a.zip", arena / "out")
    assert sorted(tree(arena / "out").values()) == [b"1", b"2"]


def test_a_file_below_a_file_is_refused(arena: Path) -> None:
    assert_refused(
        arena, make_zip(arena / "a.zip", {"a": b"1", "a/b": b"2"}), archives.HarmfulArchive, "is below a file"
    )
    assert_refused(
        arena,
        make_zip(arena / "a.zip", {"a/b": b"1", "a": b"2"}),
        archives.HarmfulArchive,
        "both a file and a folder",
    )


def flip_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def halve(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("damage", [flip_byte, halve])
@pytest.mark.parametrize("form", ["zip", "w:gz", "w:bz2", "w:xz"])
def test_damage_is_found_before_anything_is_unpacked(
    arena: Path, form: str, damage: Callable[[bytes], bytes]
) -> None:
    archive = arena / "a"
    if form == "zip":
        make_zip(archive, {"a.avi": CLIP})
    else:
        make_tar(archive, [(tar_member("a.avi"), CLIP)], form)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(archives.CorruptArchive, match="fetched again") as raised:
        archives.verify(archive)
    assert str(archive) in str(raised.value)


def _without_end(content: bytes, header: int) -> bytes:
    return content[:header]


def _within_header(content: bytes, header: int) -> bytes:
    return content[: header + 100]


def _header_flipped(content: bytes, header: int) -> bytes:
    return content[: header + 5] + bytes([content[header + 5] ^ 0xFF]) + content[header + 6 :]


@pytest.mark.parametrize("damage", [_without_end, _within_header, _header_flipped])
def test_a_plain_tar_that_ends_at_a_later_header_is_damaged(
    arena: Path, damage: Callable[[bytes, int], bytes]
) -> None:
    """A plain tar has no checksum of the whole, and tarfile would read it as a sound archive with fewer files."""
    archive = make_tar(arena / "a", [(tar_member(f"{n}.avi"), CLIP) for n in "abc"], "w")
    whole = archive.read_bytes()
    with tarfile.open(archive) as tar:
        header = tar.getmember("b.avi").offset
    assert [e.name for e in archives.verify(archive)] == ["a.avi", "b.avi", "c.avi"]
    archive.write_bytes(damage(whole, header))
    with pytest.raises(archives.CorruptArchive, match="fetched again"):
        archives.verify(archive)


def test_damage_that_the_libraries_do_not_name_is_damage_too(arena: Path) -> None:
    """In one zip, a wrong offset places a file before the start of the archive; in the other, a file has no name."""
    whole = make_zip(arena / "a", {"a.avi": CLIP}).read_bytes()
    directory = whole.index(b"PK\x01\x02")
    before = bytearray(whole)
    end = whole.rindex(b"PK\x05\x06")
    # the offset of the central directory
    before[end + 16 : end + 20] = (len(whole) + 999).to_bytes(4, "little")
    nameless = bytearray(whole)
    nameless[directory + 28 : directory + 30] = bytes(2)
    for content in (before, nameless):
        (arena / "a").write_bytes(bytes(content))
        with pytest.raises(archives.CorruptArchive, match="fetched again"):
            archives.verify(arena / "a")


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", archives.CorruptArchive, "log-in"),
        (b"", archives.CorruptArchive, "empty"),
        (b"Rar!\x1a\x07\x01\x00", archives.UnsupportedArchive, "unrar"),
        (b"7z\xbc\xaf\x27\x1c", archives.UnsupportedArchive, "7z x"),
        (b"PK\x05\x06" + bytes(18), archives.CorruptArchive, "no files"),
    ],
)
def test_what_is_no_archive_is_told_with_the_remedy(
    arena: Path, content: bytes, error: type[Exception], match: str
) -> None:
    (arena / "a.zip").write_bytes(content)
    with pytest.raises(error, match=match):
        archives.verify(arena / "a.zip")


@pytest.mark.parametrize("part", ["first", "last", "last of two, the list alone in it"])
def test_a_part_of_a_zip_in_several_is_told_with_the_remedy(arena: Path, part: str) -> None:
    content = bytearray(b"PK\x07\x08" + make_zip(arena / "a.zip", {"a.avi": CLIP}).read_bytes())
    end = content.rindex(b"PK\x05\x06")
    content[end + 4] = 1
    cut_at = content.rindex(b"PK\x01\x02") if "alone" in part else 1000
    (arena / "a.zip").write_bytes(content[:cut_at] if part == "first" else content[cut_at:])
    assert_refused(arena, arena / "a.zip", archives.UnsupportedArchive, "in several.*7z x")


@pytest.mark.parametrize("number", [1, 2])
def test_a_volume_of_7_zip_is_told_with_what_joins_them(arena: Path, number: int) -> None:
    content = make_zip(arena / "a.zip", {"a.avi": CLIP}).read_bytes()
    (arena / "a.zip").unlink()
    volume = arena / f"a.zip.00{number}"
    volume.write_bytes(content[:1000] if number == 1 else content[1000:])
    join = rf"cat {arena}/a\.zip\.\[0-9\]\* > {arena}/a\.zip"
    assert_refused(arena, volume, archives.UnsupportedArchive, f"7-Zip has split. Join .*{join}")


def test_an_encrypted_zip_is_told_with_the_remedy(arena: Path) -> None:
    archive = make_zip(arena / "a.zip", {"a.avi": CLIP})
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert_refused(arena, archive, archives.UnsupportedArchive, "encrypted")


def test_an_unknown_compression_is_told_with_the_remedy(arena: Path) -> None:
    archive = make_zip(arena / "a.zip", {"a.avi": CLIP})
    content = bytearray(archive.read_bytes())
    for at in (8, content.rindex(b"PK\x01\x02") + 10):
        content[at] = 9  # Deflate64, which Windows uses for large archives
    archive.write_bytes(content)
    assert_refused(arena, archive, archives.UnsupportedArchive, "7z x")


def test_unpacking_never_goes_into_a_folder_that_holds_something(arena: Path) -> None:
    archive = make_zip(arena / "a.zip", {"neighbour.txt": b"evil"})
    with pytest.raises(archives.ArchiveError, match="not empty"):
        archives.unpack(archive, arena)
    assert (arena / "neighbour.txt").read_text() == "mine"


def test_modes_of_the_archive_are_not_taken_over(arena: Path) -> None:
    archive = make_zip(arena / "a.zip", {"a.avi": CLIP}, mode=stat.S_IFREG | stat.S_ISUID | 0o777)
    archives.unpack(archive, arena / "out")
    assert not (arena / "out" / "a.avi").stat().st_mode & (stat.S_ISUID | 0o111)


def test_folders_that_a_zip_of_windows_names_are_folders(arena: Path) -> None:
    """.NET on Windows used to write the names of folders with a backslash at the end."""
    archive = make_zip(arena / "a.zip", {"Set\\": b"", "Set\\fight\\": b"", "Set\\fight\\a.avi": CLIP})
    archives.verify(archive)
    files, _ = archives.unpack(archive, arena / "in")
    assert [f.path for f in files] == ["Set/fight/a.avi"]


def test_windows_paths_are_split_and_dots_dropped() -> None:
    assert safe_parts("train\\Fight\\.\\a.avi") == ["train", "Fight", "a.avi"]
    with pytest.raises(UnsafeName):
        Names().file("./")


def test_names_that_are_no_utf_8_are_unpacked_recorded_and_checked(arena: Path) -> None:
    name = os.fsdecode(b"fights/caf\xe9.avi")
    archive = make_tar(arena / "a.tar.gz", [(tar_member(name), CLIP), (tar_member("fights/b.avi"), CLIP)])
    archives.verify(archive)
    files, renamed = archives.unpack(archive, arena / "in")
    completion.write(arena / "in", "some_set", {"kind": "by hand"}, files, renamed)
    assert {f.path for f in completion.read_files(arena / "in")} == {name, "fights/b.avi"}
    assert completion.problems(arena / "in") == []
    assert (arena / "in" / name).read_bytes() == CLIP
