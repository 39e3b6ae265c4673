"""The published annotation formats, both sound and with faults that real files have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from violence_detection.datasets import catalogue
from violence_detection.datasets.annotations import (
    READERS,
    Annotations,
    Segments,
    read_annotations,
    video_name,
)


def read(root: Path, key: str, text: str, name: str | None = None) -> Annotations:
    entry = catalogue.load()[key]
    assert entry.annotations is not None
    path = root / (name or entry.annotations.file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return read_annotations(entry, root)


def test_every_format_of_the_catalogue_can_be_read() -> None:
    formats = {d.annotations.format for d in catalogue.load().values() if d.annotations}
    assert formats == set(READERS)


@pytest.mark.parametrize(
    "where",
    [
        "Temporal_Anomaly_Annotation_For_Testing_Videos/Txt_formate/Temporal_Anomaly_Annotation.txt",
        "UCF_Crimes-Train-Test-Split/Temporal_Anomaly_Annotation_for_Testing_Videos.txt",
        "Temporal_Anomaly_Annotation.txt",
    ],
)
def test_ucf_crimes_annotations_are_found_where_they_are_published(tmp_path: Path, where: str) -> None:
    root, path = tmp_path / "raw/ucf/UCF_Crimes/Videos", tmp_path / "raw/ucf" / where
    root.mkdir(parents=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("Abuse028_x264.mp4  Abuse  165  240  -1  -1\n")
    entry = catalogue.load()["ucf_crime"]
    assert read_annotations(entry, root, [tmp_path / "raw"]).path == path
    assert read_annotations(entry, tmp_path / "raw/other/Videos", [tmp_path / "raw"]).path is None


def test_the_annotations_of_a_set_that_stands_beside_it_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "raw/sets/XD-Violence").mkdir(parents=True)
    (tmp_path / "raw/sets/other").mkdir()
    (tmp_path / "raw/sets/other/annotations.txt").write_text("01.avi 1\n")
    entry = catalogue.load()["xd_violence"]
    assert read_annotations(entry, tmp_path / "raw/sets/XD-Violence", [tmp_path / "raw"]).path is None


def test_ucf_crime(tmp_path: Path) -> None:
    found = read(tmp_path, "ucf_crime",
        "Abuse028_x264.mp4  Abuse  165  240  -1  -1  \n"
        "Fighting033_x264.mp4  Fighting  570  841  900  1000  \r\n"
        "\n"
        "Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \n",
    )  # fmt: skip
    assert found.videos == {
        "Abuse028_x264": Segments(((165, 240),)),
        "Fighting033_x264": Segments(((570, 841), (900, 1000))),
        "Normal_Videos_003_x264": Segments(()),
    }
    assert found.failures == []


def test_cctv_fights_in_seconds_as_numbers_or_text(tmp_path: Path) -> None:
    segments = [{"segment": ["2.5", "9.0"], "label": "Fight"}, {"segment": [12, 20.25], "label": "fight"}]
    database = {"fight_0001": {"subset": "training", "annotations": segments, "duration": 30}}
    found = read(tmp_path, "cctv_fights", json.dumps({"version": "1", "database": database}))
    assert found.videos == {"fight_0001": Segments(((2.5, 9.0), (12.0, 20.25)), in_seconds=True)}


def test_xd_violence_with_and_without_suffix(tmp_path: Path) -> None:
    found = read(tmp_path, "xd_violence",
        "Bad.Film.1995__#00-26-51_00-27-53_label_B2-0-0 125 1007 1200 1300\nv=abc__#1_label_B1-0-0.mp4 0 9\n",
    )  # fmt: skip
    assert found.videos == {
        "Bad.Film.1995__#00-26-51_00-27-53_label_B2-0-0": Segments(((125, 1007), (1200, 1300))),
        "v=abc__#1_label_B1-0-0": Segments(((0, 9),)),
    }


def test_ubi_fights_a_value_a_frame(tmp_path: Path) -> None:
    note = tmp_path / "annotation" / "._F_1_0_0_0_0.csv"  # macOS adds such files
    note.parent.mkdir()
    note.write_bytes(b"\x00\x05\x16\x07")
    found = read(tmp_path, "ubi_fights", "0\n0\n1\n1\n1\n0\n1\n", "annotation/F_1_0_0_0_0.csv")
    assert found.videos == {"F_1_0_0_0_0": Segments(((2, 5), (6, 7)))}
    assert not found.failures


FAULTS = {
    "too few words": ("ucf_crime", "Abuse028_x264.mp4  Abuse  165\n", ":1"),
    "no number": ("ucf_crime", "\nAbuse028_x264.mp4  Abuse  165  end  -1  -1\n", ":2"),
    "end before start": ("ucf_crime", "Abuse028_x264.mp4  Abuse  240  165  -1  -1\n", ":1"),
    "half a stretch": ("ucf_crime", "Abuse028_x264.mp4  Abuse  240  -1  -1  -1\n", ":1"),
    "class of another video": ("ucf_crime", "Abuse028_x264.mp4  Arson  1  9  -1  -1\n", ":1"),
    "twice, differently": ("xd_violence", "Abuse028_x264 1 9\nAbuse028_x264 1 8\n", ":2"),
    "odd count": ("xd_violence", "Abuse028_x264 1 9 4\n", ":1"),
    "other label": ("cctv_fights", '{"database": {"Abuse028_x264": {"annotations": [{"segment": [1, 2], "label": "Run"}]}}}', ": Abuse028_x264"),  # noqa: E501
    "no segment": ("cctv_fights", '{"database": {"Abuse028_x264": {"annotations": [{"label": "Fight"}]}}}', ": Abuse028_x264"),  # noqa: E501
    "neither 0 nor 1": ("ubi_fights", "0\n1\n2\n", "/Abuse028_x264.csv"),
    "no number in JSON": ("cctv_fights", '{"database": {"Abuse028_x264": {"annotations": [{"segment": ["a", 2], "label": "Fight"}]}}}', ": Abuse028_x264"),  # noqa: E501
    "without end": ("cctv_fights", '{"database": {"Abuse028_x264": {"annotations": [{"segment": [1, Infinity], "label": "Fight"}]}}}', ": Abuse028_x264"),  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_understood_is_named_with_its_line_and_marks_its_video(
    tmp_path: Path, fault: str
) -> None:
    key, text, where = FAULTS[fault]
    found = read(tmp_path, key, text, "annotation/Abuse028_x264.csv" if key == "ubi_fights" else None)
    assert found.broken == {"Abuse028_x264"}
    (failure,) = found.failures
    assert failure["path"] == f"{found.path}{where}"
    assert "not understood" in failure["reason"]


def test_a_wrong_line_takes_no_other_with_it(tmp_path: Path) -> None:
    found = read(tmp_path, "ucf_crime", "what\nAbuse028_x264.mp4  Abuse  165  240  -1  -1\n")
    assert list(found.videos) == ["Abuse028_x264"]
    assert len(found.failures) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"database": [1]}', '{"videos": {}}', '{"a":' + "[" * 100_000])
def test_a_json_that_is_something_else_is_named(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, "cctv_fights", text)
    assert found.videos == {}
    assert "database" in found.failures[0]["reason"]


def test_the_file_is_found_below_the_root_or_beside_it_but_not_above_where_was_searched(
    tmp_path: Path,
) -> None:
    entry = catalogue.load()["ucf_crime"]
    assert entry.annotations is not None
    root = tmp_path / "a" / "ucf" / "Anomaly-Videos"
    root.mkdir(parents=True)
    line = "Abuse028_x264.mp4  Abuse  165  240  -1  -1\n"
    (tmp_path / "a" / entry.annotations.file).write_text(line)
    assert read_annotations(entry, root).path == tmp_path / "a" / entry.annotations.file
    assert read_annotations(entry, root, [tmp_path / "a" / "ucf"]).path is None
    nearer = root / "splits" / entry.annotations.file
    nearer.parent.mkdir()
    nearer.write_text(line)
    assert read_annotations(entry, root).path == nearer


@pytest.mark.timeout(60)
def test_links_that_lead_back_end_the_search_for_the_file(tmp_path: Path) -> None:
    dataset = catalogue.load()["ubi_fights"]
    assert dataset.annotations is not None
    root, name = tmp_path / "UBI_FIGHTS", dataset.annotations.file
    (root / "videos").mkdir(parents=True)
    for link, target in (("again", "."), ("up", ".."), ("home", root)):
        (root / "videos" / link).symlink_to(target)
    assert read_annotations(dataset, root, [tmp_path]).path is None
    (root / "set" / name).mkdir(parents=True)
    assert read_annotations(dataset, root, [tmp_path]).path == root / "set" / name


def test_only_a_video_suffix_is_no_part_of_a_name() -> None:
    assert video_name("Bad.Film.1995_label_A.MP4") == "Bad.Film.1995_label_A"
    assert video_name("Bad.Film.1995_label_A") == "Bad.Film.1995_label_A"
