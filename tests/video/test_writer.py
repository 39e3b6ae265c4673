"""Writing videos: what OpenCV cannot write is refused with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_videos

from violence_detection.errors import UserError
from violence_detection.video import decode, writer


def test_a_folder_whose_name_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    with pytest.raises(UserError, match=r"cannot write clips to .*the path is not UTF-8"):
        writer.write(folder / "a.avi", 12.0, small_videos.frames(0, 9), "XVID")
    assert not list(folder.iterdir())
    writer.write(tmp_path / "caf\u00e9.avi", 12.0, small_videos.frames(0, 9), "XVID")
    assert decode.header(tmp_path / "caf\u00e9.avi").n_frames == 9


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("12:30.avi")
    writer.write(path, 25, (np.full((32, 32, 3), n, np.uint8) for n in range(10)), "MJPG")
    assert decode.probe(path).n_frames == 10


def test_a_video_is_written_in_a_folder_whose_name_is_no_utf_8(tmp_path: Path) -> None:
    """Run in a process of its own, since OpenCV crashes the process if it is given such a path."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xfe"))
    folder.mkdir()
    program = """
from pathlib import Path
import numpy as np
from violence_detection.video import writer
writer.write(Path("v.avi"), 25, (np.full((32, 32, 3), n, np.uint8) for n in range(10)), "MJPG")
"""
    environment = os.environ | {"PYTHONPATH": str(Path(writer.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True, timeout=60)
    assert decode.probe(folder / "v.avi").n_frames == 10
