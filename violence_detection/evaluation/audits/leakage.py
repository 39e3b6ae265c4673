"""Leakage: which judged clips were met in training, and what the figures are without them.

Each judged clip is looked for among the training clips by content, by name of its source, by fingerprint (as copies are
found when data sets are combined: training_overlap.py) and by feature (footage.py). Features also find another moment
of the same place, and a source that goes under two names. A clip is suspicious if it is found in one of the first three
ways, or if it or its source is more similar to training than different sources are to each other.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.backbones import registry
from violence_detection.combine import duplicates
from violence_detection.errors import UserError
from violence_detection.evaluation import metrics, training_overlap
from violence_detection.evaluation.audits import footage
from violence_detection.features import key
from violence_detection.features.cache import FeatureStore
from violence_detection.features.stored_features import StoredFeatures
from violence_detection.system.figures import percentage, plural
from violence_detection.training.config import PICTURES_OF
from violence_detection.video.augment import PLAIN

if TYPE_CHECKING:
    import pandas as pd

    from violence_detection.evaluation.config import EvaluationConfig
    from violence_detection.evaluation.measure import Evaluation
    from violence_detection.evaluation.training_overlap import Overlap
    from violence_detection.training.training_data import Samples

log = logging.getLogger(__name__)
#: Table beside the report: every judged clip with its nearest training clips.
NEAREST_NAME = "nearest_training_clips.csv"
NEAREST_COLUMNS = (
    "clip_id", "path", "dataset", "source_group", "suspicious", "nearest_by_feature", "its_source", "similarity",
    "limit", "nearest_by_fingerprint", "fingerprint_distance",
)  # fmt: skip
#: Most training clips whose features are read without `--audit leakage`; more take minutes on a slow volume.
MOST_UNASKED = 5_000
#: Reasons why a clip is suspicious, besides training_overlap.WAYS.
LOOKS_ALIKE, SOURCE_ALIKE = "looks like one clip of training", "its source looks like one of training"
_FIGURES = ("accuracy", "ci95", "n", "n_groups", "roc_auc")
_CHUNK = 64


@dataclass(frozen=True)
class LeakageAudit:
    """The result of `audit`.

    `record`: for metrics.json. `nearest`: table with NEAREST_COLUMNS, one row per judged clip, sorted by path.
    """

    record: dict[str, Any]
    nearest: pd.DataFrame


def audit(
    predictions: pd.DataFrame,
    overlap: Overlap,
    known: pd.DataFrame,
    samples: Samples,
    stores: Mapping[str, FeatureStore],
    threshold: float,
    most: int | None = MOST_UNASKED,
) -> LeakageAudit:
    """Look for judged clips among the training clips `known`, and evaluate without those that are suspicious.

    `predictions`: of the judged clips (columns: see metrics), without those that have no probability. `overlap`: what
    training_overlap.compare found of them. `known`: the table of trained_clips. `samples`: features of the judged
    clips. `stores`: caches that may have the features of training clips. `most`: with more training clips than this,
    none is compared by feature (None: no limit).
    """
    judged = samples.rows[samples.rows.clip_id.isin(set(predictions.clip_id))].reset_index(drop=True)
    alike, by_feature = _by_feature(judged, known, samples, stores, most)
    why = {clip: list(ways) for clip, ways in overlap.by_clip.items()}
    if alike is not None:
        _add_lookalikes(why, alike, judged)
    nearest = _nearest(judged, known, alike, why)
    left = predictions[~predictions.clip_id.isin(set(why))]
    record = {
        "clips": len(judged),
        "training_clips": int(known.clip_id.nunique()),
        "same_clip": overlap.same_clip.record(),
        "same_source": overlap.same_source.record(),
        "near_copy": overlap.near_copy.record(),
        "by_feature": by_feature,
        "suspicious": len(why),
        "suspects": _suspects(nearest, why),
        "whole": _figures(predictions, threshold),
        "without_suspicious": _figures(left, threshold) if why and len(left) else None,
    }
    return LeakageAudit({**record, "limit": _limit(record)}, nearest)


def run(
    measured: Evaluation, samples: Samples, stores: Mapping[str, FeatureStore], config: EvaluationConfig
) -> LeakageAudit:
    """Audit a measured set and log the result.

    It is always made. With `--audit leakage` there is no limit on the training clips that are compared by feature.
    """
    known, _ = training_overlap.known_clips(measured.model)
    judged = measured.predictions[measured.predictions.p_violent.notna()]
    most = None if "leakage" in config.audit else MOST_UNASKED
    made = audit(judged, measured.overlap, known, samples, stores, measured.model.threshold, most)
    limit = made.record["limit"]
    log.log(logging.WARNING if limit["state"] == "alarm" else logging.INFO, "leakage: %s", limit["text"])
    return made


def descriptors(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Clip descriptors from model inputs: name -> (n, T, C) to (n, sum of C) float32.

    The mean over time of each input is scaled to length 1; they are joined in order of the inputs' names.
    """
    means = [np.asarray(x, np.float32).mean(axis=1) for _, x in sorted(inputs.items())]
    return np.concatenate(
        [m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-12) for m in means], axis=1
    )


def cached_descriptors(
    stores: Mapping[str, FeatureStore], clip_ids: list[str], names: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Descriptors (n, C) of the clips whose plain variant is in every cache in `names`, and these clips' ids, in order.

    Raises UserError, naming the entry, if reading finds one damaged.
    """
    # without `reextract`: the given stores know how to extract the judged clips again, and these are others
    plain = {name: FeatureStore(stores[name].folder) for name in names}
    there = [i for i in clip_ids if all(PLAIN in (s.variants(i, verify=False) or ()) for s in plain.values())]
    stored = {name: StoredFeatures(store, there, [PLAIN]) for name, store in plain.items()}
    parts = []
    for start in range(0, len(there), _CHUNK):
        at = np.arange(start, min(start + _CHUNK, len(there)))
        parts.append(descriptors({n: s.gather(at, np.zeros(len(at), int)) for n, s in stored.items()}))
    return (np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)), there


def looked_at(names: list[str]) -> list[str]:
    """Choose the model inputs that tell most about the place, to compare clips by.

    The first of these that the model has: features that show places; plain pictures, which change if the camera moves a
    step aside; any others, such as poses, which tell of people alone. Of the chosen, `rgb` streams only, if there are
    any: motion says less about a place.
    """
    features = [n for n in names if key.backbone_of(n) not in PICTURES_OF.values()]
    places = [n for n in features if registry.get(key.backbone_of(n)).shows_places]
    shown = places or [n for n in names if n not in features] or names
    return [n for n in shown if n.endswith(".rgb")] or shown


def _by_feature(
    judged: pd.DataFrame,
    known: pd.DataFrame,
    samples: Samples,
    stores: Mapping[str, FeatureStore],
    most: int | None,
) -> tuple[footage.Lookalikes | None, dict[str, Any]]:
    """Compare clips and sources by feature: the lookalikes (None if not compared), and the record of the comparison."""
    table = known.drop_duplicates("clip_id")
    table = table[~table.clip_id.isin(set(judged.clip_id))]  # found by its id already
    names = looked_at(sorted(samples.inputs))
    if (table.source_group == "").any():
        return None, _not_checked("the model was made by an earlier version, which did not record sources")
    if most is not None and len(table) > most:
        return None, _not_checked(
            f"the features of {len(table)} training clips were not read; --audit leakage reads them"
        )
    try:
        values, there = cached_descriptors(stores, table.clip_id.tolist(), names)
    except UserError as e:
        return None, _not_checked(str(e))
    train = table.set_index("clip_id").loc[there].reset_index()
    if why := footage.enough(train):
        return None, _not_checked(why)
    at = {clip: i for i, clip in enumerate(samples.rows.clip_id)}
    rows = [at[clip] for clip in judged.clip_id]
    taken = samples.take(np.array(rows))
    looked = dataclasses.replace(taken, inputs={name: taken.inputs[name] for name in names})
    found = np.concatenate([descriptors(batch) for batch in looked.plain_batches(_CHUNK)])
    alike = footage.compare(judged, found, train, values)
    return alike, _feature_record(alike, train, len(table), names)


def _not_checked(why: str) -> dict[str, Any]:
    return {"checked": False, "not_checked": why, "found": None}


def _feature_record(
    alike: footage.Lookalikes, train: pd.DataFrame, n_known: int, names: list[str]
) -> dict[str, Any]:
    beyond = alike.sources[alike.sources.beyond].sort_values("similarity", ascending=False)
    return {
        "checked": True,
        "not_checked": "; ".join(_not_told(alike, n_known - len(train), n_known)),
        "found": int(alike.clips.beyond.sum()),
        "compared": len(train),
        "inputs": names,
        "rule": {"clip_deviations": footage.CLIP_LIMIT, "source_deviations": footage.SOURCE_LIMIT},
        "datasets": [
            {
                "dataset": name,
                "clips": int((alike.clips.dataset == name).sum()),
                "typical": yardstick.typical,
                "limit": yardstick.limit,
                "highest": float(alike.clips.similarity[alike.clips.dataset == name].max()),
                "beyond": int(alike.clips.beyond[alike.clips.dataset == name].sum()),
                "measured_on": yardstick.of,
                "measured": yardstick.measured,
            }
            for name, yardstick in alike.yardsticks.items()
        ],
        "sources_compared": len(alike.sources),
        "sources": beyond.drop(columns="beyond").to_dict("records"),
    }


def _not_told(alike: footage.Lookalikes, absent: int, n_known: int) -> list[str]:
    """What the comparison by feature leaves open, in words."""
    whys = [f"the features of {absent} of {n_known} training clips are not in the cache"] if absent else []
    if uninformative := [
        name for name, yardstick in alike.yardsticks.items() if yardstick.limit >= footage.HIGHEST
    ]:
        what = (
            "training sources are too few, or vary too much in how alike they are, to find more than copies"
        )
        whys.append(f"for {', '.join(uninformative)}, {what}")
    return whys


def _add_lookalikes(why: dict[str, list[str]], alike: footage.Lookalikes, judged: pd.DataFrame) -> None:
    for clip in alike.clips.clip_id[alike.clips.beyond]:
        why.setdefault(clip, []).append(LOOKS_ALIKE)
    sources = set(alike.sources.source_group[alike.sources.beyond])
    for clip in judged.clip_id[judged.source_group.isin(sources)]:
        why.setdefault(clip, []).append(SOURCE_ALIKE)


def _nearest(
    judged: pd.DataFrame, known: pd.DataFrame, alike: footage.Lookalikes | None, why: Mapping[str, list[str]]
) -> pd.DataFrame:
    """The table with NEAREST_COLUMNS.

    Its columns by feature are empty if nothing was compared, those by fingerprint where no training clip is near.
    """
    import pandas as pd

    table = judged[["clip_id", "path", "dataset", "source_group"]].copy()
    table["suspicious"] = ["; ".join(why.get(clip, ())) for clip in table.clip_id]
    clips = None if alike is None else alike.clips.set_index("clip_id").reindex(table.clip_id)
    for column, source in (
        ("nearest_by_feature", "neighbour"),
        ("its_source", "neighbour_source"),
        ("similarity", "similarity"),
        ("limit", "limit"),
    ):
        table[column] = pd.NA if clips is None else clips[source].to_numpy()
    prints = _nearest_prints(judged, known)
    table["nearest_by_fingerprint"] = [prints.get(text, ("", None))[0] for text in judged.fingerprint]
    table["fingerprint_distance"] = [prints.get(text, ("", None))[1] for text in judged.fingerprint]
    return table.sort_values(["path", "clip_id"], ignore_index=True)[list(NEAREST_COLUMNS)]


def _nearest_prints(judged: pd.DataFrame, known: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """Fingerprint of a judged clip -> id of the training clip nearest to it by fingerprint, and the distance.

    Only pairs that `duplicates` joins count; a fingerprint without one is absent.
    """
    clips = known[known.fingerprint != ""].drop_duplicates("fingerprint").set_index("fingerprint").clip_id
    near = duplicates.neighbours([*clips.index, *judged.fingerprint])
    families = duplicates.families(near)
    of_family: dict[int, list[str]] = defaultdict(list)
    for text in clips.index:
        of_family[families[text]].append(text)
    nearest: dict[str, tuple[str, float]] = {}
    for text in near.keys() & set(judged.fingerprint):
        distances = {other: pair.distance for other, pair in near[text].items() if other in clips.index}
        if text in clips.index:
            distances[text] = 0.0
        if not distances:  # `neighbours` has only some of the pairs of a large family
            texts = [text, *of_family[families[text]]]
            pairs = duplicates.compare_pairs(texts, [(0, j) for j in range(1, len(texts))])
            distances = {texts[pair.j]: pair.distance for pair in pairs}
        if distances:
            closest = min(distances, key=lambda other: (distances[other], other))
            nearest[text] = str(clips[closest]), distances[closest]
    return nearest


def _suspects(nearest: pd.DataFrame, why: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """The suspicious clips for the page: those found by content, source or fingerprint first, then by similarity."""
    rows = nearest[nearest.suspicious != ""].astype(object)
    rows = rows.where(rows.notna(), None)
    certain = set(training_overlap.WAYS)
    return sorted(
        (
            {**{str(k): v for k, v in row.items()}, "suspicious": why[row["clip_id"]]}
            for row in rows.to_dict("records")
        ),
        key=lambda r: (not set(r["suspicious"]) & certain, -(r["similarity"] or 0.0), r["path"]),
    )


def _figures(predictions: pd.DataFrame, threshold: float) -> dict[str, Any]:
    scored = metrics.score(predictions, predictions[metrics.ENSEMBLE_COLUMN], threshold)
    return {name: scored[name] for name in _FIGURES}


def _limit(record: Mapping[str, Any]) -> dict[str, str]:
    """The audit's line in the report's list of limits: state, name and text."""
    n, clips = record["suspicious"], record["clips"]
    by_feature = record["by_feature"]
    if n:
        without = record["without_suspicious"]
        share = (
            ""
            if without is None
            else f"; accuracy without them {percentage(without['accuracy'])} % of {without['n']}"
        )
        sources = len(by_feature.get("sources", ()))
        named = f", with {plural(sources, 'source')} under two names among them" if sources else ""
        return {
            "state": "alarm",
            "name": "Leakage",
            "text": f"{n} of {clips} clips {'is' if n == 1 else 'are'} suspiciously like training clips{named}{share}",
        }
    missing = [
        record[key]["not_checked"]
        for key in ("same_clip", "same_source", "near_copy", "by_feature")
        if record[key]["not_checked"]
    ]
    if missing:
        return {
            "state": "unknown",
            "name": "Leakage",
            "text": f"none found, but not fully checked: {missing[0]}",
        }
    return {
        "state": "fine",
        "name": "Leakage",
        "text": f"none of {clips} clips is more like a training clip, by content, source, fingerprint or feature, than "
        "clips of different sources are",
    }
