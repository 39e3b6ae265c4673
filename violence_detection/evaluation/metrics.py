"""Figures of a model's predictions, each with an interval that accounts for how few sources it rests on.

Pure functions of a table of predictions: one row per clip with the columns clip_id, path, dataset, source_group, label
(fight|nonfight), p_<member>..., p_violent. If several views of a clip were averaged, plain_p_<member>... and
plain_p_violent are for the plain clip alone. Probabilities are P(fight) in [0, 1]. A clip that could not be predicted
has NaN in p_violent: it lowers the coverage and is never counted as a guess.
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
#: Column of the members' average before the temperature, if the model has one. No member's column has this name.
UNCALIBRATED_COLUMN = "uncalibrated_p_violent"
REQUIRED_COLUMNS = ("clip_id", "path", "dataset", "source_group", "label", ENSEMBLE_COLUMN)
#: Prefix of columns for the plain clips alone.
PLAIN = "plain_"
#: Recall is also reported at thresholds at which at most these shares of the nonfight clips are called fights.
FALSE_ALARMS = {"recall_at_1_percent_false_alarms": 0.01, "recall_at_5_percent_false_alarms": 0.05}
#: The figures with an interval; `intervals` in `score` has one for each.
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
    """Names of the members that have a column p_<member>, sorted."""
    names = (str(c) for c in predictions.columns)
    return sorted(c.removeprefix("p_") for c in names if c.startswith("p_") and c != ENSEMBLE_COLUMN)


def probability_columns(predictions: pd.DataFrame) -> list[str]:
    """Columns with probabilities: members, ensemble, then those for the plain clips if there are any."""
    columns = [*(f"p_{name}" for name in member_names(predictions)), ENSEMBLE_COLUMN]
    plain = [PLAIN + c for c in columns]
    return [*columns, *(plain if plain[-1] in predictions.columns else [])]


def figures(predictions: pd.DataFrame, threshold: float, of_members: float | None = None) -> dict[str, Any]:
    """Every figure of the report, JSON-able: overall, `by_dataset`, `members`, and `plain` if it has columns.

    A clip is called a fight if its probability is at least `threshold`; in members' figures, `of_members` if given.
    `score` says what each part contains. Raises UserError for missing columns, unknown labels, probabilities outside
    [0, 1], or a column of probabilities without a value.
    """
    _check(predictions)
    predictions = predictions.sort_values("clip_id", kind="stable")  # rounding of sums depends on the order
    own = threshold if of_members is None else of_members
    result = _of_columns(predictions, "", threshold, own)
    if PLAIN + ENSEMBLE_COLUMN in predictions.columns:
        result["plain"] = _of_columns(predictions, PLAIN, threshold, own)
    return result


def _of_columns(
    predictions: pd.DataFrame, prefix: str, threshold: float, of_members: float
) -> dict[str, Any]:
    """Figures of the ensemble and of its members, from the columns with this prefix."""
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
    """The `count` clips farthest on the wrong side of the threshold, farthest first; ties by path."""
    known = predictions[predictions[ENSEMBLE_COLUMN].notna()]
    p = known[ENSEMBLE_COLUMN]
    wrong = known[(p >= threshold) != (known["label"] == FIGHT)]
    order = wrong.assign(confidence=(wrong[ENSEMBLE_COLUMN] - threshold).abs())
    ordered = order.sort_values(["confidence", "path"], ascending=[False, True], kind="stable")
    return ordered.head(count).drop(columns="confidence")


def trivial_baselines(manifest: pd.DataFrame) -> dict[str, Any]:
    """Figures on val of two baselines that look at no frame: the majority class of train, and the file format.

    The second is a logistic regression on width, height, fps and duration, fitted on train: how far its figures are
    above chance shows how much the format reveals of the label. It is omitted if train has one class only. `manifest`:
    one row per clip, with the column split. Raises UserError if train or val is empty.
    """
    train, val = manifest[manifest["split"] == "train"], manifest[manifest["split"] == "val"]
    if train.empty or val.empty:
        raise UserError(
            f"the baselines need clips in train and in val, but there are {len(train)} and {len(val)}. "
            "Make the split again with combine_all_datasets.py"
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
        raise UserError(
            f"the predictions are missing the columns {missing}; they have {list(predictions.columns)}"
        )
    if unknown := sorted(set(predictions["label"]) - set(CLASS_NAMES)):
        raise UserError(f"the predictions have the unknown labels {unknown}; allowed are {list(CLASS_NAMES)}")
    for column in probability_columns(predictions):
        known = predictions[column].dropna()
        if not known.between(0, 1).all():
            raise UserError(
                f"column {column} has probabilities outside [0, 1]: they go from {known.min()} to {known.max()}"
            )
        if known.empty:
            raise UserError(f"column {column} is empty: no clip could be predicted")


def _accuracy(correct: np.ndarray, rows: pd.DataFrame) -> dict[str, Any]:
    """Accuracy, its interval, and the numbers of clips and sources that they rest on; None and 0 without clips."""
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
    """All figures of one score `p_fight` for `rows`; rows without a score (NaN) lower the coverage and nothing else.

    Names are those of scikit-learn. `intervals` has the 95 % interval by source of each of FIGURES. A figure that these
    clips do not define is None: AUC, average precision and balanced accuracy without clips of both classes, precision
    if nothing is called a fight, recall without fights, recall at a share of false alarms without fights or with too
    few nonfight clips to measure it (`not_measured` says why). If no row has a score, only the counts are defined.
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
    """The figures of these clips (n,) at `threshold`, and those that need none, in the order of FIGURES.

    Without those of FALSE_ALARMS, which have thresholds of their own.
    """
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
    """Figure -> why there is no recall at its share of false alarms; figures that are defined are absent."""
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
    """For each class: clips asked for, clips predicted, and the ratio of the two (None if none were asked for)."""
    result = {}
    for name in CLASS_NAMES:
        of_class = (rows["label"] == name).to_numpy()
        total, predicted = int(of_class.sum()), int((of_class & covered.to_numpy()).sum())
        result[name] = {"n": total, "predicted": predicted, "share": predicted / total if total else None}
    return result
