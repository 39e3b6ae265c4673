"""Which clips a model is trained, selected and measured on: the official split, or folds by source.

No two parts of a fold share a source group. Nor do they share footage, even where it counts as several sources: the
selection part shows none of what is held out, and the train part none of either. Only clips of the target data sets
select and measure. Clips of added data sets are trained on, except those that share a source or footage with a clip
that selects or measures.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from violence_detection.combine import manifest, split
from violence_detection.combine.shared_footage import SharedFootage
from violence_detection.errors import UserError
from violence_detection.system import storage

if TYPE_CHECKING:
    import pandas as pd

OFFICIAL = "official"


@dataclass(frozen=True)
class Fold:
    """Clip ids of each part, ordered. A clip that `train` names several times is drawn that many times an epoch."""

    name: str
    train: tuple[str, ...]
    selection: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of the clips that train and select, which together decide the trained model."""
        return storage.stable_hash([self.train, self.selection], 64)


def official(frame: pd.DataFrame, target: Collection[str], fraction: float, seed: int) -> Fold:
    """The official split: val is held out, and the selection part is cut from train.

    `frame`: the manifest's rows, sorted by clip id. Raises UserError if a part has no clips or lacks a class.
    """
    aimed = frame.dataset.isin(target)
    val = frame[aimed & (frame.split == split.VAL)]
    manifest.require_both_classes("val", val)
    train = frame[aimed & (frame.split == split.TRAIN)]
    return _make_fold(OFFICIAL, frame, train, val, target, fraction, seed, SharedFootage(frame))


def cross_validation(
    frame: pd.DataFrame, target: Collection[str], k: int, fraction: float, seed: int
) -> list[Fold]:
    """`k` folds of the train rows of `frame`; each train clip of a target data set is held out by exactly one of them.

    Each fold has a selection part of its own, cut from the clips that it does not hold out. Raises UserError if there
    are fewer sources than folds, or if a part of a fold has too few clips or lacks a class.
    """
    rows = frame[frame.dataset.isin(target) & (frame.split == split.TRAIN)]
    strata = list(zip(rows.dataset, rows.label, strict=True))
    try:
        fold_of = split.grouped_folds(rows.source_group.tolist(), strata, k, seed, rows.clip_id.tolist())
    except ValueError as e:
        sources = rows.source_group.nunique()
        remedy = f"Use at most {sources}" if sources > 1 else "Leave it out, or add clips of other sources"
        raise UserError(
            f"--cross-validate {k}: each fold needs a source of its own, and the clips have {sources} in all. {remedy}"
        ) from e
    shared = SharedFootage(frame)
    return [
        _make_fold(f"fold_{i}", frame, rows[fold_of != i], rows[fold_of == i], target, fraction, seed, shared)
        for i in range(k)
    ]


def leave_one_dataset_out(
    frame: pd.DataFrame, target: Collection[str], fraction: float, seed: int
) -> list[Fold]:
    """One fold for each target data set, which holds out its train clips and trains on those of the others.

    A clip that shares a source with a held-out clip neither trains nor selects. Raises UserError if there are fewer
    than two data sets, or if too little is left without one of them.
    """
    rows = frame[frame.dataset.isin(target) & (frame.split == split.TRAIN)]
    names = sorted(set(rows.dataset))
    if len(names) < 2:
        raise UserError(
            f"--leave-one-dataset-out needs at least two data sets; the manifest has {', '.join(names) or 'none'}"
        )
    shared = SharedFootage(frame)
    folds = []
    for name in names:
        held_out = rows[rows.dataset == name]
        others = rows[(rows.dataset != name) & ~rows.source_group.isin(set(held_out.source_group))]
        try:
            fold = _make_fold(f"without_{name}", frame, others, held_out, target, fraction, seed, shared)
        except UserError as e:
            raise UserError(_too_small(frame, rows, name, fraction, seed)) from e
        folds.append(fold)
    return folds


def _too_small(frame: pd.DataFrame, rows: pd.DataFrame, left_out: str, fraction: float, seed: int) -> str:
    """The message for when too little is left without the data set `left_out`.

    It suggests leaving out as few as possible of the smallest data sets, or adding data if that does not help. `rows`:
    train clips of the target data sets.
    """
    names = sorted(set(rows.dataset), key=lambda name: (int((rows.dataset == name).sum()), name))
    sizes = {
        name: f"{name} ({len(part)} clips of {part.source_group.nunique()} sources)"
        for name, part in rows.groupby("dataset")
    }
    left = ", ".join(sizes[name] for name in names if name != left_out)
    said = (
        f"--leave-one-dataset-out: without {left_out}, too few clips are left to train and select on, or they lack a "
        f"class: {left}. "
    )
    for dropped in range(1, len(names) - 1):
        small, kept = names[:dropped], names[dropped:]
        try:
            leave_one_dataset_out(frame[frame.dataset.isin(kept)], kept, fraction, seed)
        except UserError:
            continue
        return f"{said}Leave out {', '.join(sizes[n] for n in small)}: --datasets {','.join(sorted(kept))}"
    return f"{said}Add data with both classes from more sources, or use a larger --selection-fraction"


def _make_fold(
    name: str,
    frame: pd.DataFrame,
    trainable: pd.DataFrame,
    held_out: pd.DataFrame,
    target: Collection[str],
    fraction: float,
    seed: int,
    shared: SharedFootage,
) -> Fold:
    """Make a fold that holds out `held_out`; its selection part is cut from `trainable`, clips of other sources.

    Raises UserError if train or selection lacks a class, or nothing is held out.
    """
    trainable = shared.without(held_out, trainable)
    chosen = split.selection_split(trainable, fraction, seed)
    selection = trainable[chosen]
    kept_apart = set(held_out.source_group) | set(selection.source_group)
    added = frame[
        ~frame.dataset.isin(target)
        & (frame.split == split.TRAIN)
        & ~frame.source_group.isin(kept_apart).to_numpy(bool)
    ]
    train = [
        clip_id
        for rows in (trainable[~chosen], shared.without(held_out, added))
        for clip_id in shared.without(selection, rows).clip_id
    ]
    parts = {
        "train": sorted(train),
        "selection": selection.clip_id.tolist(),
        "held-out": held_out.clip_id.tolist(),
    }
    label = dict(zip(frame.clip_id, frame.label, strict=True))
    for part, ids in parts.items():
        classes = len({label[clip_id] for clip_id in ids})
        if classes < (2 if part != "held-out" else 1):
            raise UserError(
                f"{name}: the {part} part has {'clips of one class only' if classes else 'no clips'}. Add data, "
                "use fewer folds or a larger --selection-fraction, or check manifest.csv"
            )
    return Fold(name, *(tuple(ids) for ids in parts.values()))


def with_repeats(fold: Fold, repeated: np.ndarray, share: float) -> Fold:
    """`fold` with the train clips where `repeated` (n_train,) bool is True drawn more often, to be `share` of an epoch.

    Each of them is drawn at least once, so their share may be larger. All other clips are still drawn once an epoch, so
    that nothing learnt from them is forgotten.
    """
    ids = np.array(fold.train)
    often, once = ids[repeated], ids[~repeated]
    wanted = round(share / (1 - share) * len(once))
    draws = np.resize(often, max(wanted, len(often))) if len(often) else often
    return Fold(f"{fold.name}-hard", tuple(sorted([*once, *draws])), fold.selection, fold.held_out)
