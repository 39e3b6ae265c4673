"""The files in the folder of a training run are only used if their values are possible."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from violence_detection.errors import UserError
from violence_detection.training import run_folder
from violence_detection.training.run_folder import Trained

RESULT = {"selection_accuracy": 0.9, "best_epoch": 3, "epochs_run": 5, "samples_per_second": 12.5}


def _written(folder: Path, **changes: Any) -> Path:
    path = folder / run_folder.RESULT_NAME
    path.write_text(json.dumps({**RESULT, **changes}))
    return path


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert run_folder.read_result(_written(tmp_path)) == Trained(tmp_path, 0.9, 3, 5, 12.5)
    given = _written(tmp_path, selection_accuracy=None, best_epoch=0, epochs_run=0, samples_per_second=0)
    assert run_folder.read_result(given) == Trained(tmp_path, None, 0, 0, 0)


def test_a_member_from_before_labels_were_noted_is_known(tmp_path: Path) -> None:
    there = {"job": "key", "manifest_sha256": "0", "version": "0.0.1", "augment": 2}
    (tmp_path / run_folder.CONFIG_NAME).write_text(json.dumps(there))
    assert not run_folder.holds_another(tmp_path, there)
    assert run_folder.holds_another(tmp_path, {**there, "augment": 3})
    assert run_folder.holds_another(tmp_path, {**there, "labels_sha256": "1", "manifest_sha256": "1"})


def test_other_rows_of_the_manifest_are_no_difference_of_a_member(tmp_path: Path) -> None:
    there = {"job": "key", "labels_sha256": "l", "manifest_sha256": "0", "version": "0.0.1"}
    (tmp_path / run_folder.CONFIG_NAME).write_text(json.dumps(there))
    asked = {**there, "manifest_sha256": "1"}
    assert not run_folder.holds_another(tmp_path, asked)
    said = str(run_folder.refusal(tmp_path, {**asked, "version": "0.1.0"}))
    assert "version 0.0.1 of this package began" in said


@pytest.mark.parametrize("name", sorted(RESULT))
@pytest.mark.parametrize("value", ["0.9", [1], {}, None, True, -1, math.nan, math.inf], ids=repr)
def test_a_result_with_something_else_than_a_figure_is_named_with_what_mends_it(
    tmp_path: Path, name: str, value: Any
) -> None:
    _written(tmp_path, **{name: value})
    if name == "selection_accuracy" and value is None:  # as in a run without a selection part
        assert run_folder.finished(tmp_path)
        return
    said = rf"result\.json cannot be used \({name} is .*the command that trained the model"
    with pytest.raises(UserError, match=said):
        run_folder.finished(tmp_path)
