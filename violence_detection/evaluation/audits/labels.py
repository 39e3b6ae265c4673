"""Find labels that may be wrong, and weak groups, by predictions of models that had not seen the clips.

Out-of-fold probabilities rank the train clips by how little the models believe their labels (cleanlab: Northcutt et
al., "Confident Learning", J. Artif. Intell. Res. 70, 2021; Kuan & Mueller, "Model-agnostic label quality scoring",
2022). A ranking has a first tenth however good the labels are, so the share of wrong labels is estimated separately
(label_noise.py). Clips that are copies of each other, mirrored or not, with different labels are suspects by their
fingerprints. Clips that look alike are clustered into groups; a group is weak if it is judged worse than the other
clips by more than chance explains, clips of one source counting as related.

Only train clips are listed: leaving out val clips because models are wrong on them would improve any model's figures.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.combine import duplicates
from violence_detection.constants import CLASS_NAMES
from violence_detection.evaluation import intervals, metrics
from violence_detection.evaluation.audits import footage, label_noise
from violence_detection.system.figures import number, plural

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the table of suspects. `confirmed` is left for the mark of a person who has looked at the clip.
SUSPECT_COLUMNS = (
    "clip_id", "path", "label", "suggested", "score", "confirmed", "why", "p_fight", "dataset", "source_group",
    "source_path",
)  # fmt: skip
#: Least share of the clips that is listed: those with the lowest scores.
LISTED_SHARE = 0.1
#: Clips of each class that the audit needs.
FEWEST_OF_CLASS = 20
#: A group is weak if its p-value, adjusted by Holm for the number of groups, is below ALPHA and its error rate is at
#: least WORSE times that of the other clips.
ALPHA, WORSE = 0.001, 1.5
#: Clips in a group on average, and the largest number of groups.
_CLIPS_A_GROUP, _MOST_GROUPS = 60, 30
_THRESHOLD = 0.5
#: Clips of a weak group that the page shows.
_EXAMPLES = 3


@dataclass(frozen=True)
class LabelAudit:
    """The result of `audit`.

    `record`: for metrics.json. `suspects`: table with SUSPECT_COLUMNS, the lowest score first. `labels`: clip id ->
    label of every audited clip.
    """

    record: dict[str, Any]
    suspects: pd.DataFrame
    labels: Mapping[str, str]


def audit(rows: pd.DataFrame, values: np.ndarray | None, why_no_values: str = "") -> LabelAudit:
    """Find clips whose labels may be wrong, and weak groups.

    `rows`: train rows of the manifest with p_fight, the out-of-fold probability. `values`: the clips' descriptors,
    (n, C); None, for the reason `why_no_values`: then no groups are compared.
    """
    rows = rows.reset_index(drop=True)
    is_fight = (rows.label == CLASS_NAMES[1]).to_numpy(bool)
    label_of = dict(zip(rows.clip_id, rows.label, strict=True))
    why_not = _too_few(is_fight)
    if why_not:
        record: dict[str, Any] = {"checked": False, "not_checked": why_not, "clips": len(rows)}
        limit = {"state": "unknown", "name": "Labels", "text": f"not checked: {why_not}"}
        return LabelAudit(
            {**record, "limit": limit}, _suspects(rows, np.zeros(len(rows)), {}, set()), label_of
        )
    p = rows.p_fight.to_numpy(float)
    score, flagged = doubt(p, is_fight)
    copies = _copies_of_other_label(rows)
    least_believed = _by_score(rows, score)[: math.ceil(LISTED_SHARE * len(rows))]
    suspects = _suspects(rows, score, copies, {*least_believed, *np.flatnonzero(flagged).tolist(), *copies})
    noise = label_noise.estimate(p, is_fight, rows.source_group.to_numpy(str))
    groups = [] if values is None else weak_groups(rows, p, is_fight, values)
    record = {
        "checked": True,
        "not_checked": "",
        "clips": len(rows),
        "n_groups": int(rows.source_group.nunique()),
        "flagged": int(flagged.sum()),
        "listed": len(suspects),
        "noise": {**asdict(noise), "level": label_noise.LEVEL, "alarm": noise.alarm, "told": noise.told},
        "copies_of_other_label": len(copies),
        "groups_compared": 0 if values is None else _group_count(len(rows)),
        "groups_not_compared": why_no_values if values is None else "",
        "weak_groups": groups,
    }
    return LabelAudit({**record, "limit": _limit(record)}, suspects, label_of)


def doubt(p_fight: np.ndarray, is_fight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each given label, (n,) in [0, 1], and which confident learning calls wrong, (n,) bool."""
    from cleanlab import filter as cleanlab_filter
    from cleanlab import rank

    labels = is_fight.astype(int)
    probabilities = np.column_stack([1 - p_fight, p_fight])
    score = rank.get_label_quality_scores(labels, probabilities, method="self_confidence")
    flagged = cleanlab_filter.find_label_issues(labels, probabilities, filter_by="both", n_jobs=1)
    return np.asarray(score, float), np.asarray(flagged, bool)


def weak_groups(
    rows: pd.DataFrame, p_fight: np.ndarray, is_fight: np.ndarray, values: np.ndarray
) -> list[dict[str, Any]]:
    """Groups of clips that look alike (k-means) and are judged worse than the other clips, the lowest accuracy first.

    A one-sided binomial test against the error rate of the other clips, on the number of independent clips that the
    group is worth (intervals.effective_count).
    """
    from sklearn.cluster import KMeans

    points = footage.whitened(values)
    k = _group_count(len(rows))
    made = KMeans(k, n_init=3, random_state=0).fit(points)
    correct = (p_fight >= _THRESHOLD) == is_fight
    sources = rows.source_group.to_numpy(str)
    tested = [(g, np.flatnonzero(made.labels_ == g)) for g in range(k)]
    tested = [(g, at) for g, at in tested if 0 < len(at) < len(rows)]
    p_values = [_odds(correct[at], sources[at], 1 - np.delete(correct, at).mean()) for _, at in tested]
    found = []
    for (g, at), p_value in zip(tested, intervals.holm(p_values), strict=True):
        others = np.delete(correct, at)
        if p_value is None or p_value >= ALPHA or (1 - correct[at].mean()) < WORSE * (1 - others.mean()):
            continue
        near = at[np.argsort(np.linalg.norm(points[at] - made.cluster_centers_[g], axis=1), kind="stable")]
        low, high = metrics.accuracy_interval(correct[at], sources[at])
        found.append(
            {
                "accuracy": float(correct[at].mean()),
                "ci95": [low, high],
                "accuracy_of_others": float(others.mean()),
                "n": len(at),
                "n_groups": len(set(sources[at])),
                "fights": int(is_fight[at].sum()),
                "datasets": {str(d): int(n) for d, n in rows.dataset.iloc[at].value_counts().items()},
                "p_holm": p_value,
                "examples": rows.path.iloc[near[:_EXAMPLES]].tolist(),
            }
        )
    return sorted(found, key=lambda g: g["accuracy"])


def _group_count(n: int) -> int:
    return max(2, min(_MOST_GROUPS, n // _CLIPS_A_GROUP))


def _odds(correct: np.ndarray, sources: np.ndarray, error: float) -> float:
    """P-value: the probability of at least as many errors, if each clip is wrong with probability `error`.

    `correct`: (n,) bool, `sources`: (n,); the clips count as the number of independent clips that they are worth.
    """
    from scipy import stats

    independent = intervals.effective_count(correct, sources)
    errors = float((~correct).mean()) * independent
    if errors <= 0:
        return 1.0
    # the binomial tail, written with the beta distribution, which also takes counts that are not whole
    return float(stats.beta.cdf(error, errors, independent - errors + 1))


def _too_few(is_fight: np.ndarray) -> str:
    fewest = min(int(is_fight.sum()), int((~is_fight).sum()))
    return "" if fewest >= FEWEST_OF_CLASS else f"{fewest} clips of a class; {FEWEST_OF_CLASS} are needed"


def _copies_of_other_label(rows: pd.DataFrame) -> dict[int, str]:
    """Position of each clip that is a copy, mirrored or not, of a clip with the other label -> which, in words."""
    at: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(rows.fingerprint):
        at[text].append(i)
    found: dict[int, str] = {}
    for text, near in duplicates.neighbours(at).items():
        copies = {text: "a copy"}
        copies |= {other: "a copy" for other, pair in near.items() if pair.same_clip}
        copies |= {other: "a mirrored copy" for other, pair in near.items() if pair.mirrored}
        said = [
            (rows.label[k], f"{what} of {rows.path[k]}, which is {rows.label[k]}")
            for other, what in copies.items()
            for k in at[other]
        ]
        for i in at[text]:
            if others := [words for label, words in said if label != rows.label[i]]:
                found[i] = others[0]
    return found


def _by_score(rows: pd.DataFrame, score: np.ndarray) -> list[int]:
    """Positions of the clips, the lowest score first; ties by path."""
    return sorted(range(len(rows)), key=lambda i: (score[i], rows.path[i]))


def _suspects(
    rows: pd.DataFrame, score: np.ndarray, copies: dict[int, str], listed: Collection[int]
) -> pd.DataFrame:
    """The table of suspects: the clips at the positions `listed`, the lowest score first."""
    import pandas as pd

    table = []
    for i in (i for i in _by_score(rows, score) if i in listed):
        row = rows.iloc[i]
        why = f"P(fight) {number(row.p_fight)} by models that had not seen it"
        if i in copies:
            why = f"{copies[i]}; {why}"
        other_label = next(name for name in CLASS_NAMES if name != row.label)
        doubted = score[i] < _THRESHOLD or i in copies
        table.append(
            {
                **{c: row[c] for c in ("clip_id", "path", "label", "p_fight", "dataset", "source_group")},
                "source_path": row.source_path,
                "suggested": other_label if doubted else row.label,
                "score": round(float(score[i]), 6),
                "confirmed": "",
                "why": why,
            }
        )
    return pd.DataFrame(table, columns=list(SUSPECT_COLUMNS))


def _limit(record: dict[str, Any]) -> dict[str, str]:
    """The audit's line in the report's list of limits: state, name and text."""
    noise, weak = record["noise"], record["weak_groups"]
    interval = (
        f"{100 * noise['level']:.0f} % interval {100 * noise['low']:.1f} to {100 * noise['high']:.1f} %"
    )
    told = [f"{100 * noise['share']:.1f} % of train labels seem wrong ({interval})"] if noise["alarm"] else []
    if copies := record["copies_of_other_label"]:
        told.append(f"{copies} train clips are copies of clips with the other label")
    if weak:
        are = "is" if len(weak) == 1 else "are"
        told.append(
            f"{plural(len(weak), 'group')} of clips that look alike {are} judged worse than the others"
        )
    if told and not noise["told"]:
        told.append(f"how many labels are wrong cannot be told ({interval})")
    if told:
        return {"state": "alarm" if noise["alarm"] else "note", "name": "Labels", "text": "; ".join(told)}
    by = f"out-of-fold predictions of {record['clips']} train clips"
    if not noise["told"]:
        text = f"{by} are too few or too poor to tell how many labels are wrong ({interval})"
        return {"state": "unknown", "name": "Labels", "text": text}
    text = f"no sign of many wrong labels in {by} ({interval})"
    return {"state": "fine", "name": "Labels", "text": text}
