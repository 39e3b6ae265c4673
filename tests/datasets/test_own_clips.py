"""The user's own clips: which names mean which class, where sources come from, and how wrong rows are named."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from violence_detection.datasets import catalogue, own_clips, own_labels, source_groups
from violence_detection.datasets.config import OwnClipsConfig
from violence_detection.datasets.own_clips import OwnSet
from violence_detection.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def read(*own: str, labels: tuple[str, ...] = ()) -> list[OwnSet]:
    return own_clips.read_all(OwnClipsConfig(own=own, labels=labels), catalogue.load())


def labels_of(found: OwnSet) -> dict[str, str]:
    return {clip.rel: clip.label for clip in found.clips}


def table(folder: Path, *rows: str, header: str = "path,label") -> str:
    path = folder / "clips.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return f"mine={path}"


def reasons(found: OwnSet) -> dict[int, str]:
    """Map the number of each wrong line to what is wrong with it."""
    return {int(f["path"].rpartition(":")[2]): f["reason"] for f in found.failures}


@pytest.mark.parametrize("name", ["fight", "Fights"])
def test_names_of_fights_that_need_no_explanation(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"{name}/a.mp4")
    assert labels_of(read(f"mine={tmp_path}")[0]) == {f"{name}/a.mp4": "fight"}


@pytest.mark.parametrize("name", ["nonfight", "nonfights", "non_fight", "no_fight", "noFight", "NONFIGHT"])
def test_names_of_non_fights_that_need_no_explanation(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"{name}/a.mp4")
    assert labels_of(read(f"mine={tmp_path}")[0]) == {f"{name}/a.mp4": "nonfight"}


@pytest.mark.parametrize(
    "name", ["Violence", "fighting", "noFights", "fight clips", "nonfight2", "no fight", "figh"]
)
def test_no_other_name_is_guessed_at_and_none_by_a_part_of_it(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"{name}/a.mp4", f"{name}/deep/b.mp4", "fight/c.mp4", "loose.mp4")
    (found,) = read(f"mine={tmp_path}")
    assert labels_of(found) == {"fight/c.mp4": "fight"}
    assert found.unknown == {name: 2}
    assert {p.relative_to(tmp_path).as_posix() for p in found.unlabelled} == {
        f"{name}/a.mp4", f"{name}/deep/b.mp4", "loose.mp4",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["no fight", "No Fights", "non fight", "non violent", "no violence"])
def test_names_with_a_blank_are_offered_as_those_with_a_hyphen(name: str) -> None:
    assert own_labels.telling([name]) == {name: "nonfight"}
    assert not own_labels.is_accepted(name)


def test_labels_say_what_names_mean(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Violence/a.mp4",
        "brawl, loud/b.mp4",
        "normal/deep/er/c.MP4",
        "fight/d.avi",
        "normal/readme.txt",
    )
    (found,) = read(f"mine={tmp_path}", labels=("fight=violence,Brawl\\, loud", "nonfight=normal"))
    assert labels_of(found) == {
        "Violence/a.mp4": "fight",
        "brawl, loud/b.mp4": "fight",
        "fight/d.avi": "fight",
        "normal/deep/er/c.MP4": "nonfight",
    }
    assert not found.unknown


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("violent=x", "fight=NAME"),
        ("/some/root", "nothing else"),
        ("fight", "fight=NAME"),
        ("fight=", "no name"),
        ("fight=a,,b", None),
        ("fight=nonfight", "it means nonfight"),
        ("fight=WHICH", "in place of WHICH"),
        ("WHICH=brawl", "put fight or nonfight"),
    ],
)
def test_words_that_make_no_sense_are_refused(word: str, said: str | None) -> None:
    if said is None:
        assert own_labels.parse([word]).explained == {"a": "fight", "b": "fight"}
        return
    with pytest.raises(UserError, match=said):
        own_labels.parse([word])


def test_one_name_for_both_classes_is_refused() -> None:
    with pytest.raises(UserError, match="'brawl' nonfight, but it means fight"):
        own_labels.parse(["fight=brawl", "nonfight=Brawl"])


def test_offered_words_are_read_as_they_were_meant() -> None:
    meaning = {"a,b": "fight", "c\\": "fight", "d=e": "nonfight", "F g": "nonfight"}
    told = own_labels.parse(own_labels.as_words(meaning))
    assert {name: told.of(name) for name in meaning} == meaning


def test_a_name_that_explains_nothing_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "fight/a.mp4", "normal/a.mp4")
    (found,) = read(f"mine={tmp_path}", labels=("nonfight=normal", "fight=Violance"))
    assert any("violance" in w and "normal" not in w for w in found.warnings)


def test_labels_without_clips_of_ones_own_are_refused() -> None:
    with pytest.raises(UserError, match=r"--labels fight=Streit would do nothing.*--own NAME=PATH"):
        read(labels=("fight=Streit",))


def test_a_sub_folder_is_a_source_and_the_same_one_below_both_classes(tmp_path: Path) -> None:
    touch(
        tmp_path, "fight/cam1/a.mp4", "fight/cam1/night/b.mp4", "nonfight/cam1/c.mp4", "nonfight/cam2/c.mp4"
    )
    (found,) = read(f"mine={tmp_path}")
    assert {c.rel: c.sources for c in found.clips} == {
        "fight/cam1/a.mp4": ("cam1",),
        "fight/cam1/night/b.mp4": ("cam1",),
        "nonfight/cam1/c.mp4": ("cam1",),
        "nonfight/cam2/c.mp4": ("cam2",),
    }
    assert not found.warnings


def test_a_source_is_one_however_its_accents_are_stored(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "caméra") for form in ("NFC", "NFD"))
    touch(tmp_path, f"fight/{one}/a.mp4", f"nonfight/{two}/b.mp4")
    assert {clip.sources for clip in read(f"mine={tmp_path}")[0].clips} == {(one,)}
    rows = [f"fight/{one}/a.mp4,fight,{two}", f"nonfight/{two}/b.mp4,nonfight,{one}"]
    (found,) = read(table(tmp_path, *rows, header="path,label,source"))
    assert {clip.sources for clip in found.clips} == {(one,)}


def test_a_source_is_one_however_its_capitals_are_written(tmp_path: Path) -> None:
    touch(tmp_path, "fight/Cam1/a.mp4", "nonfight/cam1/b.mp4")
    names = source_groups.group_names(own_clips.source_keys(read(f"mine={tmp_path}")))
    assert names == ["mine:Cam1"] * 2


def test_a_day_of_rows_is_settled_without_comparing_each_with_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "night.mp4")
    rows = [f"night.mp4,{'fight' if i % 7 else 'nonfight'},{5 * i},{5 * i + 5}" for i in range(2000)]
    path = table(tmp_path, *rows, "night.mp4,nonfight,52,54", header="path,label,start_s,end_s")
    reads = []
    span_s = own_clips.OwnClip.span_s.fget  # type: ignore[attr-defined]

    def counted(clip: own_clips.OwnClip) -> tuple[float, float]:
        reads.append(clip)
        found: tuple[float, float] = span_s(clip)
        return found

    monkeypatch.setattr(own_clips.OwnClip, "span_s", property(counted))
    (found,) = read(path)
    assert len(found.failures) == 2, "the two rows that call the same footage both classes"
    assert len(found.clips) == 1999
    assert len(reads) < 20 * len(rows)


def test_without_a_word_on_sources_each_clip_is_one_and_a_warning_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "fight/a.mp4", "nonfight/a.mp4", "nonfight/cam1/b.mp4")
    (found,) = read(f"mine={tmp_path}")
    assert len({c.sources for c in found.clips}) == 3
    (warning,) = found.warnings
    assert warning.startswith("mine: 2 of 3 clips do not name their source")
    assert "sub-folder" in warning
    assert "CSV" in warning


def test_a_file_that_another_set_has_is_named_with_that_set(tmp_path: Path) -> None:
    touch(tmp_path, "fight/a.mp4", "nonfight/b.mp4")
    one, other = read(f"mine={tmp_path}", f"again={tmp_path}")
    assert (len(one.clips), len(other.clips)) == (2, 0)
    assert other.failures[0]["reason"] == f"is in the set mine already, as {tmp_path}/fight/a.mp4. Keep one"


def test_a_set_inside_holds_its_files_and_no_others(tmp_path: Path) -> None:
    touch(tmp_path, "clips/fight/a.mp4", "clips2/fight/a.mp4", "clips/b.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "clips")
    (found,) = read(f"mine={tmp_path / 'clips'}")
    assert found.holds(tmp_path / "clips" / "fight" / "a.mp4")
    assert found.holds(tmp_path / "link" / "b.mp4")
    assert not found.holds(tmp_path / "clips2" / "fight" / "a.mp4")


def test_class_folders_further_down_are_noticed(tmp_path: Path) -> None:
    touch(tmp_path, "train/fight/a.mp4", "train/nonfight/b.mp4", "val/fight/c.mp4", "other/d.mp4")
    (found,) = read(f"mine={tmp_path}")
    assert not found.clips
    assert found.nested == ("train", "val")
    assert found.unknown == {"other": 1, "train": 2, "val": 1}


@pytest.mark.parametrize("value", ["mine", "=x", "mine=", "my clips=.", "mine.2=.", "ünder=."])
def test_what_names_no_set_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="NAME=FOLDER or NAME=FILE"):
        read(value)


def test_names_that_are_taken_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "fight/a.mp4")
    with pytest.raises(UserError, match="hockey_fights is a published data set"):
        read(f"Hockey_Fights={tmp_path}")
    with pytest.raises(UserError, match="mine is already the name of"):
        read(f"mine={tmp_path}", f"Mine={tmp_path / 'fight'}")
    with pytest.raises(UserError, match="there is no"):
        read(f"mine={tmp_path / 'nowhere'}")
    assert read(f"My_Clips={tmp_path}")[0].name == "my_clips"


def test_a_csv_file_gives_labels_sources_and_splits(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "deep/b.mts")
    touch(tmp_path.parent, "elsewhere/c.mp4")
    elsewhere = tmp_path.parent / "elsewhere" / "c.mp4"
    own = table(tmp_path, "a.mp4,Fight,cam1,train", "deep/b.mts,normal,,VAL", "", f"{elsewhere},no_fight,cam2,",
                header="Path, LABEL,source,split")  # fmt: skip
    (found,) = read(own, labels=("nonfight=normal",))
    assert [(c.rel, c.label, c.sources, c.split, c.stretch) for c in found.clips] == [
        ("a.mp4", "fight", ("cam1",), "train", None),
        ("deep/b.mts", "nonfight", ("deep/b.mts",), "val", None),
        (str(elsewhere), "nonfight", ("cam2",), "", None),
    ]
    assert found.failures == ()
    assert found.warnings[0].startswith("mine: 1 of 3 clips do not name their source")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_a_byte_order_mark(tmp_path: Path, delimiter: str) -> None:
    touch(tmp_path, "a, b.mp4")
    path = tmp_path / "clips.csv"
    path.write_text(f"path{delimiter}label\r\na, b.mp4{delimiter}fight\r\n", encoding="utf-8-sig")
    assert labels_of(read(f"mine={path}")[0]) == {"a, b.mp4": "fight"}


WRONG = {
    "gone.mp4,fight,,,,": "no file .*gone.mp4",
    ",fight,,,,": "no path",
    "a.mp4,violent,,,,": "label 'violent' is neither .*--labels fight=violent or nonfight=violent",
    "a.mp4,,,,,": "no label. Write",
    "a.mp4,fight,cam1,test,,": "split 'test' is neither train nor val",
    "a.mp4,fight,,,9,9": "end_s 9 is not after start_s 9",
    "a.mp4,fight,,,9.5,3": "end_s 3 is not after start_s 9.5",
    "a.mp4,fight,,,one,3": "start_s 'one' is not a number",
    'a.mp4,fight,,,1,"3,5"': "end_s '3,5' is not a number",
    "a.mp4,fight,,,1,": "end_s '' is not a number",
    "a.mp4,fight,,,,3": "start_s '' is not a number",
    "a.mp4,fight,,,-1,3": "start_s '-1' is not a number",
    "a.mp4,fight,,,1,inf": "end_s 'inf' is not a number",
    "a.mp4,fight,,,nan,3": "start_s 'nan' is not a number",
    f"{'n' * 300}.mp4,fight,,,,": "nnn.mp4 cannot be read: File name too long",
    "a.mp4/b.mp4,fight,,,,": "b.mp4 cannot be read: Not a directory",
    "a\0.mp4,fight,,,,": "control characters",
}


def test_paths_as_other_systems_write_them_are_found(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    touch(tmp_path, f"{one}.mp4", f"sub/{two} 2.mp4", "sub/deep/a.mp4", "sub/as\\is.mp4")
    rows = [f"{two}.mp4,fight", f"sub\\{one} 2.mp4,fight", "sub\\deep\\a.mp4,fight", "sub/as\\is.mp4,fight"]
    (found,) = read(table(tmp_path, *rows, "sub\\none.mp4,fight"))
    assert [c.rel for c in found.clips] == [
        f"{one}.mp4", f"sub/{two} 2.mp4", "sub/deep/a.mp4", "sub/as\\is.mp4",
    ]  # fmt: skip
    assert reasons(found)[6].startswith(f"no file {tmp_path}/sub\\none.mp4.")


def test_the_words_that_a_wrong_label_is_answered_with_can_be_pasted(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    (found,) = read(table(tmp_path, '"no fight, loud"; a.mp4', "; b.mp4", header="label;path"))
    offered = shlex.split(reasons(found)[2].partition("--labels ")[2])
    assert own_labels.parse([offered[0]]).of("No fight, loud") == "fight"
    assert own_labels.parse([offered[2]]).of("no fight, loud") == "nonfight"
    assert reasons(found)[3] == "no label. Write fight or nonfight"


def test_wrong_rows_are_named_by_line_and_take_no_other_with_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "good.mp4", "last.mp4")
    own = table(tmp_path, "good.mp4,fight,,,,", *WRONG, "last.mp4,nonfight,,,0,3",
                header="path,label,source,split,start_s,end_s")  # fmt: skip
    (found,) = read(own)
    assert [c.rel for c in found.clips] == ["good.mp4", "last.mp4"]
    assert set(reasons(found)) == set(range(3, len(WRONG) + 3))
    for (row, said), line in zip(WRONG.items(), range(3, len(WRONG) + 3), strict=True):
        assert re.search(said, reasons(found)[line]), (row, reasons(found)[line])
    assert found.unknown == {"violent": 1}


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    own = table(tmp_path, "", 'a.mp4,fight,"two\nlines"', "gone.mp4,fight,", header="path,label,source")
    assert list(reasons(read(own)[0])) == [5]


def test_a_quotation_mark_that_is_not_closed_is_named_by_its_line(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    own = table(tmp_path, "a.mp4,fight", '"b.mp4,nonfight', "c.mp4,nonfight")
    (found,) = read(own)
    assert [c.rel for c in found.clips] == ["a.mp4"]
    assert list(reasons(found)) == [3]
    assert "the path goes over several lines" in reasons(found)[3]
    own = table(tmp_path, "a.mp4,fight", '"b.mp4,nonfight', *["c.mp4,nonfight"] * 10_000)
    with pytest.raises(UserError, match=r"clips.csv:3 cannot be read .*quotation mark"):
        read(own)


def test_a_name_that_no_file_can_have_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*nnn"):
        read(f"mine={tmp_path / ('n' * 300)}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,class\na.mp4,fight\n", "missing columns: path and label.*Found: file, class"),
        ("path\na.mp4\n", "missing columns: label.*Found: path"),
        ("", "Found: nothing"),
        ("path,label,label\n", "label more than once"),
    ],
)
def test_a_table_without_the_columns_says_which_it_has(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "clips.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read(f"mine={tmp_path / 'clips.csv'}")


@pytest.mark.parametrize(
    "named", ["start,end", "begin,end", "start_ms,end_ms", "start_time,end_time", "From (s),to"]
)
def test_stretches_in_columns_of_other_names_are_no_whole_files(tmp_path: Path, named: str) -> None:
    """Read as whole files, two rows of one video would be the same footage, and one of them would be dropped."""
    touch(tmp_path, "a.mp4")
    with pytest.raises(UserError, match=r"clips\.csv has the columns .*start_s and end_s, in seconds"):
        read(table(tmp_path, "a.mp4,fight,0,5", "a.mp4,fight,9,14", header=f"path,label,{named}"))
    header = f"path,label,{named},start_s,end_s"
    assert len(read(table(tmp_path, "a.mp4,fight,0,9,0,5", header=header))[0].clips) == 1
    one = named.partition(",")[0]
    assert len(read(table(tmp_path, "a.mp4,fight,8", header=f"path,label,{one}"))[0].clips) == 1


def test_a_time_in_minutes_is_answered_in_seconds(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    rows = ["a.mp4,fight,0:01:05,70", "a.mp4,fight,1:05.5,70", "a.mp4,fight,a:b,70"]
    (found,) = read(table(tmp_path, *rows, "a.mp4,fight,1,2", header="path,label,start_s,end_s"))
    assert "Write it as 65;" in reasons(found)[2]
    assert "Write it as 65.5;" in reasons(found)[3]
    assert "Write it as 12.5;" in reasons(found)[4]


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        read(f"mine={tmp_path / 'clips.xlsx'}")


def test_a_column_that_means_nothing_here_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (found,) = read(table(tmp_path, "a.mp4,fight,cam,1,2", header="path,label,source,note,seen by"))
    assert any("columns that are not used: note, seen by." in w for w in found.warnings)


def test_rows_of_one_video_share_its_source(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    rows = ["a.mp4,fight,,0,5", "a.mp4,nonfight,,9,14", "b.mp4,fight,cam1,0,5", "b.mp4,fight,cam2,5,9"]
    rows.append("b.mp4,nonfight,,20,25")
    (found,) = read(table(tmp_path, *rows, header="path,label,source,start_s,end_s"))
    assert [c.sources for c in found.clips] == [("a.mp4",)] * 2 + [("cam1", "cam2")] * 3


def test_clips_of_one_video_share_a_source_however_it_is_spelled_and_in_whatever_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "f/fight/a.mp4", "f/fight/b.mp4", "here/c.txt")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "f/fight/a.mp4")
    monkeypatch.chdir(tmp_path)  # so that the same file has a relative and an absolute name
    spelled = ["f/fight/a.mp4", "here/../f/fight/a.mp4", f"{tmp_path}/f/fight/a.mp4", "link.mp4"]
    rows = [f"{name},fight,{10 * i},{10 * i + 5}" for i, name in enumerate(spelled)]
    (tmp_path / "more.csv").write_text("path,label,source,start_s,end_s\nlink.mp4,fight,cam1,60,65\n")
    table(tmp_path, *rows, header="path,label,start_s,end_s")
    sets = read("mine=clips.csv", "more=more.csv", "folder=f")
    assert [len(s.clips) for s in sets] == [4, 1, 2]
    *of_a, of_b = source_groups.group_names(own_clips.source_keys(sets))
    assert len(set(of_a)) == 1
    assert of_b == "folder:fight/b.mp4"


def test_footage_that_is_called_both_classes_is_left_out_and_both_lines_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    rows = [
        "a.mp4,fight,0,5",
        "a.mp4,nonfight,4,9",
        "a.mp4,nonfight,9,14",
        "b.mp4,fight,,",
        "b.mp4,nonfight,3,4",
    ]
    rows += ["c.mp4,fight,0,5", "c.mp4,fight,0,5", "c.mp4,fight,3,8"]
    (found,) = read(table(tmp_path, *rows, header="path,label,start_s,end_s"))
    assert set(reasons(found)) == {2, 3, 5, 6, 8}
    assert "clips.csv:3 calls the same footage nonfight" in reasons(found)[2]
    assert "clips.csv:7" in reasons(found)[8]
    assert [c.where.rpartition(":")[2] for c in found.clips] == ["4", "7", "9"]


def test_of_rows_of_one_file_the_one_whose_side_is_settled_stays(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    rows = ["a.mp4,fight,", "a.mp4,fight,train", "a.mp4,fight,val", "b.mp4,fight,", "b.mp4,fight,train"]
    rows += ["c.mp4,fight,train", "c.mp4,fight,train"]
    (found,) = read(table(tmp_path, *rows, header="path,label,split"))
    assert [(c.rel, c.split) for c in found.clips] == [
        ("a.mp4", "val"),
        ("b.mp4", "train"),
        ("c.mp4", "train"),
    ]
    assert set(reasons(found)) == {2, 3, 5, 8}
    assert "as " + found.clips[0].where in reasons(found)[2]


def test_a_file_in_two_sets_is_taken_once_or_not_at_all(tmp_path: Path) -> None:
    touch(tmp_path, "f/fight/a.mp4", "f/fight/b.mp4")
    own = table(tmp_path, "f/fight/a.mp4,fight", "f/fight/b.mp4,nonfight")
    folder, listed = read(f"other={tmp_path / 'f'}", own)
    assert labels_of(folder) == {"fight/a.mp4": "fight"}
    assert labels_of(listed) == {}
    assert [Path(f["path"]).name for f in folder.failures] == ["b.mp4"]
    assert set(reasons(listed)) == {2, 3}


def test_what_a_set_further_down_or_a_table_has_is_not_unlabelled_in_the_one_above(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "fight/a.mp4",
        "night/fight/b.mp4",
        "night/nonfight/c.mp4",
        "night/other/d.mp4",
        "e.mp4",
        "more/f.mp4",
    )
    (tmp_path / "t.csv").write_text("path,label\ne.mp4,fight\n")
    above, below, listed = read(f"a={tmp_path}", f"b={tmp_path}/night", f"c={tmp_path}/t.csv")
    assert [p.relative_to(tmp_path).as_posix() for p in above.unlabelled] == ["more/f.mp4"]
    assert (above.unknown, above.nested) == ({"more": 1}, ())
    assert below.unknown == {"other": 1}
    assert [len(s.clips) for s in (above, below, listed)] == [1, 2, 1]
    (alone,) = read(f"a={tmp_path}")
    assert (alone.unknown, alone.nested) == ({"more": 1, "night": 3}, ("night",))


def test_reading_needs_nothing_heavy() -> None:
    code = "import sys; from violence_detection.datasets import own_clips, config; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"cv2", "pandas", "numpy"} & set(loaded)


def test_a_table_as_a_european_spreadsheet_saves_it_is_read_or_refused_by_row(tmp_path: Path) -> None:
    """Such a table has semicolons, a byte order mark and CRLF line ends. A time with a decimal comma is refused."""
    touch(tmp_path, "a.mp4", "b.mp4")
    lines = ["path;label;start_s;end_s;;", "a.mp4;fight;0,5;3,25;;", "b.mp4;nonfight;1;3;;", ";;;;;"]
    (tmp_path / "clips.csv").write_bytes(("\r\n".join(lines) + "\r\n").encode("utf-8-sig"))
    (found,) = read(f"mine={tmp_path / 'clips.csv'}")
    assert labels_of(found) == {"b.mp4": "nonfight"}
    assert list(reasons(found)) == [2]
    assert "'0,5' is not a number of seconds. Write it as 12.5" in reasons(found)[2]


def test_a_row_with_more_cells_than_columns_is_refused_not_read_askew(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    rows = ["a.mp4,fight,0,5,3,25,yard", "b.mp4,nonfight,1,3,door,", "a.mp4,fight,7,9,on 1, 2"]
    (found,) = read(table(tmp_path, *rows, header="path,label,start_s,end_s,source"))
    assert labels_of(found) == {"b.mp4": "nonfight"}
    assert list(reasons(found)) == [2, 4]
    assert "7 cells for 5 columns. Write numbers with a decimal point, such as 12.5" in reasons(found)[2]
    assert found.unknown == {}
    assert found.holds(tmp_path / "a.mp4"), "no other set takes it"
