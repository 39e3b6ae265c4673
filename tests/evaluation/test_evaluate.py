"""An evaluation ends with its report and names what failed, even if no clip of a data set can be judged."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_videos
import stand_in
import synthetic
from huggingface_hub import ModelCard

from violence_detection.backbones import engines
from violence_detection.combine import manifest
from violence_detection.errors import UserError
from violence_detection.evaluation.audits import label_audit, leakage
from violence_detection.evaluation.report import from_evaluation
from violence_detection.models import model_card

CLASSES = ("fight", "nonfight")
JUNK = b"no video at all" * 200


@pytest.fixture(scope="module", autouse=True)
def backbone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        stand_in.install(patch.setattr)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with two data sets of 20 clips, combined, and a model in model/ trained on them."""
    root = tmp_path_factory.mktemp("root")
    for i, name in enumerate(("one", "two")):
        for seed in range(10):
            for offset, label in enumerate(CLASSES):
                small_videos.write(
                    root / "raw" / name / label / f"{seed}.avi", 1000 * i + 100 * offset + seed
                )
    synthetic.train_on_clips(root, root / "model", own=("one", "two"))
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of the model and the combined clips of `trained`, without features."""
    for name in ("model", "combined_all"):
        shutil.copytree(trained / name, tmp_path / name)
    return tmp_path


def evaluated(
    root: Path, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, dict[str, Any], str]:
    """Run test_ensemble.py with its report in report/; return the exit code, the JSON line and the log."""
    import test_ensemble

    common = ("--models", root / "model", "--data-root", root, "--output", root / "report", "--workers", 1)
    code = test_ensemble.main([str(a) for a in (*common, *arguments)])
    told = capsys.readouterr()
    return code, json.loads(told.out), told.err


def named_failures(root: Path) -> set[str]:
    with (root / "report" / "failures.csv").open(newline="", encoding="utf-8") as table:
        return {Path(row["path"]).name for row in csv.DictReader(table)}


def assert_reported(root: Path, said: dict[str, Any], lost: str, asked: int, logged: str) -> None:
    """Check that log, JSON line, page and card say that the data set `lost` was not judged and has no figure."""
    assert said["by_dataset"][lost] == {"accuracy": None, "ci95": None, "n": 0}
    assert f"{lost} not judged, 0 of {asked}" in " ".join(logged.split())
    assert f"left out: {asked}; {root / 'report' / 'failures.csv'} names each" in logged
    page = " ".join((root / "report" / "index.html").read_text().split())
    assert f"{lost}: not judged, 0 of {asked}" in page
    rests_on = re.search(r"\d+ clips judged,</span> from \d+ sources? of ([^<]*)</p>", page)
    assert rests_on, "the figure's tile"
    assert lost not in rests_on[1].split(", ")
    card = ModelCard.load(root / "report" / "model_card.md")
    assert f"| {lost} | not judged, 0 of {asked} | not defined | not defined | 0 | 0 |" in card.text
    results = card.data.eval_results
    assert results is not None
    judged = [name for name in said["by_dataset"] if name != lost]
    assert [r.dataset_type for r in results] == ["all", *judged]
    assert all(r.metric_args["n"] for r in results)


def test_own_clips_none_of_which_is_a_video_are_named_and_cost_the_others_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for offset, label in enumerate(CLASSES):
        small_videos.write(root / "good" / label / "a.avi", 5000 + offset)
        (root / "junk" / label).mkdir(parents=True)
        (root / "junk" / label / f"{label}.mp4").write_bytes(JUNK)
    code, said, logged = evaluated(root, capsys, "--own", f"good={root}/good", "--own", f"junk={root}/junk")
    assert code == 1
    assert said["n"] == said["by_dataset"]["good"]["n"] == 2
    assert named_failures(root) == {"fight.mp4", "nonfight.mp4"}
    assert_reported(root, said, "junk", 2, logged)


def test_val_files_of_a_data_set_that_are_no_videos_any_more_are_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val = manifest.read(root / "combined_all").query("split == 'val'")
    lost = val[val.dataset == "two"]
    for path in lost.path:
        (root / "combined_all" / path).unlink()
        (root / "combined_all" / path).write_bytes(JUNK)
    code, said, logged = evaluated(root, capsys)
    assert code == 1
    assert said["n"] == len(val) - len(lost) > 0
    assert named_failures(root) == {Path(path).name for path in lost.path}
    assert_reported(root, said, "two", len(lost), logged)
    figures = json.loads((root / "report" / "metrics.json").read_text())
    assert figures["by_training"]["in_set"]["datasets"] == ["one"], "the figure rests on no other"


def test_what_failed_is_named_although_the_card_cannot_be_made(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    val = manifest.read(root / "combined_all").query("split == 'val'")
    first = root / "combined_all" / val.path.iloc[0]
    first.unlink()
    first.write_bytes(JUNK)
    monkeypatch.setattr(model_card, "_TEMPLATE", root / "nowhere.md.j2")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluated(root, capsys)
    assert named_failures(root) == {first.name}


def test_a_report_with_nothing_in_common_is_refused_before_anything_is_judged(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = root / "earlier"
    earlier.mkdir()
    (earlier / "metrics.json").write_text('{"threshold": 0.5}')
    (earlier / "predictions.csv").write_text("clip_id,label,p_violent\nx,fight,0.9\n")
    with pytest.raises(
        UserError, match=r"--compare: .*earlier and this evaluation share no clip with the same label"
    ):
        evaluated(root, capsys, "--compare", earlier)
    assert not (root / "features").exists()


def test_marks_that_cannot_be_read_are_said_before_anything_is_judged(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = manifest.read(root / "combined_all").query("split == 'train'")
    rows.assign(p_violent=0.5).to_csv(root / "model" / label_audit.OUT_OF_FOLD_NAME, index=False)
    (root / "report").mkdir()
    table = root / "report" / label_audit.TABLE_NAME
    table.write_text("clip,marked\na,x\n")
    with pytest.raises(UserError, match=r"label_suspects\.csv lacks the column clip_id or confirmed"):
        evaluated(root, capsys, "--audit", "labels")
    assert not (root / "features").exists()


def test_killed_while_it_writes_a_report_has_no_figures_of_the_one_before(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audits write their files before the report, so an older metrics.json would be beside files of another run."""
    evaluated(root, capsys)
    assert (root / "report" / "metrics.json").exists()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(from_evaluation, "_write_audits", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluated(root, capsys)
    assert not (root / "report" / "metrics.json").exists()


def test_a_report_whose_set_from_elsewhere_has_a_copy_of_a_val_clip_can_be_compared_with(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val = manifest.read(root / "combined_all").query("split == 'val'")
    for path, label in zip(val.path, val.label, strict=True):
        (root / "market" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "combined_all" / path, root / "market" / label)
    _, first, _ = evaluated(root, capsys, "--elsewhere", f"market={root}/market")
    assert first["elsewhere"]["market"]["n"] == first["n"] == len(val)
    (root / "report").rename(root / "earlier")
    code, said, _ = evaluated(root, capsys, "--compare", root / "earlier")
    assert code == 0
    (row,) = said["compared"]
    assert (row["n"], row["accuracy"]["difference"]) == (len(val), 0)


def test_the_precision_asked_for_is_that_of_every_engine(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def noted(*arguments: Any, **settings: Any) -> engines.Engine:
        asked.append(settings.get("precision"))
        return create(*arguments, **settings)

    create = engines.create
    monkeypatch.setattr(engines, "create", noted)
    evaluated(root, capsys, "--precision", "float32", "--audit", "shortcuts")
    assert len(asked) > 1, "for features, and for backgrounds"
    assert set(asked) == {"float32"}


def test_clips_of_one_class_are_said_to_be_so_beside_their_accuracy(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        small_videos.write(root / "quiet" / "nonfight" / f"{seed}.avi", 5000 + seed)
    evaluated(root, capsys, "--elsewhere", f"quiet={root}/quiet")
    page = " ".join((root / "report" / "index.html").read_text().split())
    assert "Clips of one class give no accuracy: quiet." in page
    before = (root / "model" / "README.md").read_text()
    assert "accuracy" in before
    evaluated(root, capsys, "--data", root / "quiet")
    page = " ".join((root / "report" / "index.html").read_text().split())
    assert "2 clips from 2 sources of quiet, nonfight only</p>" in page
    assert (
        "all judged clips are labelled nonfight: they show false alarms only, and a model that calls" in page
    )
    card = ModelCard.load(root / "report" / "model_card.md")
    assert "All judged clips are of one class" in card.text
    assert not card.data.eval_results, "nobody reads the note beside a figure of the header"
    assert (root / "model" / "README.md").read_text() == before


@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "metrics.json",
        "predictions.csv",
        "failures.csv",
        "model_card.md",
        leakage.NEAREST_NAME,
        label_audit.PAGE_NAME,
    ],
)
def test_what_no_evaluation_wrote_is_not_replaced(
    root: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (root / "report").mkdir()
    (root / "report" / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name} was not written by an evaluation.*--output"):
        evaluated(root, capsys)
    assert (root / "report" / name).read_text() == "mine"
    assert not (root / "features").exists()


def test_the_failures_of_a_training_stay_where_a_report_is_to_go_beside_its_model(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = root / "model" / "failures.csv"
    failures.write_text("path,reason\na.avi,empty\n")
    with pytest.raises(
        UserError,
        match=r"failures\.csv was written by the command that made config\.json there.*model/report",
    ):
        evaluated(root, capsys, "--output", root / "model")
    assert failures.read_text() == "path,reason\na.avi,empty\n"


def test_a_report_is_made_again_into_its_folder_wherever_the_first_one_stopped(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val = manifest.read(root / "combined_all").query("split == 'val'")
    (root / "combined_all" / val.path.iloc[0]).unlink()
    assert evaluated(root, capsys)[0] == 1
    whole = {path.name for path in (root / "report").iterdir()}
    assert {"failures.csv", "model_card.md", "index.html"} <= whole
    assert evaluated(root, capsys)[0] == 1
    for name in ("metrics.json", "index.html", "predictions.csv"):
        (root / "report" / name).unlink()
        assert evaluated(root, capsys)[0] == 1
    assert {path.name for path in (root / "report").iterdir()} == whole


@pytest.mark.parametrize("mark", ["", "x"])
def test_an_audit_of_labels_does_not_stay_in_a_report_that_made_none_but_marks_do(
    root: Path, capsys: pytest.CaptureFixture[str], mark: str
) -> None:
    report = root / "report"
    report.mkdir()
    page, table = report / label_audit.PAGE_NAME, report / label_audit.TABLE_NAME
    page.write_text("Labels to look at")
    table.write_text(f"clip_id;confirmed\n0123456789abcdef;{mark}\n")
    _, _, logged = evaluated(root, capsys)
    assert (page.exists(), table.exists()) == (False, bool(mark))
    assert (f"{table} is from an earlier audit" in logged) == bool(mark)


def test_a_table_whose_marks_cannot_be_told_stays(tmp_path: Path) -> None:
    table = tmp_path / label_audit.TABLE_NAME
    table.write_text("0123456789abcdef;x\nfedcba9876543210;x\n")
    label_audit.remove_table(tmp_path)
    assert table.exists()
