"""All later steps rely on the manifest that step 2 writes, so it is checked whenever it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from violence_detection.combine import manifest
from violence_detection.errors import UserError
from violence_detection.system import storage

ROW: dict[str, Any] = {
    "clip_id": "0012345678901234", "path": "train/fight/a.avi", "source_path": "raw/x/a.avi", "label": "fight",
    "dataset": "x", "source_group": "007", "split": "train", "official_split": "", "sha256": "0" * 64,
    "fingerprint": "00ff" * 12, "duration_s": 2.0, "fps": 25.0, "width": 64, "height": 48, "n_frames": 50,
    "codec": "NA",
}  # fmt: skip


def _write(folder: Path, *changes: dict[str, Any], columns: tuple[str, ...] = manifest.COLUMNS) -> Path:
    storage.write_csv(folder / manifest.FILE_NAME, columns, [ROW | change for change in changes])
    return folder


def test_text_that_looks_like_numbers_or_nothing_stays_text(tmp_path: Path) -> None:
    frame = manifest.read(_write(tmp_path, {}, {"clip_id": "1e5", "path": "b.avi", "label": "nonfight"}))
    assert list(frame.columns) == [*manifest.COLUMNS, "by_time"]
    assert frame.clip_id.tolist() == ["0012345678901234", "1e5"]
    row = frame.iloc[0]
    assert (row.source_group, row.official_split, row.fingerprint, row.codec) == (
        "007",
        "",
        "00ff" * 12,
        "NA",
    )
    assert (row.duration_s, row.n_frames) == (2.0, 50)


@pytest.mark.parametrize("name", ["2024", "007", "true", "nan", "1e5"])
def test_a_data_set_keeps_its_name_whatever_it_looks_like(tmp_path: Path, name: str) -> None:
    """Training records the name as text; read as a number, it would seem to be a data set unknown to training."""
    assert manifest.read(_write(tmp_path, {"dataset": name})).dataset.tolist() == [name]


def test_the_folder_and_the_file_itself_are_both_taken(tmp_path: Path) -> None:
    _write(tmp_path, {})
    assert manifest.read(tmp_path).equals(manifest.read(tmp_path / manifest.FILE_NAME))


def test_a_missing_manifest_names_the_file_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.csv.*combine_all_datasets\.py --data-root"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "Fight"}, r"column label contains \['Fight'\]"),
        ({"label": ""}, "column label"),
        ({"split": "test"}, r"column split contains \['test'\]"),
    ],
)
def test_unknown_labels_and_splits_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        manifest.read(_write(tmp_path, {}, change))


@pytest.mark.parametrize("clip_id", ["../../elsewhere/a", "a\0b", "a" * 300, "字" * 100])
def test_an_id_that_is_no_name_of_a_file_is_refused(tmp_path: Path, clip_id: str) -> None:
    """Files of features and contact sheets are named after the id, and a manifest may come from anybody."""
    with pytest.raises(UserError, match=r"manifest\.csv: column clip_id contains .*names of files"):
        manifest.read(_write(tmp_path, {}, {"clip_id": clip_id, "path": "train/fight/b.avi"}))


def test_a_clip_that_stands_there_twice_is_refused_by_name(tmp_path: Path) -> None:
    """Merging two tables by clip_id turns two rows of a clip in each into four, and a figure would count all four."""
    twice = {"clip_id": "b", "path": "train/fight/b.avi"}
    with pytest.raises(
        UserError,
        match=r"manifest\.csv: the clip b occurs twice\. Keep one row, or.*combine_all_datasets",
    ):
        manifest.read(_write(tmp_path, {}, twice, twice | {"label": "nonfight"}))


def test_two_clips_of_one_path_are_refused(tmp_path: Path) -> None:
    """Both rows would lead to the same file, so one clip would be read in place of the other."""
    beside = {"clip_id": "b", "path": "train/fight/a.avi"}
    with pytest.raises(UserError, match=r"manifest\.csv: the path train/fight/a\.avi occurs twice"):
        manifest.read(_write(tmp_path, {"path": "train/fight/a.avi"}, beside))


def test_a_manifest_without_a_column_or_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is missing the columns \['codec'\]"):
        manifest.read(_write(tmp_path, {}, columns=manifest.COLUMNS[:-1]))
    with pytest.raises(UserError, match="has no clips"):
        manifest.read(_write(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x81 binary \x9d", b'a,b\n1,"2\n3,4,5,6\n'])
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / manifest.FILE_NAME).write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.csv"):
        manifest.read(tmp_path)


@pytest.mark.parametrize("left", [1, 60, 150], ids=lambda n: f"{n} bytes of the last row")
def test_a_manifest_that_was_cut_short_is_refused_by_row(tmp_path: Path, left: int) -> None:
    path = _write(tmp_path, {}, {"clip_id": "b"}) / manifest.FILE_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:left])
    with pytest.raises(UserError, match=r"manifest\.csv:3: \d+ cells? for 16 columns.*combine_all_datasets"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fingerprint": "00ff"}, "48 hex digits"),
        ({"fingerprint": "x" * 48}, "48 hex digits"),
        ({"source_group": ""}, "column source_group is empty"),
        ({"path": ""}, "column path is empty"),
        ({"fps": "29,97"}, "fps is '29,97', which is not a number"),
        ({"duration_s": ""}, "duration_s is '', which is not a number"),
        ({"width": "nan"}, "width is 'nan', which is not a number"),
        ({"fps": "inf"}, "fps is 'inf', which is not a number"),
    ],
)
def test_cells_that_cannot_be_used_are_refused_by_row(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=rf"manifest\.csv:3: .*{said}.*combine_all_datasets"):
        manifest.read(_write(tmp_path, {}, {"clip_id": "b", **change}))


def test_a_manifest_that_is_not_as_it_was_written_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _write(tmp_path, {"clip_id": "b", "path": "b.avi", "fingerprint": ""}, {}) / manifest.FILE_NAME
    storage.write_json(tmp_path / manifest.RECORD_NAME, {"manifest_sha256": storage.sha256_file(path)})
    manifest.read(tmp_path)
    assert "as combine_all_datasets.py wrote it" not in caplog.text
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    for _ in range(2):
        assert manifest.read(tmp_path).clip_id.tolist() == ["b"]
    assert caplog.text.count("as combine_all_datasets.py wrote it") == 1


@pytest.mark.parametrize(
    ("dataset", "source", "name"),
    [
        ("x", "raw/x/a b.AVI", "x__a_b__00123456.avi"),
        ("x", "raw/x/a\rb.mp4\r", "x__a_b__00123456.mp4_"),
        ("x", f"raw/x/{'a' * 90}.mp4", f"x__{'a' * 60}__00123456.mp4"),
        ("x", f"raw/x/{'ж' * 60}.mp4", f"x__{'ж' * 60}__00123456.mp4"),
    ],
)
def test_clips_have_readable_names(dataset: str, source: str, name: str) -> None:
    assert manifest.clip_name(dataset, source, "0012345678901234") == name


@pytest.mark.parametrize(
    ("dataset", "stem", "suffix"),
    [
        ("mine", "𝗔" * 60, ".mp4"),
        ("long" * 60, "a", ".avi"),
        ("mine", "a", "." + "ж" * 110),
        ("mine", "𝗔" * 57, "." + "b" * 20),
    ],
    ids=["letters of four bytes", "name of the set", "suffix", "all of them"],
)
def test_a_clip_name_fits_into_what_file_systems_take_and_ends_as_others(
    tmp_path: Path, dataset: str, stem: str, suffix: str
) -> None:
    names = {manifest.clip_name(dataset, f"raw/{stem}{suffix}", f"{i:08}12345678") for i in range(3)}
    assert len(names) == 3
    for name in names:
        (tmp_path / f".{name}.tmp").touch()
        if len(suffix) < 30:
            assert name.endswith(suffix)
            assert "__0000000" in name


def test_a_list_of_clips_by_time_without_their_ids_is_named_with_what_makes_it_again(tmp_path: Path) -> None:
    _write(tmp_path, {})
    (tmp_path / manifest.BY_TIME_NAME).write_text("clip,path\nx,y\n")
    with pytest.raises(
        UserError, match=r"by_time\.csv is missing the column 'clip_id'. Remove the file and run combine_all"
    ):
        manifest.read(tmp_path)
