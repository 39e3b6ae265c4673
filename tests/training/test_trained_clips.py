"""The table of the clips that a model was made with: one row per clip, with those of the model it continues."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from violence_detection.errors import UserError
from violence_detection.system import storage
from violence_detection.training import trained_clips

PRINT = "00ff" * 12


def _rows(*ids: str) -> pd.DataFrame:
    return pd.DataFrame(
        {"clip_id": ids, "source_group": "g", "fingerprint": PRINT, "dataset": "d", "label": "fight"}
    )


def test_a_clip_has_one_row_with_its_first_role_and_text_stays_text(tmp_path: Path) -> None:
    trained_clips.write(tmp_path, {"train": _rows("0012", "1e5", "0012"), "selection": _rows("1e5", "77")})
    table = trained_clips.read(tmp_path)
    assert table is not None
    assert table.to_dict("list") == {
        "clip_id": ["0012", "1e5", "77"], "source_group": ["g"] * 3, "fingerprint": [PRINT] * 3,
        "role": ["train", "train", "selection"], "dataset": ["d"] * 3,
    }  # fmt: skip


def test_a_model_that_goes_on_from_another_has_its_clips_too(tmp_path: Path) -> None:
    trained_clips.write(tmp_path / "a", {"train": _rows("1", "2")})
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "trained_on.txt").write_text("8\n9\n")
    for start, wanted in (("a", ["1", "2", "3"]), ("old", ["2", "3", "8", "9"]), ("none", ["2", "3"])):
        trained_clips.write(tmp_path / "b", {"train": _rows("2", "3")}, [tmp_path / start])
        table = trained_clips.read(tmp_path / "b")
        assert table is not None
        assert table.clip_id.tolist() == wanted


def test_what_is_no_table_is_named(tmp_path: Path) -> None:
    assert trained_clips.read(tmp_path) is None
    for text in ("", "clip_id,role\n1,train\n", "\x00\x01"):
        (tmp_path / "trained_on.csv").write_text(text)
        with pytest.raises(UserError, match=r"trained_on\.csv cannot be used .it is not a table"):
            trained_clips.read(tmp_path)


def test_a_table_that_lacks_clips_of_its_run_is_no_table(tmp_path: Path) -> None:
    trained_clips.write(tmp_path, {"train": _rows("1", "2"), "selection": _rows("3")})
    clips = {"train": 3, "selection": 1}  # train: one of the two clips is drawn twice
    storage.write_json(tmp_path / "config.json", {"clips": clips, "distinct_train_clips": 2})
    table = trained_clips.read(tmp_path)
    assert table is not None
    assert len(table) == 3
    (tmp_path / "trained_on.csv").write_text((tmp_path / "trained_on.csv").read_text().rpartition("3,")[0])
    with pytest.raises(
        UserError, match=r"trained_on\.csv cannot be used .it is not a table .*: it has 2 of 3 clips"
    ):
        trained_clips.read(tmp_path)
    assert not trained_clips.has_table(tmp_path)


def test_a_table_that_was_cut_off_is_named(tmp_path: Path) -> None:
    """If the file were read as it is, the clips that it lacks would pass as unseen in training."""
    trained_clips.write(tmp_path, {"train": _rows("1", "2")})
    path = tmp_path / "trained_on.csv"
    whole = path.read_bytes()
    inside_of_the_fingerprint = whole.rindex(b"00ff")
    for end in (inside_of_the_fingerprint, whole.rindex(b"train") + 2, len(whole) - 2):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"was cut off or changed.*Copy it again"):
            trained_clips.read(tmp_path)


def test_names_that_are_no_utf_8_are_read_as_they_were_written(tmp_path: Path) -> None:
    group = "mine:fight/caf\udce9.mp4"
    trained_clips.write(tmp_path, {"train": _rows("1").assign(source_group=group)})
    table = trained_clips.read(tmp_path)
    assert table is not None
    assert table.source_group.tolist() == [group]
