"""What the predictions are worth: accuracy with an interval that knows how few sources it rests on.

Pure functions on arrays and on a predictions frame: one row a clip with the columns clip_id, path, dataset,
source_group, label (fight|nonfight), p_<member>..., p_violent. Probabilities are P(fight) in [0, 1]; a clip
that could not be predicted has NaN in p_violent and counts against coverage, never as a guess.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import UserError
from violence_detection.evaluation import calibration

NONFIGHT, FIGHT = CLASS_NAMES
ENSEMBLE_COLUMN = "p_violent"
REQUIRED_COLUMNS = ("clip_id", "path", "dataset", "source_group", "label", ENSEMBLE_COLUMN)
_CONFIDENCE = 0.95
#: Before any error is seen, how alike the outcomes of two clips of one source are taken to be (intraclass
#: correlation), and how many errors that assumption weighs. Chosen by simulation, see
#: tests/evaluation/test_metrics.py.
_PRIOR_CORRELATION = 0.3
_PRIOR_WEIGHT = 2.0
_FEWEST_DEGREES_OF_FREEDOM = 3
_METADATA_COLUMNS = ["width", "height", "fps", "duration_s"]


def design_effect(correct: np.ndarray, groups: np.ndarray) -> float:
    """How many times fewer independent clips there are than clips, at least 1.

    `correct` (n,) bool, `groups` (n,) source groups. It is the variance of the accuracy as a ratio estimate
    over the groups divided by its variance for independent clips (Rao & Scott 1992, "A simple method for the
    analysis of clustered binary data", Biometrics 48). That estimate knows nothing when there are few errors
    or few groups (with no error it is 0/0), so it is averaged with 1 + rho (n_w - 1), the effect of an
    intraclass correlation of 0.3 for groups of size-weighted mean size n_w (Kish 1965); the assumption
    weighs as much as two errors.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    sizes = np.bincount(inverse)
    n, n_groups = len(correct), len(sizes)
    assumed = 1 + _PRIOR_CORRELATION * (float((sizes**2).sum()) / n - 1)
    information = min(int(correct.sum()), int(n - correct.sum()), n_groups - 1)
    if information == 0:
        return assumed
    accuracy = float(correct.mean())
    residuals = np.bincount(inverse, weights=correct) - sizes * accuracy
    variance = n_groups / (n_groups - 1) * float((residuals**2).sum()) / n**2
    estimated = max(variance * n / (accuracy * (1 - accuracy)), 1.0)
    return (information * estimated + _PRIOR_WEIGHT * assumed) / (information + _PRIOR_WEIGHT)


def accuracy_interval(correct: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95 % interval of an accuracy: Wilson's (1927, JASA 22) on the effective sample size n / design effect.

    `correct` (n,) bool, `groups` (n,) source groups; returns (low, high) in [0, 1]. The quantile is
    Student's with as many degrees of freedom as there are groups but one (at least 3), so that few sources
    give a wide interval; where every clip is its own source it is Wilson's interval itself. All clips right
    still gives a width. Raises ValueError for no clips or for lengths that differ.
    """
    from scipy import stats

    correct, groups = np.asarray(correct, dtype=bool), np.asarray(groups)
    if len(correct) == 0 or correct.shape != groups.shape:
        raise ValueError(f"one group a clip, at least one clip. Received: {correct.shape} and {groups.shape}")
    n_groups = len(np.unique(groups))
    effective_n = len(correct) / design_effect(correct, groups)
    tail = 1 - (1 - _CONFIDENCE) / 2
    if n_groups == len(correct):
        z = float(stats.norm.ppf(tail))
    else:
        z = float(stats.t.ppf(tail, max(n_groups - 1, _FEWEST_DEGREES_OF_FREEDOM)))
    p = float(correct.mean())
    scale = 1 + z**2 / effective_n
    centre = (p + z**2 / (2 * effective_n)) / scale
    half = z / scale * float(np.sqrt(p * (1 - p) / effective_n + z**2 / (4 * effective_n**2)))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def member_names(predictions: pd.DataFrame) -> list[str]:
    """Members that have a column p_<member>, sorted."""
    names = (str(c) for c in predictions.columns)
    return sorted(c.removeprefix("p_") for c in names if c.startswith("p_") and c != ENSEMBLE_COLUMN)


def figures(predictions: pd.DataFrame, threshold: float) -> dict[str, Any]:
    """Every figure of the report, JSON-able: overall, by_dataset, members, each accuracy with interval and n.

    A clip is called a fight when its probability reaches `threshold`. Figures that are not defined are None: AUC and
    average precision of one class, precision where nothing is called a fight, recall where nothing is one. Raises
    UserError for missing columns, unknown labels, probabilities outside [0, 1], or nothing predicted.
    """
    _check(predictions)
    predictions = predictions.sort_values("clip_id", kind="stable")  # sums round by order
    members = []
    for name in member_names(predictions):
        figures = score(predictions, predictions[f"p_{name}"], threshold)
        kept = ("accuracy", "ci95", "n", "n_groups", "roc_auc")
        members.append({"name": name, "threshold": float(threshold), **{k: figures[k] for k in kept}})
    return {
        "threshold": float(threshold),
        **score(predictions, predictions[ENSEMBLE_COLUMN], threshold),
        "by_dataset": {
            str(dataset): score(rows, rows[ENSEMBLE_COLUMN], threshold)
            for dataset, rows in predictions.groupby("dataset", sort=True)
        },
        "members": members,
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
    for column in (ENSEMBLE_COLUMN, *(f"p_{m}" for m in member_names(predictions))):
        known = predictions[column].dropna()
        if not known.between(0, 1).all():
            raise UserError(f"column {column} is outside [0, 1]. Received: {known.min()} to {known.max()}")
        if known.empty:
            raise UserError(f"column {column} is empty: every clip failed. See the failures file")


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
    """All figures of one score over some rows; rows without a score lower the coverage only."""
    from sklearn import metrics

    covered = p_fight.notna()
    known, p = rows[covered], p_fight[covered].to_numpy(float)
    is_fight = (known["label"] == FIGHT).to_numpy()
    called = p >= threshold
    scores: dict[str, Any] = {"coverage": _coverage(rows, covered), **_accuracy(called == is_fight, known)}
    if len(p) == 0:
        return scores
    both = bool(is_fight.any() and not is_fight.all())
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        is_fight, called, average="binary", pos_label=True, zero_division=np.nan
    )
    scores |= {
        "precision": _defined(precision),
        "recall": _defined(recall),
        "balanced_accuracy": float(metrics.balanced_accuracy_score(is_fight, called)) if both else None,
        "f1": _defined(f1),
        "roc_auc": _roc_auc(is_fight, p),
        "average_precision": float(metrics.average_precision_score(is_fight, p)) if both else None,
        "confusion_matrix": metrics.confusion_matrix(is_fight, called, labels=[False, True]).tolist(),
        "brier": float(metrics.brier_score_loss(is_fight, p)),
        "ece": calibration.expected_calibration_error(is_fight, p),
    }
    return scores


def _defined(value: float) -> float | None:
    """None for what these clips do not define: no clip called a fight has no precision."""
    return None if np.isnan(value) else float(value)


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
