"""The clips of the manifest with their cached features: what the parts of a training run are read from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection import augment, extract, manifest, split, storage, training_data
from violence_detection.config import ExtractConfig, FeatureConfig
from violence_detection.errors import UserError
from violence_detection.features import RECORD_NAME, FeatureStore
from violence_detection.folds import Cut
from violence_detection.samples import is_sample_root
from violence_detection.training_data import Data, Samples

if TYPE_CHECKING:
    import pandas as pd

REST = "rest"


@dataclass(frozen=True)
class Pool:
    """Readable clips (rows of the manifest, by clip id) and their feature caches; small enough to be sent about."""

    frame: pd.DataFrame
    stores: Mapping[str, FeatureStore]
    variants: tuple[str, ...]
    failures: list[dict[str, str]]
    records: dict[str, dict[str, Any]]
    manifest_sha256: str
    generated: bool

    def rows(self, clip_ids: Sequence[str]) -> pd.DataFrame:
        """The manifest's rows of these clips, in this order; a clip named twice is there twice."""
        return self.frame.set_index("clip_id", drop=False).loc[list(clip_ids)].reset_index(drop=True)

    def plain(self, clip_ids: Sequence[str]) -> Samples:
        """The clips without augmentation, (N, 1, T, C) an input."""
        return training_data.load(self.stores, self.rows(clip_ids), self.variants[:1])

    def views(self, clip_ids: Sequence[str], count: int) -> Samples:
        """The clips plain and in `count` - 1 test-time views, (N, count, T, C) an input."""
        names = augment.variant_names("t", count)
        return training_data.load(self.stores, self.rows(clip_ids), names, in_memory=True)

    def data(self, cut: Cut) -> Data:
        """Load the parts of a cut: train with every variant, selection and held-out (as `val`) plain."""
        once, positions = np.unique(np.array(cut.train), return_inverse=True)
        train = training_data.load(self.stores, self.rows(once.tolist()), self.variants)
        return Data(
            train=train if len(once) == len(cut.train) else train.take(positions),
            selection=self.plain(cut.selection),
            val=self.plain(cut.held_out),
            failures=self.failures,
            records=self.records,
            manifest_sha256=self.manifest_sha256,
            generated=self.generated,
        )

    def with_absolute_paths(self) -> Pool:
        """The same pool for a process with another working folder."""
        return replace(self, stores={n: FeatureStore(s.folder.resolve()) for n, s in self.stores.items()})


def datasets(
    frame: pd.DataFrame, asked: Collection[str], added: Collection[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """The data sets to measure on and those only to train on. Raises UserError for names not in the manifest."""
    there = sorted(set(frame.dataset))
    if unknown := sorted({*asked, *added} - {*there, REST}):
        raise UserError(f"no clips of data set {unknown[0]!r} in manifest.csv. There are: {', '.join(there)}")
    target = frozenset(asked) or frozenset(there)
    rest = frozenset(there) if REST in added else frozenset(added)
    return target, rest - target


def open_pool(
    features: FeatureConfig,
    where: ExtractConfig,
    target: Collection[str],
    added: Collection[str] = (),
    *,
    all_clips: bool = False,
    views: int = 1,
) -> Pool:
    """Extract what is missing of the clips of the data sets to measure on and of those added to train on.

    `all_clips`: val counts as train. `views`: test-time views of the target's train clips, the plain one included.
    """
    combined = where.data_root / "combined_all"
    frame = manifest.read(combined)
    frame = frame[frame.dataset.isin({*target, *added})]
    if all_clips:
        frame = frame.assign(split=split.TRAIN)
    variants = augment.variant_names("v", where.augment)
    test_time = augment.variant_names("t", views)[1:]
    is_train, is_target = frame.split == split.TRAIN, frame.dataset.isin(target)
    wanted = training_data.clips_of(frame[is_train & is_target], combined, (*variants, *test_time))
    wanted += training_data.clips_of(frame[is_train & ~is_target], combined, variants)
    wanted += training_data.clips_of(frame[~is_train], combined, variants[:1])
    extraction = extract.ensure_for(wanted, features, where)
    training_data.report_extraction(extraction, len(wanted))
    return Pool(
        frame=training_data.without_failures(frame, combined, extraction.failures),
        stores=extraction.stores,
        variants=variants,
        failures=extraction.failures,
        records={name: storage.read_json(s.folder / RECORD_NAME) for name, s in extraction.stores.items()},
        manifest_sha256=storage.sha256_file(combined / manifest.FILE_NAME),
        generated=is_sample_root(where.data_root),
    )
