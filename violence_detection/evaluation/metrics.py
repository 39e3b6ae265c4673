"""What the predictions are worth: figures, each with an interval that knows how few sources it rests on.

Pure functions on a predictions frame: one row a clip with the columns clip_id, path, dataset, source_group, label
(fight|nonfight), p_<member>..., p_violent. Where several views of a clip were averaged, plain_p_<member>... and
plain_p_violent are those of the plain clip alone. Probabilities are P(fight) in [0, 1]; a clip that could not be
predicted has NaN in p_violent and counts against coverage, never as a guess.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import UserError
from violence_detection.evaluation import calibration, influence, intervals
from violence_detection.evaluation.influence import Figure
from violence_detection.evaluation.intervals import accuracy_interval

NONFIGHT, FIGHT = CLASS_NAMES
ENSEMBLE_COLUMN = "p_violent"
#: The members' average before the temperature, where the model has one. No member has such a column.
UNCALIBRATED_COLUMN = "uncalibrated_p_violent"
REQUIRED_COLUMNS = ("clip_id", "path", "dataset", "source_group", "label", ENSEMBLE_COLUMN)
#: What stands before the name of a column of the plain clips alone.
PLAIN = "plain_"
#: Recall is given where at most these shares of the peaceful clips are called fights.
FALSE_ALARMS = {"recall_at_1_percent_false_alarms": 0.01, "recall_at_5_percent_false_alarms": 0.05}
#: The figures with an interval, of each of which `intervals` has one.
FIGURES = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "average_precision",
    *FALSE_ALARMS,
)
_METADATA_COLUMNS = ["width", "height", "fps", "duration_s"]


def member_names(predictions: pd.DataFrame) -> list[str]:
    """Members that have a column p_<member>, sorted."""
    names = (str(c) for c in predictions.columns)
    return sorted(c.removeprefix("p_") for c in names if c.startswith("p_") and c != ENSEMBLE_COLUMN)


def probability_columns(predictions: pd.DataFrame) -> list[str]:
    """The columns of probabilities: members, ensemble, then the same of the plain clips where there are such."""
    columns = [*(f"p_{name}" for name in member_names(predictions)), ENSEMBLE_COLUMN]
    plain = [PLAIN + c for c in columns]
    return [*columns, *(plain if plain[-1] in predictions.columns else [])]


def figures(predictions: pd.DataFrame, threshold: float, of_members: float | None = None) -> dict[str, Any]:
    """Every figure of the report, JSON-able: overall, by_dataset, members, and plain where there are such columns.

    A clip is called a fight when its probability reaches `threshold`, a member's `of_members` where that is given. See
    `score` for what stands in each. Raises UserError for missing columns, unknown labels, probabilities outside [0, 1],
    or nothing predicted.
    """
    _check(predictions)
    predictions = predictions.sort_values("clip_id", kind="stable")  # sums round by order
    own = threshold if of_members is None else of_members
    result = _of_columns(predictions, "", threshold, own)
    if PLAIN + ENSEMBLE_COLUMN in predictions.columns:
        result["plain"] = _of_columns(predictions, PLAIN, threshold, own)
    return result


def _of_columns(
    predictions: pd.DataFrame, prefix: str, threshold: float, of_members: float
) -> dict[str, Any]:
    """The ensemble's and the members' figures from columns with this prefix."""
    members = [
        {"name": name, **_with_datasets(predictions, f"{prefix}p_{name}", of_members)}
        for name in member_names(predictions)
    ]
    return {**_with_datasets(predictions, prefix + ENSEMBLE_COLUMN, threshold), "members": members}


def _with_datasets(predictions: pd.DataFrame, column: str, threshold: float) -> dict[str, Any]:
    return {
        "threshold": float(threshold),
        **score(predictions, predictions[column], threshold),
        "by_dataset": {
            str(dataset): score(rows, rows[column], threshold)
            for dataset, rows in predictions.groupby("dataset", sort=True)
        },
    }


def worst_mistakes(predictions: pd.DataFrame, threshold: float, count: int = 12) -> pd.DataFrame:
    """The wrong clips farthest on the wrong side of the threshold, farthest first; ties by path."""
    known = predictions[predictions[ENSEMBLE_COLUMN].notna()]
    p = known[ENSEMBLE_COLUMN]
    wrong = known[(p >= threshold) != (known["label"] == FIGHT)]
    order = wrong.assign(confidence=(wrong[ENSEMBLE_COLUMN] - threshold).abs())
    ordered = order.sort_values(["confidence", "path"], ascending=[False, True], kind="stable")
    return ordered.head(count).drop(columns="confidence")


def trivial_baselines(manifest: pd.DataFrame) -> dict[str, Any]:
    """What val gives without looking at a frame: the commoner class of train, and the file format alone.

    The second is a logistic regression on width, height, fps and duration fitted on train: how far its
    figures stand above chance is how much the label leaks through the format. Takes the manifest (one row a
    clip, column split). Raises UserError when train or val is empty.
    """
    train, val = manifest[manifest["split"] == "train"], manifest[manifest["split"] == "val"]
    if train.empty or val.empty:
        raise UserError(
            "the baselines need clips in train and in val. "
            f"Received: {len(train)} and {len(val)}; make the split again with combine_all_datasets.py"
        )
    majority = FIGHT if (train["label"] == FIGHT).mean() > 0.5 else NONFIGHT
    is_fight = (val["label"] == FIGHT).to_numpy()
    result = {"majority_class": {"label": majority, **_accuracy(is_fight == (majority == FIGHT), val)}}
    if train["label"].nunique() < 2:
        return result
    p_fight = _fit_metadata(train).predict_proba(val[_METADATA_COLUMNS].to_numpy(float))[:, 1]
    result["metadata_only"] = {
        "features": list(_METADATA_COLUMNS),
        **_accuracy((p_fight >= 0.5) == is_fight, val),
        "roc_auc": _roc_auc(is_fight, p_fight),
        "by_dataset": {
            str(name): {
                **_accuracy((p_fight[at] >= 0.5) == is_fight[at], val.iloc[at]),
                "roc_auc": _roc_auc(is_fight[at], p_fight[at]),
            }
            for name, at in sorted(val.groupby("dataset").indices.items())
        },
    }
    return result


def _fit_metadata(train: pd.DataFrame) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    ordered = train.sort_values("clip_id", kind="stable")  # the solver's last digits depend on the order
    return model.fit(ordered[_METADATA_COLUMNS].to_numpy(float), (ordered["label"] == FIGHT).to_numpy())


def _check(predictions: pd.DataFrame) -> None:
    if missing := [c for c in REQUIRED_COLUMNS if c not in predictions.columns]:
        raise UserError(f"the predictions lack the columns {missing}. Received: {list(predictions.columns)}")
    if unknown := sorted(set(predictions["label"]) - set(CLASS_NAMES)):
        raise UserError(f"the predictions hold the labels {unknown}; allowed are {list(CLASS_NAMES)}")
    for column in probability_columns(predictions):
        known = predictions[column].dropna()
        if not known.between(0, 1).all():
            raise UserError(f"column {column} is outside [0, 1]. Received: {known.min()} to {known.max()}")
        if known.empty:
            raise UserError(f"column {column} is empty: every clip failed")


def _accuracy(correct: np.ndarray, rows: pd.DataFrame) -> dict[str, Any]:
    """Accuracy, its interval, and what they rest on; None for no clips."""
    if not len(correct):
        return {"accuracy": None, "ci95": None, "n": 0, "n_groups": 0}
    groups = rows["source_group"].astype(str).to_numpy()
    low, high = accuracy_interval(correct, groups)
    return {
        "accuracy": float(np.mean(correct)),
        "ci95": [low, high],
        "n": len(correct),
        "n_groups": len(np.unique(groups)),
    }


def score(rows: pd.DataFrame, p_fight: pd.Series, threshold: float) -> dict[str, Any]:
    """All figures of one score over some rows; rows without a score lower the coverage only.

    Names are scikit-learn's. `intervals` has the 95 % interval of each of FIGURES by source. What these clips do not
    define is None: AUC and average precision of one class, precision where nothing is called a fight, recall where
    nothing is one, recall at a share of false alarms that so few peaceful clips cannot measure (`not_measured` says
    so), and, where no row has a score, everything but the counts.
    """
    from sklearn import metrics

    covered = p_fight.notna()
    known, p = rows[covered], p_fight[covered].to_numpy(float)
    is_fight = (known["label"] == FIGHT).to_numpy()
    called = p >= threshold
    scores: dict[str, Any] = {
        "asked": len(rows),
        "coverage": _coverage(rows, covered),
        **_accuracy(called == is_fight, known),
    }
    if len(p) == 0:
        undefined = dict.fromkeys((*FIGURES, "brier", "ece"))
        return {
            **undefined,
            **scores,
            "intervals": dict.fromkeys(FIGURES),
            "thresholds_at_false_alarms": dict.fromkeys(FALSE_ALARMS),
            "not_measured": dict.fromkeys(FALSE_ALARMS, "no clip was judged"),
            "confusion_matrix": [[0, 0], [0, 0]],
        }
    groups = intervals.numbered(known["source_group"].astype(str).to_numpy())
    found = measured(is_fight, p, threshold)
    limits: dict[str, float | None] = {}
    for name, rate in FALSE_ALARMS.items():
        at = influence.recall_at(is_fight, p, rate)
        found[name], limits[name] = at or (None, None)
    return {
        **scores,
        **{name: None if f is None else f.value for name, f in found.items()},
        "intervals": {
            name: None if f is None else list(intervals.interval(f, groups)) for name, f in found.items()
        },
        "thresholds_at_false_alarms": limits,
        "not_measured": _not_measured(is_fight),
        "confusion_matrix": metrics.confusion_matrix(is_fight, called, labels=[False, True]).tolist(),
        "brier": float(metrics.brier_score_loss(is_fight, p)),
        "ece": calibration.expected_calibration_error(is_fight, p),
    }


def measured(is_fight: np.ndarray, p_fight: np.ndarray, threshold: float) -> dict[str, Figure | None]:
    """The figures of these clips (n,) that a threshold or none decides, in the order of FIGURES."""
    called = p_fight >= threshold
    return {
        "accuracy": influence.accuracy(is_fight, called),
        "balanced_accuracy": influence.balanced_accuracy(is_fight, called),
        "precision": influence.precision(is_fight, called),
        "recall": influence.recall(is_fight, called),
        "f1": influence.f1(is_fight, called),
        "roc_auc": influence.roc_auc(is_fight, p_fight),
        "average_precision": influence.average_precision(is_fight, p_fight),
    }


def _not_measured(is_fight: np.ndarray) -> dict[str, str]:
    """Why there is no recall at a share of false alarms."""
    others = int((~is_fight).sum())
    reasons = {}
    for name, rate in FALSE_ALARMS.items():
        if not is_fight.any():
            reasons[name] = "no fights"
        elif others * rate < 1:
            needed = round(1 / rate)
            reasons[name] = (
                f"{others} peaceful clips are too few to tell {rate:.0%} of them; {needed} are needed"
            )
    return reasons


def _roc_auc(is_fight: np.ndarray, p_fight: np.ndarray) -> float | None:
    from sklearn import metrics

    both = bool(is_fight.any() and not is_fight.all())
    return float(metrics.roc_auc_score(is_fight, p_fight)) if both else None


def _coverage(rows: pd.DataFrame, covered: pd.Series) -> dict[str, dict[str, Any]]:
    """For each class: clips asked for, clips predicted, and their ratio (None where none were asked for)."""
    result = {}
    for name in CLASS_NAMES:
        of_class = (rows["label"] == name).to_numpy()
        total, predicted = int(of_class.sum()), int((of_class & covered.to_numpy()).sum())
        result[name] = {"n": total, "predicted": predicted, "share": predicted / total if total else None}
    return result
