"""Load train, selection and val as arrays, from the manifest and the feature cache."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from violence_detection.combine import manifest, split
from violence_detection.combine.shared_footage import SharedFootage
from violence_detection.constants import CLASS_NAMES, PART_MEANINGS
from violence_detection.datasets.generated.marker import warn_if_generated
from violence_detection.features import cache, extract
from violence_detection.features.cache import RECORD_NAME, FeatureStore
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.key import Inputs
from violence_detection.features.stored_features import StoredFeatures
from violence_detection.system import machine, storage
from violence_detection.video import augment

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
#: Features (N clips, V variants, T, C) float16: an array in memory, or StoredFeatures on disk.
Variants: TypeAlias = Any
#: Share of the free memory that features may take by default. Below a half, since folds copy their clips.
_MEMORY_SHARE = 0.4
#: Clips that a thread reads at a time.
_CHUNK = 64
#: Threads that read features. Network volumes answer slowly, but many requests at once.
_LOADERS = 4


@dataclass(frozen=True)
class Samples:
    """Clips with their features.

    `inputs`: name -> (N, V, T, C) float16, V variants or views of each clip. `labels`: (N,) float32, 1 is fight.
    """

    rows: pd.DataFrame
    inputs: dict[str, Variants]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: np.ndarray) -> Samples:
        """Some of the clips. `chosen`: a mask (N,), or indices, in whose order they are returned."""
        chosen = np.asarray(chosen)
        indices = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        inputs = {name: values.take(indices, axis=0) for name, values in self.inputs.items()}
        return Samples(self.rows.iloc[indices].reset_index(drop=True), inputs, self.labels[indices])

    def plain(self) -> Inputs:
        """The plain variant of every clip: name -> (N, T, C) float32."""
        return {name: x.astype(np.float32) for name, x in self._gather(np.arange(len(self))).items()}

    def plain_batches(self, batch_size: int) -> Iterator[Inputs]:
        """The plain variants in order, in batches name -> (B, T, C) float16. The last batch may be smaller."""
        return self.view_batches(0, batch_size)

    def view_batches(self, view: int, batch_size: int) -> Iterator[Inputs]:
        """Like `plain_batches`, for the variant or view with this number."""
        for start in range(0, len(self), batch_size):
            clips = np.arange(start, min(start + batch_size, len(self)))
            yield self._gather(clips, np.full(len(clips), view))

    def shapes(self) -> dict[str, tuple[int, int]]:
        """The shape of a clip in each input: name -> (T, C)."""
        return {name: (values.shape[2], values.shape[3]) for name, values in self.inputs.items()}

    def _gather(self, clips: np.ndarray, variants: np.ndarray | None = None) -> Inputs:
        """One variant of each of n clips, by default the plain one: name -> (n, T, C) float16.

        `clips`: indices (n,). `variants`: numbers (n,).
        """
        variants = np.zeros(len(clips), int) if variants is None else variants
        return {
            name: values.gather(clips, variants)
            if isinstance(values, StoredFeatures)
            else values[clips, variants]
            for name, values in self.inputs.items()
        }

    def batches(
        self, batch_size: int, seed: int, epoch: int, balanced: bool = False
    ) -> Iterator[tuple[Inputs, np.ndarray]]:
        """The batches of an epoch: every clip once, in an order and with variants that depend only on (seed, epoch).

        Yields name -> (B, T, C) float16, and labels (B, 1) float32. The last batch is filled up with the epoch's first
        clips, so that all steps have the same size. Every V epochs, counted from epoch 0, a clip shows each of its V
        variants once. `balanced`: draw the same number of clips, but equally many from each pair of data set and class;
        some clips then come more than once, others not at all.
        """
        rng = np.random.default_rng(storage.stable_seed(seed, epoch))
        order = self._evenly_drawn(rng) if balanced else rng.permutation(len(self))
        variants = self._epoch_variants(seed, epoch)
        steps = -(-len(self) // batch_size)
        order = np.resize(order, steps * batch_size)
        for chosen in order.reshape(steps, batch_size):
            yield self._gather(chosen, variants[chosen]), self.labels[chosen][:, None]

    def _evenly_drawn(self, rng: np.random.Generator) -> np.ndarray:
        """Draw clips (N,), equally many from each pair of data set and class.

        Within a pair, no clip is drawn again before all others have been drawn.
        """
        pair = (self.rows.dataset.astype(str) + "/" + self.rows.label.astype(str)).to_numpy()
        members = [np.flatnonzero(pair == name) for name in sorted(set(pair))]
        each = -(-len(self) // len(members))
        rounds = [-(-each // len(clips)) for clips in members]
        drawn = [
            np.concatenate([rng.permutation(clips) for _ in range(n)])[:each]
            for clips, n in zip(members, rounds, strict=True)
        ]
        return rng.permutation(np.concatenate(drawn))[: len(self)]

    def _epoch_variants(self, seed: int, epoch: int) -> np.ndarray:
        """The number of the variant that each clip shows in this epoch: (N,)."""
        count = next(iter(self.inputs.values())).shape[1]
        rng = np.random.default_rng(storage.stable_seed(seed, "variants", epoch // count))
        return rng.permuted(np.tile(np.arange(count), (len(self), 1)), axis=1)[:, epoch % count]


@dataclass(frozen=True)
class Data:
    """The data of a training run.

    `failures`: the clips that could not be read, with the reason. `records`: model input -> the record of its feature
    cache, from which prediction can make the same features. `engines`: model input -> the engines that made them.
    `generated`: whether these are rendered sample clips, not real ones.
    """

    train: Samples
    selection: Samples
    val: Samples
    failures: list[dict[str, str]]
    records: dict[str, dict[str, Any]]
    manifest_sha256: str
    generated: bool
    engines: dict[str, list[str]]


def check(features: FeatureConfig, how: ExtractConfig) -> None:
    """Raise UserError for settings that cannot work, or if there is no manifest, before anything slow starts."""
    extract.check(features)
    extract.check_taken(features)
    manifest.read(how.data_root / "combined_all")


def prepare(features: FeatureConfig, how: ExtractConfig, selection_fraction: float, seed: int) -> Data:
    """Read the manifest, extract missing features, cut the selection part from train by source, and load the features.

    Raises UserError if a part would lack a class.
    """
    combined = how.data_root / "combined_all"
    frame, sha256 = manifest.read_hashed(combined)
    _cut(frame, selection_fraction, seed)  # raises UserError now rather than after hours of extraction
    variants = augment.variant_names("v", how.augment)
    wanted = extract.training_clips(frame, how)
    extraction = extract.ensure(wanted, features, how)
    extraction.report(len(wanted))
    manifest.warn_if_changed(combined, sha256)
    frame = extract.without_failures(frame, combined, extraction.failures)
    parts = {
        name: (rows, variants if name == "train" else variants[:1])
        for name, rows in _cut(frame, selection_fraction, seed).items()
    }
    for name, (rows, _) in parts.items():
        fights = int((rows.label == CLASS_NAMES[1]).sum())
        log.info("%s: %d clips (%d fight, %d nonfight) from %d sources: %s", name, len(rows), fights,
                 len(rows) - fights, rows.source_group.nunique(), PART_MEANINGS[name])  # fmt: skip
    amounts = [(rows, len(v)) for rows, v in parts.values()]
    in_memory = fits_memory(extraction.stores, amounts, how.memory_gb)
    loaded = {name: load(extraction.stores, rows, v, in_memory) for name, (rows, v) in parts.items()}
    records = {
        name: storage.read_json(store.folder / RECORD_NAME) for name, store in extraction.stores.items()
    }
    return Data(
        **loaded,
        failures=extraction.failures,
        records=records,
        manifest_sha256=sha256,
        generated=warn_if_generated(how.data_root),
        engines=cache.engines_by_input(extraction.stores),
    )


def _cut(frame: pd.DataFrame, selection_fraction: float, seed: int) -> dict[str, pd.DataFrame]:
    """The manifest's rows by part. No two parts share footage. Raises UserError if a part lacks a class."""
    val, shared = frame[frame.split == "val"], SharedFootage(frame)
    train = shared.without(val, frame[frame.split == "train"])
    chosen = split.selection_split(train, selection_fraction, seed)
    selection = train[chosen]
    parts = {"train": shared.without(selection, train[~chosen]), "selection": selection, "val": val}
    for name, rows in parts.items():
        manifest.require_both_classes(name, rows)
    return parts


def load(
    stores: Mapping[str, FeatureStore],
    rows: pd.DataFrame,
    variants: Sequence[str],
    in_memory: bool | None = None,
) -> Samples:
    """Load the given variants of the given clips: into memory, or to be read from disk as they are needed.

    `in_memory`: None reads them into memory if they fit into a share of what is free.
    """
    if in_memory is None:
        in_memory = fits_memory(stores, [(rows, len(variants))])
    inputs: dict[str, Variants] = {}
    ids = list(rows.clip_id)
    for name, store in stores.items():
        stored = StoredFeatures(store, ids, variants)
        inputs[name] = _read_all(stored) if in_memory else stored
    labels = (rows.label == CLASS_NAMES[1]).to_numpy(np.float32)
    return Samples(rows.reset_index(drop=True), inputs, labels)


def _read_all(stored: StoredFeatures) -> np.ndarray:
    count, variants, *step = stored.shape
    values = np.empty(stored.shape, np.float16)

    def read(start: int) -> None:
        clips = np.arange(start, min(start + _CHUNK, count))
        some = stored.gather(np.repeat(clips, variants), np.tile(np.arange(variants), len(clips)))
        values[clips] = some.reshape(len(clips), variants, *step)

    with ThreadPoolExecutor(_LOADERS) as pool:
        list(pool.map(read, range(0, count, _CHUNK)))
    return values


def _memory_limit_bytes(limit_gb: float) -> float:
    """How many bytes of memory features may take: the limit, or if that is 0, a share of what is free."""
    return limit_gb * 1e9 if limit_gb else _MEMORY_SHARE * machine.free_memory_bytes()


def fits_memory(
    stores: Mapping[str, FeatureStore],
    parts: Sequence[tuple[pd.DataFrame, int]],
    limit_gb: float = 0.0,
    sharers: int = 1,
) -> bool:
    """Whether the features of all parts fit into memory. Logs the decision.

    `parts`: (rows, number of variants). `limit_gb`: 0 allows a share of the free memory. `sharers`: number of processes
    that share the limit.
    """
    variants_wanted = sum(len(rows) * variants for rows, variants in parts)
    one = next((rows.clip_id.iloc[0] for rows, _ in parts if len(rows)), None)
    variant_bytes = sum(store.read(one, ["v0"]).nbytes for store in stores.values()) if one else 0
    limit = _memory_limit_bytes(limit_gb) / sharers
    needed = variants_wanted * variant_bytes
    log.info("features: %.2f GB, %s (limit %.2f GB, --memory-gb)", needed / 1e9,
             "kept in memory" if needed <= limit else "read from disk as they are needed", limit / 1e9)  # fmt: skip
    return needed <= limit
