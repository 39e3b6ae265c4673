"""The clips of the manifest with their cached features, from which the parts of a training run are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.combine import manifest, split
from violence_detection.datasets.generated.marker import warn_if_generated
from violence_detection.ensemble.folds import Fold
from violence_detection.errors import UserError
from violence_detection.features import cache, extract, key
from violence_detection.features.cache import RECORD_NAME, FeatureStore
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.system import storage
from violence_detection.training import training_data
from violence_detection.training.training_data import Data, Samples
from violence_detection.video import augment

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

REST = "rest"


@dataclass(frozen=True)
class Pool:
    """Readable clips (rows of the manifest, sorted by clip id) and where their features are cached.

    It has no features itself, so it can be sent to other processes. `memory_gb`: memory that features may take; 0: a
    share of what is free. `sharers`: the number of processes of one machine that load features at the same time and
    share that memory.
    """

    frame: pd.DataFrame
    stores: Mapping[str, FeatureStore]
    variants: tuple[str, ...]
    failures: list[dict[str, str]]
    records: dict[str, dict[str, Any]]
    manifest_sha256: str
    generated: bool
    memory_gb: float = 0.0
    sharers: int = 1
    #: The file given with --backbone-weights, for members that fine-tune a network.
    backbone_weights: Path | None = None

    def rows(self, clip_ids: Sequence[str]) -> pd.DataFrame:
        """The manifest's rows of these clips, in this order; a clip that is named twice has two rows."""
        return self.frame.set_index("clip_id", drop=False).loc[list(clip_ids)].reset_index(drop=True)

    def labels_sha256(self, clip_ids: Sequence[str], columns: Sequence[str] = ("label",)) -> str:
        """Hash of what the manifest has in `columns`, by default the label, for these clips in this order."""
        return storage.stable_hash(self.rows(clip_ids)[list(columns)].astype(str).to_numpy().tolist(), 64)

    def judged_sha256(self, folds: Sequence[Fold]) -> str:
        """Hash of the data set, label and source group of each clip that the folds hold out."""
        held_out = [clip_id for fold in folds for clip_id in fold.held_out]
        return self.labels_sha256(held_out, ("dataset", "label", "source_group"))

    def plain(self, clip_ids: Sequence[str]) -> Samples:
        """The clips without augmentation: (N, 1, T, C) per input."""
        rows = self.rows(clip_ids)
        return training_data.load(self.stores, rows, self.variants[:1], self._fits_memory([(rows, 1)]))

    def views(self, clip_ids: Sequence[str], count: int, closer_look: bool = False) -> Samples:
        """The clips in `count` test-time views, plain first, then the closer look if asked: (N, V, T, C) per input."""
        names = augment.views(count, closer_look)
        rows = self.rows(clip_ids)
        return training_data.load(self.stores, rows, names, self._fits_memory([(rows, len(names))]))

    def data(self, fold: Fold, in_memory: bool | None = None) -> Data:
        """Load the parts of a fold: train with every variant, selection and held-out (as `val`) plain.

        `in_memory`: whether to read the features into memory; None: if they fit.
        """
        once, positions = np.unique(np.array(fold.train), return_inverse=True)
        parts = [
            (self.rows(ids), variants)
            for ids, variants in (
                (once.tolist(), self.variants),
                (fold.selection, self.variants[:1]),
                (fold.held_out, self.variants[:1]),
            )
        ]
        if in_memory is None:
            counted = [(rows, len(variants)) for rows, variants in parts]
            # `take` below copies clips that are drawn more than once
            if len(once) < len(fold.train):
                counted.append((self.rows(fold.train), len(self.variants)))
            in_memory = self._fits_memory(counted)
        loaded = [
            training_data.load(self.stores, *part, in_memory) if len(part[0]) else None for part in parts
        ]
        train = loaded[0]
        assert train, "a fold trains on something"
        none = train.take(np.zeros(0, int))
        return Data(
            train=train if len(once) == len(fold.train) else train.take(positions),
            selection=loaded[1] or none,
            val=loaded[2] or none,
            failures=self.failures,
            records=self.records,
            manifest_sha256=self.manifest_sha256,
            generated=self.generated,
            engines=cache.engines_by_input(self.stores),
        )

    def only(self, backbones: Sequence[str]) -> Pool:
        """The same clips with the features of these backbones alone."""
        stores = {name: s for name, s in self.stores.items() if key.backbone_of(name) in backbones}
        return replace(self, stores=stores, records={name: self.records[name] for name in stores})

    def _fits_memory(self, parts: Sequence[tuple[pd.DataFrame, int]]) -> bool:
        return training_data.fits_memory(self.stores, parts, self.memory_gb, self.sharers)

    def shared_by(self, processes: int) -> Pool:
        """The same pool for one of `processes` on a machine, which share the memory for features."""
        return replace(self, sharers=processes)

    def with_absolute_paths(self) -> Pool:
        """The same pool for a process with another working folder."""
        stores = {n: FeatureStore(s.folder.absolute(), s.reextract) for n, s in self.stores.items()}
        return replace(self, stores=stores)


def datasets(
    frame: pd.DataFrame, asked: Collection[str], added: Collection[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """The data sets to measure on, and those only to train on.

    `asked`, `added`: what --datasets and --add-datasets name; without `asked`, all are measured on. Raises UserError
    for names that the manifest does not have, for an added data set that is measured on already, and for `rest` if all
    are.
    """
    there = sorted(set(frame.dataset))
    if unknown := sorted({*asked, *(name for name in added if name != REST)} - {*there}):
        raise UserError(f"no clips of data set {unknown[0]!r} in manifest.csv. There are: {', '.join(there)}")
    if both := sorted({*asked} & {*added}):
        raise UserError(
            f"--add-datasets {both[0]} would do nothing: --datasets names it, so it is trained on already. Leave it out"
        )
    target = frozenset(asked) or frozenset(there)
    if REST in added and target == frozenset(there):
        raise UserError(
            f"--add-datasets {REST} would do nothing: --datasets has all of manifest.csv. Leave it out"
        )
    rest = frozenset(there) if REST in added else frozenset(added)
    return target, rest - target


@dataclass(frozen=True)
class Choice:
    """Which clips of the manifest are used, and which views of them.

    `target`: the data sets to measure on; `added`: those only to train on. `all_clips`: val counts as train. `views`:
    test-time views of the target's train clips, the plain one included; `closer_look`: whether they get that too.
    """

    target: Collection[str]
    added: Collection[str] = ()
    all_clips: bool = False
    views: int = 1
    closer_look: bool = False

    def rows(self, combined: Path) -> pd.DataFrame:
        """The rows of these clips in the manifest of the folder `combined`."""
        return self.rows_of(manifest.read(combined))

    def rows_of(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of these clips among `frame`, the rows of the manifest; with `all_clips`, all are in train."""
        frame = frame[frame.dataset.isin({*self.target, *self.added})]
        return frame.assign(split=split.TRAIN) if self.all_clips else frame

    def clips(self, frame: pd.DataFrame, combined: Path, variants: Sequence[str]) -> list[extract.WantedClip]:
        """The clips of `frame`, the rows chosen, each with the variants and views that are needed of it."""
        variants = tuple(variants)
        test_time = augment.views(self.views, self.closer_look)[1:]
        is_train, is_target = frame.split == split.TRAIN, frame.dataset.isin(self.target)
        return [
            *extract.clips_of(frame[is_train & is_target], combined, (*variants, *test_time)),
            *extract.clips_of(frame[is_train & ~is_target], combined, variants),
            *extract.clips_of(frame[~is_train], combined, variants[:1]),
        ]


def open_pool(features: FeatureConfig, how: ExtractConfig, choice: Choice) -> Pool:
    """Extract the missing features of the chosen clips, and return those that could be read as a pool."""
    combined = how.data_root / "combined_all"
    whole, sha256 = manifest.read_hashed(combined)
    frame = choice.rows_of(whole)
    variants = augment.variant_names("v", how.augment)
    wanted = choice.clips(frame, combined, variants)
    given = extract.weights_to_hand_on(features, how)
    extraction = extract.ensure(wanted, features, replace(how, backbone_weights=given))
    extraction.report(len(wanted))
    manifest.warn_if_changed(combined, sha256)
    return Pool(
        frame=extract.without_failures(frame, combined, extraction.failures),
        stores=extraction.stores,
        variants=variants,
        failures=extraction.failures,
        records={name: storage.read_json(s.folder / RECORD_NAME) for name, s in extraction.stores.items()},
        manifest_sha256=sha256,
        generated=warn_if_generated(how.data_root),
        memory_gb=how.memory_gb,
        backbone_weights=given and given.absolute(),
    )
