"""Looks at val are counted, even if several processes look at once, one was killed, or the data are combined again."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_videos

from violence_detection.combine import combine, manifest, val_ledger
from violence_detection.combine.config import CombineConfig
from violence_detection.combine.val_ledger import Look
from violence_detection.errors import UserError
from violence_detection.system import storage

LOOK = Look(
    "python test_ensemble.py", "evaluation", "models_ensemble", "a" * 32, 2, {"accuracy": 0.5, "n": 2}
)


def _manifest(combined: Path, val: tuple[str, ...], train: tuple[str, ...] = ("t",)) -> Path:
    rows = [{"clip_id": c, "split": "val"} for c in val] + [{"clip_id": c, "split": "train"} for c in train]
    storage.write_csv(combined / manifest.FILE_NAME, ("clip_id", "split"), rows)
    return combined


def test_each_look_learns_of_those_before_it(tmp_path: Path) -> None:
    combined = _manifest(tmp_path, ("b", "a"))
    assert val_ledger.note(combined, LOOK).text() == "not looked at before"
    other = Look("python train.py --show-val", "training", "m", "b" * 32, 2, {"accuracy": 0.75})
    assert (
        val_ledger.note(combined, other).text() == "looked at once before, with 1 model, by test_ensemble.py"
    )
    before = val_ledger.note(combined, LOOK)
    assert before.text() == "looked at 2 times before, with 2 models, by test_ensemble.py, train.py"
    call = Look("violence_detection.evaluate('m', None, **{})", "evaluation", "m", "b" * 32, 2, {})
    assert val_ledger.note(combined, call).text().endswith("by test_ensemble.py (2 times), train.py")
    assert val_ledger.read(combined).text().endswith("train.py, violence_detection.evaluate")
    assert [(c["command"], c["looks"], c["accuracy"]) for c in before.by_command()] == [
        ("python train.py --show-val", 1, 0.75),
        ("python test_ensemble.py", 1, 0.5),
    ]
    (_, second, _) = val_ledger.read(combined).by_command()
    assert (second["command"], second["looks"]) == ("python test_ensemble.py", 2)


def test_all_that_one_run_has_seen_is_one_look(tmp_path: Path) -> None:
    """One evaluation may judge several sets with clips of val, such as one from elsewhere, and adds a line for each."""
    combined = _manifest(tmp_path, ("a", "b"))
    one, other = (dataclasses.replace(LOOK, run=run) for run in ("1", "2"))
    assert val_ledger.note(combined, one).text() == "not looked at before"
    assert val_ledger.note(combined, one).text() == "not looked at before"
    once = "looked at once before, with 1 model, by test_ensemble.py"
    assert [val_ledger.note(combined, other).text() for _ in range(2)] == [once] * 2
    assert [val_ledger.note(combined, LOOK).record()["looks_before"] for _ in range(2)] == [2, 3]
    assert len((combined / val_ledger.FILE_NAME).read_text().splitlines()) == 6, "what was seen stays"
    (by,) = val_ledger.read(combined).by_command()
    assert by["looks"] == 4
    _manifest(combined, ("c",))
    assert val_ledger.note(combined, LOOK).record()["looks_at_another_val"] == 4


def test_looks_count_for_the_same_val_whatever_becomes_of_train(tmp_path: Path) -> None:
    combined = _manifest(tmp_path, ("a", "b"))
    val_ledger.note(combined, LOOK)
    _manifest(combined, ("b", "a"), train=("t", "u"))
    assert val_ledger.note(combined, LOOK).record()["looks_before"] == 1
    first, second = (json.loads(line) for line in (combined / val_ledger.FILE_NAME).read_text().splitlines())
    assert first["val_sha256"] == second["val_sha256"]
    assert first["manifest_sha256"] != second["manifest_sha256"]
    _manifest(combined, ("a", "b", "c"))
    before = val_ledger.note(combined, LOOK)
    assert (len(before.same), before.other) == (0, 2)
    assert "2 more on another val" in before.text()


def test_half_a_line_of_a_killed_writer_costs_no_other_and_is_told(tmp_path: Path) -> None:
    combined = _manifest(tmp_path, ("a",))
    val_ledger.note(combined, LOOK)
    with (combined / val_ledger.FILE_NAME).open("a") as ledger:
        ledger.write('{"time": "2026-01-')
    before = val_ledger.note(combined, LOOK)
    assert (len(before.same), before.unreadable) == (1, 1)
    assert "1 damaged line in the ledger" in before.text()
    assert len(val_ledger.read(combined).same) == 2


@pytest.mark.parametrize(
    "odd",
    [
        {"model_sha256": ["a", "b"]},
        {"figures": {"accuracy": "0.5"}},
        {"figures": {"accuracy": 50}},
        {"figures": [0.5]},
        {"command": ["python"], "time": 3, "purpose": None},
    ],
)
def test_a_look_that_is_noted_in_another_way_counts_as_one(tmp_path: Path, odd: dict[str, Any]) -> None:
    """A later version or a person may write a line whose fields have other types or values."""
    combined = _manifest(tmp_path, ("a",))
    val_ledger.note(combined, LOOK)
    path = combined / val_ledger.FILE_NAME
    path.write_text(path.read_text() + json.dumps({**json.loads(path.read_text()), **odd}) + "\n")
    before = val_ledger.note(combined, LOOK).record()
    assert (before["looks_before"], before["damaged_lines"]) == (2, 0)
    assert "looked at 2 times before" in before["text"]
    accuracies = [c["accuracy"] for c in before["by_command"]]
    assert set(accuracies) <= {0.5, None}
    assert (None in accuracies) == ("figures" in odd)


def test_lists_without_end_are_a_damaged_line(tmp_path: Path) -> None:
    combined = _manifest(tmp_path, ("a",))
    (combined / val_ledger.FILE_NAME).write_text("[" * 100_000 + "\n")
    assert val_ledger.note(combined, LOOK).unreadable == 1


def test_a_folder_in_the_ledgers_place_is_named_before_anything_is_judged(tmp_path: Path) -> None:
    combined = _manifest(tmp_path, ("a",))
    val_ledger.check(combined)
    (combined / val_ledger.FILE_NAME).mkdir()
    with pytest.raises(UserError, match=r"val_ledger\.jsonl is a folder.*Move it away"):
        val_ledger.check(combined)


def test_a_ledger_that_may_not_be_read_is_named_before_anything_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the refusal is played."""
    combined = _manifest(tmp_path, ("a",))
    val_ledger.note(combined, LOOK)

    def refused(path: Path, **how: Any) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(
        UserError, match=r"val_ledger\.jsonl cannot be read \(Permission denied\).*right to read it"
    ):
        val_ledger.check(combined)


_NOTE_OFTEN = """
import sys
from pathlib import Path
from violence_detection.combine import val_ledger
for i in range(10):
    look = val_ledger.Look("c", "evaluation", "m", "x", 1, {"accuracy": 0.5})
    print(len(val_ledger.note(Path(sys.argv[1]), look).same))
"""


def test_several_at_once_lose_nothing_and_see_each_other(tmp_path: Path) -> None:
    combined = _manifest(tmp_path, ("a",))
    command = [sys.executable, "-c", _NOTE_OFTEN, str(combined)]
    root = Path(__file__).resolve().parents[2]
    running = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    seen = [int(n) for process in running for n in process.communicate(timeout=60)[0].split()]
    assert sorted(seen) == list(range(30)), "every look knows all before it"


@pytest.fixture
def no_root() -> Iterator[None]:
    """Run the test as an unprivileged user, because root may write to any folder."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    yield
    if was_root:
        os.seteuid(0)


def test_a_folder_lent_for_reading_is_measured_and_says_so(no_root: None) -> None:
    shared = Path(tempfile.mkdtemp())  # other users may not enter pytest's temporary folders
    try:
        _manifest(shared, ("a",))
        shared.chmod(0o555)
        before = val_ledger.note(shared, LOOK)
        assert before.unnoted
        assert "could not be recorded" in before.text()
        assert not (shared / val_ledger.FILE_NAME).exists()
    finally:
        shared.chmod(0o755)
        shutil.rmtree(shared)


def test_a_commands_credentials_are_not_kept(tmp_path: Path) -> None:
    combined = _manifest(tmp_path, ("a",))
    val_ledger.note(
        combined, Look("python x.py --url https://me:secret@host/a", "evaluation", "m", "x", 1, {})
    )
    assert "secret" not in (combined / val_ledger.FILE_NAME).read_text()


def test_combining_anew_keeps_the_ledger(tmp_path: Path) -> None:
    rwf = tmp_path / "raw/RWF-2000"

    def publish(side: str, seed: int) -> None:
        for offset, label in ((0, "Fight"), (50, "NonFight")):
            small_videos.write(rwf / side / label / f"Video-{seed + offset:05d}_0.avi", seed + offset)

    for side, first in (("train", 400), ("val", 500)):
        publish(side, first)
        publish(side, first + 1)
    config = CombineConfig(data_root=tmp_path, workers=1)
    combine.run(config)
    combined = tmp_path / "combined_all"
    val_ledger.note(combined, LOOK)
    publish("train", 402)
    assert combine.run(config).summary["train"] == 6
    assert len(val_ledger.read(combined).same) == 1, "the val is the same"
    publish("val", 502)
    combine.run(config)
    assert (len(val_ledger.read(combined).same), val_ledger.read(combined).other) == (0, 1)
    for path in combined.iterdir():
        if path.name != val_ledger.FILE_NAME:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    combine.run(config)
    assert val_ledger.read(combined).other == 1, "a folder with nothing but the ledger is ours"


def test_a_manifest_with_other_columns_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("clip_id;split\na;val\n")
    with pytest.raises(
        UserError, match=r"manifest\.csv is missing the column 'split'.*combine_all_datasets\.py"
    ):
        val_ledger.val_of(tmp_path)
