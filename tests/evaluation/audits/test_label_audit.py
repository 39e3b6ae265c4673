"""The label audit: from out-of-fold predictions to the page and table that a person marks, and back into combining."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import made_up_footage
import numpy as np
import page_in_browser
import pandas as pd
import pytest
import small_videos

from violence_detection.combine import exclusions, manifest
from violence_detection.errors import UserError
from violence_detection.evaluation import held_out_table
from violence_detection.evaluation.audits import label_audit, labels
from violence_detection.evaluation.measure import Evaluation
from violence_detection.evaluation.report import film_strip, from_evaluation
from violence_detection.features.cache import FeatureStore
from violence_detection.models import model_files
from violence_detection.system import storage
from violence_detection.training import run_folder

INPUT = "efficientnet_lite0.rgb"


@pytest.fixture
def combined(tmp_path: Path) -> Path:
    """A combined folder with a manifest, some real clips, features, and out-of-fold predictions beside it."""
    rows, values = made_up_footage.world(0, sources=40, most=6)
    rows = rows.assign(
        official_split="",
        sha256=rows.clip_id,
        duration_s=2.0,
        fps=12.0,
        width=96,
        height=64,
        n_frames=24,
        codec="x",
    )
    folder = tmp_path / "combined_all"
    storage.write_csv(folder / manifest.FILE_NAME, manifest.COLUMNS, rows.to_dict("records"))
    storage.write_csv(folder / manifest.BY_TIME_NAME, ("clip_id", "path"), [])
    is_fight = (rows.label == "fight").to_numpy()
    p = np.where(is_fight, 0.9, 0.1) + np.random.default_rng(0).uniform(-0.08, 0.08, len(rows))
    p[:5] = 1 - p[:5]  # the labels that the model doubts most
    oof = rows[["clip_id", "path", "label", "source_group"]].assign(p_violent=p, fold=0)
    (tmp_path / "models").mkdir()
    oof.to_csv(tmp_path / "models" / label_audit.OUT_OF_FOLD_NAME, index=False)
    store = FeatureStore(tmp_path / "features")
    (tmp_path / "features").mkdir()
    for clip, value in zip(rows.clip_id, values, strict=True):
        store.add(clip, {"v0": value[None]}, "made up")
    return folder


def audited(combined: Path) -> labels.LabelAudit:
    root = combined.parent
    rows = label_audit.out_of_fold(root / "models", combined)
    return label_audit.run(rows, {INPUT: FeatureStore(root / "features")})


def written(combined: Path) -> Path:
    folder = combined.parent / "report"
    made = audited(combined)
    for i, path in enumerate(made.suspects.path[:3]):
        small_videos.write(combined / path, i)
    frames = film_strip.frames_below(combined)
    return label_audit.write(made, folder, frames, True, combined.parent)


@pytest.mark.parametrize("hashed", [True, False], ids=["with its hash", "as earlier versions wrote it"])
def test_a_table_that_was_cut_off_doubts_no_label(combined: Path, hashed: bool) -> None:
    models = combined.parent / "models"
    table = models / label_audit.OUT_OF_FOLD_NAME
    record = {"folds": [{}, {}, {}], "cv_n": len(pd.read_csv(table))}
    if hashed:
        record[held_out_table.SHA256_KEY] = storage.sha256_file(table)
    storage.write_json(models / run_folder.FOLDS_RECORD_NAME, record)
    whole = label_audit.out_of_fold(models, combined)
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:-5]))
    with pytest.raises(UserError, match=r"oof_predictions\.csv.*that trained the model .*--cross-validate 3"):
        label_audit.out_of_fold(models, combined)
    table.write_bytes(b"".join(lines))
    assert len(label_audit.out_of_fold(models, combined)) == len(whole)


@pytest.mark.parametrize("below", ["hard", "final", "folds"])
def test_what_stands_below_an_ensemble_has_its_folds_predictions(combined: Path, below: str) -> None:
    models = combined.parent / "models"
    (models / below).mkdir()
    assert label_audit.out_of_fold(models / below, combined).equals(label_audit.out_of_fold(models, combined))


@pytest.mark.parametrize("beside", [model_files.SUMS_NAME, run_folder.CONFIG_NAME])
def test_no_folds_are_to_be_made_where_another_model_stands(combined: Path, beside: str) -> None:
    other = combined.parent / "other"
    storage.write_text(other / beside, "")
    with pytest.raises(
        UserError, match=r"no oof_predictions\.csv.*trained here.*--cross-validate 5, and"
    ) as said:
        label_audit.out_of_fold(other, combined)
    assert "--output" not in str(said.value)


def test_only_clips_of_train_are_doubted(combined: Path) -> None:
    made = audited(combined)
    rows = manifest.read(combined).set_index("clip_id")
    assert (rows.split[made.suspects.clip_id] == "train").all()
    assert made.record["clips"] == (rows.split == "train").sum()
    wrong = set(rows.index[:5]) & set(rows.index[rows.split == "train"])
    assert set(made.suspects.clip_id.head(len(wrong))) == wrong
    assert made.record["groups_compared"] > 1


def test_the_page_shows_frames_and_needs_nothing_from_elsewhere(combined: Path) -> None:
    page = written(combined)
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") >= 3 * 4
    assert "no frames to show" in text  # for clips whose files are missing
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<script" not in text
    assert f"--exclude {page}".replace(".html", ".csv") in text
    assert "sample" in text.lower()


@pytest.mark.parametrize(("between", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16")])
def test_marks_of_a_person_stay_and_are_what_combining_leaves_out(
    combined: Path, between: str, encoding: str
) -> None:
    table = written(combined).with_name(label_audit.TABLE_NAME)
    before = pd.read_csv(table, dtype=str, keep_default_na=False)
    assert list(before.columns) == list(labels.SUSPECT_COLUMNS)
    assert (before.confirmed == "").all()
    with pytest.raises(UserError, match="marked in the column confirmed"):
        exclusions.read(table)
    before.loc[[0, 2], "confirmed"] = "x"
    before.to_csv(table, index=False, sep=between, encoding=encoding)  # as a spreadsheet would save it
    written(combined)
    after = pd.read_csv(table, dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(after, before)
    assert set(exclusions.read(table).names) == set(before.clip_id[[0, 2]])


def test_marks_of_clips_that_were_left_out_stay_on_the_list(combined: Path) -> None:
    table = written(combined).with_name(label_audit.TABLE_NAME)
    before = pd.read_csv(table, dtype=str, keep_default_na=False)
    before.loc[[0, 2], "confirmed"] = ["x", "yes"]
    before.to_csv(table, index=False)
    left_out = set(before.clip_id[[0, 2]])
    stays = [r for r in storage.read_csv(combined / manifest.FILE_NAME) if r["clip_id"] not in left_out]
    storage.write_csv(combined / manifest.FILE_NAME, manifest.COLUMNS, stays)
    for _ in range(2):  # the second time from its own result
        page = written(combined)
        after = pd.read_csv(table, dtype=str, keep_default_na=False)
        pd.testing.assert_frame_equal(
            after.tail(2).reset_index(drop=True), before.loc[[0, 2]].reset_index(drop=True)
        )
        assert (after.confirmed[:-2] == "").all()
        assert set(exclusions.read(table).names) == left_out
    assert f"<p>{len(after) - 2} of " in page.read_text(encoding="utf-8")


def test_marks_of_clips_whose_label_was_mended_are_gone(
    combined: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = written(combined).with_name(label_audit.TABLE_NAME)
    before = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows = manifest.read(combined)
    believed = rows[(rows.split == "train") & ~rows.clip_id.isin(before.clip_id)].iloc[0]
    other = {"fight": "nonfight", "nonfight": "fight"}
    before.loc[[0, 1], "confirmed"] = "x"
    before.loc[0, "label"] = other[str(before.label[0])]
    unlisted = {"clip_id": believed.clip_id, "label": other[believed.label], "confirmed": "x"}
    pd.concat([before, pd.DataFrame([unlisted])]).to_csv(table, index=False)
    written(combined)
    after = pd.read_csv(table, dtype=str, keep_default_na=False)
    assert after.clip_id.tolist() == before.clip_id.tolist()
    assert after.confirmed.tolist() == ["", "x", *[""] * (len(after) - 2)]
    assert f"marks dropped because the label has changed since: 2 clips in {table}" in caplog.text


def test_a_table_whose_marks_cannot_be_told_is_not_written_over(combined: Path) -> None:
    table = written(combined).with_name(label_audit.TABLE_NAME)
    header, rows = table.read_text(encoding="utf-8").split("\n", 1)
    marked = rows.replace(",,", ",x,", 1)
    table.write_text(header.replace("confirmed", "bestätigt") + "\n" + marked, encoding="utf-8")
    before = table.read_bytes()
    with pytest.raises(UserError, match=r"label_suspects\.csv lacks the column clip_id or confirmed"):
        written(combined)
    assert table.read_bytes() == before


def test_the_command_that_leaves_clips_out_can_be_pasted(combined: Path) -> None:
    folder, root = combined.parent / "report of today", combined.parent / "my data"
    page = label_audit.write(audited(combined), folder, film_strip.frames_below(combined), True, root)
    (command,) = (text for text in re.findall("<code>(.*?)</code>", page.read_text()) if "--exclude" in text)
    assert shlex.split(html.unescape(command)) == [
        "python", "combine_all_datasets.py", "--data-root", str(root), "--exclude", str(folder / "label_suspects.csv"),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not page_in_browser.CHROMIUM, reason="no chromium installed")
def test_the_command_is_copied_from_the_page_as_it_is_meant(combined: Path) -> None:
    pytest.importorskip("playwright.sync_api")
    folder = combined.parent / "report  of today"
    shown = label_audit.write(
        audited(combined), folder, film_strip.frames_below(combined), True, combined.parent
    )
    with page_in_browser.browser() as chromium:
        page = chromium.new_page()
        page.goto(shown.as_uri())
        page.evaluate("""getSelection().selectAllChildren(
            [...document.querySelectorAll("code")].find(code => code.textContent.includes("--exclude")))""")
        copied = page.evaluate("getSelection().toString()")
    assert shlex.split(copied)[-1] == str(folder / "label_suspects.csv")


def test_without_predictions_or_with_those_of_other_clips_it_says_what_to_do(combined: Path) -> None:
    path = combined.parent / "models" / label_audit.OUT_OF_FOLD_NAME
    frame = pd.read_csv(path, dtype={"clip_id": str})
    frame.assign(clip_id="f" + frame.clip_id).to_csv(path, index=False)
    with pytest.raises(UserError, match="made with other clips"):
        audited(combined)
    for odd in (
        pd.concat([frame, frame.tail(1)]),
        frame.assign(p_violent=[float("nan"), *frame.p_violent[1:]]),
        frame.assign(p_violent=[1.5, *frame.p_violent[1:]]),
        frame.assign(p_violent="high"),
    ):
        odd.to_csv(path, index=False)
        with pytest.raises(UserError, match="not a table of out-of-fold predictions"):
            audited(combined)
    path.write_text("nothing\n")
    with pytest.raises(UserError, match="not a table of out-of-fold predictions"):
        audited(combined)
    path.unlink()
    with pytest.raises(UserError, match="--cross-validate 5"):
        audited(combined)


def test_frames_of_doubted_clips_are_of_the_window_that_was_judged(
    combined: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model saw one window of a long clip: frames from elsewhere would not show why its label is doubted."""
    made, folder = audited(combined), combined.parent / "report"
    asked: list[tuple[object, ...]] = []

    def frames_below(*args: object) -> object:
        asked.append(args)
        return lambda _: []

    monkeypatch.setattr(film_strip, "frames_below", frames_below)
    scored = SimpleNamespace(
        nearest=None,
        suspects=made,
        clips=SimpleNamespace(data_root=combined.parent),
        model=SimpleNamespace(features=SimpleNamespace(window_s=5.0, frames=20)),
    )
    from_evaluation._write_audits(cast("Evaluation", scored), folder)
    assert asked == [(combined, 5.0, 20)]
