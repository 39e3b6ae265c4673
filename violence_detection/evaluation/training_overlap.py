"""Whether a model was made with the clips that it is judged on, with others of their sources, or with copies of them.

Every statement rests on a comparison made in this run. What could not be compared is reported as not checked, with the
reason.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.combine import duplicates
from violence_detection.datasets import catalogue, source_groups
from violence_detection.models.trained_model import TrainedModel
from violence_detection.training import trained_clips

if TYPE_CHECKING:
    import pandas as pd

#: How a judged clip can match a training clip.
WAYS = ("same clip", "same source", "near copy")


@dataclass(frozen=True)
class Comparison:
    """Result of one of WAYS: clips `found` in training, of those `compared`. `why_not`: why the others were not."""

    found: int
    compared: int
    why_not: str = ""

    def text(self) -> str:
        """The result in words, claiming no more than was compared."""
        if not self.compared:
            return (
                f"{self.found} found, not fully checked: {self.why_not}"
                if self.found
                else f"not checked: {self.why_not}"
            )
        said = f"{self.found or 'none'} of {self.compared}"
        return f"{said}; the others not checked: {self.why_not}" if self.why_not else said

    def record(self) -> dict[str, Any]:
        """The result for metrics.json. `found` is None if nothing was compared and nothing found."""
        return {
            "checked": self.compared > 0,
            "compared": self.compared,
            "found": self.found if self.compared or self.found else None,
            "not_checked": self.why_not,
        }


@dataclass(frozen=True)
class Overlap:
    """What `clips` judged clips share with the clips that a model was trained, selected and tuned on.

    `touched`: number of clips found by any comparison. `roles`: role -> how many of the same clips were used for it.
    `datasets`: names of the training data sets, None if that is not known for all clips. `by_clip`: id of each touched
    clip -> those of WAYS by which it was found.
    """

    clips: int
    training_clips: int
    touched: int
    same_clip: Comparison
    same_source: Comparison
    near_copy: Comparison
    roles: Mapping[str, int] = field(default_factory=dict)
    datasets: tuple[str, ...] | None = None
    by_clip: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def lines(self) -> list[tuple[str, str]]:
        """Lines (name, result in words) for the log and the report."""
        return [
            ("Trained, selected or tuned on", self.same_clip.text()),
            ("Of a source that was", self.same_source.text()),
            ("Copies of such clips, or of the same footage", self.near_copy.text()),
        ]

    def record(self) -> dict[str, Any]:
        """The overlap as metrics.json has it."""
        return {
            "clips": self.clips,
            "training_clips": self.training_clips,
            "touched": self.touched,
            "same_clip": {**self.same_clip.record(), "roles": dict(self.roles)},
            "same_source": self.same_source.record(),
            "near_copy": self.near_copy.record(),
            "datasets": None if self.datasets is None else list(self.datasets),
        }


def compare(model: TrainedModel, rows: pd.DataFrame, manifest_sha256: str) -> Overlap:
    """Compare judged clips with all clips that any member of the model was made with.

    `rows`: of the manifest with this SHA-256; or similar rows of the user's own clips, with an empty SHA-256.
    """
    known, lost = known_clips(model)
    found_ids = rows.clip_id.isin(set(known.clip_id)).to_numpy(bool)
    same_clip = Comparison(int(found_ids.sum()), 0 if lost else len(rows), lost)
    found_prints, near_copy = _by_fingerprint(known, rows, lost or _without(known, "fingerprint"))
    found_groups, same_source = _by_source(
        model, known, rows, manifest_sha256, lost, found_ids | found_prints
    )
    unknown = bool(lost) or known.empty or bool((known.dataset == "").any())
    roles = known.drop_duplicates("clip_id").set_index("clip_id").role
    touched = found_ids | found_groups | found_prints
    ways = zip(rows.clip_id, zip(found_ids, found_groups, found_prints, strict=True), strict=True)
    return Overlap(
        clips=len(rows),
        training_clips=int(known.clip_id.nunique()),
        touched=int(touched.sum()),
        same_clip=same_clip,
        same_source=same_source,
        near_copy=near_copy,
        roles=dict(sorted(Counter(roles.reindex(rows.clip_id[found_ids]).replace("", "unknown")).items())),
        datasets=None if unknown else tuple(sorted(set(known.dataset))),
        by_clip={clip: tuple(itertools.compress(WAYS, found)) for clip, found in ways if any(found)},
    )


def known_clips(model: TrainedModel) -> tuple[pd.DataFrame, str]:
    """Return the clips of all members, and in words what is missing; empty if nothing is."""
    import pandas as pd

    tables = {folder: trained_clips.read(folder) for folder in model.folders}
    there = [table for table in tables.values() if table is not None]
    empty = pd.DataFrame(columns=list(trained_clips.COLUMNS), dtype=str)
    lost = [str(folder) for folder, table in tables.items() if table is None]
    why = (
        f"{lost[0]} has no {trained_clips.CLIPS_NAME}. Copy it from where the model was trained"
        if lost
        else ""
    )
    return pd.concat([empty, *there], ignore_index=True), why


def _without(known: pd.DataFrame, column: str) -> str:
    """Why clips cannot be compared by a column: an earlier version recorded ids only. Empty if they can."""
    if (known.role == "").any():
        return (
            f"the model was made by an earlier version, which did not record the {column.replace('_', ' ')}. Run "
            "the command that trained it again: it records that, and trains nothing"
        )
    return ""


def _by_source(
    model: TrainedModel,
    known: pd.DataFrame,
    rows: pd.DataFrame,
    manifest_sha256: str,
    lost: str,
    met: np.ndarray,
) -> tuple[np.ndarray, Comparison]:
    """Which clips (n,) come from a source that training had.

    Names of sources are compared for clips of the same data sets, where the same name means the same source. Clips that
    share a source with a clip `met` (n,) in training, by content or fingerprint, are found whatever the name, because
    sources that were joined have other names in another manifest.
    """
    published, sets = _published_namespaces(), catalogue.load()
    is_same = bool(model.records) and {r["manifest_sha256"] for r in model.records} == {manifest_sha256}
    # a user's own set may have the name of a published namespace, so the data set is checked, too
    comparable = np.array(
        [
            is_same or (dataset in sets and group.partition(":")[0] in published)
            for dataset, group in zip(rows.dataset, rows.source_group, strict=True)
        ],
        bool,
    )
    of_met = rows.source_group.isin(set(rows.source_group[met]) - {""}).to_numpy(bool)
    theirs = set(known.source_group) - {""}
    # an id may be cut off in one manifest and whole in another
    also = source_groups.also_called(theirs)
    same = [group in also or bool(source_groups.also_called([group]) & theirs) for group in rows.source_group]
    found = of_met | (comparable & np.array(same, bool))
    why = lost or _without(known, "source_group")
    if why:
        return found, Comparison(int(found.sum()), 0, why)
    why = (
        ""
        if comparable.all()
        else (
            "own clips are named by their folders or table, which says nothing of the sources in another manifest"
        )
    )
    compared = int((comparable | of_met).sum()) if comparable.any() else 0
    return found, Comparison(int(found.sum()), compared, why)


def _published_namespaces() -> set[str]:
    """Prefixes of the names of sources that are the same in every manifest, as they come from the data set itself."""
    sets = catalogue.load()
    return {
        *sets,
        *(rule.namespace for dataset in sets.values() for rule in dataset.groups if rule.namespace),
    }


def _by_fingerprint(known: pd.DataFrame, rows: pd.DataFrame, why: str) -> tuple[np.ndarray, Comparison]:
    """Which clips (n,) are copies of training clips, or show the same footage, by the method of step 2."""
    has_print = (rows.fingerprint != "").to_numpy(bool)
    found = near(rows.fingerprint.tolist(), known.fingerprint.tolist())
    if why:
        return found, Comparison(int(found.sum()), 0, why)
    why = "" if has_print.all() else "clips without texture (black, one colour) have no fingerprint"
    return found, Comparison(int(found.sum()), int(has_print.sum()), why)


def near(judged: Sequence[str], trained: Sequence[str]) -> np.ndarray:
    """Which judged fingerprints (n,) are connected with a trained one, by a pair or a chain of pairs."""
    there = sorted(set(trained) - {""})
    prints = [*there, *judged]
    pairs = duplicates.find_pairs(prints)
    clusters = np.array(duplicates.clusters(len(prints), pairs), int)
    return clusters[len(there) :] < len(there)  # the number of a cluster is its first position
