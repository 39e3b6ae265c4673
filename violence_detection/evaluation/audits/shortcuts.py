"""Find shortcuts, which tell the classes apart without any violence: file format, a single frame, the background.

For each, a probe (a small classifier) is fitted to the clips of one data set, train and judged ones, of half of its
sources, and judges the clips of the other half; then the other way round. A data set on which a probe succeeds gives
high figures to models that have learnt nothing about violence. Besides, the model itself is measured with the time
steps of its features in another order.

An alarm needs an AUC of at least 0.6 and a p-value below 0.01 after correction for the number of data sets in that
check (Holm). The p-value of a data set is twice the lower one of two permutation tests over sources
(source_permutation.py), one for each half. A single test on the predictions for both halves would be invalid: the probe
of each half was fitted to the labels of the other, which makes p-values too low.
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

#: An alarm needs an adjusted p-value below ALPHA and an AUC of at least WORTH_AN_ALARM.
ALPHA, WORTH_AN_ALARM = 0.01, 0.6
#: The order of frames hardly counts if the interval of the loss of accuracy ends below this.
WORTH_A_WORD = 0.02
#: Most clips of a data set that a probe is fitted to and judges.
MOST_PROBED = 1_000
#: Most clips that are judged with their time steps in another order.
MOST_REORDERED = 1_000
#: Clips of each class that a probe needs.
FEWEST_OF_CLASS = 5
#: Sources needed to say whether the order of frames counts.
FEWEST_SOURCES = 10
ALARM, NONE, TOO_FEW = "alarm", "none found", "too few sources to tell"
_CHUNK = 256
_FORMAT = ("width", "height", "fps", "duration_s")
_FIGHT = CLASS_NAMES[1]

#: What a probe sees of clips: rows of the manifest -> (n, features).
Values = Callable[["pd.DataFrame"], np.ndarray]


@dataclass(frozen=True)
class AuditedClips:
    """Clips to audit.

    `predictions`: of the judged clips (columns: see metrics). `rows`: manifest rows of the judged clips and, where
    known, of the train clips.
    """

    predictions: pd.DataFrame
    rows: pd.DataFrame


def audit(
    clips: AuditedClips,
    model: TrainedModel,
    samples: Samples,
    stores: Mapping[str, FeatureStore],
    background: Callable[[AuditedClips], tuple[AuditedClips, Values]] | None,
) -> dict[str, Any]:
    """Make all checks; the result is JSON-able.

    `samples`: features of the judged clips. `stores`: the feature caches, which may have train clips as well.
    `background`: chooses some of the clips, and returns them with a function that gives the features of their
    backgrounds (background.py); None if backgrounds were not asked for.
    """
    checks = {
        "metadata": file_format(clips),
        "single_frame": single_frame(clips, stores),
        "background": _not_done("not asked for: --audit shortcuts looks at the pictures")
        if background is None
        else _probed_background(clips, background),
    }
    return {
        "rule": {"alpha": ALPHA, "lowest_auc": WORTH_AN_ALARM, "draws": source_permutation.DRAWS},
        "checks": checks,
        "train_too": len(clips.rows) > len(clips.predictions),
        "order_of_frames": order_of_frames(clips.predictions, model, samples),
        "comparisons": sum(r["p_value"] is not None for c in checks.values() for r in c["datasets"]),
        # a part of `comparisons`: a data set without a p-value is not a comparison
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
    """Check what width, height, frame rate, length and codec alone tell, by a random forest."""
    from sklearn.ensemble import RandomForestClassifier

    codecs = {codec: i for i, codec in enumerate(sorted(set(clips.rows.codec)))}

    def values(rows: pd.DataFrame) -> np.ndarray:
        return np.column_stack([rows[list(_FORMAT)].to_numpy(float), rows.codec.map(codecs).to_numpy(float)])

    def forest() -> Any:
        return RandomForestClassifier(50, min_samples_leaf=3, random_state=0)

    return _probed(clips, values, forest, "width, height, frame rate, length and codec of the file")


def single_frame(clips: AuditedClips, stores: Mapping[str, FeatureStore]) -> dict[str, Any]:
    """Check what the features of the middle frame alone tell, by logistic regression.

    Only features in the cache are used; nothing is extracted. If an entry is damaged, this check alone is not done, and
    its record names the entry.
    """
    names = [n for n in stores if n.endswith(".rgb") and not registry.get(n.partition(".")[0]).is_video]
    if not names:
        return _not_done("no backbone of this model sees single frames")
    # without `reextract`: the given store knows how to extract the judged clips again, but no train clips
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
    """The middle step of each clip's features, (n, C) float32, read a few clips at a time to save memory."""
    stored = StoredFeatures(store, clip_ids, [PLAIN])
    parts = []
    for start in range(0, len(clip_ids), _CHUNK):
        chosen = np.arange(start, min(start + _CHUNK, len(clip_ids)))
        some = stored.gather(chosen, np.zeros(len(chosen), int))
        parts.append(some[:, some.shape[1] // 2].astype(np.float32))
    return np.concatenate(parts)


def _probed_background(
    clips: AuditedClips, background: Callable[[AuditedClips], tuple[AuditedClips, Values]]
) -> dict[str, Any]:
    try:
        part, values = background(clips)
    except UserError as e:  # the engine cannot run here; judging needed only what was in the cache
        return _not_done(str(e))
    what = "the median picture of the clip: what moves is gone from it (who hardly moves stays)"
    return _probed(part, values, _logistic, what)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))


def _probed(clips: AuditedClips, values: Values, probe: Callable[[], Any], what: str) -> dict[str, Any]:
    """Make one check: probe each data set by itself, and decide whether the figures are cause for alarm."""
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
    """Probe within one data set, so that the probe cannot tell the classes by recognising data sets."""
    rows = clips.rows[clips.rows.dataset == name].sort_values("clip_id")
    rows = rows.head(MOST_PROBED)  # a random sample, as clip ids are hashes
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
    """Divide the clips into two halves that share no source; return the positions of each.

    Halves without both classes are left out, so there may be fewer than two; with fewer than 4 sources there is none.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(groups)) < 4:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns that few sources cannot be divided evenly
        folds = StratifiedGroupKFold(2, shuffle=True, random_state=0).split(is_fight, is_fight, groups)
        return [half for _, half in folds if 0 < is_fight[half].sum() < len(half)]


def _cross_fitted(
    values: np.ndarray, is_fight: np.ndarray, halves: Sequence[np.ndarray], probe: Callable[[], Any]
) -> np.ndarray:
    """P(fight) of all clips, (n,): those of each half by a probe that is fitted on the other half."""
    p_fight = np.empty(len(values))
    for judged, fitted in (halves, halves[::-1]):
        p_fight[judged] = probe().fit(values[fitted], is_fight[fitted]).predict_proba(values[judged])[:, 1]
    return p_fight


def _all_reasons(rows: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(dict.fromkeys(f"{r['dataset']}: {r['verdict']}" for r in rows)) or "no clips"


def _not_done(why: str) -> dict[str, Any]:
    return {"done": False, "why_not": why, "what": "", "datasets": []}


def order_of_frames(predictions: pd.DataFrame, model: TrainedModel, samples: Samples) -> dict[str, Any]:
    """Measure the accuracy that the model loses when the time steps of each clip come in a random order.

    Features are reordered, not frames: each step of the motion stream still shows the movement of its moment. So this
    tells whether the order of moments counts, not whether movement does. The steps of a head that is a whole network
    are frames, and reordering them destroys movement, too; `moved` says which of the two were reordered. At most
    MOST_REORDERED clips are judged, drawn by their ids.
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
    # `imagined` as where any two models are compared: that few clips lost nothing does not prove that many would not
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
        "verdict": _order_verdict(lost if len(np.unique(groups)) >= FEWEST_SOURCES else None),
    }


def _is_pictures(input_name: str) -> bool:
    """Whether the steps of a model input are frames, as a whole network takes them, rather than features."""
    return key.backbone_of(input_name) in PICTURES_OF.values()


def _order_verdict(lost: tuple[float, float] | None) -> str:
    if lost is None:
        return TOO_FEW
    if lost[0] > 0:
        return "the order of moments counts"
    if lost[1] < WORTH_A_WORD:
        return "the order of moments hardly counts: the model judges by what each of them shows"
    return "no loss that could be told from chance"


def _reordered(inputs: Mapping[str, np.ndarray], clip_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Copies of the inputs, (B, T, ...), with the steps of each clip in a random order.

    All inputs of a clip that have the same T get the same order.
    """
    out = {name: np.array(values) for name, values in inputs.items()}
    for i, clip_id in enumerate(clip_ids):
        for values in out.values():
            rng = np.random.default_rng(storage.stable_seed("order", clip_id))
            values[i] = values[i][rng.permutation(values.shape[1])]
    return out
