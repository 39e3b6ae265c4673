"""Video files that are written: what OpenCV cannot take is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_videos

from violence_detection.errors import UserError
from violence_detection.video import decode, writer


def test_a_folder_whose_name_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    with pytest.raises(UserError, match=r"cannot write clips to .*the path is no UTF-8"):
        writer.write(folder / "a.avi", 12.0, small_videos.frames(0, 9), "XVID")
    assert not list(folder.iterdir())
    writer.write(tmp_path / "caf\u00e9.avi", 12.0, small_videos.frames(0, 9), "XVID")
    assert decode.header(tmp_path / "caf\u00e9.avi").n_frames == 9


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("12:30.avi")
    writer.write(path, 25, (np.full((32, 32, 3), n, np.uint8) for n in range(10)), "MJPG")
    assert decode.probe(path).n_frames == 10
