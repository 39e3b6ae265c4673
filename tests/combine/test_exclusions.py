"""Clips on an exclusion list leave the manifest; all others keep their side, and nothing is decoded again."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_videos import write

from violence_detection.combine import combine, exclusions, manifest, outcome, scan
from violence_detection.combine.config import CombineConfig
from violence_detection.errors import UserError
from violence_detection.system import storage

HOCKEY = "raw/hockey/data"


@pytest.fixture(scope="module")
def combined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that was combined without a list; tests copy it."""
    root = tmp_path_factory.mktemp("root")
    for block in range(6):
        write(root / HOCKEY / f"fi{block * 25 + 1}_xvid.avi", 200 + block)
        write(root / HOCKEY / f"no{block * 25 + 1}_xvid.avi", 300 + block)
    shutil.copy2(root / HOCKEY / "no1_xvid.avi", root / HOCKEY / "no3_xvid.avi")
    combine.run(CombineConfig(data_root=root, workers=1))
    return root


@pytest.fixture
def root(combined: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(combined, tmp_path / "root"))


def frame(root: Path) -> pd.DataFrame:
    return manifest.read(root / "combined_all").set_index("source_path")


def run(root: Path, text: str, name: str = "list.csv") -> combine.CombineResult:
    (root / name).write_text(text, encoding="utf-8")
    return combine.run(CombineConfig(data_root=root, workers=1, exclude=root / name))


def test_marked_lines_go_and_all_others_stay_where_they_are(root: Path) -> None:
    before = frame(root)
    gone, looked_at = before.index[0], before.index[1]
    lines = [f"{before.clip_id[gone]},x,wrong", f"{before.clip_id[looked_at]},,right"]
    result = run(root, "\n".join(["clip_id,confirmed,note", *lines]) + "\n")
    after = frame(root)
    assert set(before.index) - set(after.index) == {gone}
    pd.testing.assert_frame_equal(after, before.drop(index=gone))
    assert not (root / "combined_all" / before.path[gone]).exists()
    assert result.summary["excluded_by_list"] == 1
    assert result.summary["files"]["excluded_by_list"] == 1
    assert result.summary["files"]["found"] == sum(result.summary["files"][k] for k in outcome.FILE_KINDS)
    record = json.loads((root / "combined_all" / combine.RECORD_NAME).read_text())
    assert record["exclude"]["clips"] == [before.clip_id[gone]]
    (named,) = pd.read_csv(root / "combined_all" / exclusions.FILE_NAME).to_dict("records")
    assert (named["source_path"], named["listed_as"]) == (gone, before.clip_id[gone])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_line_that_ends_before_the_column_of_marks_is_not_marked(root: Path, delimiter: str) -> None:
    """From the seventeenth row on, Excel omits separators at the end of a line."""
    before = frame(root)
    gone, cut_off, empty = before.clip_id[:3]
    lines = [f"clip_id{delimiter}confirmed", f"{gone}{delimiter}x", cut_off, f"{empty}{delimiter}"]
    assert run(root, "\n".join(lines) + "\n").summary["excluded_by_list"] == 1
    assert set(before.clip_id) - set(frame(root).clip_id) == {gone}


def test_a_mark_does_not_outlive_the_mending_of_the_label(root: Path, tmp_path: Path) -> None:
    """A clip's id comes from its content, so a list still names a clip that was moved to the other class's folder."""
    mine = tmp_path / "mine"
    wrong = write(mine / "fight" / "1.avi", 500)
    write(mine / "nonfight" / "2.avi", 501)
    own = (f"mine={mine}",)
    combine.run(CombineConfig(data_root=root, workers=1, own=own))
    clip_id = frame(root).clip_id[str(wrong)]
    listed = root / "list.csv"
    listed.write_text(f"clip_id,label,confirmed\n{clip_id},fight,x\n")
    config = CombineConfig(data_root=root, workers=1, own=own, exclude=listed)
    assert combine.run(config).summary["excluded_by_list"] == 1

    wrong.rename(mine / "nonfight" / "1.avi")
    with pytest.raises(
        UserError,
        match=rf"list\.csv: .* in line 2: {clip_id} \(fight, now nonfight\)\. .* remove its mark .* label",
    ):
        combine.run(config)
    listed.write_text(f"clip_id,label,confirmed\n{clip_id},nonfight,x\n")
    assert combine.run(config).summary["excluded_by_list"] == 1


def test_a_list_that_leaves_one_class_only_is_refused_as_such(root: Path) -> None:
    before = frame(root)
    fights = before.clip_id[before.label == "fight"]
    with pytest.raises(
        UserError, match=r"--exclude .*list.txt leaves no fight clip: .* Remove lines from the list"
    ):
        run(root, "\n".join(fights) + "\n", "list.txt")
    pd.testing.assert_frame_equal(frame(root), before)


def test_a_table_names_clips_and_copies_that_have_a_carriage_return_in_their_name(tmp_path: Path) -> None:
    """Reading a list turns every line end into \\n, so such a name in it no longer equals the file's."""
    source_paths = [f"/mine/{name}\rb.avi" for name in ("clip", "kept", "other")]
    rows: list[dict[str, Any]] = [{"clip_id": p, "source_path": p, "path": p} for p in source_paths]
    copy, unreadable = "/mine/copy\r\nb.avi", "/mine/unreadable\rb.avi"
    named = (source_paths[0], copy, unreadable)
    storage.write_csv(tmp_path / "list.csv", ("source_path",), [{"source_path": p} for p in named])
    listed = exclusions.read(tmp_path / "list.csv")
    stays, excluded = listed.take_out(rows, {*source_paths, copy, unreadable}, {copy: source_paths[1]})
    assert [row["source_path"] for row in stays] == source_paths[2:]
    assert [row["source_path"] for row in excluded] == source_paths[:2]


def test_nothing_is_decoded_again(root: Path) -> None:
    journal = root / "combined_all" / scan.JOURNAL_NAME
    before = journal.read_bytes()
    run(root, frame(root).index[0] + "\n", "list.txt")
    assert journal.read_bytes() == before


def test_a_text_file_names_clips_by_any_name_and_an_excluded_clips_copy_does_not_take_its_place(
    root: Path,
) -> None:
    before = frame(root)
    copied = next(p for p in before.index if p.endswith(("no1_xvid.avi", "no3_xvid.avi")))
    other = next(p for p in before.index if p != copied)
    run(root, f"# looked at on Monday\n\n{copied}\n{before.path[other]}\n", "list.txt")
    assert set(before.index) - set(frame(root).index) == {copied, other}
    assert not any(p.endswith(("no1_xvid.avi", "no3_xvid.avi")) for p in frame(root).index)


def test_a_listed_copy_takes_out_the_clip_that_was_kept_in_its_stead(root: Path) -> None:
    before = frame(root)
    copy = next(
        f"{HOCKEY}/{n}_xvid.avi" for n in ("no1", "no3") if f"{HOCKEY}/{n}_xvid.avi" not in before.index
    )
    kept = next(p for p in before.index if p.endswith(("no1_xvid.avi", "no3_xvid.avi")))
    assert run(root, f"source_path\n{copy}\n").summary["excluded_by_list"] == 1
    assert set(before.index) - set(frame(root).index) == {kept}
    (named,) = pd.read_csv(root / "combined_all" / exclusions.FILE_NAME).to_dict("records")
    assert (named["source_path"], named["listed_as"]) == (kept, copy)


@pytest.mark.parametrize("by", ["source_path", "clip_id"])
def test_a_listed_copy_of_a_copy_takes_out_the_clip_that_was_kept(root: Path, by: str) -> None:
    """The listed file is an exact copy of a clip that was itself dropped as an altered copy."""
    small, again = root / HOCKEY / "fi3_xvid.avi", root / HOCKEY / "fi4_xvid.avi"
    write(small, 200, width=80, height=54)  # an altered copy of fi1: the same pictures, smaller
    shutil.copy2(small, again)
    combine.run(CombineConfig(data_root=root, workers=1))
    before = frame(root)
    gone = {
        d["source_path"]: d for d in pd.read_csv(root / "combined_all" / "duplicates.csv").to_dict("records")
    }
    kinds = {gone[f"{HOCKEY}/{n}_xvid.avi"]["kind"] for n in ("fi3", "fi4")}
    assert kinds == {"near", "exact"}
    assert f"{HOCKEY}/fi1_xvid.avi" in before.index
    copy = next(
        n for n in gone if gone[n]["kind"] == "exact" and n.endswith(("fi3_xvid.avi", "fi4_xvid.avi"))
    )
    name = copy if by == "source_path" else storage.sha256_file(root / copy)[:16]
    run(root, f"{name}\n", "list.txt")
    assert set(before.index) - set(frame(root).index) == {f"{HOCKEY}/fi1_xvid.avi"}


def test_without_the_list_the_clips_come_back_and_that_is_said(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = frame(root)
    run(root, f"{before.index[0]}\n", "list.txt")
    combine.run(CombineConfig(data_root=root, workers=1))
    pd.testing.assert_frame_equal(frame(root), before)
    (said,) = [record.getMessage() for record in caplog.records if "included again" in record.getMessage()]
    assert said == (
        "1 clips that an earlier run left out with --exclude are included again, because this run has no --exclude: "
        + before.index[0]
    )
    assert not (root / "combined_all" / exclusions.FILE_NAME).exists()


def test_the_table_of_what_a_list_took_out_is_written_again_where_it_is_gone(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(root, frame(root).clip_id.iloc[0] + "\n", "list.txt")
    table = root / "combined_all" / exclusions.FILE_NAME
    said = table.read_bytes()
    table.unlink()
    again = combine.run(CombineConfig(data_root=root, workers=1, exclude=root / "list.txt"))
    assert (again, table.read_bytes()) == (first, said)
    caplog.set_level(logging.INFO)
    combine.run(CombineConfig(data_root=root, workers=1, exclude=root / "list.txt"))
    assert "nothing has changed since" in caplog.text, "what has nothing to name is not missing"


def test_the_same_list_again_has_nothing_to_do_and_another_has(root: Path) -> None:
    first, second = frame(root).index[:2]
    once = run(root, f"{first}\n", "list.txt")
    assert run(root, f"{first}\n", "list.txt") == once
    run(root, f"{first}\n{second}\n", "list.txt")
    assert not {first, second} & set(frame(root).index)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nobody\nnobody else\n", "line 1: nobody, line 2: nobody else.* if --own names them"),
        ("clip_id,confirmed\nabc,\n", "marked in the column confirmed"),
        ("clip_id,confirmed\nabc,maybe\n", "confirmed is 'maybe'"),
        ("clip_id;confirmed\n;x\n", "column clip_id is empty"),
        ("# nothing\n", "names no clip"),
    ],
)
def test_a_list_that_cannot_be_meant_changes_nothing(root: Path, text: str, said: str) -> None:
    before = (root / "combined_all" / manifest.FILE_NAME).read_bytes()
    with pytest.raises(UserError, match=said):
        run(root, text)
    assert (root / "combined_all" / manifest.FILE_NAME).read_bytes() == before


def test_a_list_that_is_not_there_is_an_error_before_any_work(root: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        combine.run(CombineConfig(data_root=root, exclude=root / "gone.csv"))


def test_a_line_with_more_cells_than_columns_is_refused_not_read_askew(tmp_path: Path) -> None:
    """A decimal comma shifts the cells after it, so the digits behind the comma would be read as the mark."""
    path = tmp_path / "list.csv"
    path.write_text("clip_id,p_violent,confirmed,note\n" + "0" * 16 + ",0,1,,looked at\n")
    with pytest.raises(
        UserError, match=r"list\.csv:2: 5 cells for 4 columns. Write numbers with a decimal point"
    ):
        exclusions.read(path)
    lines = ["clip_id;p_violent;confirmed;note;", "0" * 16 + ";0,1;x;looked at;", "1" * 16 + ";0,9;;"]
    path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert exclusions.read(path).names == {"0" * 16: 2}


def test_the_suites_own_table_is_taken_though_a_name_in_it_is_no_utf_8(tmp_path: Path) -> None:
    suspects = tmp_path / "label_suspects.csv"
    rows = [
        {"clip_id": "12", "path": "train/caf\udce9.avi", "confirmed": "x"},
        {"clip_id": "13", "path": "b"},
    ]
    storage.write_csv(suspects, ("clip_id", "path", "confirmed"), rows)
    assert exclusions.read(suspects).names == {"12": 2}
    (tmp_path / "list.txt").write_bytes(b"raw/mine/caf\xe9.avi\n")
    assert exclusions.read(tmp_path / "list.txt").names == {"raw/mine/caf\udce9.avi": 1}
