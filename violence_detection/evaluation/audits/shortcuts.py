"""What tells the classes apart although it is no fight: the file's format, a single frame, the background.

Each is a small classifier that judges the clips of one data set, train and judged ones: fitted on half of the sources,
asked about the other half, and the other way round. A set whose classes can be told so gives high figures to models
that have learnt nothing of violence. Beside them: what the model itself is worth when the frames come in another order.

An alarm needs an AUC of 0.6, and odds below 1 % that chance gives as much on any data set of that check: permutation
tests over the sources of each half (source_permutation.py), twice the lower p-value, adjusted by Holm for the number of
data sets. (One test over the predictions of both halves would not do: each half's probe knows the other's labels, and
p-values come out too low.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.backbones import registry
from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import UserError
from violence_detection.evaluation import influence, intervals, metrics, scoring
from violence_detection.evaluation.audits import source_permutation
from violence_detection.features import key
from violence_detection.features.cache import FeatureStore
from violence_detection.features.stored_features import StoredFeatures
from violence_detection.models import averaging
from violence_detection.system import storage
from violence_detection.training.config import PICTURES_OF
from violence_detection.video.augment import PLAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from violence_detection.models.trained_model import TrainedModel
    from violence_detection.training.training_data import Samples

ALPHA, WORTH_AN_ALARM = 0.01, 0.6
#: A loss of accuracy below this is none.
WORTH_A_WORD = 0.02
#: Clips of a data set that a probe judges, at most, and clips judged with their frames in another order.
MOST_PROBED, MOST_REORDERED = 1_000, 1_000
#: Clips of each class that a probe needs, and sources that a loss of accuracy must be seen on.
FEWEST_OF_CLASS, FEWEST_SOURCES = 5, 10
ALARM, NONE, TOO_FEW = "alarm", "none found", "too few sources to tell"
_CHUNK = 256
_FORMAT = ("width", "height", "fps", "duration_s")
_FIGHT = CLASS_NAMES[1]

#: What of some clips (rows of the manifest) a probe sees: (n, features).
Values = Callable[["pd.DataFrame"], np.ndarray]


@dataclass(frozen=True)
class AuditedClips:
    """`rows`: of the manifest, judged clips and those of train. `predictions`: of the judged (see metrics)."""

    predictions: pd.DataFrame
    rows: pd.DataFrame


def audit(
    clips: AuditedClips,
    model: TrainedModel,
    samples: Samples,
    stores: Mapping[str, FeatureStore],
    background: Callable[[AuditedClips], tuple[AuditedClips, Values]] | None,
) -> dict[str, Any]:
    """All checks, JSON-able. `samples`: features of the judged clips; `stores`: the caches, also of the train clips.

    `background`: for the clips, a part of them and what their backgrounds look like (background.py); None where that
    was not asked for.
    """
    checks = {
        "metadata": file_format(clips),
        "single_frame": single_frame(clips, stores),
        "background": _not_done("not asked for: --audit shortcuts looks at the pictures")
        if background is None
        else _with(clips, background),
    }
    return {
        "rule": {"alpha": ALPHA, "lowest_auc": WORTH_AN_ALARM, "draws": source_permutation.DRAWS},
        "checks": checks,
        "train_too": len(clips.rows) > len(clips.predictions),
        "order_of_frames": order_of_frames(clips.predictions, model, samples),
        "comparisons": sum(r["p_value"] is not None for c in checks.values() for r in c["datasets"]),
        # of the comparisons: a data set of which no p-value could be told is none
        "too_few": sum(
            r["verdict"] == TOO_FEW and r["p_value"] is not None
            for c in checks.values()
            for r in c["datasets"]
        ),
        "alarms": [
            {"check": name, "dataset": row["dataset"], "roc_auc": row["roc_auc"], "p_holm": row["p_holm"]}
            for name, check in checks.items()
            for row in check["datasets"]
            if row["verdict"] == ALARM
        ],
    }


def file_format(clips: AuditedClips) -> dict[str, Any]:
    """Width, height, frame rate, length and codec alone, by a random forest."""
    from sklearn.ensemble import RandomForestClassifier

    codecs = {codec: i for i, codec in enumerate(sorted(set(clips.rows.codec)))}

    def values(rows: pd.DataFrame) -> np.ndarray:
        return np.column_stack([rows[list(_FORMAT)].to_numpy(float), rows.codec.map(codecs).to_numpy(float)])

    def forest() -> Any:
        return RandomForestClassifier(50, min_samples_leaf=3, random_state=0)

    return _probed(clips, values, forest, "width, height, frame rate, length and codec of the file")


def single_frame(clips: AuditedClips, stores: Mapping[str, FeatureStore]) -> dict[str, Any]:
    """The features of the frame in the middle alone, by logistic regression. Nothing is extracted for it.

    A damaged entry of the cache ends this check alone, and is named.
    """
    names = [n for n in stores if n.endswith(".rgb") and not registry.get(n.partition(".")[0]).is_video]
    if not names:
        return _not_done("no backbone of this model sees single frames")
    # A store that makes nothing again: the others know how to make the judged clips, and no clip of train.
    store = FeatureStore(stores[names[0]].folder)
    drawn = clips.rows.sort_values("clip_id").groupby("dataset").head(MOST_PROBED)
    there = [PLAIN in (store.variants(i, verify=False) or ()) for i in drawn.clip_id]
    if not any(there):
        return _not_done(f"no features of these clips in {store.folder}")
    what = f"the features of one frame ({names[0]}, the middle of the clip)"
    part = AuditedClips(clips.predictions, drawn[there])
    try:
        return _probed(part, lambda rows: _middle_frames(store, rows.clip_id.tolist()), _logistic, what)
    except UserError as e:
        return _not_done(str(e))


def _middle_frames(store: FeatureStore, clip_ids: Sequence[str]) -> np.ndarray:
    """The middle step of clips' features, (n, C) float32, a few clips in memory at a time."""
    stored = StoredFeatures(store, clip_ids, [PLAIN])
    parts = []
    for start in range(0, len(clip_ids), _CHUNK):
        chosen = np.arange(start, min(start + _CHUNK, len(clip_ids)))
        some = stored.gather(chosen, np.zeros(len(chosen), int))
        parts.append(some[:, some.shape[1] // 2].astype(np.float32))
    return np.concatenate(parts)


def _with(
    clips: AuditedClips, background: Callable[[AuditedClips], tuple[AuditedClips, Values]]
) -> dict[str, Any]:
    try:
        part, values = background(clips)
    except UserError as e:  # the engine lacks something, and the model was judged by what was in the cache
        return _not_done(str(e))
    what = "the median picture of the clip: what moves is gone from it (who hardly moves stays)"
    return _probed(part, values, _logistic, what)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))


def _probed(clips: AuditedClips, values: Values, probe: Callable[[], Any], what: str) -> dict[str, Any]:
    """One check: a probe of its own for each data set, its figures there, and whether they are cause for alarm."""
    judged = clips.rows[clips.rows.clip_id.isin(set(clips.predictions.clip_id))]
    rows = [_of_dataset(name, clips, values, probe) for name in sorted(set(judged.dataset))]
    tested = [row for row in rows if row["p_value"] is not None]
    for row, p in zip(tested, intervals.holm([r["p_value"] for r in tested]), strict=True):
        row["p_holm"] = p
        if row["attainable"] * len(tested) > ALPHA:
            row["verdict"] = TOO_FEW
        else:
            row["verdict"] = (
                ALARM if p is not None and p < ALPHA and row["roc_auc"] >= WORTH_AN_ALARM else NONE
            )
    rows.sort(key=lambda r: -(r["roc_auc"] or 0))
    return {
        "done": bool(tested),
        "why_not": "" if tested else _all_reasons(rows),
        "what": what,
        "datasets": rows,
    }


def _of_dataset(name: str, clips: AuditedClips, values: Values, probe: Callable[[], Any]) -> dict[str, Any]:
    """A probe within one data set, so that it cannot tell the classes by telling the sets."""
    rows = clips.rows[clips.rows.dataset == name].sort_values("clip_id")
    rows = rows.head(MOST_PROBED)  # drawn: a clip id is a hash
    out: dict[str, Any] = dict.fromkeys(("roc_auc", "model_roc_auc", "p_value", "p_holm", "attainable"))
    out |= {"dataset": name, "accuracy": None, "ci95": None, "n": len(rows)}
    out |= {"n_groups": int(rows.source_group.nunique())}
    is_fight, groups = (rows.label == _FIGHT).to_numpy(), rows.source_group.astype(str).to_numpy()
    if min(is_fight.sum(), (~is_fight).sum()) < FEWEST_OF_CLASS:
        return out | {"verdict": f"not done: fewer than {FEWEST_OF_CLASS} clips of a class"}
    halves = _halves(is_fight, groups)
    if len(halves) < 2:
        return out | {"verdict": TOO_FEW}
    p_fight = _cross_fitted(values(rows), is_fight, halves, probe)
    right = (p_fight >= 0.5) == is_fight
    tests = [source_permutation.permutation_test(is_fight[h], p_fight[h], groups[h]) for h in halves]
    of_model = clips.predictions[clips.predictions.dataset == name]
    return out | {
        "accuracy": float(right.mean()),
        "ci95": list(metrics.accuracy_interval(right, groups)),
        "roc_auc": float(np.mean([test.auc for test in tests])),
        "model_roc_auc": metrics.score(of_model, of_model[metrics.ENSEMBLE_COLUMN], 0.5).get("roc_auc"),
        "p_value": min(1.0, 2 * min(test.p_value for test in tests)),
        "attainable": 2 * min(test.attainable for test in tests),
    }


def _halves(is_fight: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Two halves of the clips, by position, without a source in both; fewer where a half would lack a class."""
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(groups)) < 4:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few sources cannot be divided evenly
        folds = StratifiedGroupKFold(2, shuffle=True, random_state=0).split(is_fight, is_fight, groups)
        return [half for _, half in folds if 0 < is_fight[half].sum() < len(half)]


def _cross_fitted(
    values: np.ndarray, is_fight: np.ndarray, halves: Sequence[np.ndarray], probe: Callable[[], Any]
) -> np.ndarray:
    """P(fight) (n,) of each half's clips by a probe that was fitted on the other half."""
    p_fight = np.empty(len(values))
    for asked, fitted in (halves, halves[::-1]):
        p_fight[asked] = probe().fit(values[fitted], is_fight[fitted]).predict_proba(values[asked])[:, 1]
    return p_fight


def _all_reasons(rows: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(dict.fromkeys(f"{r['dataset']}: {r['verdict']}" for r in rows)) or "no clips"


def _not_done(why: str) -> dict[str, Any]:
    return {"done": False, "why_not": why, "what": "", "datasets": []}


def order_of_frames(predictions: pd.DataFrame, model: TrainedModel, samples: Samples) -> dict[str, Any]:
    """What the model is worth when the steps of its features come in another order, drawn for each clip.

    Features are exchanged, not frames: each step of the motion stream still shows the movement of a moment. So this
    asks whether the order of moments counts, not whether movement does. The steps of a whole network are frames, of
    which no movement is left; `moved` says what changed places. Below MOST_REORDERED clips all are judged.
    """
    known = predictions[predictions[metrics.ENSEMBLE_COLUMN].notna()].set_index("clip_id")
    chosen = np.flatnonzero(samples.rows.clip_id.isin(known.index))
    chosen = chosen[np.argsort(samples.rows.clip_id.to_numpy()[chosen], kind="stable")][:MOST_REORDERED]
    some = samples.take(chosen)
    each_view = scoring.judge_views(model, some, _reordered)
    p = model.average({n: averaging.over_views(p, model.closer_look) for n, p in each_view.items()})
    rows = known.loc[some.rows.clip_id]
    is_fight = (rows.label == _FIGHT).to_numpy()
    in_order = influence.accuracy(is_fight, rows[metrics.ENSEMBLE_COLUMN].to_numpy(float) >= model.threshold)
    reordered = influence.accuracy(is_fight, p >= model.threshold)
    assert in_order is not None
    assert reordered is not None
    groups = intervals.numbered(rows.source_group.astype(str).to_numpy())
    # As any two models are compared: that few clips lost nothing is no proof that many lose nothing.
    loss, lost, _ = intervals.difference(in_order, reordered, groups, imagined=1.0)
    return {
        "n": len(rows),
        "n_groups": len(np.unique(groups)),
        "moved": sorted({"frames" if _is_pictures(name) else "features" for name in samples.inputs}),
        "accuracy": in_order.value,
        "accuracy_reordered": reordered.value,
        "ci95_reordered": list(intervals.interval(reordered, groups)),
        "loss": loss,
        "loss_ci95": list(lost) if lost else None,
        "verdict": _said_of_order(lost if len(np.unique(groups)) >= FEWEST_SOURCES else None),
    }


def _is_pictures(input_name: str) -> bool:
    """Whether the steps of a model input are frames, as a whole network takes them, and no features."""
    return key.backbone_of(input_name) in PICTURES_OF.values()


def _said_of_order(lost: tuple[float, float] | None) -> str:
    if lost is None:
        return TOO_FEW
    if lost[0] > 0:
        return "the order of moments counts"
    if lost[1] < WORTH_A_WORD:
        return "the order of moments hardly counts: the model judges by what each of them shows"
    return "no loss that could be told from chance"


def _reordered(inputs: Mapping[str, np.ndarray], clip_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """The inputs (B, T, ...) with their steps in another order, the same in all inputs of a clip with as many."""
    out = {name: np.array(values) for name, values in inputs.items()}
    for i, clip_id in enumerate(clip_ids):
        for values in out.values():
            rng = np.random.default_rng(storage.stable_seed("order", clip_id))
            values[i] = values[i][rng.permutation(values.shape[1])]
    return out
