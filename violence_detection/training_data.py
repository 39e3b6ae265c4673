"""From the manifest and the feature cache to arrays: train, selection and val."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection import CLASS_NAMES, augment, extract, manifest, split, storage
from violence_detection.config import ExtractConfig, FeatureConfig
from violence_detection.errors import UserError
from violence_detection.features import RECORD_NAME, FeatureStore
from violence_detection.samples import is_sample_root

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
Inputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Clips with their features. `inputs`: name -> (N, V, T, C) float16; `labels`: (N,) float32, 1 is fight."""

    rows: pd.DataFrame
    inputs: Inputs
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def plain(self) -> Inputs:
        """The plain variant of every clip: name -> (N, T, C) float32."""
        return {name: values[:, 0].astype(np.float32) for name, values in self.inputs.items()}

    def shapes(self) -> dict[str, tuple[int, int]]:
        """name -> (T, C)."""
        return {name: (values.shape[2], values.shape[3]) for name, values in self.inputs.items()}

    def take(self, rows: np.ndarray) -> Samples:
        """The clips at these positions (int, repeats allowed) or where this mask (bool) is True."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        inputs = {name: values[rows] for name, values in self.inputs.items()}
        return Samples(self.rows.iloc[rows].reset_index(drop=True), inputs, self.labels[rows])

    def batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[Inputs, np.ndarray]]:
        """Every clip once, in the order and with the variants that (seed, epoch) alone decide.

        The last batch is filled up with the epoch's first clips, so that every step has the same size.
        """
        rng = np.random.default_rng(storage.stable_seed(seed, epoch))
        order = rng.permutation(len(self))
        variants = rng.integers(0, next(iter(self.inputs.values())).shape[1], len(self))
        steps = -(-len(self) // batch_size)
        order = np.resize(order, steps * batch_size)
        for chosen in order.reshape(steps, batch_size):
            values = {n: v[chosen, variants[chosen]].astype(np.float32) for n, v in self.inputs.items()}
            yield values, self.labels[chosen][:, None]


@dataclass(frozen=True)
class Data:
    """What a training script works on.

    `failures`: clips that could not be read, by path. `records`: model input -> the record of its feature cache, all
    that prediction needs to make the same features. `generated`: these are rendered sample clips, not real ones.
    """

    train: Samples
    selection: Samples
    val: Samples
    failures: list[dict[str, str]]
    records: dict[str, dict[str, Any]]
    manifest_sha256: str
    generated: bool


def check(features: FeatureConfig, where: ExtractConfig) -> None:
    """Raise UserError for what cannot work, before anything slow starts."""
    extract.check(features)
    if where.augment < 1:
        raise UserError("--augment counts the plain clip too, so it must be at least 1")
    manifest.read(where.data_root / "combined_all")


def prepare(features: FeatureConfig, where: ExtractConfig, selection_fraction: float, seed: int) -> Data:
    """Read the manifest, extract what is missing, cut the selection part from train by source, load the features."""
    combined = where.data_root / "combined_all"
    frame = manifest.read(combined)
    variants = augment.variant_names("v", where.augment)
    is_train = frame.split == "train"
    wanted = clips_of(frame[is_train], combined, variants) + clips_of(
        frame[~is_train], combined, variants[:1]
    )
    extraction = extract.ensure(wanted, features, where.data_root, where.workers)
    report_extraction(extraction, len(wanted))
    frame = without_failures(frame, combined, extraction.failures)
    train = frame[frame.split == "train"]
    chosen = split.selection_split(train, selection_fraction, seed)
    parts = {
        "train": (train[~chosen], variants),
        "selection": (train[chosen], variants[:1]),
        "val": (frame[frame.split == "val"], variants[:1]),
    }
    loaded = {name: load(extraction.stores, rows, v) for name, (rows, v) in parts.items()}
    for name, samples in loaded.items():
        fights = int(samples.labels.sum())
        log.info("%s: %d clips (%d fight, %d nonfight) from %d sources", name, len(samples), fights,
                 len(samples) - fights, samples.rows.source_group.nunique())  # fmt: skip
        if not 0 < fights < len(samples):
            raise UserError(
                f"the {name} part has clips of one class only. Add data, or check {combined}/manifest.csv"
            )
    sha256 = storage.sha256_file(combined / manifest.FILE_NAME)
    records = {
        name: storage.read_json(store.folder / RECORD_NAME) for name, store in extraction.stores.items()
    }
    return Data(
        **loaded,
        failures=extraction.failures,
        records=records,
        manifest_sha256=sha256,
        generated=is_sample_root(where.data_root),
    )


def clips_of(rows: pd.DataFrame, combined: Path, variants: tuple[str, ...]) -> list[extract.Clip]:
    """The clips of the manifest's rows, each with the same variants wanted."""
    named = zip(rows.clip_id.tolist(), rows.path.tolist(), strict=True)
    return [extract.Clip(clip_id, combined / path, variants) for clip_id, path in named]


def report_extraction(extraction: extract.Extraction, wanted: int) -> None:
    """Log the rate, and each clip that could not be read."""
    if extraction.clips_extracted:
        rate = extraction.clips_extracted / extraction.seconds
        log.info(
            "features: %d clips in %.0f s (%.1f clips/s)",
            extraction.clips_extracted,
            extraction.seconds,
            rate,
        )
    for failure in extraction.failures:
        log.warning("left out, unreadable: %s (%s)", failure["path"], failure["reason"])
    if len(extraction.failures) == wanted:
        raise UserError(f"none of the {wanted} clips could be read. Run: python find_all_datasets.py --check")


def without_failures(
    frame: pd.DataFrame, combined: Path, failures: Sequence[Mapping[str, str]]
) -> pd.DataFrame:
    """The manifest's rows without the clips that failed, in order of clip id."""
    failed = {f["path"] for f in failures}
    keep = [str(combined / p) not in failed for p in frame.path]
    return frame[keep].sort_values("clip_id", ignore_index=True)


def load(stores: Mapping[str, FeatureStore], rows: pd.DataFrame, variants: Sequence[str]) -> Samples:
    """Read the given variants of the given clips into memory."""
    inputs: Inputs = {}
    ids = list(rows.clip_id)
    with ThreadPoolExecutor() as pool:
        for name, store in stores.items():
            read = pool.map(lambda clip_id, store=store: store.read(clip_id, variants), ids)
            inputs[name] = np.stack(list(read))
    labels = (rows.label == CLASS_NAMES[1]).to_numpy(np.float32)
    return Samples(rows.reset_index(drop=True), inputs, labels)
