"""Labels, source keys and official splits of every catalogue entry, on paths with the traps each is known for."""

from __future__ import annotations

from pathlib import Path

import pytest

from violence_detection.datasets import catalogue, source_groups
from violence_detection.errors import UserError

#: data set -> path below its root -> label (None: unlabelled)
PATHS: dict[str, dict[str, str | None]] = {
    "rwf_2000": {
        "train/Fight/-1l5631l3fg_0.avi": "fight",
        "val/NonFight/_2UhYbKC_Vw_12.AVI": "nonfight",
        "train/NonFight/Fight_0.avi": "nonfight",
        "test/Fight/x_0.avi": None,
        "train/fight/x_0.avi": None,
    },
    "hockey_fights": {
        "fi1_xvid.avi": "fight",
        "no142__xvid.avi": "nonfight",
        "no65___xvid.avi": "nonfight",
        "no238mpg_xvid.avi": "nonfight",
        "fi500_xvid.AVI": "fight",
        "nofi1_xvid.avi": None,
        "video1.avi": None,
    },
    "real_life_violence": {
        "Violence/V_1.mp4": "fight",
        "NonViolence/NV_1.mp4": "nonfight",
        "NonViolence/NV_1000.MP4": "nonfight",
        "NonViolence/V_1.mp4": None,
        "Violence/NV_1.mp4": None,
    },
    "cctv_fights": {
        "CCTV_DATA/training/fight_0001.mpeg": "fight",
        "NON_CCTV_DATA/testing/fight_0002.mpeg": "fight",
        "NON_CCTV_DATA/other/fight_0003.mpeg": None,
    },
    "movie_fights": {
        "fights/newfi1.avi": "fight",
        "noFights/1_xvid.avi": "nonfight",
        "noFights/deep/1.avi": None,
    },
    "ucf_crime": {
        "Fighting/Fighting002_x264.mp4": "fight",
        "Anomaly-Videos-Part-1/Abuse/Abuse001_x264.mp4": "fight",
        "Shoplifting/Shoplifting001_x264.mp4": "exclude",
        "Explosion/Explosion001_x264.mp4": "exclude",
        "Training-Normal-Videos-Part-1/Normal_Videos003_x264.mp4": "nonfight",
        "Testing_Normal_Videos_Anomaly/Normal_Videos_015_x264.mp4": "nonfight",
        "Fighting/Arson001_x264.mp4": None,
    },
    "surveillance_fight": {
        "fight/fi001.mp4": "fight",
        "noFight/nofi150.MP4": "nonfight",
        "noFight/fi001.mp4": None,
        "fight/nofi001.mp4": None,
    },
    "scvd": {
        "SCVD_converted/Train/Normal/n001.avi": "nonfight",
        "SCVD_converted/Test/Violence/v001.avi": "fight",
        "SCVD_converted/Train/Weaponized/w001.avi": "fight",
        "SCVD_converted_sec_split/Train/Normal/n001_0.avi": None,
    },
    "violent_flows": {
        "1/Violence/crowd_violence__Title__uploader__MgXe0isUnSg.avi": "fight",
        "5/NonViolence/stadium_crowds__Violence__uploader__cut.avi": "nonfight",
        "6/Violence/crowd__Title__uploader__MgXe0isUnSg.avi": None,
    },
    "xd_violence": {
        "A.Film.1999__#00-01-00_00-02-00_label_A.mp4": "nonfight",
        "A.Film.1999__#00-01-00_00-02-00_label_B1-0-0.mp4": "fight",
        "v=abc__#1_label_B2-B1-0.mp4": "fight",
        "v=abc__#2_label_B2-G-0.mp4": "exclude",
        "v=abc__#1_label_B6-0-0.mp4": "exclude",
        "v=abc__#1_label_G-B2-0.mp4": "exclude",
        "v=abc__#1.mp4": None,
    },
    "airtlab": {
        "violent/cam1/1.mp4": "fight",
        "non-violent/cam2/1.mp4": "nonfight",
        "non-violent/cam3/1.mp4": None,
    },
    "ubi_fights": {
        "videos/fight/F_0_1_0_0_0.mp4": "fight",
        "videos/normal/N_0_0_0_1_0.mp4": "nonfight",
        "videos/normal/F_0_1_0_0_0.mp4": None,
    },
    "bus_violence": {
        "Violence/1.mp4": "fight",
        "NoViolence/1.mp4": "nonfight",
        "NonViolence/1.mp4": None,
    },
}


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
