"""Which files below a folder count as videos, and that skipped files are reported."""

from __future__ import annotations

import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import small_videos

from violence_detection.system import processes, storage
from violence_detection.video import video_files
from violence_detection.video.video_files import WINDOWS_FOLDER, VideoSearch


def names(root: Path, search: VideoSearch | None = None) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in (search or VideoSearch()).below(root))


@pytest.mark.parametrize(
    "name",
    [
        "a.ts",
        "a.m2ts",
        "a.MTS",
        "a.h264",
        "a.hevc",
        "a.dav",
        "a.asf",
        "a.ogv",
        "a.vob",
        "a.divx",
        "a.qt",
        "a.gif",
        "a.mpeg",
        "a.m2v",
        "a.mxf",
        "a.rmvb",
        "a.f4v",
        "a.264",
        "a.265",
        "a.ivf",
        "a.y4m",
        "a.mjpeg",
        "a.wtv",
        "a.3g2",
        "a.mod",
        "a.AVI",
    ],
)
def test_what_recorders_phones_and_editors_write_counts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x47\x00")
    assert names(tmp_path) == [name]


def test_skipped_files_are_counted_by_kind(tmp_path: Path) -> None:
    for name in ("a.mp4", "1.txt", "2.txt", "x.jpg", ".hidden.mp4", "sound.mp3", ".git/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    search = VideoSearch()
    assert names(tmp_path, search) == ["a.mp4"]
    assert search.skipped_text() == "2 .txt, 2 hidden, 1 .jpg, 1 .mp3"


def test_notes_of_macos_and_files_that_are_being_written_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / "._a.mp4").touch()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "b.mp4").touch()
    search = VideoSearch()
    with storage.atomic_path(tmp_path / "a.mp4") as temporary:
        temporary.touch()
        assert names(tmp_path, search) == []
    assert search.skipped_text() == ""


def test_linked_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.mp4").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert names(root) == ["linked/a.mp4"]


def test_a_list_of_segments_fetches_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        (tmp_path / "a.m3u8").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{address}\n#EXT-X-ENDLIST\n"
        )
        assert names(tmp_path) == []
        with pytest.raises(TimeoutError):
            server.accept()


def test_files_of_unknown_kind_are_videos_where_ffmpeg_shows_moving_pictures(tmp_path: Path) -> None:
    clip = small_videos.write(tmp_path / "clip.mp4", 1)
    for name in ("no_suffix", "clip.odd", os.fsdecode(b"bad\xff.odd")):
        shutil.copy(clip, tmp_path / name)
    clip.unlink()
    ok, picture = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))
    assert ok
    (tmp_path / "picture.odd").write_bytes(picture.tobytes())
    (tmp_path / "noise.odd").write_bytes(np.random.default_rng(0).bytes(300_000))
    (tmp_path / "words.odd").write_text("words, words\n" * 1000)
    (tmp_path / "gone.odd").symlink_to(tmp_path / "nowhere")
    search = VideoSearch()
    assert names(tmp_path, search) == sorted([os.fsdecode(b"bad\xff.odd"), "clip.odd", "no_suffix"])
    assert search.skipped_text() == "4 .odd"


@pytest.mark.parametrize(("count", "workers", "shown"), [(3, 1, False), (1000, 6, True), (100_000, 8, True)])
def test_many_files_of_unknown_kind_are_opened_side_by_side_and_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: int,
    workers: int,
    shown: bool,
) -> None:
    asked = []

    def opened(_: object, paths: list[Path], workers: int, *__: object, **___: object) -> Any:
        asked.append(workers)
        return ((path, False) for path in paths)

    monkeypatch.setattr(processes, "map_unordered", opened)
    monkeypatch.setattr(processes, "usable_cpus", lambda: 8)
    paths = [Path(f"{k:06}.flo") for k in range(count)]
    assert video_files.which_open(paths[::-1]) == [(path, False) for path in paths]
    assert asked == [workers]
    assert ("files of unknown kind" in capsys.readouterr().err) == shown


def test_typescript_is_no_transport_stream(tmp_path: Path) -> None:
    (tmp_path / "app.ts").write_text("export const a = 1;\n")
    (tmp_path / "camera.ts").write_bytes(b"\x47\x40\x11\x10\x00" * 100)
    (tmp_path / "empty.ts").touch()
    search = VideoSearch()
    assert names(tmp_path, search) == ["camera.ts", "empty.ts"]
    assert search.skipped_text() == "1 .ts"


def test_a_named_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Such a pipe may carry a camera. Opening it to see whether it is text would wait for the program behind it."""
    os.mkfifo(tmp_path / "live.ts")
    with ThreadPoolExecutor() as pool:
        found = pool.submit(names, tmp_path, VideoSearch())
        try:
            assert found.result(timeout=10) == ["live.ts"]
        finally:
            if not found.done():
                (tmp_path / "live.ts").open("wb").close()


def test_a_file_that_the_system_says_nothing_of_ends_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such files are in a folder that may be listed but not entered, or behind a link into one."""
    (tmp_path / WINDOWS_FOLDER).mkdir()
    for name in ("a.ts", "b.odd", f"{WINDOWS_FOLDER}/c.mp4"):
        (tmp_path / name).touch()

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert names(tmp_path) == ["a.ts", f"{WINDOWS_FOLDER}/c.mp4"]


def test_folders_of_this_suite_are_left_out_unless_everything_is_asked_for(tmp_path: Path) -> None:
    for folder in ("reports/today", "combined_all", "windows"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.mp4").touch()
    (tmp_path / "windows" / ".cut.jsonl").touch()
    assert names(tmp_path) == []
    assert len(names(tmp_path, VideoSearch(everywhere=True))) == 3


def test_a_folder_of_somebodys_that_is_called_like_one_of_the_suites_is_looked_into(tmp_path: Path) -> None:
    for folder in ("fight/reports", "fight/features", "fight/windows"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.mp4").write_bytes(b"video")
    found = [p.relative_to(tmp_path).as_posix() for p in VideoSearch().below(tmp_path)]
    assert found == ["fight/features/a.mp4", "fight/reports/a.mp4", "fight/windows/a.mp4"]


def test_a_folder_that_cannot_be_listed_is_said(tmp_path: Path) -> None:
    search = VideoSearch()
    assert list(search.below(tmp_path / "gone")) == []
    (failure,) = search.unlisted
    assert failure["path"] == str(tmp_path / "gone")
    assert "cannot be listed" in failure["reason"]
    assert "No such file or directory" in failure["reason"]


def test_cases_that_recorders_write_are_found_in_their_folder() -> None:
    cases = Path(__file__).resolve().parents[3] / "shared" / "cases"
    if not cases.is_dir():
        pytest.skip("no cases here")
    assert {"cctv.ts", "CAM2.MTS", "raw.h264", "t.ogv"} <= set(names(cases))
