"""Labels, source keys and official splits of every catalogue entry, on paths with the known traps of each data set."""

from __future__ import annotations

import re
from dataclasses import replace
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
    movies = catalogue.load()["movie_fights"]
    assert movies.roadmap_clips == 1000
    assert sum(movies.clips.values()) == 200


@pytest.mark.parametrize("key", PATHS)
def test_every_entry_says_how_to_get_it_by_hand(key: str) -> None:
    entry = catalogue.load()[key]
    assert entry.sources[-1].kind == "manual"
    assert entry.licence
    assert entry.citation
    assert entry.archive_bytes > 0


def keys_of(key: str, relatives: list[str], root: Path = Path("/nowhere")) -> list[tuple[str, ...]]:
    entry = catalogue.load()[key]
    return source_groups.SourceReader(entry, root).keys(relatives, [str(entry.label(r)) for r in relatives])


def test_a_video_id_means_the_same_source_in_every_data_set() -> None:
    rwf = keys_of("rwf_2000", ["train/Fight/a_B-c4567890_12.avi"])
    flows = keys_of("violent_flows", ["1/Violence/crowd__Title__someone__a_B-c456789.avi"])
    assert rwf == [("youtube:a_B-c4567890",)]
    assert flows == [("youtube:a_B-c456789",)]
    assert keys_of("xd_violence", ["v=a_B-c456789__#1_label_B4-0-0.mp4"]) == flows


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


def test_an_id_that_was_cut_off_is_joined_with_the_whole_one() -> None:
    """RWF-2000 cuts some ids to 8 of their 11 characters."""
    flows = keys_of("violent_flows", ["1/Violence/crowd__Title__someone__10uSOcwSabc.avi"])
    rwf = keys_of("rwf_2000", ["val/NonFight/10uSOcwS_0.avi", "val/NonFight/10uSOcwX_0.avi"])
    whole, cut, other = source_groups.group_names(flows + rwf)
    assert whole == cut == "youtube:10uSOcwSabc"
    assert other == "youtube:10uSOcwX"


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
    assert names[2] == names[3] == "youtube:d2xXLU4JKwI"  # its range of clips follows this video's lines
    assert names[4] == "surveillance_fight:unlisted-fight"


def test_a_missing_clip_list_is_said_and_never_splits_a_source(tmp_path: Path) -> None:
    reader = source_groups.SourceReader(catalogue.load()["surveillance_fight"], tmp_path)
    keys = reader.keys(["fight/fi001.mp4", "fight/fi002.mp4"], ["fight", "fight"])
    assert keys[0] == keys[1]
    assert "videos.txt" in reader.warnings[0]


def test_clips_that_the_list_does_not_name_are_counted(tmp_path: Path) -> None:
    (tmp_path / "videos.txt").write_text("https://www.youtube.com/watch?v=7q6KJoSgxmY\nfi001: 0.13 - 0.15\n")
    reader = source_groups.SourceReader(catalogue.load()["surveillance_fight"], tmp_path)
    reader.keys(["fight/fi001.mp4"], ["fight"])
    assert reader.warnings == []
    reader.keys([f"fight/fi00{k}.mp4" for k in (1, 2, 3)], ["fight"] * 3)
    assert "videos.txt does not name 2 of 3 clips" in reader.warnings[0]
    (tmp_path / "videos.txt").write_text("clip,source\nfi001,a\n")  # in another format, so no clip is named
    reader = source_groups.SourceReader(catalogue.load()["surveillance_fight"], tmp_path)
    reader.keys(["fight/fi001.mp4"], ["fight"])
    assert "does not name 1 of 1 clips" in reader.warnings[0]


def test_the_depth_of_a_layout_is_that_of_its_rules() -> None:
    assert {dataset.deepest for dataset in catalogue.load().values()} == {4}
    rule = catalogue.LabelRule(re.compile(r"a/b/[^/]+/c(/d)?/[^/]+/[]/]x"), "fight")
    assert replace(catalogue.load()["airtlab"], labels=(rule,)).deepest == 7


def test_two_cameras_on_one_action_are_one_source() -> None:
    a, b, c = keys_of("airtlab", ["violent/cam1/3.mp4", "violent/cam2/3.mp4", "violent/cam1/4.mp4"])
    assert a == b != c


def test_official_splits() -> None:
    rwf, scvd = catalogue.load()["rwf_2000"], catalogue.load()["scvd"]
    assert rwf.official_split("val/Fight/a_0.avi") == "val"
    assert rwf.official_split("train/Fight/val_0.avi") == "train"
    assert scvd.official_split("SCVD_converted/Test/Normal/n1.avi") == "val"
    assert catalogue.load()["hockey_fights"].official_split("fi1_xvid.avi") == ""


def test_the_sets_whose_published_split_stands_are_those_that_the_guide_names() -> None:
    sets = catalogue.load()
    assert {key for key, entry in sets.items() if entry.splits} == {"rwf_2000", "scvd", "cctv_fights"}
    for camera in ("CCTV_DATA", "NON_CCTV_DATA"):
        sides = {p: sets["cctv_fights"].official_split(f"{camera}/{p}/fight_0001.mpeg")
                 for p in ("training", "validation", "testing")}  # fmt: skip
        assert sides == {"training": "train", "validation": "train", "testing": "val"}
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "combine.md").read_text()
    assert "published splits of RWF-2000, SCVD and CCTV-Fights stand" in guide


GOOD = """
[mine]
title = "Mine"
roadmap = false
archive_bytes = 1
extracted_bytes = 1
clips = { fight = 5, nonfight = 5 }
licence = "mine"
terms = "none"
citation = "none"
notes = "none"
sources = [{ kind = "manual", instructions = "It is here." }]
labels = [{ pattern = 'fight/.+', label = "fight" }, { pattern = 'peace/.+', label = "nonfight" }]
"""
#: (text in GOOD, its replacement) -> the message, with the field that is wrong.
FAULTS = {
    ('title = "Mine"', ""): r"\[mine\] title: found nothing; needed: text",
    ("archive_bytes = 1", 'archive_bytes = "big"'): r"\[mine\] archive_bytes: found 'big'; needed: a whole number",
    ("roadmap = false", "roadmap = 0"): r"\[mine\] roadmap: found 0; needed: true or false",
    ("nonfight = 5", "peace = 5"): r"\[mine\] clips: found .*peace.*; needed: { fight = NUMBER, nonfight = NUMBER }",
    ('kind = "manual"', 'kind = "url"'): r"\[mine\] sources\[0\] url: found nothing; needed: text",
    ('kind = "manual"', 'kind = "kaggle", slug = "rwf", file = "a.zip"'): r"slug: found 'rwf'; needed: owner/name",
    ('kind = "manual"', 'kind = "url", url = "u", file = "../a.zip"'): r"file: found '../a.zip'; needed: the name of a",
    ('kind = "manual"', 'kind = "url", url = "u", file = ".."'): r"file: found '..'; needed: the name of a file",
    ('kind = "manual"', 'kind = "ftp"'): r"\[mine\] sources\[0\] kind: found 'ftp'; needed: kaggle or url or manual",
    ("'fight/.+'", "'(fight'"): r"\[mine\] labels\[0\] pattern: found '\(fight' .*; needed: a regular expression",
    ('label = "nonfight"', 'label = "calm"'): r"\[mine\] labels\[1\] label: found 'calm'; needed: nonfight or fight",
    ("notes =", "note ="): r"\[mine\] note: unknown field; known fields: title",
    ("roadmap =", "untrimmed = true\nroadmap ="): r"\[mine\]: found untrimmed without annotations",
    ("roadmap =", "layout = 3\nroadmap ="): r"\[mine\] layout: found 3; needed: a list of paths",
    ("roadmap =", "groups = [{ pattern = 'x' }]\nroadmap ="): r"\[mine\] groups\[0\]: found a pattern without",
    ("[mine]", "[My-Set]"): r"\[My-Set\]: found the key 'My-Set'; needed: lower-case letters",
    ("[mine]", "top = 3\n[mine]"): r"\[top\]: found 3; needed: a table",
}  # fmt: skip


def catalogue_file(folder: Path, text: str) -> Path:
    path = folder / "catalogue.toml"
    path.write_text(text)
    return path


def test_a_catalogue_of_ones_own_is_read_in_place_of_the_shipped_one(tmp_path: Path) -> None:
    (entry,) = catalogue.load(catalogue_file(tmp_path, GOOD)).values()
    assert (entry.key, entry.label("peace/1.avi"), entry.untrimmed) == ("mine", "nonfight", False)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_field_is_named_with_what_was_found_and_what_is_needed(
    tmp_path: Path, fault: tuple[str, str]
) -> None:
    assert fault[0] in GOOD
    path = catalogue_file(tmp_path, GOOD.replace(*fault))
    with pytest.raises(UserError, match=FAULTS[fault]) as error:
        catalogue.load(path)
    assert str(path) in str(error.value)


def test_all_that_is_wrong_stands_in_one_message(tmp_path: Path) -> None:
    wrong = GOOD.replace('title = "Mine"', 'colour = "red"').replace("archive_bytes = 1", "")
    second = GOOD.replace("[mine]", "[yours]").replace('label = "fight"', 'label = "violent"')
    with pytest.raises(UserError) as error:
        catalogue.load(catalogue_file(tmp_path, wrong + second))
    lines = [line.strip() for line in str(error.value).splitlines()[1:-1]]
    assert [line.partition(":")[0] for line in lines] == [
        "[mine] title", "[mine] archive_bytes", "[mine] colour", "[yours] labels[0] label",
    ]  # fmt: skip


def test_a_file_that_is_no_catalogue_says_so(tmp_path: Path) -> None:
    for text in ("[mine", "", "\x00"):
        with pytest.raises(UserError, match=r"catalogue\.toml"):
            catalogue.load(catalogue_file(tmp_path, text))
    with pytest.raises(UserError, match="--catalogue"):
        catalogue.load(tmp_path / "nowhere.toml")


def test_published_names_are_those_of_the_traps() -> None:
    for key, entry in catalogue.load().items():
        labels = {"fight", "nonfight"}
        named = [entry.named(path) for path, label in PATHS[key].items() if label in labels]
        assert sum(named) * 2 >= len(named), key


def test_a_catalogue_saved_with_a_mark_is_read_and_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    text = catalogue.CATALOGUE_PATH.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8-sig")
    assert catalogue.load(path) == catalogue.load()
    path.write_text(f"# mine\nkey =\n{text}")
    with pytest.raises(UserError, match=r"catalogue\.toml is not valid TOML: .*line 2"):
        catalogue.load(path)
