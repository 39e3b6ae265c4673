"""Labels, source keys and official splits of every catalogue entry, on paths with the traps each is known for."""

from __future__ import annotations

from pathlib import Path

import pytest
from published_paths import PATHS

from violence_detection.datasets import catalogue, source_groups
from violence_detection.errors import UserError


def test_every_entry_has_a_tree_of_traps() -> None:
    assert set(PATHS) == set(catalogue.load())


@pytest.mark.parametrize("key", PATHS)
def test_labels_follow_the_published_rule_and_nothing_else(key: str) -> None:
    dataset = catalogue.load()[key]
    assert {path: dataset.label(path) for path in PATHS[key]} == PATHS[key]
    for path, label in PATHS[key].items():
        if label:
            assert dataset.label("elsewhere/" + path) is None


def test_the_roadmaps_seven_are_there_and_its_wrong_count_is_named() -> None:
    seven = [key for key, entry in catalogue.load().items() if entry.roadmap]
    assert seven == [
        "rwf_2000", "hockey_fights", "real_life_violence", "cctv_fights", "movie_fights", "ucf_crime",
        "surveillance_fight",
    ]  # fmt: skip
    movies = catalogue.get("movie_fights")
    assert movies.roadmap_clips == 1000
    assert sum(movies.clips.values()) == 200


@pytest.mark.parametrize("key", PATHS)
def test_every_entry_says_how_to_get_it_by_hand(key: str) -> None:
    entry = catalogue.get(key)
    assert entry.sources[-1].kind == "manual"
    assert entry.licence
    assert entry.citation
    assert entry.archive_bytes > 0


def keys_of(key: str, relatives: list[str], root: Path = Path("/nowhere")) -> list[tuple[str, ...]]:
    entry = catalogue.get(key)
    return source_groups.SourceReader(entry, root).keys(relatives, [str(entry.label(r)) for r in relatives])


def test_a_video_id_means_the_same_source_in_every_data_set() -> None:
    rwf = keys_of("rwf_2000", ["train/Fight/a_B-c4567890_12.avi"])
    flows = keys_of("violent_flows", ["1/Violence/crowd__Title__someone__a_B-c456789.avi"])
    assert rwf == [("youtube:a_B-c4567890",)]
    assert flows == [("youtube:a_B-c456789",)]


def test_neighbours_in_number_are_one_source() -> None:
    names = ["no1_xvid.avi", "no25_xvid.avi", "no26_xvid.avi", "no238mpg_xvid.avi", "fi1_xvid.avi"]
    groups = [k[0].split(":")[1] for k in keys_of("hockey_fights", names)]
    assert groups == ["no-block0", "no-block0", "no-block1", "no-block9", "fi-block0"]


def test_a_title_cut_off_is_joined_with_the_whole_one() -> None:
    title = "Anglia_News_Sport_Soccer_Football_FIFA_South_Africa_World_Cup_2010"
    whole = f"3/NonViolence/football_crowds__{title}__anglianewseast__3JrtWmyk-Do.avi"
    cut = f"1/NonViolence/football_crowds__football_crowds__{title[:-2]}.avi"
    cut_in_id = f"2/NonViolence/stadium_crowds__{title}__anglianewseast__3Jrt.avi"
    other = "2/NonViolence/stadium_crowds__Barnsley_FC_V_Swansea_City_FC_League_1_Play_off.avi"
    names = source_groups.group_names(keys_of("violent_flows", [whole, cut, cut_in_id, other]))
    assert names[:3] == ["youtube:3JrtWmyk-Do"] * 3
    assert names[3] != names[0]


def test_the_published_clip_list_names_sources(tmp_path: Path) -> None:
    (tmp_path / "videos.txt").write_text(
        "https://www.youtube.com/watch?v=7q6KJoSgxmY \nfi001: 0.13 - 0.15\nnofi001: 2.34 - 2.37\n"
        "https://www.youtube.com/watch?v=d2xXLU4JKwI\nfi002: 0.14 - 0.17\n\n\n"
        "nofi062 - nofi063 : CamNet Dataset\nnofi063 - nofi064 : Synopsis dataset\n"
    )
    clips = [
        "fight/fi001.mp4",
        "noFight/nofi001.mp4",
        "fight/fi002.mp4",
        "noFight/nofi064.mp4",
        "fight/fi009.mp4",
    ]
    names = source_groups.group_names(keys_of("surveillance_fight", clips, tmp_path))
    assert names[0] == names[1] == "youtube:7q6KJoSgxmY"
    assert names[2] == names[3] == "youtube:d2xXLU4JKwI"  # the ranges stand below this video's lines
    assert names[4] == "surveillance_fight:unlisted-fight"


def test_a_missing_clip_list_is_said_and_never_splits_a_source(tmp_path: Path) -> None:
    reader = source_groups.SourceReader(catalogue.get("surveillance_fight"), tmp_path)
    keys = reader.keys(["fight/fi001.mp4", "fight/fi002.mp4"], ["fight", "fight"])
    assert keys[0] == keys[1]
    assert "videos.txt" in reader.warnings[0]


def test_two_cameras_on_one_action_are_one_source() -> None:
    a, b, c = keys_of("airtlab", ["violent/cam1/3.mp4", "violent/cam2/3.mp4", "violent/cam1/4.mp4"])
    assert a == b != c


def test_official_splits() -> None:
    rwf, scvd = catalogue.get("rwf_2000"), catalogue.get("scvd")
    assert rwf.official_split("val/Fight/a_0.avi") == "val"
    assert rwf.official_split("train/Fight/val_0.avi") == "train"
    assert scvd.official_split("SCVD_converted/Test/Normal/n1.avi") == "val"
    assert catalogue.get("hockey_fights").official_split("fi1_xvid.avi") == ""


@pytest.mark.parametrize(
    "fault",
    [
        'labels = [{ pattern = "(", label = "fight" }]',
        'labels = [{ pattern = "x", label = "violent" }]',
        "labels = 3",
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(f'[mine]\ntitle = "Mine"\n{fault}\nsources = []\n')
    with pytest.raises(UserError, match=r"\[mine\]"):
        catalogue.load(path)
