"""Audit labels by a model's out-of-fold predictions, and write the table and the page of clips to look at."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.combine import manifest
from violence_detection.datasets.generated.marker import SAMPLE_LABEL
from violence_detection.errors import UserError
from violence_detection.evaluation import held_out_table
from violence_detection.evaluation.audits import labels, leakage
from violence_detection.evaluation.audits.labels import LabelAudit
from violence_detection.evaluation.held_out_table import AnotherTableError
from violence_detection.evaluation.report import film_strip
from violence_detection.evaluation.report.film_strip import FramesMaker
from violence_detection.features.cache import FeatureStore
from violence_detection.models import model_files
from violence_detection.system import edited_tables, pages, storage
from violence_detection.system.figures import plural
from violence_detection.training import run_folder

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
#: Written by train_ensemble_models.py --cross-validate (ensemble/cross_validation.py).
OUT_OF_FOLD_NAME = "oof_predictions.csv"
TABLE_NAME, PAGE_NAME = "label_suspects.csv", "label_suspects.html"
#: Text on every such page, by which a file is recognised as one.
PAGE_MARK = "Labels to look at"
#: Most clips that the page shows with frames, which keeps it below 5 MB.
SHOWN = 40
_LEAVE_OUT = ("python", "combine_all_datasets.py", "--data-root")
#: Folders inside an ensemble's folder; their table of out-of-fold predictions is the ensemble's, one level up.
_BELOW = (run_folder.TUNED_FOLDER, run_folder.FINAL_FOLDER, "folds")
_TEMPLATES = Path(__file__).parents[1] / "report" / "templates"


def run(rows: pd.DataFrame, stores: Mapping[str, FeatureStore]) -> LabelAudit:
    """Audit the labels of the train clips `rows`, as `out_of_fold` returns them, and log the result.

    Without the cached features of all these clips groups are not compared, and the record says why.
    """
    names = leakage.looked_at(sorted(stores))
    values: np.ndarray | None = None
    why = ""
    try:
        found, there = leakage.cached_descriptors(stores, rows.clip_id.tolist(), names)
        if len(there) == len(rows):
            values = found
        else:
            why = f"the features of {len(rows) - len(there)} of {len(rows)} clips are not in the cache"
    except UserError as e:
        why = str(e)
    made = labels.audit(rows, values, why)
    limit = made.record["limit"]
    log.log(logging.WARNING if limit["state"] == "alarm" else logging.INFO, "labels: %s", limit["text"])
    return made


def out_of_fold(folder: Path, combined: Path) -> pd.DataFrame:
    """The train clips of `combined` that have an out-of-fold prediction, with that prediction as p_fight.

    `folder`: the ensemble's. For the ensemble of its folds, of members fine-tuned on hard clips, or of a final fit, the
    table is looked for one level up as well. Returns rows of the manifest, sorted by clip id.

    Raises UserError if there is no table, if it is damaged or not the one that the record of the folds describes, or if
    it has no train clip of `combined`. Call it before anything is judged, so that this is known at once.
    """
    import pandas as pd

    frame = manifest.read(combined)
    if folder.name in _BELOW and not (folder / OUT_OF_FOLD_NAME).is_file():
        folder = folder.parent
    path = folder / OUT_OF_FOLD_NAME
    if not path.is_file():
        raise UserError(f"--audit labels: no {OUT_OF_FOLD_NAME} in {folder}. {_how_to_make(folder)}")
    try:
        found = pd.read_csv(path, dtype={"clip_id": str}, encoding_errors=storage.NAME_ERRORS)
        probability = found.set_index("clip_id").p_violent.astype(float)
        if not probability.between(0, 1).all():
            raise ValueError("p_violent has values that are not probabilities")
        if probability.index.has_duplicates:
            raise ValueError("a clip occurs twice")
    except (ValueError, KeyError, AttributeError) as e:
        raise UserError(
            f"{path} is not a table of out-of-fold predictions ({e}). Make it again with {_trained_with(5)}"
        ) from e
    _check_whole(folder, path)
    rows = frame[(frame.split == "train") & frame.clip_id.isin(set(found.clip_id))]
    if rows.empty:
        raise UserError(
            f"{path} has no train clip of {manifest.FILE_NAME}: it was made with other clips. "
            f"Make it again with {_trained_with(5)}"
        )
    rows = rows.sort_values("clip_id", ignore_index=True)
    return rows.assign(p_fight=probability.loc[rows.clip_id].to_numpy(float))


def _how_to_make(folder: Path) -> str:
    """What to do if a model has no out-of-fold predictions. A shipped model's folder must not get any."""
    if (
        folder.is_dir()
        and not model_files.is_shipped(folder)
        and (folder / run_folder.ENSEMBLE_NAME).is_file()
    ):
        return f"Make it with {_trained_with(5)}"
    command = "python train_ensemble_models.py --cross-validate 5"
    return f"This audit needs an ensemble trained here: run {command}, and give --models the folder that it writes"


def _trained_with(folds: int) -> str:
    """The command that makes folds with the ensemble's settings.

    Without the flags of its training it would train folds that the ensemble does not accept.
    """
    return f"the command that trained the model (python train_ensemble_models.py ...) and --cross-validate {folds}"


def _check_whole(folder: Path, path: Path) -> None:
    """Raise UserError if the table is not the one that the record of the folds describes; without one, only warn."""
    if not (folder / run_folder.FOLDS_RECORD_NAME).is_file():
        log.warning(
            "%s: there is no %s beside it, so it cannot be checked whether the table is complete",
            path,
            run_folder.FOLDS_RECORD_NAME,
        )
        return
    record = run_folder.read_object(folder / run_folder.FOLDS_RECORD_NAME)
    try:
        held_out_table.check(path, record)
    except AnotherTableError as e:
        folds = record.get("folds")
        count = len(folds) if isinstance(folds, list) else 5
        raise UserError(f"--audit labels: {e}. Make it again with {_trained_with(count)}") from e


def write(made: LabelAudit, folder: Path, frames: FramesMaker, generated: bool, data_root: Path) -> Path:
    """Write the table and the page into the report's folder; return the page's path.

    Marks that a person made in an earlier table there are kept, and so are marked rows of clips that are not listed
    now: clips that were excluded by this table are not audited any more, but must stay in it to stay excluded. The mark
    of a clip whose label has changed since, because it was corrected, is dropped.
    """
    table = made.suspects
    marked = marked_before(folder)
    mended = [
        i for i, row in marked.items() if (said := row.get("label")) and said != made.labels.get(i, said)
    ]
    if mended:
        log.warning(
            "marks dropped because the label has changed since: %s in %s",
            plural(len(mended), "clip"),
            folder / TABLE_NAME,
        )
        marked = {i: row for i, row in marked.items() if i not in mended}
    rows: list[dict[str, Any]] = []
    for row in table.to_dict("records"):
        before = marked.pop(row["clip_id"], {})
        rows.append({**{str(k): v for k, v in row.items()}, "confirmed": before.get("confirmed", "")})
    storage.write_csv(folder / TABLE_NAME, labels.SUSPECT_COLUMNS, [*rows, *marked.values()])
    shown = [{**row, **_frames(str(row["path"]), frames)} for row in rows[:SHOWN]]
    weak = [
        {**g, "frames": [{"path": p, **_frames(p, frames)} for p in g["examples"]]}
        for g in made.record.get("weak_groups", ())
    ]
    page = (
        pages.environment(_TEMPLATES)
        .get_template("label_suspects.html.j2")
        .render(
            record=made.record,
            shown=shown,
            n_listed=len(rows),
            weak=weak,
            table_name=TABLE_NAME,
            leave_out=shlex.join([*_LEAVE_OUT, str(data_root), "--exclude", str(folder / TABLE_NAME)]),
            sample_label=SAMPLE_LABEL if generated else "",
        )
    )
    storage.write_text(folder / PAGE_NAME, page)
    return folder / PAGE_NAME


def marked_before(folder: Path) -> dict[str, dict[str, str]]:
    """The rows that a person marked in the table in a report's folder, by clip id; empty if there is no table.

    Raises UserError for a table whose marks cannot be read, as they would be lost. Call it before anything is judged.
    """
    path = folder / TABLE_NAME
    if not path.is_file():
        return {}
    rows = edited_tables.rows(path, storage.read_text(path, storage.NAME_ERRORS))
    if rows and not {"clip_id", "confirmed"} <= rows[0].keys():
        raise UserError(
            f"{path} lacks the column clip_id or confirmed, so marks made in it would be lost. Restore its first line, "
            "or move the file away"
        )
    return {row["clip_id"]: row for row in rows if row["clip_id"] and row["confirmed"]}


def remove_table(folder: Path) -> None:
    """Remove the table of an earlier audit from a report's folder; one with marks is kept, with a warning."""
    table = folder / TABLE_NAME
    try:
        holds_marks = bool(marked_before(folder))
    except UserError:  # it may have marks that cannot be read
        holds_marks = True
    if holds_marks:
        log.warning("%s is from an earlier audit; it is kept for the marks made in it", table)
    else:
        table.unlink(missing_ok=True)


def _frames(path: str, frames: FramesMaker) -> dict[str, Any]:
    strip, missing = film_strip.or_reason(frames, path)
    return {"strip": strip, "missing": missing}
