"""P(fight) of labelled clips, by a trained model and by each of its members."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.errors import UserError
from violence_detection.evaluation import metrics
from violence_detection.models import averaging, trained_model
from violence_detection.training import heads, training_faults
from violence_detection.training.training_data import Samples

if TYPE_CHECKING:
    import pandas as pd

    from violence_detection.features.key import Inputs


@dataclass(frozen=True)
class QuickScore:
    """Accuracy of a model on `n` clips with its 95 % interval, on each data set ({accuracy, ci95, n}), by member."""

    accuracy: float
    ci95: tuple[float, float]
    n: int
    by_dataset: dict[str, dict[str, Any]]
    by_member: dict[str, float]


def score_samples(folder: Path, samples: Samples) -> QuickScore:
    """Score the model in `folder` on loaded samples, plain views only. Raises UserError if P(fight) is not finite."""
    model = trained_model.load(folder)
    by_member = judge_view(model, samples)
    for name, p in by_member.items():
        require_finite(p, samples.rows, f"{folder}, {name}")
    fights = samples.labels == 1
    correct = (model.average(by_member) >= model.threshold) == fights
    datasets = samples.rows.dataset.to_numpy()
    every = np.ones(len(samples), bool)
    return QuickScore(
        **_accuracy(correct, samples.rows, every),
        by_dataset={
            name: _accuracy(correct, samples.rows, datasets == name) for name in sorted(set(datasets))
        },
        by_member={
            name: round(float(((p >= model.threshold) == fights).mean()), 4) for name, p in by_member.items()
        },
    )


def _accuracy(correct: np.ndarray, rows: pd.DataFrame, chosen: np.ndarray) -> dict[str, Any]:
    """{accuracy, ci95, n} of the `chosen` clips. `correct`, `chosen`: (N,) bool; `rows`: N rows of the manifest."""
    groups = rows.source_group.to_numpy()[chosen]
    return {
        "accuracy": round(float(correct[chosen].mean()), 4),
        "ci95": _rounded(metrics.accuracy_interval(correct[chosen], groups)),
        "n": int(chosen.sum()),
    }


def require_finite(p: np.ndarray, rows: pd.DataFrame, who: str) -> None:
    """Raise UserError, naming the first such clip of `rows`, if a probability in `p` (N,) is not finite."""
    wrong = np.flatnonzero(~np.isfinite(p))
    if len(wrong):
        raise UserError(
            f"{who}: P(fight) of {len(wrong)} of {len(p)} clips is not finite (nan or infinite), the first being clip "
            f"{rows.clip_id.iloc[wrong[0]]}. Train it again, with --mixed-precision off or {training_faults.LOWER_RATE}"
        )


def _rounded(interval: tuple[float, float]) -> tuple[float, float]:
    return round(interval[0], 4), round(interval[1], 4)


def predict_rows(model: trained_model.TrainedModel, rows: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """Rows of the manifest with p_<member> and p_violent, averaged over views.

    If there are several views, plain_p_<member> and plain_p_violent are for the plain clip, which is the first view
    (with the closer look, if the model takes one). UNCALIBRATED_COLUMN is p_violent before the temperature, if the
    model has one. NaN for clips without features, and for those for which any of these is not finite.
    """
    return rows_of(model, rows, samples.rows.clip_id, judge_views(model, samples))


def rows_of(
    model: trained_model.TrainedModel,
    rows: pd.DataFrame,
    clip_ids: pd.Series[str],
    each_view: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    """As `predict_rows`, from what `judge_views` returned for the clips with these ids."""
    import pandas as pd

    closer_look = model.closer_look
    by_member = {name: averaging.over_views(p, closer_look) for name, p in each_view.items()}
    columns = _columns(model, by_member)
    if model.applied is not None and model.applied.temperature is not None:
        columns[metrics.UNCALIBRATED_COLUMN] = model.uncalibrated(by_member)
    if next(iter(each_view.values())).shape[0] > 1 + closer_look:
        first = [0, -1] if closer_look else [0]
        plain = _columns(
            model, {name: averaging.over_views(p[first], closer_look) for name, p in each_view.items()}
        )
        columns |= {metrics.PLAIN + name: p for name, p in plain.items()}
    scored = pd.DataFrame(columns)
    finite = np.isfinite(scored.to_numpy(float)).all(axis=1)
    scored.loc[~finite] = np.nan
    scored = scored.assign(clip_id=clip_ids)
    kept = ["clip_id", "path", "source_path", "dataset", "source_group", "label"]
    return rows[kept].merge(scored, on="clip_id", how="left")


def _columns(model: trained_model.TrainedModel, by_member: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"p_{name}": p for name, p in by_member.items()} | {
        metrics.ENSEMBLE_COLUMN: model.average(by_member)
    }


def judge_views(
    model: trained_model.TrainedModel,
    samples: Samples,
    changed: Callable[[Inputs, Sequence[str]], Inputs] | None = None,
) -> dict[str, np.ndarray]:
    """P(fight) of each member, name -> (V, N). Works in batches, to have the features of few clips in memory at once.

    `changed`: maps a batch of inputs, name -> (B, T, C), and the ids of its clips to the inputs to judge instead.
    """
    views = range(next(iter(samples.inputs.values())).shape[1])
    judged = [judge_view(model, samples, view, changed) for view in views]
    return {member.name: np.stack([p[member.name] for p in judged]) for member in model.members}


def judge_view(
    model: trained_model.TrainedModel,
    samples: Samples,
    view: int = 0,
    changed: Callable[[Inputs, Sequence[str]], Inputs] | None = None,
) -> dict[str, np.ndarray]:
    """As `judge_views` for one view, by default the plain one: name -> (N,)."""
    clip_ids = samples.rows.clip_id.tolist()
    batches, begun = [], 0
    for batch in samples.view_batches(view, heads.predict_batch(samples.shapes())):
        count = len(next(iter(batch.values())))
        ids = clip_ids[begun : begun + count]
        batches.append(model.predict(changed(batch, ids) if changed else batch))
        begun += count
    return {m.name: np.concatenate([batch[m.name] for batch in batches]) for m in model.members}
